"""What so many patients can show, whatever the data say."""

import numpy as np
import pytest
from scipy.special import ndtri

from lamella.analysis.chains import Chain, judge_chains
from lamella.analysis.reach import find_reach
from tests.analysis.trials import compare, on_test_set


def test_no_data_can_show_a_margin_below_that_of_the_patients_not_seen() -> None:
    reach = find_reach(19, 19, margin=0.05)
    assert reach.lowest == reach.highest == pytest.approx(1.96 * np.sqrt(2 / 19**2 / 4), abs=1e-5)
    assert (reach.least, reach.power) == (28, None)
    contest = find_reach(19, 19, margin=0.05, n_others=5)
    assert contest.highest == pytest.approx(ndtri(1 - 0.005) * np.sqrt(2 / 19**2 / 4))
    assert find_reach(28, 28, margin=0.05).lowest < 0.05 < find_reach(27, 27, margin=0.05).lowest
    copies = compare(on_test_set(1.0)(np.random.default_rng(0), 38, [0.9, 0.9]))
    assert judge_chains(copies, [Chain(whole=0, cuts=(1,))], reach.lowest - 1e-4) == [()]
    assert judge_chains(copies, [Chain(whole=0, cuts=(1,))], reach.lowest + 1e-4) == [(1,)]


@pytest.mark.parametrize("n", [100, 200])
def test_the_power_that_is_told_is_that_of_simulated_cohorts(n: int) -> None:
    rng, draw = np.random.default_rng(1), on_test_set(0.8)
    accepted = [
        judge_chains(compare(draw(rng, n, [0.9, 0.9])), [Chain(whole=0, cuts=(1,))], 0.05) == [(1,)] for _ in range(300)
    ]
    told = find_reach(n // 2, n // 2, margin=0.05).power
    assert told == pytest.approx(np.mean(accepted), abs=0.08)


def test_cross_validation_and_fewer_patients_have_less_power() -> None:
    powers = [find_reach(n, n, margin=0.05, n_rounds=k).power or 0.0 for n, k in ((100, 1), (100, 5), (50, 5), (29, 5))]
    assert powers == sorted(powers, reverse=True)
    assert len(set(powers)) == 4
