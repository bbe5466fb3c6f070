"""Who is trained on, who decides and who is only scored: parts of a store's studies, by patient and in a file."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from training.data.study import Examined
from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import write_durably

SCHEMA: Final = 1
SHARES: Final = {"train": 14, "validation": 1, "gate": 1, "test": 4}
"""Twentieths, as the paper's 710, 101 and 203 of 1,014: 70 % are trained on, 10 % validate, of which half is ``gate``,
which alone decides promotion, and 20 % test."""
WHOLE: Final = sum(SHARES.values())
LEAST_PATIENTS: Final = 10


@dataclass(frozen=True)
class Split:
    """Names of the studies in each part, sorted; all studies of a patient are in one part.

    ``seed`` and ``store`` (the store's fingerprint) say what a made split was made from; None in one made by hand.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    gate: tuple[str, ...]
    test: tuple[str, ...]
    seed: int | None = None
    store: str | None = None

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The four parts by name."""
        return {part: getattr(self, part) for part in SHARES}


def make_split(studies: Sequence[Examined], seed: int, *, store: str | None = None, kept: Split | None = None) -> Split:
    """A split of all studies by patient, stratified by diagnosis; (seed, patients) alone decide it, not their order.

    In each diagnosis every part has its share of the patients to within one patient, and so, nearly, has the whole;
    no part is empty. ``kept`` is an earlier split of a store that grew since: its patients stay where they are, so
    that nobody who was trained on comes into the gate, and only new ones are placed.

    Raises Rejected for fewer than 10 patients, and where ``kept`` does not fit the studies.
    """
    if kept is not None:
        _check(kept, studies, "The earlier split")
    strata = _strata(studies)
    check_patients(sum(len(members) for members in strata.values()))
    placed = _Places(strata, {} if kept is None else _patients_of(kept, studies))
    placed.fill(seed)
    names: dict[str, list[str]] = {part: [] for part in SHARES}
    for study in studies:
        names[placed.part[study.patient]].append(study.name)
    return Split(**{part: tuple(sorted(found)) for part, found in names.items()}, seed=seed, store=store)


def check_patients(patients: int) -> None:
    """Raise Rejected where so many patients are too few to make a split of."""
    if patients < LEAST_PATIENTS:
        raise Rejected(
            f"{patients} patients are too few to make a split of, {LEAST_PATIENTS} are needed: prepare them without a "
            "split, and write a split file that says who is trained on, validated on and tested."
        )


def write_split(path: Path, split: Split) -> None:
    """Write a split as JSON; raises Transient where the disk fails."""
    content = {"schema": SCHEMA, **asdict(split)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise Transient(f"The split {path} cannot be written: check free space and rights.") from error


def make_split_file(path: Path, studies: Sequence[Examined], seed: int, *, store: str | None = None) -> Split:
    """Make a split file; where one is there, its patients stay where they are, and only new ones are placed.

    Raises as ``make_split``, ``read_split`` and ``write_split`` do; the file then stays as it was.
    """
    kept = read_split(path, studies) if path.exists() else None
    split = make_split(studies, seed, store=store, kept=kept)
    write_split(path, split)
    return split


def read_split(path: Path, studies: Sequence[Examined]) -> Split:
    """A split from its file, made by ``make_split`` or by hand, for the studies of a store.

    A study that the file leaves out belongs to no part. Raises Rejected where the file is no split, names a study that
    is not there, or has a patient in two parts.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Rejected(f"The split {path} cannot be read: give a JSON file with the lists {_named(SHARES)}.") from error
    split = _split_of(content)
    if split is None:
        raise Rejected(
            f"{path} is no split of schema {SCHEMA}: give a JSON object with schema, seed, store and the lists of "
            f"study names {_named(SHARES)}."
        )
    _check(split, studies, f"The split {path.name}")
    return split


class _Places:
    """Patients in parts: how many each part should have in each stratum and how many it has, in twentieths."""

    def __init__(self, strata: Mapping[str, Sequence[str]], part: Mapping[str, str]) -> None:
        self.strata = strata
        self.part = dict(part)
        self.lacking = {
            stratum: {name: share * len(members) for name, share in SHARES.items()}
            for stratum, members in strata.items()
        }
        for stratum, members in strata.items():
            for patient in members:
                if patient in self.part:
                    self.lacking[stratum][self.part[patient]] -= WHOLE

    def fill(self, seed: int) -> None:
        """Give every patient without a part one, in an order that only the seed and the patient decide."""
        new = {
            stratum: sorted((p for p in members if p not in self.part), key=lambda patient: _order(seed, patient))
            for stratum, members in self.strata.items()
        }
        rest: list[tuple[str, str]] = []
        for stratum, members in new.items():
            for patient in members:
                part = max(SHARES, key=self.lacking[stratum].__getitem__)
                if self.lacking[stratum][part] >= WHOLE:
                    self._put(stratum, patient, part)
                else:
                    rest.append((stratum, patient))
        for stratum, patient in rest:
            short = [part for part, lack in self.lacking[stratum].items() if lack > 0] or list(SHARES)
            self._put(stratum, patient, max(short, key=self._lacking_in_all))
        self._leave_none_empty(new)

    def _put(self, stratum: str, patient: str, part: str) -> None:
        self.part[patient] = part
        self.lacking[stratum][part] -= WHOLE

    def _lacking_in_all(self, part: str) -> int:
        return sum(lacking[part] for lacking in self.lacking.values())

    def _leave_none_empty(self, new: Mapping[str, Sequence[str]]) -> None:
        """With few patients a part of 5 % gets none: it takes one from the training part, where that has most."""
        for part in SHARES:
            if part in self.part.values():
                continue
            trained_on = {
                stratum: found
                for stratum, members in new.items()
                if (found := [patient for patient in members if self.part[patient] == "train"])
            }
            if not trained_on:
                continue
            stratum = min(trained_on, key=lambda name: (self.lacking[name]["train"], name))
            patient = trained_on[stratum][-1]
            self.lacking[stratum]["train"] += WHOLE
            self._put(stratum, patient, part)


def _strata(studies: Sequence[Examined]) -> dict[str, list[str]]:
    """Patients by what was ever found in them, the largest group first."""
    found: dict[str, set[str]] = defaultdict(set)
    for study in studies:
        found[study.patient].add(study.diagnosis)
    strata: dict[str, list[str]] = defaultdict(list)
    for patient, diagnoses in sorted(found.items()):
        strata["\n".join(sorted(diagnoses))].append(patient)
    return dict(sorted(strata.items(), key=lambda item: (-len(item[1]), item[0])))


def _order(seed: int, patient: str) -> bytes:
    return hashlib.sha256(f"{seed} {patient}".encode()).digest()


def _patients_of(split: Split, studies: Sequence[Examined]) -> dict[str, str]:
    parts = {name: part for part, names in split.parts.items() for name in names}
    return {study.patient: parts[study.name] for study in studies if study.name in parts}


def _check(split: Split, studies: Sequence[Examined], what: str) -> None:
    patients = {study.name: study.patient for study in studies}
    named = [name for names in split.parts.values() for name in names]
    unknown = sorted(set(named) - patients.keys())
    if unknown:
        raise Rejected(
            f"{what} names {len(unknown)} studies that are not here, '{unknown[0]}' first: correct the file, or give "
            "the store or the studies that it was made for."
        )
    places: dict[str, set[str]] = defaultdict(set)
    for part, names in split.parts.items():
        for name in names:
            places[patients[name]].add(part)
    times = Counter(named)
    twice = sorted(name for name, count in times.items() if count > 1 or len(places[patients[name]]) > 1)
    if twice:
        raise Rejected(
            f"{what} puts study '{twice[0]}' or its patient into two places: all studies of a patient belong to one "
            "part, each once."
        )


def _split_of(content: Any) -> Split | None:
    """None for what is no split."""
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        return None
    if content.keys() - {"schema"} - {field.name for field in fields(Split)}:
        return None
    parts = {part: content.get(part) for part in SHARES}
    seed, store = content.get("seed"), content.get("store")
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in parts.values()):
        return None
    if not isinstance(seed, int | None) or not isinstance(store, str | None):
        return None
    return Split(**{part: tuple(sorted(names or [])) for part, names in parts.items()}, seed=seed, store=store)


def _named(parts: Iterable[str]) -> str:
    return ", ".join(f"'{part}'" for part in parts)
