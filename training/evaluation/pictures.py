"""What is plotted of each study while it is in memory, and found again for the report."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from training.evaluation.case import Case
from training.evaluation.evaluate import EvaluationRequest, measured_file
from training.evaluation.figures import Counts, Picture, joint_histogram, plot_study, study_pictures
from twin_scanner.files.durable_file import write_whole

FOLDER: Final = "pictures"
SHOWN: Final = 6
"""So many studies are plotted, the first ones; every study is in the joint histograms."""


class Pictures:
    """Plots the studies of a request, the model beside the first baseline."""

    def __init__(self, request: EvaluationRequest) -> None:
        self._request = request
        self._studies = {study.name: study for study in request.studies}
        self._models = {model.name: model for model in request.plotted}
        self._shown = [study.name for study in request.studies[:SHOWN]]

    @property
    def models(self) -> list[str]:
        """Which models are plotted, the model first."""
        return list(self._models)

    def look(self, cases: Mapping[str, Case]) -> None:
        """Keep the joint histogram of each case, and plot the study where it is one of the first; raises OSError."""
        for name, case in cases.items():
            write = partial(np.savez, **joint_histogram(case))  # type: ignore[arg-type]
            write_whole(self._histogram_file(case.study, name), write)
        study = next(iter(cases.values())).study
        if study in self._shown:
            self._folder.mkdir(exist_ok=True)
            plot_study(cases, self._folder)

    def plotted(self) -> dict[str, list[Picture]]:
        """The pictures of the studies that were plotted, by name."""
        found = {study: study_pictures(study, self.models, self._folder) for study in self._shown}
        return {study: pictures for study, pictures in found.items() if pictures}

    def histograms(self, model: str) -> tuple[dict[str, Counts], int]:
        """The joint histograms of a model by region, added over all studies, and how many studies these are."""
        total: dict[str, Counts] = {}
        studies = 0
        for study in self._studies:
            file = self._histogram_file(study, model)
            if file.is_file():
                with np.load(file, allow_pickle=False) as kept:
                    total = {region: kept[region] + total.get(region, 0) for region in kept.files}
                studies += 1
        return total, studies

    @property
    def _folder(self) -> Path:
        return self._request.out / FOLDER

    def _histogram_file(self, study: str, model: str) -> Path:
        place = measured_file(self._request, self._studies[study], self._models[model], "joint histogram")
        return place.with_suffix(".npz")
