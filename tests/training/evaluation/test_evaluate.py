"""The evaluation: translated as in service, measured once whatever interrupts it, the same studies for every model."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.image as mpimg
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.samples.known_cases import body_pet, districts
from training.data.splits import Split, write_split
from training.data.study import TrainingStudy
from training.evaluation import evaluate as evaluation
from training.evaluation.calibrate import calibrate, halves
from training.evaluation.calibration import Sample
from training.evaluation.case import Case
from training.evaluation.evaluate import (
    EvaluatedModel,
    EvaluationRequest,
    EvaluationResult,
    called,
    chosen_studies,
    evaluated_models,
    measure_all,
)
from training.evaluation.evaluated_study import evaluated_case, load
from training.evaluation.figures import plot_study
from training.evaluation.organs import organ_maps
from training.evaluation.result_files import write_results
from training.evaluation.rows_table import read_table
from training.evaluation.score import score
from training.phantom.organ_labels import ORGAN_NAMES
from twin_scanner.districts.district_map import DistrictMap
from twin_scanner.errors import Rejected, Transient
from twin_scanner.imaging.volume import Geometry, LabelArray, Volume, resample, resample_labels, write_nifti
from twin_scanner.models.card import Architecture
from twin_scanner.models.networks import UNetGenerator
from twin_scanner.models.package import load_package, save_package
from twin_scanner.models.partition import WHOLE_BODY, WHOLE_VOLUME
from twin_scanner.models.plan import Plan
from twin_scanner.synthesis.calibration import stored_calibration
from twin_scanner.synthesis.pipeline import PipelineOptions, translate_ct

pytestmark = pytest.mark.loop

PLAN = Plan(spacing_mm=(8.0, 8.0, 8.0))
CT_GRID = Geometry((48, 44, 46), (4.0, 4.0, 4.0), (0.0, 0.0, 0.0))
FEATURES = 2


class Blocks:
    """Draws the districts of the block body on any CT of its grid; counts how often it is asked."""

    name = "blocks"
    segmenter_hash = "0" * 64

    def __init__(self) -> None:
        self.asked = 0

    def segment(self, ct: Volume) -> DistrictMap:
        self.asked += 1
        return DistrictMap(districts(), ct.geometry, self.name, self.segmenter_hash)


class Always(nn.Module):
    """A network that says one SUV everywhere."""

    def __init__(self, suv: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(suv / PLAN.suv_max))

    def forward(self, windows: Tensor) -> Tensor:
        return self.value.expand(windows.shape)


@dataclass(frozen=True)
class Block:
    """A study of the block body; a faulty one cannot be loaded."""

    name: str
    patient: str
    diagnosis: str = "LYMPHOMA"
    seed: int = 0
    faulty: bool = False
    unit: float = 1.0
    with_organs: bool = False

    def load(self) -> TrainingStudy:
        if self.faulty:
            raise Rejected(f"{self.name} has no PET: complete the study.")
        ct = np.where(districts() > 0, np.float32(40.0), np.float32(-1000.0))
        lesions = np.zeros(CT_GRID.shape, np.uint8)
        lesions[20:24, 12:16, 12:16] = 1
        pet = body_pet(self.seed)
        pet[lesions > 0] = 8.0
        pet *= np.float32(self.unit)
        return TrainingStudy(
            Volume(ct, CT_GRID), Volume(pet, CT_GRID), "phantom", lesions, is_phantom=True, organs=self._organs()
        )

    def _organs(self) -> LabelArray | None:
        if not self.with_organs:
            return None
        organs = np.zeros(CT_GRID.shape, np.uint8)
        organs[16:30, 10:30, 10:30] = {name: label for label, name in ORGAN_NAMES}["liver"]
        return organs


@dataclass(frozen=True)
class Turned:
    """A study whose PET file has its axes in another order."""

    study: Block
    axes: str

    @property
    def name(self) -> str:
        return self.study.name

    @property
    def patient(self) -> str:
        return self.study.patient

    @property
    def diagnosis(self) -> str:
        return self.study.diagnosis

    def load(self) -> TrainingStudy:
        study = self.study.load()
        assert study.lesions is not None
        pet = study.pet.oriented(self.axes)
        lesions = resample_labels(study.lesions, study.pet.geometry, pet.geometry)
        return replace(study, pet=pet, lesions=lesions)


def package(folder: Path, name: str, seed: int) -> Path:
    torch.manual_seed(seed)
    save_package(
        folder, name=name, plan=PLAN, partition=WHOLE_BODY, architecture=Architecture("unet", FEATURES),
        networks={"body": UNetGenerator(FEATURES, -2.0)}, segmenter="blocks",
        about={"training": {"seed": seed}, "training_data": {"kind": "phantoms"}},
    )  # fmt: skip
    return folder


@pytest.fixture
def models(tmp_path: Path) -> list[EvaluatedModel]:
    """Two seeds of one model and another one."""
    folders = [package(tmp_path / name, name, seed) for name, seed in (("ours-s1", 1), ("ours-s2", 2), ("theirs", 3))]
    return evaluated_models(folders)


STUDIES = [Block(f"study-{number}", f"patient-{number // 2}", seed=number) for number in range(4)]


def request_of(models: list[EvaluatedModel], out: Path, **changes: object) -> EvaluationRequest:
    return replace(EvaluationRequest(models, STUDIES, out, Blocks()), **changes)  # type: ignore[arg-type]


def test_seeds_of_one_model_share_its_name_and_a_model_is_given_once(
    models: list[EvaluatedModel], tmp_path: Path
) -> None:
    assert [model.name for model in models] == ["ours#1", "ours#2", "theirs"]
    assert called(load_package(tmp_path / "theirs")) == "theirs"
    with pytest.raises(Rejected, match="called 'theirs' as the same package is"):
        evaluated_models([tmp_path / "theirs", tmp_path / "theirs"])
    with pytest.raises(Rejected, match="called 'theirs' as another package is"):
        evaluated_models([tmp_path / "theirs", package(tmp_path / "other", "theirs", 4)])


def test_what_is_scored_is_the_translation_of_the_full_ct_as_in_service(models: list[EvaluatedModel]) -> None:
    """Oracle: the pipeline itself, brought to the real PET's own grid."""
    loaded = load(STUDIES[0], Blocks())
    case = evaluated_case(loaded, models[0].package, PipelineOptions())
    served = translate_ct(loaded.study.ct, models[0].package, Blocks(), PipelineOptions())
    inside = tuple(slice(2, -2) for _ in range(3))
    expected = resample(served.suv, CT_GRID, outside=0.0).array
    np.testing.assert_allclose(case.synthetic[inside], expected[inside], rtol=1e-5)
    study = STUDIES[0].load()
    np.testing.assert_array_equal(case.real, study.pet.array)
    np.testing.assert_array_equal(case.lesions, study.lesions)
    np.testing.assert_array_equal(case.labels, districts())
    assert case.geometry.same_grid(CT_GRID)


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PSL"])
def test_all_models_are_scored_on_the_real_pets_own_grid(models: list[EvaluatedModel], axes: str) -> None:
    """Two networks that say SUV 1.5 everywhere, on grids of 4 and of 6.5 mm: every number is the same."""
    loaded = load(Turned(STUDIES[0], axes), Blocks())
    rows = []
    for spacing_mm in (4.0, 6.5):
        card = replace(models[0].package.card, plan=Plan(spacing_mm=(spacing_mm,) * 3), partition=WHOLE_VOLUME)
        package = replace(models[0].package, card=card, networks={"volume": Always(1.5)})
        case = evaluated_case(loaded, package, PipelineOptions())
        assert case.geometry.same_grid(CT_GRID)
        rows.append({(row.region, row.metric, row.item): row for row in score(case, "m")})
    assert rows[0].keys() == rows[1].keys() and len(rows[0]) > 50
    for key, row in rows[0].items():
        assert (rows[1][key].n, rows[1][key].value) == (row.n, pytest.approx(row.value, rel=1e-5, abs=1e-6)), key


def test_a_coarse_baseline_is_plotted_as_large_as_a_fine_model(models: list[EvaluatedModel], tmp_path: Path) -> None:
    """Slices of 6 mm beside those of 4 mm; oracle: the body's outline, which is the same in both panels."""
    loaded = load(STUDIES[0], Blocks())
    cases = {}
    for slice_mm in (4.0, 6.0):
        card = replace(models[0].package.card, plan=Plan(spacing_mm=(slice_mm, 4.0, 4.0)))
        package = replace(models[0].package, card=card, networks={"body": Always(9.0)})
        cases[f"{slice_mm:g} mm"] = evaluated_case(loaded, package, PipelineOptions())
    plot_study(cases, tmp_path)
    (file,) = tmp_path.glob("*-projections.png")
    dark = mpimg.imread(file)[..., :3].mean(axis=2) < 0.35
    columns = np.flatnonzero(dark.sum(axis=0) > 0.1 * dark.shape[0])
    (fine, coarse) = [part for part in np.split(columns, np.flatnonzero(np.diff(columns) > 5) + 1) if len(part) > 40][
        :2
    ]
    heights = [np.ptp(np.flatnonzero(dark[:, part].any(axis=1))) for part in (fine, coarse)]
    assert abs(len(fine) - len(coarse)) < 0.1 * len(fine) and abs(heights[0] - heights[1]) < 0.1 * heights[0]


def test_districts_are_segmented_once_a_study_however_many_models(models: list[EvaluatedModel], tmp_path: Path) -> None:
    segmenter = Blocks()
    measure_all(request_of(models, tmp_path / "out", segmenter=segmenter))
    assert segmenter.asked == len(STUDIES)


def test_what_was_measured_is_not_measured_again_and_a_new_model_alone_is(
    models: list[EvaluatedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed between two studies goes on with the third; oracle: an undisturbed run."""
    calm = measure_all(request_of(models, tmp_path / "calm"))
    scored: list[tuple[str, str]] = []
    score_case = evaluation.score

    def counting(case: Case, model: str) -> list[object]:
        if len(scored) == 4:
            raise KeyboardInterrupt
        scored.append((case.study, model))
        return list(score_case(case, model))

    monkeypatch.setattr(evaluation, "score", counting)
    with pytest.raises(Transient, match=r"keeps what was measured of 2 of 4 studies; run it again to go on"):
        measure_all(request_of(models[:2], tmp_path / "out"))
    assert len(scored) == 4
    scored.clear()
    monkeypatch.setattr(
        evaluation, "score", lambda case, model: scored.append((case.study, model)) or score_case(case, model)
    )
    first = measure_all(request_of(models[:2], tmp_path / "out"))
    assert scored == [(f"study-{number}", name) for number in (2, 3) for name in ("ours#1", "ours#2")]
    scored.clear()
    outcome = measure_all(request_of(models, tmp_path / "out"))
    assert scored == [(f"study-{number}", "theirs") for number in range(4)]
    assert outcome == calm and len(first.rows) < len(outcome.rows)
    assert (outcome.studies, outcome.patients, outcome.refused) == (4, 2, [])


def test_a_study_that_cannot_be_judged_is_left_out_with_its_reason_and_tried_again(
    models: list[EvaluatedModel], tmp_path: Path
) -> None:
    faulty = Block("study-9", "patient-9", faulty=True)
    outcome = measure_all(request_of(models, tmp_path / "out", studies=[faulty, *STUDIES]))
    assert outcome.studies == 4
    assert [(one.study, one.reason) for one in outcome.refused] == [
        ("study-9", "study-9 has no PET: complete the study.")
    ]
    assert {row.study for row in outcome.rows} == {study.name for study in STUDIES}
    mended = replace(faulty, faulty=False)
    assert measure_all(request_of(models, tmp_path / "out", studies=[mended, *STUDIES])).studies == 5
    with pytest.raises(Rejected, match=r"None of 1 studies could be evaluated: give others\. The first .* has no PET"):
        measure_all(request_of(models, tmp_path / "out", studies=[faulty]))


@pytest.mark.parametrize("unit", [5000.0, 0.01])
def test_a_pet_that_is_not_in_suv_is_left_out(models: list[EvaluatedModel], tmp_path: Path, unit: float) -> None:
    outcome = measure_all(request_of(models, tmp_path, studies=[Block("activity", "patient-9", unit=unit), *STUDIES]))
    (left_out,) = outcome.refused
    assert left_out.study == "activity" and "check units, weight and dose" in left_out.reason


def test_a_model_of_other_districts_is_refused_unless_that_is_allowed(
    models: list[EvaluatedModel], tmp_path: Path
) -> None:
    class Others(Blocks):
        name = "others"

    with pytest.raises(Rejected, match="was trained on districts by 'blocks', not by 'others'"):
        measure_all(request_of(models, tmp_path / "out", segmenter=Others()))
    allowed = PipelineOptions(allow_other_segmenter=True)
    assert measure_all(request_of(models, tmp_path / "out", segmenter=Others(), options=allowed)).studies == 4


def test_who_draws_sees_the_model_and_the_first_baseline_once(models: list[EvaluatedModel], tmp_path: Path) -> None:
    seen: list[tuple[str, list[str]]] = []

    def look(cases: Mapping[str, Case]) -> None:
        seen.append((next(iter(cases.values())).study, list(cases)))

    measure_all(request_of(models, tmp_path / "out", look=look))
    assert seen == [(study.name, ["ours#1", "theirs"]) for study in STUDIES]
    measure_all(request_of(models, tmp_path / "out", look=look))
    assert len(seen) == len(STUDIES)


def test_only_a_splits_part_is_judged(tmp_path: Path) -> None:
    write_split(tmp_path / "split.json", Split(("study-0", "study-1"), (), (), ("study-2", "study-3")))
    assert chosen_studies(STUDIES) == STUDIES
    assert [study.name for study in chosen_studies(STUDIES, tmp_path / "split.json")] == ["study-2", "study-3"]
    with pytest.raises(Rejected, match=r"The part 'gate' of the split split\.json is empty"):
        chosen_studies(STUDIES, tmp_path / "split.json", "gate")
    with pytest.raises(Rejected, match="study-2"):
        chosen_studies(STUDIES[:2], tmp_path / "split.json")


def test_it_ends_in_the_tables(models: list[EvaluatedModel], tmp_path: Path) -> None:
    asked = request_of(models, tmp_path / "out")
    outcome = measure_all(asked)
    write_results(asked, outcome, "blocks")
    table = read_table(tmp_path / "out" / "metrics.parquet")
    assert len(table) == len(outcome.rows) and set(table["model"]) == {"ours#1", "ours#2", "theirs"}
    text = (tmp_path / "out" / "tables.md").read_text("utf-8")
    assert "## ours against theirs" in text and ", n 4 / 2 / 2" in text
    assert json.dumps("patient-0") not in text
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    drawn = sorted((tmp_path / "out" / "figures").iterdir())
    assert [file.name for file in drawn] == ["differences.svg", "lesion-suvmax.svg"]
    assert all(base64.b64encode(file.read_bytes()).decode() in page for file in drawn)
    write_results(replace(asked, models=models[:1]), outcome, "blocks")
    assert not drawn[0].exists() and drawn[1].exists()


@pytest.mark.parametrize(
    ("learnt", "told"),
    [
        ({"kind": "phantoms"}, "phantoms, ? pairs, phantoms only"),
        ({"kind": "store", "pairs": 3, "phantoms": 3}, "store, 3 pairs, phantoms only"),
        ({"kind": "store", "pairs": 3, "phantoms": 1}, "store, 3 pairs, 1 of them phantoms"),
        ({"kind": "store", "pairs": 3}, "store, 3 pairs"),
        ({}, "trained on: not stated"),
    ],
)
def test_a_model_that_knows_phantoms_only_is_told_in_words(
    models: list[EvaluatedModel], tmp_path: Path, learnt: dict[str, object], told: str
) -> None:
    card = replace(models[0].package.card, about={**models[0].package.card.about, "training_data": learnt})
    package = replace(models[0].package, card=card)
    asked = replace(request_of(models[:1], tmp_path), models=[replace(models[0], package=package)])
    write_results(asked, EvaluationResult((), (), 0, 0), "blocks")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert f"{told}.</td>" in page
    assert ("The model has seen phantoms only" in page) == told.endswith("only")


def test_a_calibration_is_of_one_half_of_the_patients_and_checked_on_the_other(
    models: list[EvaluatedModel], tmp_path: Path
) -> None:
    """Ten patients, of whom one cannot be loaded; run twice, the second time from what was sampled."""
    studies = [Block(f"study-{n}", f"patient-{n}", seed=n, faulty=n == 4) for n in range(10)]
    asked = request_of(models, tmp_path / "out", studies=studies)
    store = tmp_path / "store"
    made = calibrate(asked, store)
    kept = stored_calibration(store, models[0].package.card)
    assert kept is not None and kept.patients == made.patients and kept.coverage == made.coverage
    assert len(made.patients) == 5 and {one.patients for one in made.coverage if one.binned_by == "body"} == {4}
    (body,) = [one for one in made.coverage if one.binned_by == "body" and one.level == 0.9]
    assert body.coverage > 0.8
    text = (tmp_path / "out" / "calibration.md").read_text("utf-8")
    assert "| body |" in text and "not for diagnosis" in text and "patient-" not in text
    again = calibrate(replace(asked, segmenter=Blind()), store)
    assert again == made


def test_ctrl_c_during_a_calibration_says_what_is_kept(models: list[EvaluatedModel], tmp_path: Path) -> None:
    def after_one(done: int, total: int) -> None:
        raise KeyboardInterrupt

    kept = r"out keeps the samples of 1 of 4 studies; run it again to go on"
    with pytest.raises(Transient, match=kept):
        calibrate(request_of(models, tmp_path / "out"), tmp_path / "store", after_one)


class Blind(Blocks):
    """May not be asked again."""

    def segment(self, ct: Volume) -> DistrictMap:
        raise AssertionError("the study was sampled before")


def test_two_halves_share_no_patient_and_do_not_depend_on_the_order(models: list[EvaluatedModel]) -> None:
    nothing = np.zeros(0, np.float32)
    samples = [Sample(f"s{n}", f"p{n // 2}", "", 20.0, nothing, nothing, nothing, nothing) for n in range(14)]
    one, other = halves(samples, models[0].package)
    assert len({sample.patient for sample in one}) == 4 and len(one) + len(other) == 14
    assert not {sample.patient for sample in one} & {sample.patient for sample in other}
    turned = halves(samples[::-1], models[0].package)
    assert {sample.study for sample in turned[0]} == {sample.study for sample in one}


def test_a_phantoms_own_organs_are_scored_without_being_asked_for(models: list[EvaluatedModel], tmp_path: Path) -> None:
    """Oracle: the case's own arrays; the summary says what was found, and for a patient that it cannot be said."""
    block = replace(STUDIES[0], with_organs=True)
    asked = request_of(models[:1], tmp_path / "out", studies=[block])
    outcome = measure_all(asked)
    bias, ratio = [row for row in outcome.rows if row.region.startswith("organ:")]
    case = evaluated_case(asked.load(block), models[0].package, PipelineOptions())
    assert case.organs is not None and (ratio.region, ratio.n) == ("organ:liver", 14 * 20 * 20)
    liver = case.organs > 0
    assert ratio.value == pytest.approx(float(case.synthetic[liver].mean() / case.real[liver].mean()), rel=1e-4)
    assert bias.value == pytest.approx(float((case.synthetic - case.real)[liver].mean()), rel=1e-4)
    said = "found" if ratio.value >= 0.5 else "not found"
    assert any(f"{said}: liver {ratio.value:.2f}" in sentence for sentence in write_results(asked, outcome, "blocks"))
    bare = replace(asked, studies=STUDIES[:1], out=tmp_path / "bare")
    assert any("it cannot be said" in line for line in write_results(bare, measure_all(bare), "blocks"))


def test_organ_maps_give_each_organs_bias_and_a_changed_map_is_measured_again(
    models: list[EvaluatedModel], tmp_path: Path
) -> None:
    """Oracle: the case's own arrays; the liver is a block of the trunk, drawn on the CT's grid."""
    folder = tmp_path / "organs"
    folder.mkdir()
    with pytest.raises(Rejected, match=r"names\.json cannot be read"):
        organ_maps(folder)
    (folder / "names.json").write_text('{"5": "liver", "9": "spleen"}')
    labels = np.zeros(CT_GRID.shape, np.uint8)
    labels[16:30, 10:30, 10:30] = 5
    write_nifti(folder / "study-0.nii.gz", labels, CT_GRID)
    asked = request_of(models[:1], tmp_path / "out", studies=STUDIES[:1], organs=organ_maps(folder))
    bias, ratio = [row for row in measure_all(asked).rows if row.region.startswith("organ:")]
    assert (bias.metric, ratio.metric) == ("suv_mean_bias", "suv_mean_ratio")
    case = evaluated_case(asked.load(STUDIES[0]), models[0].package, PipelineOptions())
    assert case.organs is not None and bias.region == "organ:liver" and bias.n == np.count_nonzero(case.organs == 5)
    assert bias.value == pytest.approx(float((case.synthetic - case.real)[case.organs == 5].mean()), rel=1e-5)
    write_nifti(folder / "study-0.nii.gz", np.where(labels > 0, 9, 0).astype(np.uint8), CT_GRID)
    assert "organ:spleen" in {row.region for row in measure_all(asked).rows}
    outcome = measure_all(replace(asked, studies=STUDIES[:2]))
    assert [one.study for one in outcome.refused] == ["study-1"] and "none of study-1" in outcome.refused[0].reason
