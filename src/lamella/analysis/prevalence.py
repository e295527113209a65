"""What a model would be worth at a prevalence that is stated: PPV, NPV and net benefit."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from lamella.analysis.figure import Figure, make_absent, make_figure
from lamella.errors import SettingsError
from lamella.records import Record

Floats = NDArray[np.float64]
CUTS = tuple(round(0.05 * step, 2) for step in range(1, 20))


class NetBenefit(Record):
    """Net benefit of the model and of calling everybody positive, at a cut on the probability."""

    cut: float
    model: float
    everybody: float


def find_at_prevalence(sensitivity: Figure, specificity: Figure, prevalence: float) -> dict[str, Figure]:
    """Return `ppv` and `npv` as they would be at a prevalence, each with the prevalence it holds at.

    Sensitivity and specificity are taken to hold there too (Bayes). The interval goes from both of their lower limits
    to both upper ones, which is conservative.

    Args:
        sensitivity: As `measure` gives it.
        specificity: Likewise.
        prevalence: Share of the positive class, above 0 and below 1.

    Raises:
        SettingsError: If the prevalence is out of range.

    Example:
        >>> share = make_figure(0.9, (0.9, 0.9), "Wilson")
        >>> round(find_at_prevalence(share, share, 0.1)["ppv"].value, 3)
        0.5
    """
    check_prevalence(prevalence)
    for name, figure in (("sensitivity", sensitivity), ("specificity", specificity)):
        if figure.value is None:
            absent = make_absent(f"{name} cannot be had: {figure.reason}")
            return dict.fromkeys(("ppv", "npv"), absent.model_copy(update={"prevalence": prevalence}))
    # The NPV is the PPV of the other class.
    pairs = {"ppv": (sensitivity, specificity, prevalence), "npv": (specificity, sensitivity, 1 - prevalence)}
    figures = {}
    for key, (rate, other, share) in pairs.items():
        value = _predict_value(rate.value, other.value, share)
        low = high = None
        if rate.interval is not None and other.interval is not None:
            low, high = (_predict_value(rate.interval[end], other.interval[end], share) for end in (0, 1))
        figure = make_figure(
            value,
            None if value is None or low is None or high is None else (low, high),
            "Bayes, from the limits of sensitivity and specificity together",
            reason="no patient is called so" if value is None else None,
        )
        figures[key] = figure.model_copy(update={"prevalence": prevalence})
    return figures


def find_net_benefit(
    scores: Floats,
    positive: NDArray[np.bool_],
    *,
    prevalence: float,
    trained_prevalence: float,
    cuts: Sequence[float] = CUTS,
) -> list[NetBenefit]:
    """Return the net benefit of calling patients positive at each cut on the probability (Vickers and Elkin 2006).

    Se p - (1 - Sp) (1 - p) c / (1 - c) at prevalence p and cut c, per patient: true positives less false ones, these
    weighed as the cut weighs them. Probabilities are moved to the stated prevalence first (log-odds plus
    logit(p) - logit(trained prevalence)). Beside it calling everybody positive; calling nobody so is 0.

    Args:
        scores: `(n,)` log-odds of the positive class, as at training.
        positive: `(n,)` whether it is true; both occur.
        prevalence: Stated, above 0 and below 1.
        trained_prevalence: Of the training patients, above 0 and below 1.
        cuts: On the probability, above 0 and below 1.

    Returns:
        One a cut; none where a class is absent.

    Raises:
        SettingsError: If a prevalence is out of range.
    """
    check_prevalence(prevalence)
    check_prevalence(trained_prevalence)
    if positive.all() or not positive.any():
        return []
    moved = scores + float(logit(prevalence) - logit(trained_prevalence))
    rows = []
    for cut in cuts:
        called = moved >= float(logit(cut))
        weight = (1 - prevalence) * cut / (1 - cut)
        model = float(called[positive].mean()) * prevalence - float(called[~positive].mean()) * weight
        rows.append(NetBenefit(cut=cut, model=model, everybody=prevalence - weight))
    return rows


def check_prevalence(prevalence: float) -> None:
    """Refuse a prevalence at which there is nothing to predict."""
    if not 0 < prevalence < 1:
        raise SettingsError(
            f"prevalence is {prevalence} and must be above 0 and below 1. Give the share of positives, such as 0.1."
        )


def _predict_value(rate: float | None, other: float | None, share: float) -> float | None:
    """Return the share of true calls among calls; None where there are none."""
    if rate is None or other is None:
        return None
    hits, misses = rate * share, (1 - other) * (1 - share)
    return hits / (hits + misses) if hits + misses > 0 else None
