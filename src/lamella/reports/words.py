"""Words and numbers of pages: how a figure is printed and what a thing is called, said once."""

import math
from collections.abc import Sequence
from typing import Self

NONE = "-"
_MOST_NAMED = 8
NOT_ADJUSTED = "Intervals are of 95%, each by itself: they are not adjusted for there being many."
HELD_FIXED = (
    "Bootstrap intervals hold the trained models fixed and draw patients; under cross-validation they are too narrow."
)
PRETRAINING = {"imagenet": "ImageNet", "histology": "histology", "random": "random"}
BASELINES = {
    "colour": "Colour alone",
    "tissue": "Tissue area, tile count",
    "amount": "Tissue area, tile count",
    "batch": "Batch alone",
}
MEASURES = {
    "auc": "AUC within folds",
    "auc_pooled": "AUC, folds pooled",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
    "brier": "Brier score",
    "log_loss": "log-loss",
}
MAP_MEASURES = {
    "tile_auc": "tile AUC",
    "tile_ap": "tile AP",
    "pixel_auc": "pixel AUC",
    "pixel_ap": "pixel AP",
    "pointing": "pointing",
    "top_k": "top k",
}
HEADS = {
    "attention": "Attention",
    "ilse": "Attention (Ilse)",
    "gated": "Gated attention",
    "mean": "Mean pooling",
    "max": "Max pooling",
    "clam-sb": "CLAM-SB",
    "transmil": "TransMIL",
    "additive": "Additive attention",
}
STAGE_TWO = {"stage 1": "frozen, the seeds fine-tuned", "head": "head only", "tuned": "fine-tuned"}


class Printed(str):
    """A printed number that still knows itself: a page shows the text, its data file holds the number.

    Attributes:
        value: The number; None where there is only an interval, or nothing.
        low: Lower end of its interval.
        high: Upper end.

    Example:
        >>> cell = format_number(0.91349)
        >>> cell, cell.value
        ('0.913', 0.91349)
    """

    __slots__ = ("high", "low", "value")
    value: float | None
    low: float | None
    high: float | None

    def __new__(
        cls, text: str, value: float | None = None, low: float | None = None, high: float | None = None
    ) -> Self:
        """Return the text with its numbers."""
        figure = super().__new__(cls, text)
        figure.value, figure.low, figure.high = value, low, high
        return figure

    def __getnewargs__(self) -> tuple[str, float | None, float | None, float | None]:  # type: ignore[override]
        """Return what a copy is made from."""
        return str(self), self.value, self.low, self.high


def format_number(value: float | None, digits: int = 3) -> Printed:
    """Return a number with so many digits, and no minus before a zero; a dash where there is none.

    Example:
        >>> format_number(0.91349), format_number(-0.0002), format_number(None)
        ('0.913', '0.000', '-')
    """
    if value is None or math.isnan(value):
        return Printed(NONE)
    text = f"{value:.{digits}f}"
    return Printed(text.removeprefix("-") if float(text) == 0 else text, value)


def format_short(value: float | None) -> Printed:
    """Return a number to three figures, never in powers of ten.

    Example:
        >>> format_short(0.0063108), format_short(1234.5), format_short(None)
        ('0.00631', '1234', '-')
    """
    if value is None:
        return Printed(NONE)
    text = f"{value:.3g}"
    return Printed(f"{value:.0f}" if "e+" in text else f"{value:.6f}" if "e-" in text else text, value)


def format_interval(interval: Sequence[float] | None, *, signed: bool = False) -> Printed:
    """Return an interval in words; a dash where there is none.

    Example:
        >>> format_interval([-0.12, 0.034], signed=True)
        '-0.120 to +0.034'
    """
    if interval is None:
        return Printed(NONE)
    low, high = interval
    sign = "+" if signed else ""
    return Printed(f"{low:{sign}.3f} to {high:{sign}.3f}", None, low, high)


def format_estimate(value: float | None, interval: Sequence[float] | None) -> Printed:
    """Return a number with its interval in one cell; a dash where there is none.

    Example:
        >>> format_estimate(0.9512, (0.861, 0.983)), format_estimate(0.5, None)
        ('0.951 (0.861 to 0.983)', '0.500')
    """
    if value is None or interval is None:
        return format_number(value)
    return Printed(f"{format_number(value)} ({format_interval(interval)})", value, *interval)


def format_count(n: int | None) -> Printed:
    """Return a whole number; a dash where it is not known.

    Example:
        >>> format_count(1200), format_count(None)
        ('1,200', '-')
    """
    return Printed(NONE) if n is None else Printed(f"{n:,}", n)


def format_share(share: float | None, digits: int = 1) -> Printed:
    """Return a share in per cent; a dash where there is none.

    Example:
        >>> format_share(0.0213)
        '2.1%'
    """
    return Printed(NONE) if share is None else Printed(f"{share:.{digits}%}", share)


def format_p(p: float | None) -> Printed:
    """Return a p value as it is printed.

    Example:
        >>> format_p(0.00021), format_p(0.0421)
        ('<0.001', '0.042')
    """
    return Printed(NONE) if p is None else Printed("<0.001" if p < 0.001 else f"{p:.3f}", p)


def format_seconds(seconds: float | None) -> Printed:
    """Return a duration in words.

    Example:
        >>> format_seconds(42.3), format_seconds(754), format_seconds(9000), format_seconds(None)
        ('42 s', '13 min', '2.5 h', '-')
    """
    if seconds is None:
        return Printed(NONE)
    minutes = seconds / 60
    text = f"{seconds:.0f} s" if seconds < 90 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
    return Printed(text, seconds)


def format_area(um2: float) -> Printed:
    """Return an area in mm², with three digits that matter.

    Example:
        >>> format_area(12_345_678.0), format_area(2.5e9)
        ('12.3', '2,500')
    """
    mm2 = um2 / 1e6
    return Printed(f"{mm2:,.0f}" if mm2 >= 100 else f"{mm2:.3g}", mm2)


def count(n: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "slide"), count(1200, "slide")
        ('1 slide', '1,200 slides')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def join_words(words: Sequence[str]) -> str:
    """Return words as in 'a, b and c'."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def name_some(names: Sequence[str]) -> str:
    """Name a few, and count the rest."""
    shown = names[:_MOST_NAMED]
    return join_words(shown) if len(names) <= _MOST_NAMED else f"{', '.join(shown)} and {len(names) - _MOST_NAMED} more"


def say_reversed(positive: str | None) -> str:
    """Return what to look for where the whole interval of an AUC lies below chance."""
    which = f" that '{positive}' is the class meant to be positive," if positive else ""
    return (
        "The 95% interval lies wholly below 0.50, so the scores rank the slides in reverse. Check"
        f"{which} that no two labels are swapped in the table or in the predictions' columns, and that training and "
        "test slides are labelled alike."
    )
