"""The page's charts: which ones a run can have, drawn, named and described for those who cannot see them."""

from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup

from lamella.reports.canvas import theme_chart
from lamella.reports.figures import (
    ForestRow,
    Scores,
    draw_calibration,
    draw_forest,
    draw_precision_recall,
    draw_roc,
    draw_scores,
)
from lamella.reports.record import RunRecord, SlideEntry
from lamella.reports.results import Arm
from lamella.reports.sentences import title_arm

_MOST_SERIES = 6
_MOST_BATCHES = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart of the page.

    Attributes:
        key: Where the page puts it.
        svg: The chart, in the page's own colours, with its description.
        caption: What it shows.
    """

    key: str
    svg: Markup
    caption: str


def draw_charts(record: RunRecord) -> dict[str, Chart]:
    """Draw every chart for which the run has numbers, by key: forest, batches, scores, roc, recall, calibration."""
    charts = [*_draw_comparisons(record)]
    predicted = [slide for slide in record.slides if slide.label and slide.probabilities]
    if predicted and record.positive:
        charts.append(_draw_probabilities(record, predicted))
        by_patient = record.results is not None and record.results.model.counts_patients
        charts += _draw_curves(record, average_patients(predicted) if by_patient else predicted)
    return {chart.key: chart for chart in charts}


def _draw_comparisons(record: RunRecord) -> list[Chart]:
    """Draw the model beside its baselines, and by batch."""
    if record.results is None:
        return []
    model = record.results.model
    arms = [model, *([record.results.left_out] if record.results.left_out else []), *record.results.baselines]
    charts = []
    rows = [row for arm in arms if (row := _make_row(arm, emphasised=arm is model))]
    if rows:
        caption = "AUC of the model and of baselines on the same slides and folds. Dotted: chance."
        charts.append(_finish("forest", draw_forest(rows), caption))
    batches = [
        ForestRow(name=group.name, value=auc.value, low=auc.low, high=auc.high)
        for group in model.batches
        if (auc := group.measures.get("auc")) is not None
    ]
    if 0 < len(batches) <= _MOST_BATCHES:
        caption = "AUC of the model among the slides of each batch that has both kinds. Dotted: chance."
        charts.append(_finish("batches", draw_forest(batches, name="batches"), caption))
    return charts


def _make_row(arm: Arm, *, emphasised: bool) -> ForestRow | None:
    """Return an arm as a line of the forest chart; None where it has no AUC."""
    auc = arm.auc
    if auc is None:
        return None
    return ForestRow(name=title_arm(arm), value=auc.value, low=auc.low, high=auc.high, emphasised=emphasised)


def _draw_probabilities(record: RunRecord, predicted: list[SlideEntry]) -> Chart:
    thresholds = sorted(set(record.results.thresholds.values())) if record.results else []
    shares = np.array([slide.probabilities.get(record.positive, np.nan) for slide in predicted])
    svg = draw_scores(
        shares, [slide.label for slide in predicted], positive=record.positive,
        thresholds=thresholds if len(record.classes) == 2 else (),
    )  # fmt: skip
    caption = f"Each dot is a slide, placed by its predicted probability of {record.positive}, one row a label."
    if thresholds and len(record.classes) == 2:
        caption += " Dashed: the threshold of each fold."
    return _finish("scores", svg, caption)


def _draw_curves(record: RunRecord, predicted: list[SlideEntry]) -> list[Chart]:
    """Draw ROC, precision-recall and calibration; with several classes each against the rest, without calibration."""
    two = len(record.classes) == 2
    wanted = [record.positive] if two else list(record.classes)[:_MOST_SERIES]
    series = [found for name in wanted if (found := _collect(predicted, name)) is not None]
    if not series:
        return []
    point = None
    if two and record.results is not None and record.results.model.headline is not None:
        measures = record.results.model.headline.measures
        if "sensitivity" in measures and "specificity" in measures:
            point = 1 - measures["specificity"].value, measures["sensitivity"].value
    pooled = "all folds together" if not record.external else "all slides"
    charts = [
        _finish(
            "roc",
            draw_roc(series, point=point),
            "ROC curve: the area under it is the AUC."
            if record.is_one_round
            else "ROC curve, the mean of the folds weighted by their pairs: the area under it is the AUC within folds.",
        ),
        _finish(
            "recall", draw_precision_recall(series), f"Precision and recall, {pooled}. Dotted: what chance reaches."
        ),
    ]
    if two:
        caption = (
            f"Calibration: the share of {record.positive} among those given about the same probability. "
            f"Each tick is one of them; {record.positive} above, others below."
        )
        charts.append(_finish("calibration", draw_calibration(series[0]), caption))
    return charts


def average_patients(slides: list[SlideEntry]) -> list[SlideEntry]:
    """Return one entry a patient, its probabilities from the mean logits of its slides."""
    by_patient: dict[str, list[SlideEntry]] = {}
    for slide in slides:
        by_patient.setdefault(slide.patient_id, []).append(slide)
    averaged = []
    for own in by_patient.values():
        names = list(own[0].probabilities)
        shares = np.array([[slide.probabilities.get(name, 0.0) for name in names] for slide in own])
        # A logit is the log of a probability but for a constant, which the normalisation takes off.
        mean = np.exp(np.log(np.maximum(shares, 1e-7)).mean(axis=0))
        averaged.append(replace(own[0], probabilities=dict(zip(names, (mean / mean.sum()).tolist(), strict=True))))
    return averaged


def _collect(predicted: list[SlideEntry], positive: str) -> Scores | None:
    """Return the scores of one class against the rest; None where only one kind of slides is there."""
    truth = np.array([slide.label == positive for slide in predicted])
    if truth.all() or not truth.any():
        return None
    return Scores(
        name=positive,
        truth=truth,
        score=np.array([slide.probabilities.get(positive, 0.0) for slide in predicted]),
        fold=np.array([0 if slide.fold is None else slide.fold for slide in predicted]),
    )


def _finish(key: str, svg: str, caption: str) -> Chart:
    """Give a chart its description and the page's colours."""
    return Chart(key=key, svg=theme_chart(svg, caption), caption=caption)
