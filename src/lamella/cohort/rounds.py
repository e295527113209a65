"""Rounds: which slides train, validate and test together, and the checks that keep them apart."""

from collections.abc import Mapping
from dataclasses import dataclass

from lamella.cohort.cohort import Cohort, CohortSlide
from lamella.cohort.spelling import refuse_look_alikes
from lamella.errors import CohortError, LeakageError
from lamella.words import name_some

_SPLIT_AGAIN = "Run: lamella split COHORT --out NEW"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of cross-validation, or the only one.

    Attributes:
        fold: Number of the round, from 0.
        train: Ids of the slides to learn from, in the cohort's order.
        val: Ids of the slides to stop and to choose the threshold by.
        test: Ids of the slides to be scored on; nothing is learned from them.
    """

    fold: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def list_rounds(cohort: Cohort) -> tuple[Round, ...]:
    """List the rounds that a cohort's splits or folds ask for, checked.

    Fold k is tested in round k, the next one validates (after the last comes the first), the rest train. Where the
    folds are batches, the next batch *that holds all classes* validates, and the tested one may lack a class.
    Splits make one round, number 0.

    Raises:
        LeakageError: If a patient stands on two sides of a split.
        CohortError: If there are neither splits nor folds, or a class is missing from a side of a round.
    """
    if any(slide.fold is not None for slide in cohort.slides):
        _check_patients(cohort.slides, {slide.slide_id: f"fold {slide.fold}" for slide in cohort.slides})
        rounds = _list_fold_rounds(cohort)
    elif any(slide.split is not None for slide in cohort.slides):
        _check_patients(cohort.slides, {slide.slide_id: slide.split or "no split" for slide in cohort.slides})
        rounds = (_make_round(cohort, 0, {slide.slide_id: slide.split for slide in cohort.slides}),)
    else:
        raise CohortError(f"the cohort has neither folds nor splits. {_SPLIT_AGAIN}")
    for round_ in rounds:
        _check_classes(cohort, round_, n_rounds=len(rounds))
    return rounds


def check_same_images(hashes: Mapping[str, str]) -> None:
    """Refuse the same image under two ids.

    Args:
        hashes: Slide id to a hash of its file.

    Raises:
        LeakageError: Naming the ids that share a hash.

    Example:
        >>> check_same_images({"S-1": "ab12", "S-2": "cd34"})
    """
    same = list_same_images(hashes)
    if same:
        more = f" (and {len(same) - 1} more such group{'' if len(same) == 2 else 's'})" if len(same) > 1 else ""
        raise LeakageError(
            f"slides {name_some(same[0])} are the same image (the same bytes, or files of one slide){more}. "
            "Keep one of these rows in the cohort."
        )


def list_same_images(hashes: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """List the groups of ids that share a hash; ids and groups sorted."""
    groups: dict[str, list[str]] = {}
    for slide_id, digest in hashes.items():
        groups.setdefault(digest, []).append(slide_id)
    return tuple(sorted(tuple(sorted(ids)) for ids in groups.values() if len(ids) > 1))


def _list_fold_rounds(cohort: Cohort) -> tuple[Round, ...]:
    """Make a round for each fold."""
    n_folds = 1 + max(slide.fold for slide in cohort.slides if slide.fold is not None)
    if n_folds < 3:
        raise CohortError(
            f"the cohort has {n_folds} fold{'' if n_folds == 1 else 's'} and at least 3 are needed: one tests, one "
            f"validates, one trains. {_SPLIT_AGAIN}"
        )
    return tuple(_make_fold_round(cohort, fold, n_folds) for fold in range(n_folds))


def _make_fold_round(cohort: Cohort, fold: int, n_folds: int) -> Round:
    """Make the round in which `fold` tests."""
    validating = _find_complete_batch(cohort, fold, n_folds) if cohort.folds_are_batches else (fold + 1) % n_folds
    sides = {fold: "test", validating: "val"}
    return _make_round(cohort, fold, {slide.slide_id: sides.get(slide.fold or 0, "train") for slide in cohort.slides})


def _find_complete_batch(cohort: Cohort, fold: int, n_folds: int) -> int:
    """Return the next fold after `fold` that holds every class."""
    for step in range(1, n_folds):
        other = (fold + step) % n_folds
        if {slide.label for slide in cohort.slides if slide.fold == other} >= set(cohort.classes):
            return other
    batch = next(slide.batch for slide in cohort.slides if slide.fold == fold)
    raise CohortError(
        f"leaving out batch '{batch}', no other batch holds all of {name_some(cohort.classes)} to validate on. "
        "Pass --folds 5 to split by patient."
    )


def _make_round(cohort: Cohort, fold: int, sides: Mapping[str, str | None]) -> Round:
    """Gather the ids of each side, in the cohort's order."""
    train, val, test = (
        tuple(slide.slide_id for slide in cohort.slides if sides[slide.slide_id] == side)
        for side in ("train", "val", "test")
    )
    return Round(fold=fold, train=train, val=val, test=test)


def _check_patients(slides: tuple[CohortSlide, ...], sides: Mapping[str, str]) -> None:
    """Refuse a patient on two sides, naming a slide on each, and patients that a person would take for one."""
    refuse_look_alikes(
        dict.fromkeys(slide.patient_id for slide in slides), whose="the cohort", what="patients", plural="patient ids"
    )
    first: dict[str, CohortSlide] = {}
    for slide in slides:
        other = first.setdefault(slide.patient_id, slide)
        if sides[other.slide_id] != sides[slide.slide_id]:
            raise LeakageError(
                f"patient '{slide.patient_id}' is in both {sides[other.slide_id]} and {sides[slide.slide_id]} "
                f"(slides '{other.slide_id}', '{slide.slide_id}'). {_SPLIT_AGAIN}"
            )


def _check_classes(cohort: Cohort, round_: Round, *, n_rounds: int) -> None:
    """Refuse a round with a class missing from a side (a tested batch may lack one)."""
    labels = {slide.slide_id: slide.label for slide in cohort.slides}
    for side, ids in (("train", round_.train), ("val", round_.val), ("test", round_.test)):
        missing = [name for name in cohort.classes if name not in {labels[slide_id] for slide_id in ids}]
        if not missing or (side == "test" and cohort.folds_are_batches):
            continue
        where = f" of round {round_.fold}" if n_rounds > 1 else ""
        remedy = f"{_SPLIT_AGAIN} --folds {max(3, n_rounds - 1)}" if n_rounds > 3 else _SPLIT_AGAIN
        raise CohortError(
            f"class '{missing[0]}' is missing from {side}{where} ({len(ids)} slide{'' if len(ids) == 1 else 's'}). "
            f"{remedy}, or add slides of that class."
        )
