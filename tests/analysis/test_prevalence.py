"""PPV, NPV and net benefit at a stated prevalence."""

import json

import numpy as np
import pytest
from scipy.special import expit

from lamella.analysis.figure import make_absent, make_figure, make_share
from lamella.analysis.prevalence import find_at_prevalence, find_net_benefit
from lamella.errors import SettingsError


def test_at_the_cohorts_own_prevalence_they_are_the_shares_counted() -> None:
    truth = np.array([1] * 30 + [0] * 70, bool)
    said = np.array([1] * 24 + [0] * 6 + [1] * 7 + [0] * 63, bool)
    sensitivity, specificity = make_share(said[truth], np.arange(30)), make_share(~said[~truth], np.arange(70))
    found = find_at_prevalence(sensitivity, specificity, 0.3)
    assert found["ppv"].value == pytest.approx(truth[said].mean())
    assert found["npv"].value == pytest.approx((~truth[~said]).mean())
    assert found["ppv"].interval[0] < found["ppv"].value < found["ppv"].interval[1]
    assert found["ppv"].prevalence == 0.3


def test_a_rare_disease_makes_a_positive_call_worth_less() -> None:
    share = make_figure(0.9, (0.8, 0.95), "Wilson")
    found = find_at_prevalence(share, share, 0.01)
    assert found["ppv"].value == pytest.approx(0.009 / (0.009 + 0.099))
    assert found["npv"].value > 0.99


def test_perfect_calls_keep_an_interval_and_absent_ones_say_why() -> None:
    perfect = make_share(np.ones(17, bool), np.arange(17))
    found = find_at_prevalence(perfect, perfect, 0.1)
    assert found["ppv"].value == 1.0
    assert found["ppv"].interval[0] < 0.4
    nobody = find_at_prevalence(make_figure(0.0, (0.0, 0.2), "Wilson"), make_figure(1.0, (0.8, 1.0), "Wilson"), 0.1)
    assert nobody["ppv"].value is None
    assert nobody["npv"].value == pytest.approx(0.9)
    without = find_at_prevalence(perfect, make_absent("no threshold was given"), 0.1)
    assert "no threshold was given" in without["npv"].reason
    for figure in (*found.values(), *nobody.values(), *without.values()):
        json.dumps(figure.as_json(), allow_nan=False)


def test_net_benefit_is_counted_patient_by_patient_at_the_cohorts_prevalence() -> None:
    rng = np.random.default_rng(2)
    positive = rng.random(90) < 0.4
    scores = rng.normal(size=90) + positive
    share = float(positive.mean())
    for row in find_net_benefit(scores, positive, prevalence=share, trained_prevalence=share, cuts=(0.2, 0.5)):
        called = expit(scores) >= row.cut
        harm = row.cut / (1 - row.cut)
        assert row.model == pytest.approx((called & positive).mean() - (called & ~positive).mean() * harm)
        assert row.everybody == pytest.approx(share - (1 - share) * harm)


def test_probabilities_are_moved_to_the_stated_prevalence() -> None:
    scores, positive = np.array([0.0, 0.0, -3.0, -3.0]), np.array([1, 1, 0, 0], bool)
    at_training, rare = (
        find_net_benefit(scores, positive, prevalence=p, trained_prevalence=0.5, cuts=(0.4,))[0].model
        for p in (0.5, 0.1)
    )
    assert at_training == pytest.approx(0.5)  # a probability of 0.5 is above the cut
    assert rare == 0.0  # and of 0.1 below it
    assert find_net_benefit(scores, np.ones(4, bool), prevalence=0.1, trained_prevalence=0.5) == []


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.2])
def test_a_prevalence_without_one_of_the_classes_is_refused(prevalence: float) -> None:
    share = make_figure(0.9, (0.8, 0.95), "Wilson")
    with pytest.raises(SettingsError, match="above 0 and below 1"):
        find_at_prevalence(share, share, prevalence)
