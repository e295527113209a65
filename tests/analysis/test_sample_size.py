"""Patients needed."""

import numpy as np
import pytest

from lamella.analysis.auc import AucEstimate, estimate_auc
from lamella.analysis.differences import Differences, find_differences
from lamella.analysis.maxt import ALPHA, find_critical
from lamella.analysis.sample_size import PatientsNeeded, Question, find_patients_needed, round_up
from tests.analysis.contests import make_contest


def made(shifts: list[float], *, n: int = 300, shared: float = 0.9) -> tuple[AucEstimate, Differences, np.ndarray]:
    contest = make_contest(shifts, n=n, shared=shared)
    estimate = estimate_auc(contest.logits, contest.targets, folds=np.zeros_like(contest.folds))
    assert estimate is not None
    differences = find_differences(estimate)
    assert differences is not None
    return estimate, differences, contest.targets


def level(differences: Differences) -> Differences:
    """The same differences, all measured as 0: only errors are left."""
    fields = {name: getattr(differences, name) for name in Differences.__slots__}
    return Differences(**fields | {"values": np.zeros_like(differences.values)})


def ask(differences: Differences, margin: float = 0.05) -> Question:
    """What it takes for the first arm to be accepted against all others."""
    n = len(differences.values)
    everyone = np.arange(n)
    d = [find_critical(differences, b, everyone[everyone != b], level=ALPHA) for b in range(1, n)]
    return Question(arms=(0,) * (n - 1), others=tuple(range(1, n)), critical=np.array(d), margin=margin)


def needed(shifts: list[float], *, margin: float = 0.05, shared: float = 0.9) -> PatientsNeeded:
    estimate, differences, targets = made(shifts, shared=shared)
    differences = level(differences)
    found = find_patients_needed(estimate, differences, ask(differences, margin), targets=targets)
    assert found is not None
    return found


def test_two_arms_need_the_n_at_which_z_and_084_errors_make_the_margin() -> None:
    estimate, differences, targets = made([1.8, 1.8])
    differences = level(differences)
    found = find_patients_needed(estimate, differences, ask(differences), targets=targets)
    assert found is not None
    spread = (differences.errors[0, 1] ** 2 - differences.disagreement) * 300
    n = np.arange(2, 100_000)
    z = 1.96 + differences.skewness[0, 1] * np.sqrt(300 / n) * (2 * 1.96**2 + 1) / 6
    enough = (z + 0.8416) * np.sqrt(spread / n + differences.disagreement * (300 / n) ** 2) <= 0.05
    assert found.n == pytest.approx(int(n[enough][0]), rel=0.11)  # rounded up to two digits
    assert found.low <= found.n
    assert found.high is None or found.n <= found.high


def test_more_arms_and_smaller_margins_need_more_patients() -> None:
    assert needed([1.8] * 2).n < needed([1.8] * 9).n < needed([1.8] * 9, margin=0.02).n


def test_a_deficit_counts_and_one_of_the_margin_is_refuted() -> None:
    estimate, differences, targets = made([1.8, 1.8])
    numbers = []
    for deficit in (0.0, 0.02, 0.08):
        fields = {name: getattr(differences, name) for name in Differences.__slots__}
        behind = Differences(**fields | {"values": np.array([[0, deficit], [-deficit, 0]])})
        numbers.append(find_patients_needed(estimate, behind, ask(behind), targets=targets))
    assert numbers[0] is not None
    assert numbers[1] is not None
    # What counts is the deficit beyond 0.84 SE, which a fifth of studies of equal arms exceed.
    room = 0.05 - max(0.02 - 0.8416 * differences.errors[0, 1], 0)
    assert numbers[1].n == pytest.approx(numbers[0].n * (0.05 / room) ** 2, rel=0.15)
    assert numbers[2] is None


def test_the_noise_of_seeds_needs_more_patients() -> None:
    contest = make_contest([1.8, 1.8], n=300)
    estimate = estimate_auc(contest.logits, contest.targets, folds=contest.folds)
    assert estimate is not None
    numbers = []
    for spread in (0.0, 0.05):
        seeds = np.array([[0.8, 0.8, 0.8], [0.8 - spread, 0.8, 0.8 + spread]])
        differences = find_differences(estimate, seed_auc=seeds)
        assert differences is not None
        found = find_patients_needed(estimate, level(differences), ask(differences), targets=contest.targets)
        assert found is not None
        numbers.append(found.n)
    assert numbers[1] > 1.2 * numbers[0]


def test_slides_of_a_patient_count_as_one_patient() -> None:
    contest = make_contest([1.8, 1.8], n=240, shared=0.5)
    targets, logits = np.repeat(contest.targets, 3), np.repeat(contest.logits, 3, axis=1)
    patients = np.repeat(np.arange(240), 3)
    by_slide = estimate_auc(logits, targets, folds=np.zeros(720, int), patients=patients)
    by_patient = estimate_auc(contest.logits, contest.targets, folds=np.zeros(240, int))
    numbers = []
    for estimate, classes, groups in ((by_slide, targets, patients), (by_patient, contest.targets, None)):
        assert estimate is not None
        differences = find_differences(estimate)
        assert differences is not None
        differences = level(differences)
        found = find_patients_needed(estimate, differences, ask(differences), targets=classes, patients=groups)
        assert found is not None
        numbers.append(found.n)
    assert numbers[0] == pytest.approx(numbers[1], rel=0.15)


def test_arms_that_agree_on_every_patient_need_some_all_the_same() -> None:
    assert needed([1.8, 1.8, 1.8], shared=1.0).n > 20


def test_numbers_are_rounded_up_to_two_digits() -> None:
    assert [round_up(v) for v in (0.2, 161.0, 160.0, 99.5)] == [1, 170, 160, 100]
