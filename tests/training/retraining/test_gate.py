"""The gate: what it lets pass, what it refuses and why; noise alone passes as rarely as the rule says."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from tests.samples.cases import quick_and_long
from training.retraining.gate import OVERALL, Decision, GateRule, RegionComparison, StudyScore, decide
from twin_scanner.errors import Rejected

pytestmark = pytest.mark.unit

DISTRICTS = ("head", "trunk", "arms", "legs")
RULE = GateRule()


def scores(errors: Mapping[str, npt.ArrayLike], patients: int) -> list[StudyScore]:
    """One study a patient; a region's errors are one value for all, or one for each."""
    values = {region: np.broadcast_to(np.asarray(error, np.float64), patients) for region, error in errors.items()}
    return [
        StudyScore(f"study-{i}", f"patient-{i}", {region: float(value[i]) for region, value in values.items()})
        for i in range(patients)
    ]


def champion(patients: int = 10) -> list[StudyScore]:
    """Errors that differ from patient to patient, as real ones do."""
    spread = np.linspace(0.8, 1.2, patients)
    return scores({OVERALL: spread, **dict.fromkeys(DISTRICTS, 0.5 * spread)}, patients)


def changed(factors: Mapping[str, npt.ArrayLike], patients: int = 10) -> list[StudyScore]:
    """The champion's errors, multiplied by region; regions that are not named stay."""
    spread = np.linspace(0.8, 1.2, patients)
    regions = {OVERALL: spread, **dict.fromkeys(DISTRICTS, 0.5 * spread)}
    return scores({region: error * np.asarray(factors.get(region, 1.0)) for region, error in regions.items()}, patients)


def region(decision: Decision, name: str) -> RegionComparison:
    return next(found for found in decision.regions if found.region == name)


def test_a_challenger_that_is_better_overall_and_worse_nowhere_is_promoted() -> None:
    """Oracle: scipy's paired t interval, and the exact p of ten differences of one sign, 1/1024."""
    decision = decide(champion(), changed({OVERALL: 0.9, "trunk": 0.85}), RULE, DISTRICTS)
    assert decision.verdict == "promote"
    assert decision.reason == (
        "Better overall (SUV 1.0000 to 0.9000, -10.0%, p = 0.0010, 10 patients) and on no district worse."
    )
    body = region(decision, OVERALL)
    differences = -0.1 * np.linspace(0.8, 1.2, 10)
    expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.90).high
    assert body.p_better == pytest.approx(1 / 1024)
    assert body.difference_upper_suv == pytest.approx(expected)
    assert [found.patients for found in decision.regions] == [10] * 5


def test_a_challenger_worse_on_one_district_is_refused_however_good_the_rest_is() -> None:
    decision = decide(champion(), changed({OVERALL: 0.5, "legs": 1.03}), RULE, DISTRICTS)
    assert decision.verdict == "worse"
    assert decision.reason == ("Worse than the champion on legs (SUV 0.5000 to 0.5150, +3.0%); 2.0% would be borne.")
    assert decide(champion(), changed({OVERALL: 0.5, "legs": 1.015}), RULE, DISTRICTS).verdict == "promote"


def test_the_same_model_twice_is_not_better() -> None:
    decision = decide(champion(), champion(), RULE, DISTRICTS)
    assert decision.verdict == "not better" and "p = 1.0000" in decision.reason


def test_a_district_that_scatters_is_not_evidence_enough() -> None:
    """On average the arms are equal, but for half of the patients much worse."""
    scatter = np.where(np.arange(10) % 2, 1.4, 0.6)
    decision = decide(champion(), changed({OVERALL: 0.9, "arms": scatter}), RULE, DISTRICTS)
    assert decision.verdict == "not enough evidence"
    assert "not worse on arms (up to +" in decision.reason and "95% confidence" in decision.reason


@pytest.mark.parametrize("patients", [0, 1, 7])
def test_too_few_patients_are_not_enough_evidence_for_anything(patients: int) -> None:
    factors = {OVERALL: 0.5, **dict.fromkeys(DISTRICTS, 0.5)}
    decision = decide(champion(patients), changed(factors, patients), RULE, DISTRICTS)
    assert decision.verdict == "not enough evidence"
    assert f"asks for 8 patients per district, too few show {OVERALL} ({patients}), head ({patients})" in (
        decision.reason
    )


def test_a_district_that_no_study_shows_is_not_enough_evidence() -> None:
    both = [
        [StudyScore(s.study, s.patient, {k: v for k, v in s.errors_suv.items() if k != "legs"}) for s in found]
        for found in (champion(), changed({OVERALL: 0.5}))
    ]
    decision = decide(both[0], both[1], RULE, DISTRICTS)
    assert decision.reason == ("Not enough evidence: the gate asks for 8 patients per district, too few show legs (0).")
    assert decide(both[0], both[1], RULE, DISTRICTS[:3]).verdict == "promote"


def test_the_studies_of_a_patient_are_one_piece_of_evidence() -> None:
    """Seven patients seen twice are seven, and a patient's value is the mean of the studies."""
    both = []
    for found in (champion(14), changed({OVERALL: 0.5}, 14)):
        both.append([StudyScore(s.study, f"patient-{i // 2}", s.errors_suv) for i, s in enumerate(found)])
    decision = decide(both[0], both[1], RULE, DISTRICTS)
    assert decision.verdict == "not enough evidence" and region(decision, "head").patients == 7
    assert region(decision, OVERALL).champion_suv == pytest.approx(1.0)


@pytest.mark.parametrize(("patients", "trials"), quick_and_long([(8, 300)], [(14, 100)]))
def test_noise_alone_promotes_as_rarely_as_the_rule_says(patients: int, trials: int) -> None:
    """Challengers that differ from the champion by noise; oracle: the binomial's upper 99.9 % point at 5 %.

    With 8 patients every sign pattern is tried, with 14 a sample of them.
    """
    random = np.random.default_rng(1)
    lenient = GateRule(worse_at_most=0.2)
    promoted = 0
    for _ in range(trials):
        noise = {OVERALL: random.normal(1.0, 0.05, patients)}
        promoted += decide(champion(patients), changed(noise, patients), lenient, DISTRICTS).verdict == "promote"
    assert promoted <= stats.binom.ppf(0.999, trials, 0.05)
    assert promoted > 0, "a test that never says yes would pass too"


def test_a_real_gain_in_such_noise_is_seen() -> None:
    """Power: a gain of 5 % where patients scatter by 5 %, 20 of them."""
    random, promoted = np.random.default_rng(2), 0
    for _ in range(50):
        gain = {OVERALL: random.normal(0.95, 0.05, 20)}
        promoted += decide(champion(20), changed(gain, 20), RULE, DISTRICTS).verdict == "promote"
    assert promoted >= 45


def test_the_decision_depends_on_nothing_but_the_scores() -> None:
    """Neither the order of the studies nor an earlier decision changes a number."""
    random = np.random.default_rng(3)
    before, after = champion(20), changed({OVERALL: random.normal(0.97, 0.05, 20)}, 20)
    first = decide(before, after, RULE, DISTRICTS)
    again = decide(before[::-1], after[5:] + after[:5], RULE, DISTRICTS)
    assert first.verdict == again.verdict
    for one, other in zip(first.regions, again.regions, strict=True):
        assert one.region == other.region and one.difference_suv == pytest.approx(other.difference_suv)
        assert one.p_better == pytest.approx(other.p_better, abs=0.01)
    assert decide(before, after, RULE, DISTRICTS) == first


def test_a_champion_without_error_is_never_replaced_by_one_with_some() -> None:
    perfect = scores(dict.fromkeys((OVERALL, *DISTRICTS), 0.0), 10)
    decision = decide(perfect, scores(dict.fromkeys((OVERALL, *DISTRICTS), 1e-6), 10), RULE, DISTRICTS)
    assert decision.verdict == "worse"
    assert decide(perfect, perfect, RULE, DISTRICTS).verdict == "not better"


def test_scores_of_other_studies_or_regions_are_refused() -> None:
    with pytest.raises(Rejected, match="not scored on the same studies"):
        decide(champion(10), champion(9), RULE)
    other = champion(10)
    other[3] = StudyScore("study-3", "patient-3", {OVERALL: 1.0})
    with pytest.raises(Rejected, match="'study-3' was scored on different regions"):
        decide(champion(10), other, RULE)


def test_the_record_of_a_decision_is_plain_values() -> None:
    plain = decide(champion(), changed({OVERALL: 0.9}), RULE, DISTRICTS).as_json()
    assert set(plain) == {"verdict", "reason", "regions"}
    assert all(isinstance(value, str | int | float) for row in plain["regions"] for value in row.values())
