"""The contest: step-down bounds, margins, who is worse; critical values against brute force."""

import numpy as np
import pytest
from scipy.special import ndtri, stdtrit

from lamella.analysis.auc import estimate_auc
from lamella.analysis.differences import Differences, find_differences
from lamella.analysis.maxt import ALPHA, BETA, Z, find_critical, find_critical_of_pairs, find_upper
from lamella.analysis.noninferior import find_margins, find_noninferior, find_worse
from tests.analysis.contests import make_contest


def differ(shifts: list[float], *, n: int = 300, shared: float = 0.9, seeds: np.ndarray | None = None) -> Differences:
    contest = make_contest(shifts, n=n, shared=shared)
    estimate = estimate_auc(contest.logits, contest.targets, folds=np.zeros_like(contest.folds))
    assert estimate is not None
    differences = find_differences(estimate, seed_auc=seeds)
    assert differences is not None
    return differences


def made_up(values: list[float], error: float, correlation: float) -> Differences:
    """Arms whose AUCs have a known covariance, and no other terms."""
    n = len(values)
    auc = np.array(values)
    covariance = error**2 / (2 * (1 - correlation)) * (correlation * np.ones((n, n)) + (1 - correlation) * np.eye(n))
    errors = error * (1 - np.eye(n))
    return Differences(
        values=auc - auc[:, None],
        errors=errors,
        degrees=np.full((n, n), np.inf),
        skewness=np.zeros((n, n)),
        covariance=covariance,
        factor=np.ones((n, n)),
        disagreement=0.0,
        seed_variances=np.zeros(n),
    )


def test_one_difference_is_held_to_its_own_quantile() -> None:
    differences = made_up([0.9, 0.9], 0.02, 0.5)
    assert find_critical(differences, 0, np.array([1]), level=ALPHA) == pytest.approx(1.96, abs=0.001)
    assert find_noninferior(differences, 0.0393).tolist() == [True, True]  # 1.96 x 0.02 = 0.0392
    assert find_noninferior(differences, 0.0391).tolist() == [False, False]


def test_the_critical_value_of_equally_correlated_differences_is_dunnetts() -> None:
    """Differences from one arm are correlated by 1/2: one-sided Dunnett, 2.5% (tables: 2.35, 2.51)."""
    for n_others, expected in ((3, 2.349), (5, 2.511)):
        differences = made_up([0.9] * (n_others + 1), 0.02, 0.0)
        found = find_critical(differences, 0, np.arange(1, n_others + 1), level=ALPHA)
        assert found == pytest.approx(expected, abs=0.015)


def test_all_pairs_are_held_to_tukeys_range() -> None:
    """Studentised range of 4 means, infinite degrees, 97.5%: q = 3.98 by tables, over sqrt 2."""
    first, second = np.triu_indices(4, 1)
    assert find_critical_of_pairs(made_up([0.9] * 4, 0.02, 0.0), first, second) == pytest.approx(2.818, abs=0.02)


def test_arms_that_agree_on_every_patient_count_as_independent_and_not_as_one() -> None:
    differences = made_up([0.9] * 5, 0.02, 0.0)
    still = Differences(
        **{name: getattr(differences, name) for name in Differences.__slots__} | {"covariance": np.zeros((5, 5))}
    )
    d = find_critical(still, 0, np.arange(1, 5), level=ALPHA)
    assert d == pytest.approx(ndtri((1 - ALPHA) ** (1 / 4)), abs=0.02)


def test_an_arm_that_is_clearly_worse_no_longer_makes_it_harder_for_others() -> None:
    equal, one_poor = made_up([0.9, 0.9, 0.9], 0.02, 0.0), made_up([0.9, 0.9, 0.6], 0.02, 0.0)
    pair = made_up([0.9, 0.9], 0.02, 0.0)
    alone = next(m for m in np.arange(0.03, 0.06, 0.0001) if find_noninferior(pair, m)[0])
    beside_equal = next(m for m in np.arange(0.03, 0.06, 0.0001) if find_noninferior(equal, m)[0])
    beside_poor = next(m for m in np.arange(0.03, 0.06, 0.0001) if find_noninferior(one_poor, m)[0])
    assert alone == pytest.approx(1.96 * 0.02, abs=2e-4)
    assert beside_equal == pytest.approx(ndtri(1 - 0.0225 / 2) * 0.02, abs=2e-3)
    # Of the 2.5 points one tenth is spent on knowing that the third arm is worse.
    assert beside_poor == pytest.approx(ndtri(1 - (ALPHA - BETA)) * 0.02, abs=2e-4)
    assert not find_noninferior(one_poor, 0.05)[2]


def test_accepted_arms_make_room_for_the_next() -> None:
    """The second arm lies 0.005 behind; it passes only once the others are accepted and no longer count."""
    differences = made_up([0.9, 0.895, 0.9, 0.9], 0.02, 0.0)
    single = find_margins(differences)
    step = next(m for m in np.arange(0.03, 0.08, 0.0001) if find_noninferior(differences, m)[1])
    others = next(m for m in np.arange(0.03, 0.08, 0.0001) if find_noninferior(differences, m)[0])
    assert others > 0.005 + Z * 0.02  # alone, the second would pass below it
    assert step == others < single[1] - 0.002


def test_margins_are_the_largest_bounds_over_the_others() -> None:
    differences = differ([1.0, 1.5, 2.0])
    margins = find_margins(differences)
    upper = []
    for b in (1, 2):
        d = find_critical(differences, b, np.array([i for i in range(3) if i != b]), level=ALPHA)
        k = differences.skewness[0, b]
        upper.append(differences.values[0, b] + (d + k * (2 * d**2 + 1) / 6) * differences.errors[0, b])
    assert margins[0] == pytest.approx(max(upper), rel=1e-12)
    assert (find_noninferior(differences, 0.1) >= (margins < 0.1)).all()  # step-down accepts no fewer


def test_the_noise_of_seeds_takes_t_quantiles() -> None:
    seeds = np.array([[0.80, 0.84], [0.86, 0.80]])
    differences = differ([1.5, 1.5], seeds=seeds)
    degrees = float(differences.degrees[0, 1])
    assert degrees < 20
    k = differences.skewness[0, 1]
    t = stdtrit(degrees, 0.975)
    expected = differences.values[0, 1] + (t + k * (2 * t**2 + 1) / 6) * differences.errors[0, 1]
    assert find_upper(differences, Z)[0, 1] == pytest.approx(expected, rel=1e-6)
    assert find_margins(differences).max() <= 1


def test_who_is_worse_is_said_of_the_right_one() -> None:
    worse = find_worse(differ([0.3, 2.0, 2.0]))
    assert worse.tolist() == [[False, True, True], [False, False, False], [False, False, False]]


@pytest.mark.parametrize("shifts", [[0.0, 0.0, 0.0], [9.0, 9.0, 9.0], [2.0, 2.0], [1.0]])
def test_copies_and_perfect_arms_are_judged_without_nan(shifts: list[float]) -> None:
    differences = differ(shifts, shared=1.0, n=90)
    assert np.isfinite(find_margins(differences)).all()
    assert not find_worse(differences).any()
    # 30 against 60: no data give a bound below 1.96 x sqrt((1/30^2 + 1/60^2) / 4) = 0.037
    if len(shifts) > 1:
        assert not find_noninferior(differences, 0.036).any()
        assert find_noninferior(differences, 0.06).all()
