"""The recommendation, and the patients it takes."""

import numpy as np
import pytest

from lamella.analysis.auc import AucEstimate, estimate_auc
from lamella.analysis.recommend import BestEstimate, Deficits, find_cheapest, find_deficits, list_ladder, say_verdict
from lamella.analysis.sample_size import find_patients_needed
from tests.analysis.contests import make_contest

KINDS = {"enough", "only", "cannot tell", "no signal", "too few"}


def made(shifts: list[float], **options: float) -> tuple[AucEstimate, Deficits, np.ndarray]:
    """Estimate and deficits of made-up arms, with their classes."""
    contest = make_contest(shifts, n=int(options.get("n", 300)), shared=options.get("shared", 0.9))
    estimate = estimate_auc(contest.logits, contest.targets, folds=np.zeros_like(contest.folds))
    assert estimate is not None
    deficits = find_deficits(estimate)
    assert deficits is not None
    return estimate, deficits, contest.targets


def speak(upper: list[float], *, chance: float = 0.001, n_least: int = 50, margin: float = 0.05) -> dict[str, object]:
    """A verdict on three arms whose costs rise, from their bounds."""
    deficits = Deficits(
        differences=np.zeros((3, 3)), errors=np.zeros((3, 3)), skewness=np.zeros((3, 3)), upper=np.array(upper), z=2.24
    )
    costs = np.array([1.0, 2.0, 3.0])
    place = find_cheapest(np.flatnonzero(deficits.upper < margin).tolist(), costs, costs)
    return say_verdict(
        names=("a", "b", "c"),
        deficits=deficits,
        places=(place, 0),
        margin=margin,
        chance_p=[chance] * 3,
        n_least=n_least,
        best=BestEstimate(arm="c", auc=0.91, needed=(1200, (900, 1500))),
    )


def test_the_deficit_of_an_arm_is_the_largest_bound_over_the_others() -> None:
    contest = make_contest([1.0, 1.5, 2.0])
    estimate = estimate_auc(contest.logits, contest.targets, folds=contest.folds)
    assert estimate is not None
    deficits = find_deficits(estimate)
    assert deficits is not None
    assert deficits.z == pytest.approx(2.2414, abs=1e-3)  # 1 - 0.025 / 2
    assert estimate.centred is not None
    bounds = []
    for b in (1, 2):
        error = deficits.errors[0, b]
        skewness = max(0.0, sum((x[b] - x[0]) ** 3 for x in estimate.centred) / error**3)
        bounds.append(deficits.differences[0, b] + (deficits.z + skewness * (2 * deficits.z**2 + 1) / 6) * error)
    assert deficits.upper[0] == pytest.approx(max(bounds), rel=1e-12)


def test_one_more_patient_who_disagrees_is_a_patient_and_not_a_slide() -> None:
    targets, patients = np.repeat([0, 1, 0, 1, 0, 1], 5), np.repeat(np.arange(6), 5)
    logits = np.zeros((30, 2))
    slides = estimate_auc(logits, targets, folds=np.zeros(30, int), patients=patients)
    alone = estimate_auc(logits, targets, folds=np.zeros(30, int))
    assert slides is not None
    assert alone is not None
    assert slides.disagreement == pytest.approx((1 / 9 + 1 / 9) / 4)
    assert alone.disagreement == pytest.approx((1 / 225 + 1 / 225) / 4)


def test_of_arms_within_a_tenth_of_the_cost_the_one_of_less_arithmetic_is_cheaper() -> None:
    assert find_cheapest([0, 1], np.array([1.0, 1.2]), np.array([5.0, 1.0])) == 0
    assert find_cheapest([0, 1], np.array([1.0, 1.09]), np.array([5.0, 1.0])) == 1
    assert find_cheapest([], np.array([1.0]), np.array([1.0])) is None


def test_there_are_five_sentences() -> None:
    found = [
        speak([0.04, 0.03, 0.02]),
        speak([0.06, 0.04, 0.06]),
        speak([0.06, 0.07, 0.05]),
        speak([0.01, 0.01, 0.01], chance=0.05),
        speak([0.01, 0.01, 0.01], n_least=9),
    ]
    assert {one["kind"] for one in found} == KINDS
    assert [one["arm"] for one in found] == ["a", "b", None, None, None]
    assert [str(one["sentence"]) for one in found] == [
        "a is enough: its AUC is shown to lie less than 0.05 below that of every other arm, and no arm is cheaper.",
        "Only b: its AUC is shown to lie less than 0.05 below that of every other arm; cheaper arms are not shown to "
        "be enough.",
        "One can't tell: no arm is shown to lie within 0.05 AUC of every other. The best estimate is c (AUC 0.91). If "
        "a, the cheapest, is truly as good as the others, about 1,200 patients would show it (90% range 900 to 1,500); "
        "the ladder shows what other margins allow.",
        "No arm is shown to predict the label better than chance on these patients, so there is nothing to choose "
        "between.",
        "No verdict: there are 9 patients of the rarest class and 10 are the least on which arms can be compared.",
    ]


def test_the_ladder_reads_the_same_bounds_at_every_margin() -> None:
    deficits = Deficits(
        differences=np.zeros((3, 3)),
        errors=np.zeros((3, 3)),
        skewness=np.zeros((3, 3)),
        upper=np.array([0.06, 0.025, 0.015]),
        z=2.24,
    )
    ladder = list_ladder(deficits, ("a", "b", "c"), np.array([1.0, 2.0, 3.0]), np.ones(3))
    assert [row["arm"] for row in ladder] == [None, "c", "b", "b", "a"]
    assert [row["margin"] for row in ladder] == [0.01, 0.02, 0.03, 0.05, 0.1]


def test_two_arms_need_the_n_at_which_z_and_084_errors_make_the_margin() -> None:
    estimate, deficits, targets = made([1.8, 1.8])
    found = find_patients_needed(estimate, deficits, 0, 0.05, targets=targets)
    assert found is not None
    assert estimate.covariance is not None
    cov = estimate.covariance
    a = (cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]) * 300
    d = deficits.errors[0, 1] ** 2 * 300**2 - a * 300  # the terms that fall as 1/n^2
    n = np.arange(2, 100_000)
    skewness = deficits.skewness[0, 1] * np.sqrt(300 / n)
    z = deficits.z + skewness * (2 * deficits.z**2 + 1) / 6
    enough = (z + 0.8416) * np.sqrt(a / n + d / n**2) <= 0.05
    assert found[0] == pytest.approx(int(n[enough][0]), rel=0.11)  # rounded up to two digits
    assert found[0] >= int(n[enough][0])
    assert found[1][0] <= found[0] <= found[1][1]


def test_more_arms_and_smaller_margins_need_more_patients() -> None:
    needed = []
    for n_arms, margin in ((2, 0.05), (9, 0.05), (9, 0.02)):
        estimate, deficits, targets = made([1.8] * n_arms)
        found = find_patients_needed(estimate, deficits, 0, margin, targets=targets)
        assert found is not None
        needed.append(found[0])
    assert needed[0] < needed[1] < needed[2]


def test_the_noise_of_seeds_needs_more_patients() -> None:
    contest = make_contest([1.8, 1.8], n=300)
    estimate = estimate_auc(contest.logits, contest.targets, folds=contest.folds)
    assert estimate is not None
    needed = []
    for spread in (0.0, 0.05):
        seeds = np.array([[0.8, 0.8, 0.8], [0.8 - spread, 0.8, 0.8 + spread]])
        deficits = find_deficits(estimate, seed_auc=seeds)
        assert deficits is not None
        found = find_patients_needed(estimate, deficits, 0, 0.05, targets=contest.targets)
        assert found is not None
        needed.append(found[0])
    assert needed[1] > 1.2 * needed[0]


def test_slides_of_a_patient_count_as_one_patient() -> None:
    contest = make_contest([1.8, 1.8], n=240, shared=0.5)
    targets, logits = np.repeat(contest.targets, 3), np.repeat(contest.logits, 3, axis=1)
    patients = np.repeat(np.arange(240), 3)
    by_slide = estimate_auc(logits, targets, folds=np.zeros(720, int), patients=patients)
    by_patient = estimate_auc(contest.logits, contest.targets, folds=np.zeros(240, int))
    assert by_slide is not None
    assert by_patient is not None
    one, other = find_deficits(by_slide), find_deficits(by_patient)
    assert one is not None
    assert other is not None
    slides = find_patients_needed(by_slide, one, 0, 0.05, targets=targets, patients=patients)
    whole = find_patients_needed(by_patient, other, 0, 0.05, targets=contest.targets)
    assert slides is not None
    assert whole is not None
    assert slides[0] == pytest.approx(whole[0], rel=0.15)


def test_arms_that_agree_on_every_patient_need_some_all_the_same() -> None:
    estimate, deficits, targets = made([1.8, 1.8, 1.8], shared=1.0)
    found = find_patients_needed(estimate, deficits, 0, 0.05, targets=targets)
    assert found is not None
    assert found[0] > 20
