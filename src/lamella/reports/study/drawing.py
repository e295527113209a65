"""Which charts a study can have: drawn from its record, in the page's colours, described for those who cannot see."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from lamella.reports.canvas import theme_chart
from lamella.reports.figures import BlockSeries, Scores, draw_alignment, draw_by_block, draw_calibration, draw_roc
from lamella.reports.study.arm_tables import number_arms
from lamella.reports.study.charts import ArmMark, PermutedMark, draw_cost, draw_forest, draw_permutations
from lamella.reports.study.evidence import BASELINES
from lamella.reports.study.record import StudyRecord
from lamella.reports.study.sentences import find_exchanged

_MOST_CURVES = 6
_MOST_TUNED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyChart:
    """A chart of the page.

    Attributes:
        svg: As screens and paper show it.
        caption: What it shows, and what must be known of its intervals.
        narrow: As phones show it; None where one serves both.
        title: A line above it.
    """

    svg: Markup
    caption: str
    narrow: Markup | None = None
    title: str = ""


def draw_arm_charts(record: StudyRecord) -> dict[str, StudyChart]:
    """Draw the forest of all arms and what they cost, by key; nothing where no arm ran."""
    if not record.arms:
        return {}
    marks = [_mark(record, one) for one in record.arms]
    forest = sorted(marks, key=lambda mark: (-mark.auc, not mark.emphasised, mark.name))
    numbered = sorted(marks, key=lambda mark: mark.number)
    widened = ", widened for cross-validation" if record.verdict.get("cross_validated") else ""
    spread = " Small dots are single folds: a spread, not an interval." if any(mark.folds for mark in marks) else ""
    return {
        "forest": _draw_both(
            "forest",
            draw_forest,
            forest,
            f"AUC of every arm with its 95% interval{widened}, not adjusted for there being many.{spread} In colour: "
            "what is recommended, and the highest. Dotted: chance.",
        ),
        "cost": _draw_both(
            "cost",
            draw_cost,
            numbered,
            "What an arm reaches against what it costs; numbers are those of the list. A line joins the depths of one "
            "encoder, frozen. Bars are 95% intervals, not adjusted; ringed: what is recommended, and the highest.",
        ),
    }


def draw_baselines(record: StudyRecord) -> StudyChart | None:
    """Draw the shown arm beside the baselines on the same folds; None where there are none."""
    known = {name: one for name, one in record.controls.get("baselines", {}).items() if one.get("value") is not None}
    if not known:
        return None
    marks = [_mark(record, one) for one in record.arms if one["arm"] == record.shown]
    marks += [
        ArmMark(name=BASELINES.get(name, name), auc=one["value"], low=_end(one, 0), high=_end(one, 1))
        for name, one in known.items()
    ]
    return _draw_both(
        "baselines",
        draw_forest,
        marks,
        "What is reached without looking at tissue closely, beside the shown arm; 95% intervals, not adjusted.",
    )


def draw_permuted(record: StudyRecord) -> StudyChart | None:
    """Draw the control with permuted labels; None where it did not run."""
    found = record.controls.get("permutations")
    if not found or not found.get("aucs"):
        return None
    own = found.get("auc")
    if own is None:
        own = next((one["auc"] for one in record.arms if one["arm"] == found["arm"]), 0.5)
    mark = PermutedMark(own=own, aucs=found["aucs"], within=find_exchanged(found))
    caption = "Everything retrained on permuted labels, a dot a run. Dotted: chance, where the dots should lie."
    return StudyChart(svg=theme_chart(draw_permutations(mark), caption), caption=caption)


def draw_curves(record: StudyRecord) -> dict[str, StudyChart]:
    """Draw ROC and calibration of the shown arm, ROC beside that of highest AUC; several classes against the rest."""
    if record.shown is None:
        return {}
    if len(record.classes) > 2:
        series = [_named(record.find_scores(record.shown, name), name) for name in record.classes[:_MOST_CURVES]]
    else:
        names = dict.fromkeys([record.shown, record.own.get("best_arm")])
        series = [record.find_scores(name, record.positive) for name in names if name]
    drawn = [one for one in series if one is not None]
    if not drawn:
        return {}
    caption = "ROC curve; the area under it is the AUC."
    if record.verdict.get("cross_validated"):
        caption = "ROC curve, the mean over folds weighted by their pairs: the area under it is the AUC within folds."
    if len(drawn) == 1 and len(np.unique(drawn[0].fold)) > 1:
        caption += " Thin lines are single folds: a spread, not an interval."
    charts = {"roc": StudyChart(svg=theme_chart(draw_roc(drawn), caption), caption=caption)}
    if len(record.classes) == 2:
        caption = (
            f"Calibration of {record.shown}: the share of {record.positive} among those given about the same "
            f"probability, with Wilson intervals, not adjusted. Each tick is one of them; {record.positive} above."
        )
        charts["calibration"] = StudyChart(svg=theme_chart(draw_calibration(drawn[0]), caption), caption=caption)
    return charts


def draw_cka(record: StudyRecord) -> list[StudyChart]:
    """Draw CKA by block of each fine-tuned arm, as the paper's figure 2, and the matrix where it is kept."""
    pairs = [pair for pair in record.cka.get("pairs", []) if "cka" in pair]
    charts, matrices = [], []
    for place, arm in enumerate(list(dict.fromkeys(pair["arm"] for pair in pairs))[:_MOST_TUNED]):
        own = [pair for pair in pairs if pair["arm"] == arm]
        caption = (
            f"CKA by block, {own[0].get('base', 'frozen')} against {arm}: 1 is unchanged. Bars are 95% jackknife "
            "intervals over slides, of each fold by itself."
        )
        svg = draw_by_block(_list_series(own), label="CKA", name=f"cka-{place}")
        charts.append(StudyChart(svg=theme_chart(svg, caption), caption=caption, title=arm))
        matrix = next((pair["matrix"] for pair in own if pair.get("matrix")), None)
        if matrix is not None:
            caption = f"Every block of the frozen encoder against every block of {arm}, one fold."
            svg = draw_alignment(np.array(matrix), first="frozen", second="fine-tuned", name=f"cka-matrix-{place}")
            matrices.append(StudyChart(svg=theme_chart(svg, caption), caption=caption, title=f"{arm}, all blocks"))
    return charts + matrices


def _list_series(pairs: Sequence[Mapping[str, Any]]) -> list[BlockSeries]:
    """Return the folds (of the first seed, five at most) and the mean of the control with random weights."""
    first = [pair for pair in pairs if pair["seed"] == pairs[0]["seed"]][: _MOST_CURVES - 1]
    series = [
        BlockSeries(
            name=f"fold {pair['fold']}",
            values=np.array(pair["cka"], dtype=np.float64),
            low=np.array(pair["low"], dtype=np.float64) if "low" in pair else None,
            high=np.array(pair["high"], dtype=np.float64) if "high" in pair else None,
        )
        for pair in first
    ]
    random = [pair["random"] for pair in pairs if pair.get("random")]
    if random:
        series.append(BlockSeries(name="random weights (control)", values=np.mean(random, axis=0)))
    return series


def _draw_both(key: str, draw: Any, marks: Sequence[ArmMark], caption: str) -> StudyChart:
    wide, narrow = (draw(marks, name=f"{key}{end}", narrow=bool(end)) for end in ("", "-narrow"))
    return StudyChart(svg=theme_chart(wide, caption), caption=caption, narrow=theme_chart(narrow, caption))


def _mark(record: StudyRecord, one: Mapping[str, Any]) -> ArmMark:
    row, folds = record.described.get(one["arm"], {}), one.get("fold_auc") or ()
    series = re.sub(r"@\d", "", one["arm"]).replace(", head only", "").replace(", tuned", "")
    return ArmMark(
        name=one["arm"],
        auc=one["auc"],
        low=one["interval"][0],
        high=one["interval"][1],
        folds=tuple(folds) if len(folds) > 1 else (),
        cost=max(float(one["cost"]), 1e-9),
        number=number_arms(record)[one["arm"]],
        series=series,
        finetuned=row.get("finetuned", "frozen"),
        emphasised=bool(record.kind_of(one["arm"])),
    )


def _named(scores: Scores | None, name: str) -> Scores | None:
    return None if scores is None else Scores(name=name, truth=scores.truth, score=scores.score, fold=scores.fold)


def _end(one: Mapping[str, Any], place: int) -> float | None:
    interval = one.get("interval")
    return None if interval is None else float(interval[place])
