"""What the gate decided and on which numbers: one JSON file per decision, kept beside the model packages."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from training.retraining.gate import Decision, GateRule, RegionComparison, StudyScore, Verdict
from twin_scanner.errors import Rejected, Transient
from twin_scanner.files.durable_file import write_durably

SCHEMA: Final = 1
SCRATCH: Final = "scratch"
DECISIONS: Final = "decisions"
"""The folder of the records in a model store."""
OLD_NAMES: Final = {"learnt": "trained_on", "judged": "scored_on"}


@dataclass(frozen=True)
class Challenge:
    """What is asked of the gate: may what this training ends in take this champion's place, by this rule?

    SHA-256 of: the champion; the training configuration; the images of training and validation (``trained_on``) and
    those of the gate (``scored_on``). ``start`` is the hash of the model that training began with, or ``scratch``.
    """

    champion: str
    start: str
    config: str
    trained_on: str
    scored_on: str
    rule: GateRule

    @property
    def training(self) -> tuple[str, str, str]:
        """What decides the challenger."""
        return self.start, self.config, self.trained_on

    def settled_by(self, earlier: "GateRecord") -> bool:
        """Whether an earlier decision answers this challenge too.

        It does for the same images, configuration and rule: against the same champion, and where the champion is that
        decision's challenger, for a model is not trained again on what it was trained on.
        """
        other = earlier.challenge
        same = (other.config, other.trained_on, other.scored_on, other.rule) == (
            self.config,
            self.trained_on,
            self.scored_on,
            self.rule,
        )
        begins = (other.start == SCRATCH) == (self.start == SCRATCH)
        return same and begins and self.champion in (other.champion, earlier.challenger)


@dataclass(frozen=True)
class GateRecord:
    """One decision: when (UTC, ISO 8601), the challenge, the challenger's hash, the verdict and what it rests on.

    ``split`` counts the studies of each part; ``scores`` holds, for each study of the gate, both models' errors in SUV
    by region. Studies and patients go by the store's pseudonyms.
    """

    name: str
    at: str
    challenge: Challenge
    challenger: str
    verdict: Verdict
    reason: str
    split: Mapping[str, int]
    regions: tuple[RegionComparison, ...]
    scores: tuple[Mapping[str, Any], ...]

    @property
    def champion(self) -> str:
        """The model that the challenger was compared with."""
        return self.challenge.champion


def joined_scores(champion: Sequence[StudyScore], challenger: Sequence[StudyScore]) -> tuple[Mapping[str, Any], ...]:
    """Both models' scores, study by study, as a record holds them."""
    others = {score.study: score for score in challenger}
    return tuple(
        {
            "study": score.study,
            "patient": score.patient,
            "champion": dict(score.errors_suv),
            "challenger": dict(others[score.study].errors_suv),
        }
        for score in champion
    )


def record_of(
    name: str,
    at: str,
    challenge: Challenge,
    challenger: str,
    decision: Decision,
    split: Mapping[str, int],
    scores: tuple[Mapping[str, Any], ...],
) -> GateRecord:
    """A decision as it is kept."""
    return GateRecord(
        name, at, challenge, challenger, decision.verdict, decision.reason, dict(split), decision.regions, scores
    )


def write_record(store: Path, record: GateRecord) -> Path:
    """Put a record on disk, in place of one of the same name; raises Transient where the disk fails."""
    path = store / DECISIONS / f"{record.name}.json"
    content = {"schema": SCHEMA, **asdict(record)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise Transient(f"The gate's decision cannot be written to {path}: check free space and rights.") from error
    return path


def read_records(store: Path) -> tuple[GateRecord, ...]:
    """Every decision of a model store, oldest first; raises Rejected where one cannot be read."""
    records = [_read(path) for path in sorted((store / DECISIONS).glob("*.json"))]
    return tuple(sorted(records, key=lambda record: record.at))


def _read(path: Path) -> GateRecord:
    try:
        content = json.loads(path.read_bytes())
        if content.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        challenge = _challenge(content)
        regions = tuple(RegionComparison(**region) for region in content.pop("regions"))
        scores = tuple(content.pop("scores"))
        return GateRecord(**content, challenge=challenge, regions=regions, scores=scores)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Rejected(f"{path} is no decision of the gate that this version reads: restore or remove it.") from error


def _challenge(content: dict[str, Any]) -> Challenge:
    """Taken out of a record's content, with the names that version 0.1 gave to its parts."""
    values = content.pop("question") if "question" in content else content.pop("challenge")
    for old, new in OLD_NAMES.items():
        if old in values:
            values[new] = values.pop(old)
    return Challenge(**{**values, "rule": GateRule(**values["rule"])})
