"""A run's results in a few lines, for a terminal."""

from collections.abc import Mapping
from typing import Any

from lamella.reports.words import say_reversed

_ARMS = {"stage 1": "before (the seeds that go on)", "head": "head only (control)", "tuned": "encoder and head"}
_NAMES = {"colour": "baseline: colour", "tissue": "baseline: tissue area, tiles", "batch": "baseline: batch alone"}


def summarise_run(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row for the model, the batches left out, each baseline, and each arm of fine-tuning.

    Args:
        metrics: What `metrics.json` holds.
    """
    arms = metrics["arms"]
    # With several classes the figure is an average, and says of what.
    name = "model (mean of one-vs-rest AUCs)" if len(metrics.get("classes", ())) > 2 else "model"
    rows = [_row(name, arms["model"])]
    if "leave_one_batch_out" in arms:
        rows.append(_row("model, batches left out", arms["leave_one_batch_out"]))
    rows += [_row(_NAMES.get(name, name), found) for name, found in arms.get("baselines", {}).items()]
    later = (metrics.get("stage_two") or {}).get("arms", ())
    return rows + [_row_of_stage_two(one) for one in later if one["reading"] == "all"]


def list_remarks(metrics: Mapping[str, Any]) -> list[str]:
    """List what must be said with the figures: an interval wholly below chance.

    Args:
        metrics: What `metrics.json` holds.
    """
    arm = metrics["arms"]["model"]
    interval = ((arm.get("patients") or arm.get("slides") or {}).get("auc") or {}).get("interval")
    if interval is None or interval[1] >= 0.5:
        return []
    return [say_reversed(metrics.get("positive") if len(metrics.get("classes", ())) == 2 else None)]


def _row_of_stage_two(one: Mapping[str, Any]) -> dict[str, Any]:
    interval = one["interval"]
    return {
        "what": f"fine-tuning: {_ARMS.get(one['arm'], one['arm'])}",
        "AUC": None if one["auc"] is None else round(one["auc"], 3),
        "95% interval": "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
    }


def _row(name: str, arm: Mapping[str, Any]) -> dict[str, Any]:
    found = arm.get("patients") or arm.get("slides")
    if not found:
        return {"what": name, "95% interval": str(arm.get("reason", ""))}
    auc, pooled = found["auc"], found["auc_pooled"]
    interval = auc["interval"]
    return {
        "what": name,
        "AUC": None if auc["value"] is None else round(auc["value"], 3),
        "95% interval": auc["reason"] or "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
        "pooled AUC": None if pooled["value"] is None else round(pooled["value"], 3),
    }
