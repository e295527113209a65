"""Splits and rounds: laws for every cohort, and the refusals."""

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.cohort import (
    Cohort,
    CohortSlide,
    check_same_images,
    list_rounds,
    load_cohort,
    save_cohort,
    split_by_batch,
    split_folds,
    split_holdout,
)
from lamella.errors import CohortError, LeakageError, SettingsError


def make_cohort(*patients: tuple[str, str], batches: tuple[str, ...] = ()) -> Cohort:
    """One slide for each (patient, label), in order."""
    slides = tuple(
        CohortSlide(
            slide_id=f"S-{number:03d}",
            path=Path(f"/slides/S-{number:03d}.svs"),
            patient_id=patient,
            label=label,
            batch=batches[number] if batches else None,
        )
        for number, (patient, label) in enumerate(patients)
    )
    classes = tuple(sorted({label for _, label in patients}))
    return Cohort(slides=slides, classes=classes, positive=classes[-1])


@st.composite
def cohorts(draw: st.DrawFn, least: int = 3) -> Cohort:
    """Cohorts of two or three classes, with several slides for some patients."""
    classes = ["benign", "in situ", "malignant"][: draw(st.integers(2, 3))]
    rows = []
    for name in classes:
        for number in range(draw(st.integers(least, 12))):
            rows += [(f"{name}-{number}", name)] * draw(st.integers(1, 3))
    return make_cohort(*draw(st.permutations(rows)))


def sides_of_patients(cohort: Cohort) -> dict[str, set[object]]:
    sides: dict[str, set[object]] = {}
    for slide in cohort.slides:
        sides.setdefault(slide.patient_id, set()).add(slide.split if slide.fold is None else slide.fold)
    return sides


@given(cohorts(), st.integers(3, 6), st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_folds_keep_patients_together_test_each_slide_once_and_spread_classes(
    cohort: Cohort, n_folds: int, seed: int
) -> None:
    counts = Counter(label for _, label in {(slide.patient_id, slide.label) for slide in cohort.slides})
    if min(counts.values()) < n_folds:
        with pytest.raises(CohortError, match="needs one"):
            split_folds(cohort, n_folds=n_folds, seed=seed)
        return
    split = split_folds(cohort, n_folds=n_folds, seed=seed)
    assert all(len(sides) == 1 for sides in sides_of_patients(split).values())
    rounds = list_rounds(split)
    assert sorted(slide_id for one in rounds for slide_id in one.test) == sorted(s.slide_id for s in cohort.slides)
    for one in rounds:
        assert sorted(one.train + one.val + one.test) == sorted(slide.slide_id for slide in cohort.slides)
        assert one.val == rounds[(one.fold + 1) % n_folds].test
    patients = {(slide.patient_id, slide.label, slide.fold) for slide in split.slides}
    for name, total in counts.items():
        found = Counter(fold for _, label, fold in patients if label == name)
        assert all(abs(found[fold] - total / n_folds) < 1 for fold in range(n_folds))
    sizes = Counter(fold for _, _, fold in patients)
    assert max(sizes.values()) - min(sizes.values()) <= 1


@given(cohorts(), st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_a_holdout_keeps_patients_together_and_is_near_its_shares(cohort: Cohort, seed: int) -> None:
    split = split_holdout(cohort, seed=seed)
    assert all(len(sides) == 1 for sides in sides_of_patients(split).values())
    patients = {(slide.patient_id, slide.label, slide.split) for slide in split.slides}
    for name in cohort.classes:
        found = Counter(side for _, label, side in patients if label == name)
        for side, share in (("train", 0.65), ("val", 0.15), ("test", 0.20)):
            assert found[side] >= 1
            assert abs(found[side] - share * found.total()) <= 1


@given(cohorts(least=5), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_the_order_of_rows_changes_nothing(cohort: Cohort, random: object) -> None:
    shuffled = list(cohort.slides)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    other = replace(cohort, slides=tuple(shuffled))
    for split in (split_folds, split_holdout):
        assert set(split(cohort).slides) == set(split(other).slides)


@given(cohorts(least=5), st.sampled_from(["none", "folds", "holdout"]))
@settings(deadline=None, max_examples=30)
def test_save_then_load_is_identity(cohort: Cohort, plan: str) -> None:
    if plan != "none":
        cohort = split_folds(cohort) if plan == "folds" else split_holdout(cohort)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cohort.csv"
        save_cohort(cohort, path)
        loaded = load_cohort(path, positive=cohort.positive)
    assert (loaded.slides, loaded.classes, loaded.positive) == (cohort.slides, cohort.classes, cohort.positive)


def test_a_seed_gives_the_same_folds_on_every_machine() -> None:
    cohort = make_cohort(*((f"P{number}", "ab"[number % 2]) for number in range(12)))
    assert [slide.fold for slide in split_folds(cohort, n_folds=3).slides] == [2, 0, 1, 1, 2, 2, 1, 0, 0, 2, 0, 1]
    assert split_folds(cohort, n_folds=3, seed=1) != split_folds(cohort, n_folds=3)


def test_twenty_patients_are_held_out_as_65_15_20() -> None:
    rows = [(f"P{number}", "x" if number < 20 else "y") for number in range(60)]
    split = split_holdout(make_cohort(*rows))
    assert Counter((slide.label, slide.split) for slide in split.slides) == {
        ("x", "train"): 13,
        ("x", "val"): 3,
        ("x", "test"): 4,
        ("y", "train"): 26,
        ("y", "val"): 6,
        ("y", "test"): 8,
    }


def test_patients_with_mixed_labels_are_spread_like_a_class() -> None:
    rows = [(f"X{n}", "x") for n in range(7)] + [(f"Y{n}", "y") for n in range(4)]
    rows += [(f"M{n}", label) for n in range(3) for label in "xy"]
    split = split_folds(make_cohort(*rows), n_folds=3)
    homes = {slide.patient_id: slide.fold for slide in split.slides}
    assert {homes[f"M{n}"] for n in range(3)} == {0, 1, 2}


def test_too_few_patients_of_a_class_are_named_with_what_would_do() -> None:
    cohort = make_cohort(*((f"P{n}", "x") for n in range(9)), *((f"Q{n}", "y") for n in range(4)))
    with pytest.raises(CohortError) as error:
        split_folds(cohort)
    assert str(error.value) == (
        "class 'y' has 4 patients and each of 5 folds needs one. Pass --folds 4, or add patients of it."
    )
    with pytest.raises(CohortError, match=r"class 'y' has 2 patients .* needs one\. Add patients of it"):
        split_folds(make_cohort(("a", "x"), ("b", "x"), ("c", "x"), ("d", "y"), ("e", "y")), n_folds=3)
    with pytest.raises(CohortError, match=r"class 'y' is missing from (val|test) \(1 slide\)"):
        split_holdout(make_cohort(("a", "x"), ("b", "x"), ("c", "x"), ("d", "y"), ("e", "y")))


def test_settings_that_make_no_split_are_refused() -> None:
    cohort = make_cohort(("a", "x"), ("b", "y"))
    with pytest.raises(SettingsError, match="2 folds asked for and at least 3 are needed"):
        split_folds(cohort, n_folds=2)
    for shares in ((0.5, 0.5), (0.5, 0.5, 0.5), (1.2, -0.4, 0.2)):
        with pytest.raises(SettingsError, match="must be three above 0 that add up to 1"):
            split_holdout(cohort, shares=shares)


def test_a_patient_on_two_sides_is_refused_by_name() -> None:
    cohort = make_cohort(("P-17", "x"), ("P-17", "x"), ("P-2", "y"))
    sides = ("train", "test", "val")
    leaking = replace(cohort, slides=tuple(replace(s, split=k) for s, k in zip(cohort.slides, sides, strict=True)))
    with pytest.raises(LeakageError) as error:
        list_rounds(leaking)
    assert str(error.value) == (
        "patient 'P-17' is in both train and test (slides 'S-000', 'S-001'). Run: lamella split COHORT --out NEW"
    )
    folded = replace(cohort, slides=tuple(replace(s, fold=k) for k, s in enumerate(cohort.slides)))
    with pytest.raises(LeakageError, match="is in both fold 0 and fold 1"):
        list_rounds(folded)


def test_a_cohort_without_a_plan_or_with_a_class_missing_is_refused() -> None:
    cohort = make_cohort(*((f"P{n}", "xy"[n % 2]) for n in range(8)))
    with pytest.raises(CohortError, match=r"neither folds nor splits. Run: lamella split"):
        list_rounds(cohort)
    no_val = tuple(replace(slide, split="train" if n < 4 else "test") for n, slide in enumerate(cohort.slides))
    with pytest.raises(CohortError, match=r"class 'x' is missing from val \(0 slides\)\. Run: lamella split"):
        list_rounds(replace(cohort, slides=no_val))
    folds = (0, 0, 1, 1, 2, 2, 3, 3)
    four = tuple(replace(slide, fold=fold) for slide, fold in zip(cohort.slides, folds, strict=True))
    assert len(list_rounds(replace(cohort, slides=four))) == 4
    lone = tuple(replace(slide, fold=3 if n == 1 else slide.fold) for n, slide in enumerate(four))
    with pytest.raises(CohortError) as error:
        list_rounds(replace(cohort, slides=lone))
    assert str(error.value) == (
        "class 'y' is missing from test of round 0 (1 slide). Run: lamella split COHORT --out NEW --folds 3, "
        "or add slides of that class."
    )
    two = tuple(replace(slide, fold=n // 4) for n, slide in enumerate(cohort.slides))
    with pytest.raises(CohortError, match="has 2 folds and at least 3 are needed"):
        list_rounds(replace(cohort, slides=two))


def test_a_batch_of_one_class_tests_but_never_validates(shared_data: Path) -> None:
    cohort = split_by_batch(load_cohort(shared_data / "ucsb-breast" / "cohort.csv"))
    rounds = list_rounds(cohort)
    labels = {slide.slide_id: slide.label for slide in cohort.slides}
    assert len(rounds) == 7
    assert sum(len({labels[slide_id] for slide_id in one.test}) == 1 for one in rounds) == 1
    for one in rounds:
        assert {labels[slide_id] for slide_id in one.val} == {labels[slide_id] for slide_id in one.train}
        assert len({slide_id[:12] for slide_id in one.test}) == 1


def test_the_plan_by_batch_survives_saving(shared_data: Path, tmp_path: Path) -> None:
    cohort = split_by_batch(load_cohort(shared_data / "ucsb-breast" / "cohort.csv"))
    save_cohort(cohort, tmp_path / "batches.csv")
    assert list_rounds(load_cohort(tmp_path / "batches.csv")) == list_rounds(cohort)


def test_batches_that_cannot_be_left_out_are_refused() -> None:
    rows = [(f"P{n}", "xy"[n % 2]) for n in range(6)]
    with pytest.raises(CohortError, match=r"slides 'S-000', .* and 1 more have no batch"):
        split_by_batch(make_cohort(*rows))
    with pytest.raises(CohortError, match=r"has 2 batches \('A', 'B'\)"):
        split_by_batch(make_cohort(*rows, batches=("A", "A", "A", "B", "B", "B")))
    with pytest.raises(LeakageError, match="patient 'P0' has slides in batches 'A' and 'B'"):
        split_by_batch(make_cohort(*rows[:4], rows[0], rows[5], batches=("A", "A", "C", "C", "B", "B")))
    with pytest.raises(CohortError, match=r"leaving out batch 'A', no other batch holds all of 'x', 'y'"):
        split_by_batch(make_cohort(*rows, batches=("A", "A", "B", "C", "B", "C")))


def test_the_same_bytes_under_two_ids_are_refused() -> None:
    check_same_images({"A": "1", "B": "2"})
    with pytest.raises(LeakageError) as error:
        check_same_images({"B": "1", "A": "1", "C": "2", "D": "2", "E": "3"})
    assert str(error.value) == (
        "slides 'A', 'B' are the same image (the same bytes, or files of one slide) (and 1 more such group). "
        "Keep one of these rows in the cohort."
    )
