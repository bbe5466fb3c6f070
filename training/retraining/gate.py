"""The gate: whether a challenger takes the champion's place, a pure function of both models' scores."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field
from scipy import stats

from twin_scanner.errors import Rejected

OVERALL: Final = "whole body"
"""The region whose error must fall: every voxel that has a district. No network can bear this name."""
RESAMPLES: Final = 9999
"""Sign patterns that the paired test tries; up to 13 patients it tries every one, and its answer is exact."""
SEED: Final = 0
Verdict: TypeAlias = Literal["promote", "not enough evidence", "worse", "not better"]


@dataclass(frozen=True)
class GateRule:
    """What a challenger must show.

    ``minimum_patients`` who show a district, for each one (five are the fewest whose paired test can reach 0.05);
    overall error lower at ``significance`` (one-sided paired permutation test); and on every district the error, at
    that confidence, higher by no more than ``worse_at_most`` of the champion's.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    minimum_patients: Annotated[int, Field(ge=5)] = 8
    significance: Annotated[float, Field(gt=0, le=0.1)] = 0.05
    worse_at_most: Annotated[float, Field(ge=0, le=0.2)] = 0.02


@dataclass(frozen=True)
class StudyScore:
    """One model's mean absolute errors in SUV on one study, by region; a region that is not in view is not named."""

    study: str
    patient: str
    errors_suv: Mapping[str, float]


@dataclass(frozen=True)
class RegionComparison:
    """Both models' errors in SUV on one region, means over patients; differences are challenger minus champion.

    ``difference_upper_suv`` is the upper confidence bound of the mean difference, ``p_better`` the chance of a
    difference so low where the two are alike; both None for fewer than two patients.
    """

    region: str
    patients: int
    champion_suv: float | None
    challenger_suv: float | None
    difference_suv: float | None
    difference_upper_suv: float | None
    p_better: float | None


@dataclass(frozen=True)
class Decision:
    """The verdict, its reason in one sentence, and the numbers that it rests on."""

    verdict: Verdict
    reason: str
    regions: tuple[RegionComparison, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "regions": [asdict(region) for region in self.regions]}


def decide(
    champion: Sequence[StudyScore], challenger: Sequence[StudyScore], rule: GateRule, required: Sequence[str] = ()
) -> Decision:
    """Compare two models on the same studies, patient by patient.

    The studies of a patient are averaged first: they are no independent evidence. ``required`` names districts that
    must have been seen, whether or not a study shows them. The challenger is promoted where every district has enough
    patients, none may be worse (upper bound of the mean paired difference by Student's t, one-sided: non-inferiority
    within ``worse_at_most``), and overall it is better (sign-flip permutation test on the paired differences). All
    must hold at once, so no correction for the number of districts is due.

    Raises Rejected where the two were not scored on the same studies and regions.
    """
    regions = tuple(
        _compared(name, *values, rule) for name, values in _by_patient(champion, challenger, required).items()
    )
    districts = [region for region in regions if region.region != OVERALL]
    verdict, reason = (
        _too_few(regions, rule)
        or _worse(districts, rule)
        or _undecided(districts, rule)
        or _overall(next(region for region in regions if region.region == OVERALL), rule)
    )
    return Decision(verdict, reason, regions)


def _by_patient(
    champion: Sequence[StudyScore], challenger: Sequence[StudyScore], required: Sequence[str]
) -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """For each region the two models' errors, one a patient, in the same order."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {
        name: defaultdict(list) for name in (OVERALL, *required) if name
    }
    others = {score.study: score for score in challenger}
    if len(others) != len(champion) or {score.study for score in champion} != others.keys():
        raise Rejected("Champion and challenger were not scored on the same studies: score both on the gate split.")
    for score in champion:
        other = others[score.study]
        if score.errors_suv.keys() != other.errors_suv.keys() or score.patient != other.patient:
            raise Rejected(f"Study '{score.study}' was scored on different regions or patients: score both again.")
        for region, error in score.errors_suv.items():
            found.setdefault(region, defaultdict(list))[score.patient].append((error, other.errors_suv[region]))
    means = {region: [np.mean(pairs, axis=0) for pairs in patients.values()] for region, patients in found.items()}
    arrays = {region: np.array(values, np.float64).reshape(-1, 2) for region, values in means.items()}
    return {region: (values[:, 0], values[:, 1]) for region, values in arrays.items()}


def _compared(
    name: str, champion: npt.NDArray[np.float64], challenger: npt.NDArray[np.float64], rule: GateRule
) -> RegionComparison:
    differences = challenger - champion
    if differences.size < 2:
        return RegionComparison(name, int(differences.size), None, None, None, None, None)
    spread = float(differences.std(ddof=1)) / np.sqrt(differences.size)
    upper = float(differences.mean()) + float(stats.t.ppf(1 - rule.significance, differences.size - 1)) * spread
    return RegionComparison(
        name,
        int(differences.size),
        float(champion.mean()),
        float(challenger.mean()),
        float(differences.mean()),
        float(upper),
        _p_better(differences),
    )


def _p_better(differences: npt.NDArray[np.float64]) -> float:
    """One-sided p of a negative mean, by flipping signs of paired differences (Fisher's randomisation test)."""
    tested = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        alternative="less",
        vectorized=True,
        rng=np.random.default_rng(SEED),
    )
    return float(tested.pvalue)


def _too_few(regions: Sequence[RegionComparison], rule: GateRule) -> tuple[Verdict, str] | None:
    few = [region for region in regions if region.patients < rule.minimum_patients]
    if not few:
        return None
    named = ", ".join(f"{region.region} ({region.patients})" for region in few)
    return "not enough evidence", (
        f"Not enough evidence: the gate asks for {rule.minimum_patients} patients per district, too few show {named}."
    )


def _worse(districts: Sequence[RegionComparison], rule: GateRule) -> tuple[Verdict, str] | None:
    worse = [(d, change) for d in districts if (change := _change(d, d.difference_suv)) > rule.worse_at_most]
    if not worse:
        return None
    named = ", ".join(f"{d.region} ({_suv(d)}, {change:+.1%})" for d, change in worse)
    return "worse", f"Worse than the champion on {named}; {rule.worse_at_most:.1%} would be borne."


def _undecided(districts: Sequence[RegionComparison], rule: GateRule) -> tuple[Verdict, str] | None:
    open_ = [(d, change) for d in districts if (change := _change(d, d.difference_upper_suv)) > rule.worse_at_most]
    if not open_:
        return None
    named = ", ".join(f"{d.region} (up to {change:+.1%})" for d, change in open_)
    return "not enough evidence", (
        f"Not enough evidence that it is not worse on {named} at {1 - rule.significance:.0%} confidence; "
        f"{rule.worse_at_most:.1%} would be borne."
    )


def _overall(body: RegionComparison, rule: GateRule) -> tuple[Verdict, str]:
    p_better = 1.0 if body.p_better is None else body.p_better
    figures = f"{_suv(body)}, {_change(body, body.difference_suv):+.1%}, p = {p_better:.4f}, {body.patients} patients"
    if p_better < rule.significance:
        return "promote", f"Better overall ({figures}) and on no district worse."
    return "not better", f"Not better overall ({figures}; p below {rule.significance} is asked for)."


def _change(region: RegionComparison, difference: float | None) -> float:
    """A difference as a share of the champion's error; any increase over an error of 0 is infinitely worse."""
    if difference is None or region.champion_suv is None:
        return np.inf
    if region.champion_suv == 0:
        return np.inf if difference > 0 else 0.0
    return difference / region.champion_suv


def _suv(region: RegionComparison) -> str:
    return f"SUV {region.champion_suv:.4f} to {region.challenger_suv:.4f}"
