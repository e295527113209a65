"""What a model says of a slide: the one class for it, whoever says it and of whichever slide."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lamella.cohort import CohortSlide


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Spread:
    """How far models differ on one slide.

    Attributes:
        sd: `(C,)` float64, SD of the probabilities.
        low: `(C,)` float64, the least.
        high: `(C,)` float64, the greatest.
    """

    sd: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlike:
    """How a slide is unlike those of training: a reason each, empty where it is not.

    Attributes:
        mpp: Its level 0 is finer or coarser.
        colour: Its tissue is stained or scanned otherwise.
        embedding: The encoder sees something else in it.
    """

    mpp: str = ""
    colour: str = ""
    embedding: str = ""

    @property
    def reasons(self) -> tuple[str, ...]:
        """All that is to be said."""
        return tuple(reason for reason in (self.mpp, self.colour, self.embedding) if reason)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlidePrediction:
    """What a model, or the mean of several, says about one slide.

    Attributes:
        logits: `(C,)` float64, with the class weights of the loss already taken off.
        probabilities: `(C,)` float64, the softmax of `logits`; they hold at the training prevalence.
        attention: `(N,)` float32, sums to 1 over the tiles, in the order of the bag; uniform for mean pooling.
        slide_id: Which slide; empty where a model was given features and not told whose, as are all that follow.
        patient_id: Whose.
        label: Its true class; None where that is not known.
        batch: Where it was scanned, say; None where that is not known.
        fold: Number of the round whose models say it; 0 for new slides.
        seed: Of the model; None for the mean of several.
        side: `test` or `val` of the round.
        spread: How far the folds' models differ, where several predicted a new slide.
        unlike: How a new slide is unlike those of training, where that is known.
    """

    logits: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    attention: NDArray[np.float32]
    slide_id: str = ""
    patient_id: str = ""
    label: str | None = None
    batch: str | None = None
    fold: int = 0
    seed: int | None = None
    side: str = "test"
    spread: Spread | None = None
    unlike: Unlike | None = None

    def of(
        self, slide: CohortSlide, *, fold: int = 0, seed: int | None = None, side: str = "test"
    ) -> "SlidePrediction":
        """Return the same prediction, told which slide it is of, and in which round a model says so."""
        return replace(
            self,
            slide_id=slide.slide_id,
            patient_id=slide.patient_id,
            label=slide.label,
            batch=slide.batch,
            fold=fold,
            seed=seed,
            side=side,
        )


def make_prediction(logits: NDArray[np.float64], attention: NDArray[np.floating]) -> SlidePrediction:
    """Return a prediction of `(C,)` logits and `(N,)` attention: their softmax, and attention that sums to 1."""
    shifted = np.exp(logits - logits.max())
    attention = attention.astype(np.float64)
    return SlidePrediction(
        logits=logits,
        probabilities=shifted / shifted.sum(),
        attention=(attention / attention.sum()).astype(np.float32),
    )


def average_predictions(predictions: Sequence[SlidePrediction]) -> SlidePrediction:
    """Return the mean of several models' logits, and of their attention, over the same tiles of one slide.

    It is of the slide, fold and side that the first of them is of, and of no seed.
    """
    first = predictions[0]
    mean = make_prediction(
        np.mean([prediction.logits for prediction in predictions], axis=0),
        np.mean([prediction.attention for prediction in predictions], axis=0),
    )
    return replace(first, logits=mean.logits, probabilities=mean.probabilities, attention=mean.attention, seed=None)
