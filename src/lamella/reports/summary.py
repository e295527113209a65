"""A run's results in a few lines, for a terminal."""

from lamella.analysis.scores import Score
from lamella.reports.words import BASELINES, STAGE_TWO, format_interval, say_reversed
from lamella.runs.metrics import Metrics

Cells = dict[str, str | float | None]


def summarise_run(metrics: Metrics) -> list[Cells]:
    """Return one row for the model, the batches left out, each baseline, and each arm of fine-tuning.

    Args:
        metrics: Of the run.
    """
    arms = metrics.scores
    # With several classes the figure is an average, and says of what.
    name = "model (mean of one-vs-rest AUCs)" if len(metrics.classes) > 2 else "model"
    named = [(name, arms.model)]
    if arms.leave_one_batch_out is not None:
        named.append(("model, batches left out", arms.leave_one_batch_out))
    named += [(f"baseline: {BASELINES.get(name, name)}", arm) for name, arm in arms.baselines.items()]
    later = () if metrics.stage_two is None else metrics.stage_two.scores
    return [_row(name, arm) for name, arm in named] + [
        {
            "what": f"fine-tuning: {STAGE_TWO.get(arm.finetuned, arm.finetuned)}",
            "AUC": None if arm.auc is None else round(arm.auc, 3),
            "95% interval": "" if arm.interval is None else format_interval(arm.interval),
        }
        for arm in later
        if arm.reading == "all"
    ]


def list_remarks(metrics: Metrics) -> list[str]:
    """List what must be said with the figures: an interval wholly below chance.

    Args:
        metrics: Of the run.
    """
    interval = metrics.scores.model.auc.interval
    if interval is None or interval[1] >= 0.5:
        return []
    return [say_reversed(metrics.positive if len(metrics.classes) == 2 else None)]


def _row(name: str, arm: Score) -> Cells:
    measures = arm.headline_units
    if measures is None:
        return {"what": name, "95% interval": arm.reason or ""}
    auc, pooled = measures.auc, measures.auc_pooled
    return {
        "what": name,
        "AUC": None if auc.value is None else round(auc.value, 3),
        "95% interval": auc.reason or "" if auc.interval is None else format_interval(auc.interval),
        "pooled AUC": None if pooled.value is None else round(pooled.value, 3),
    }
