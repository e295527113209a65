"""The reference question: depths in order, the level shared and handed on."""

import numpy as np
import pytest
from scipy.special import ndtri

from lamella.analysis.chains import Chain, find_chain_margins, judge_chains
from tests.analysis.test_noninferior import made_up

LEVELS = {share: float(ndtri(1 - 0.025 * share)) for share in (1.0, 0.5, 1 / 3)}


def test_each_depth_is_tested_at_the_full_level_until_one_fails() -> None:
    differences = made_up([0.90, 0.90, 0.86, 0.90], 0.02, 0.0)
    chain = Chain(whole=0, cuts=(1, 2, 3))
    assert judge_chains(differences, [chain], 0.05) == [
        (1,)
    ]  # 1.96 x 0.02 = 0.039; depth 2 fails, depth 3 is not asked
    assert judge_chains(differences, [chain], 0.08) == [(1, 2, 3)]
    assert judge_chains(differences, [chain], 0.039) == [()]


def test_two_chains_share_the_level_and_one_that_is_done_hands_it_on() -> None:
    """Whole 0 with cut 1, whole 2 with cut 3; the second passes at the full level only."""
    error, margin = 0.02, 0.05
    between = margin - (LEVELS[1.0] + LEVELS[0.5]) / 2 * error
    chains = [Chain(whole=0, cuts=(1,)), Chain(whole=2, cuts=(3,))]
    handed = made_up([0.9, 0.9, 0.9, 0.9 - between], error, 0.0)
    assert judge_chains(handed, chains, margin) == [(1,), (3,)]
    kept = made_up([0.9, 0.8, 0.9, 0.9 - between], error, 0.0)
    assert judge_chains(kept, chains, margin) == [(), ()]


def test_margins_of_depths_hold_together() -> None:
    differences = made_up([0.9, 0.9, 0.89, 0.88], 0.02, 0.0)
    margins = find_chain_margins(differences, Chain(whole=0, cuts=(1, 2, 3)))
    assert margins == pytest.approx(np.array([0.0, 0.01, 0.02]) + 2.349 * 0.02, abs=4e-4)  # Dunnett
    assert len(find_chain_margins(differences, Chain(whole=0, cuts=()))) == 0
