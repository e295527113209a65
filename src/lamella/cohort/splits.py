"""Who tests when: folds and splits by patient, the classes spread evenly.

Patients are put in order by a SHA-256 of seed and id, not by a random generator: the same on every machine and
version, whatever the order of the rows. They are then dealt out one stratum after the other.
"""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from lamella.cohort.cohort import Cohort
from lamella.cohort.columns import SPLITS
from lamella.cohort.rounds import list_rounds
from lamella.defaults import N_FOLDS
from lamella.errors import CohortError, LeakageError, SettingsError
from lamella.words import name_some

HOLDOUT_SHARES = (0.65, 0.15, 0.20)


def split_folds(cohort: Cohort, *, n_folds: int = N_FOLDS, seed: int = 0) -> Cohort:
    """Give every slide the fold that tests it: patients stay together, classes are spread evenly.

    Each fold gets the same number of patients of a label, give or take one. Where patients have slides of several
    labels, each combination of labels is spread so.

    Args:
        cohort: Slides with labels; splits and folds they have are replaced.
        n_folds: Number of folds, at least 3: one tests, the next validates, the rest train.
        seed: Another seed, another deal.

    Raises:
        SettingsError: If `n_folds` is under 3.
        CohortError: If a class has fewer patients than there are folds.
    """
    if n_folds < 3:
        raise SettingsError(
            f"{n_folds} fold{'' if n_folds == 1 else 's'} asked for and at least 3 are needed: one tests, one "
            "validates, one trains. Pass --folds 3."
        )
    strata = _list_strata(cohort, seed)
    for name, count in _count_patients(cohort).items():
        if count < n_folds:
            fewest = min(_count_patients(cohort).values())
            remedy = f"Pass --folds {fewest}" if fewest >= 3 else "Add patients of it"
            raise CohortError(
                f"class '{name}' has {count} patient{'' if count == 1 else 's'} and each of {n_folds} folds needs one. "
                f"{remedy}{', or add patients of it' if fewest >= 3 else ''}."
            )
    # One deal through all strata: each stratum, and the whole, is even to within one patient.
    dealt = zip(itertools.chain.from_iterable(strata), itertools.cycle(range(n_folds)), strict=False)
    folds = dict(dealt)
    slides = tuple(replace(slide, split=None, fold=folds[slide.patient_id]) for slide in cohort.slides)
    return _checked(replace(cohort, slides=slides))


def split_holdout(cohort: Cohort, *, shares: Sequence[float] = HOLDOUT_SHARES, seed: int = 0) -> Cohort:
    """Give every slide a split, train, val or test: patients stay together, classes are spread evenly.

    Args:
        cohort: Slides with labels; splits and folds they have are replaced.
        shares: Shares of patients to train, validate and test on, 0 to 1, adding up to 1.
        seed: Another seed, another deal.

    Raises:
        SettingsError: If the shares are not three that add up to 1.
        CohortError: If a class has fewer than 3 patients.
    """
    if len(shares) != 3 or not all(share > 0 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise SettingsError(
            f"the shares of train, val and test are {', '.join(f'{share:g}' for share in shares)} and must be three "
            "above 0 that add up to 1, as in 0.65, 0.15, 0.20."
        )
    splits: dict[str, str] = {}
    owed = [0.0, 0.0, 0.0]
    for stratum in _list_strata(cohort, seed):
        counts = _share_out(len(stratum), shares, owed)
        owed = [debt + len(stratum) * share - count for debt, share, count in zip(owed, shares, counts, strict=True)]
        names = itertools.chain.from_iterable([name] * count for name, count in zip(SPLITS, counts, strict=True))
        splits.update(zip(stratum, names, strict=True))
    slides = tuple(replace(slide, fold=None, split=splits[slide.patient_id]) for slide in cohort.slides)
    return _checked(replace(cohort, slides=slides))


def split_by_batch(cohort: Cohort) -> Cohort:
    """Make each batch one fold, in the order of their names: leave-one-batch-out.

    A batch may hold one class only; `list_rounds` validates on the next batch that has all.

    Raises:
        CohortError: If slides have no batch, there are fewer than 3 batches, or too few hold all classes.
        LeakageError: If a patient has slides in two batches.
    """
    without = [slide.slide_id for slide in cohort.slides if slide.batch is None]
    if without:
        raise CohortError(
            f"slides {name_some(without)} have no batch, which leaving one batch out needs. "
            "Fill in the column batch, or name it with --batch-col."
        )
    batches = sorted({slide.batch for slide in cohort.slides if slide.batch is not None})
    if len(batches) < 3:
        raise CohortError(
            f"the cohort has {len(batches)} batch{'' if len(batches) == 1 else 'es'} ({name_some(batches)}) and "
            "leaving one out needs 3: one tests, one validates, one trains. Pass --folds 5 to split by patient."
        )
    homes: dict[str, str] = {}
    for slide in cohort.slides:
        home = homes.setdefault(slide.patient_id, slide.batch or "")
        if home != slide.batch:
            raise LeakageError(
                f"patient '{slide.patient_id}' has slides in batches '{home}' and '{slide.batch}', so leaving one out "
                "would train on a patient it tests. Pass --folds 5 to split by patient."
            )
    slides = tuple(replace(slide, split=None, fold=batches.index(slide.batch or "")) for slide in cohort.slides)
    return _checked(replace(cohort, slides=slides))


def _checked(cohort: Cohort) -> Cohort:
    """Return the cohort once its rounds hold every class."""
    list_rounds(cohort)
    return cohort


def _list_strata(cohort: Cohort, seed: int) -> list[list[str]]:
    """List the patients of each combination of labels, each list in an order that depends on seed and ids alone."""
    unlabelled = [slide.slide_id for slide in cohort.slides if slide.label is None]
    if unlabelled:
        raise CohortError(f"slides {name_some(unlabelled)} have no label and cannot be spread by class. Label them.")
    labels = _labels_by_patient(cohort)
    strata: dict[tuple[str, ...], list[str]] = {}
    for patient, seen in labels.items():
        strata.setdefault(tuple(sorted(seen)), []).append(patient)
    return [sorted(strata[key], key=lambda patient: (_draw(patient, seed), patient)) for key in sorted(strata)]


def _draw(patient: str, seed: int) -> bytes:
    """Return 32 bytes that are as good as random, the same for the same patient and seed."""
    return hashlib.sha256(f"{seed}\0{patient}".encode()).digest()


def _labels_by_patient(cohort: Cohort) -> Mapping[str, set[str]]:
    """Map each patient to the labels of its slides."""
    labels: dict[str, set[str]] = {}
    for slide in cohort.slides:
        labels.setdefault(slide.patient_id, set()).update(_known(slide.label))
    return labels


def _known(label: str | None) -> Iterable[str]:
    return () if label is None else (label,)


def _count_patients(cohort: Cohort) -> dict[str, int]:
    """Count the patients that have a slide of each class."""
    counts = Counter(itertools.chain.from_iterable(_labels_by_patient(cohort).values()))
    return {name: counts[name] for name in cohort.classes}


def _share_out(n: int, shares: Sequence[float], owed: Sequence[float]) -> list[int]:
    """Return how many of `n` patients each split gets: within one of its share, and one at least where `n` allows.

    Args:
        n: Patients to share out.
        shares: `(3,)` shares that add up to 1.
        owed: `(3,)` patients by which each split fell short so far; the remainder goes where most is owed.

    Example:
        >>> _share_out(20, (0.65, 0.15, 0.20), (0, 0, 0)), _share_out(4, (0.65, 0.15, 0.20), (0, 0, 0))
        ([13, 3, 4], [2, 1, 1])
    """
    ideal = [round(n * share, 9) for share in shares]
    counts = [math.floor(value) for value in ideal]
    due = [debt + value - count for debt, value, count in zip(owed, ideal, counts, strict=True)]
    # Only a split whose share is not whole may get one more, so that none strays more than one from its share.
    order = sorted((i for i in range(3) if ideal[i] > counts[i]), key=lambda i: -due[i])
    for i in order[: n - sum(counts)]:
        counts[i] += 1
    for i in range(3):
        if counts[i] == 0 and n >= 3:
            counts[i] += 1
            counts[counts.index(max(counts))] -= 1
    return counts
