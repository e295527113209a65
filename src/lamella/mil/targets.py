"""What heads are trained on: the class of each slide, the weight of each class, the bag of each slide."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError, CohortError
from lamella.features.rows import StoredRows
from lamella.mil.batches import Bag


def find_class_weights(targets: NDArray[np.int64], n_classes: int) -> NDArray[np.float64]:
    """Return the weight of each class, `(C,)`: the inverse of its share, so that the mean over slides is 1.

    Example:
        >>> find_class_weights(np.array([0, 0, 0, 1]), 2).round(3).tolist()
        [0.667, 2.0]
    """
    counts = np.bincount(targets, minlength=n_classes)
    return len(targets) / (n_classes * counts)


def find_targets(
    labels: Mapping[str, str], train: Sequence[str], val: Sequence[str], classes: Sequence[str]
) -> NDArray[np.int64]:
    """Return the class index of each training slide, then of each validation slide."""
    both = sorted(set(train) & set(val))
    if both:
        raise CohortError(f"slide '{both[0]}' is in both train and val. Run: lamella split COHORT --out NEW")
    numbers = {name: number for number, name in enumerate(classes)}
    if len(numbers) < 2:
        raise CohortError(f"there is {len(numbers)} class and at least 2 are needed. Look at the label column.")
    for slide_id in (*train, *val):
        if labels.get(slide_id) not in numbers:
            raise CohortError(
                f"slide '{slide_id}' has label '{labels.get(slide_id)}' and must have one of "
                f"{', '.join(map(repr, classes))}. Correct the label column."
            )
    targets = np.array([numbers[labels[slide_id]] for slide_id in (*train, *val)], dtype=np.int64)
    missing = sorted(set(classes) - {labels[slide_id] for slide_id in train})
    if missing:
        raise CohortError(
            f"class '{missing[0]}' has no slide among the {len(train)} of train. Use fewer folds, or other splits."
        )
    return targets


def find_bag(bags: Mapping[str, Bag], slide_id: str) -> Bag:
    """Look a bag up, once."""
    try:
        bag = bags[slide_id]
    except KeyError as error:
        raise BagError(f"slide '{slide_id}' has no bag. Run: lamella extract, or leave the slide out.") from error
    return bag if isinstance(bag, StoredRows) else np.asarray(bag)
