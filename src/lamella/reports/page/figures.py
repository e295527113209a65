"""Which charts a page can have, as the numbers that they are drawn from."""

from collections.abc import Sequence

import numpy as np

from lamella.analysis.figure import Figure
from lamella.analysis.verdict import ArmVerdict
from lamella.explain.records import CkaPair
from lamella.reports.charts.marks import ArmMark, BlockMark, BudgetMark, PairMark, PermutedMark, ScoreMark
from lamella.reports.page.arms import number_arms
from lamella.reports.page.parts import Chart, Charts
from lamella.reports.record import Record
from lamella.reports.words import BASELINES

_MOST_CURVES = 6
_MOST_TUNED = 8
_MOST_BATCHES = 30


def chart_arms(record: Record) -> Charts | None:
    """Return the forest of all arms; None where no arm ran."""
    if record.study is None:
        return _chart_run(record)
    if not record.arms:
        return None
    marks = _mark_arms(record)
    marks.sort(key=lambda mark: (-mark.auc, not mark.emphasised, mark.name))
    widened = "" if record.is_one_round else ", widened for cross-validation"
    spread = " Small dots are single folds: a spread, not an interval." if any(mark.folds for mark in marks) else ""
    caption = (
        f"AUC of every arm with its 95% interval{widened}, not adjusted for there being many.{spread} In colour: what "
        "is recommended, and the highest. Dotted: chance."
    )
    return _alone(Chart(key="forest", drawn="forest", marks=tuple(marks), caption=caption))


def _chart_run(record: Record) -> Charts | None:
    """Return the model of a run beside its baselines."""
    metrics = record.shown_metrics
    figures = [] if metrics is None else [(str(record.shown), metrics.auc)]
    if record.left_out is not None:
        figures.append((f"{record.shown}, batches left out", record.left_out.auc))
    figures += [(BASELINES.get(name, name), figure) for name, figure in record.controls.baselines.items()]
    marks = tuple(
        mark for name, figure in figures if (mark := _mark_figure(name, figure, emphasised=name == record.shown))
    )
    caption = "AUC of the model and of baselines on the same slides and folds, with 95% intervals. Dotted: chance."
    return _alone(Chart(key="forest", drawn="forest", marks=marks, caption=caption)) if marks else None


def chart_batches(record: Record) -> Charts | None:
    """Return the AUC within each batch; None where no batch has any, or there are too many."""
    marks = tuple(
        mark for batch in record.controls.batches if (mark := _mark_figure(str(batch.batch), batch.auc)) is not None
    )
    if not 0 < len(marks) <= _MOST_BATCHES:
        return None
    caption = (
        f"AUC of {record.controls.arm or record.shown} among the {record.unit}s of each batch that has both kinds."
    )
    return _alone(Chart(key="batch-forest", drawn="forest", marks=marks, caption=f"{caption} Dotted: chance."))


def chart_cost(record: Record) -> Charts | None:
    """Return what arms reach against what they cost; None where no arm ran, or that of one is not known."""
    if not record.arms or any(arm.cost is None for arm in record.arms):
        return None
    caption = (
        "What an arm reaches against what it costs; numbers are those of the list. A line joins the depths of one "
        "encoder, frozen. Bars are 95% intervals, not adjusted; ringed: what is recommended, and the highest."
    )
    marks = sorted(_mark_arms(record), key=lambda mark: mark.number)
    labels = (record.cost_unit,) if record.cost_unit else ()
    return _alone(Chart(key="cost-chart", drawn="cost", marks=tuple(marks), caption=caption, labels=labels))


def chart_budgets(record: Record) -> Charts | None:
    """Return AUC against tiles a slide; None where no two arms that ran differ in their number of tiles alone."""
    lines: dict[str, list[BudgetMark]] = {}
    for arm in record.arms:
        described = record.described.get(arm.arm)
        if described is None or not described.mean_tiles:
            continue
        most = "" if described.tiles_per_slide is None else f", {described.tiles_per_slide} tiles"
        series = arm.arm.replace(most, "", 1)
        mark = BudgetMark(
            series=series, n_tiles=described.mean_tiles, auc=arm.auc, low=arm.interval[0], high=arm.interval[1]
        )
        lines.setdefault(series, []).append(mark)
    marks = tuple(mark for line in lines.values() if len(line) > 1 for mark in line)
    if not marks:
        return None
    caption = (
        "AUC against how many tiles of a slide are encoded and read, the same tiles for all arms. Bars are 95% "
        "intervals, not adjusted; whether fewer tiles are enough is said by the verdict, whose costs count them."
    )
    return _alone(Chart(key="budget-chart", drawn="budgets", marks=marks, caption=caption))


def chart_baselines(record: Record) -> Charts | None:
    """Return the shown arm beside the baselines on the same folds; None where there are none."""
    marks = [mark for mark in _mark_arms(record) if mark.name == record.shown]
    known = [
        mark
        for name, figure in record.controls.baselines.items()
        if (mark := _mark_figure(BASELINES.get(name, name), figure)) is not None
    ]
    if not known:
        return None
    caption = "Baselines that ignore morphology, beside the shown arm; 95% intervals, not adjusted."
    return _alone(Chart(key="baseline-forest", drawn="forest", marks=(*marks, *known), caption=caption))


def chart_permuted(record: Record) -> Charts | None:
    """Return the control with permuted labels; None where it did not run."""
    control = record.controls.permutations
    if control is None or not control.aucs:
        return None
    auc = control.auc
    if auc is None:
        auc = next((arm.auc for arm in record.arms if arm.arm == control.arm), 0.5)
    marks = (
        PermutedMark(series="own", auc=auc),
        *(PermutedMark(series="all pairs", auc=permuted) for permuted in control.aucs),
        *(PermutedMark(series="exchanged only", auc=permuted) for permuted in control.exchanged),
    )
    caption = "Everything retrained on permuted labels, a dot a run. Dotted: chance, where the dots should lie."
    return Charts(charts=(Chart(key="permutations", drawn="permuted", marks=marks, caption=caption),), shape="square")


def chart_curves(record: Record) -> Charts | None:
    """Return ROC, precision-recall and calibration of the shown arm; several classes each against the rest.

    ROC stands beside that of the arm of highest AUC, where that is another.
    """
    shown = record.shown
    if shown is None:
        return None
    two = len(record.classes) == 2
    if two:
        names = dict.fromkeys(name for name in (shown, record.conclusion.best_arm) if name)
        series = [record.list_scores(name, record.positive) for name in names]
    else:
        series = [record.list_scores(shown, name, series=name) for name in record.classes[:_MOST_CURVES]]
    series = [marks for marks in series if marks]
    if not series:
        return None
    caption = "ROC curve; the area under it is the AUC."
    if not record.is_one_round and not record.is_external:
        caption = "ROC curve, the mean over folds weighted by their pairs: the area under it is the AUC within folds."
    if len(series) == 1 and len({mark.fold for mark in series[0]}) > 1:
        caption += " Thin lines are single folds: a spread, not an interval."
    marks = tuple(mark for group in series for mark in group)
    pooled = "all slides" if record.is_external else "all folds together"
    charts = [
        Chart(key="roc", drawn="roc", marks=marks, caption=caption, guides=_find_point(record) if two else ()),
        Chart(
            key="recall",
            drawn="recall",
            marks=marks,
            caption=f"Precision and recall, {pooled}. Dotted: what chance reaches.",
        ),
    ]
    if two:
        caption = (
            f"Calibration of {shown}: the share of {record.positive} among those given about the same probability, "
            f"with Wilson intervals, not adjusted. Each tick is one of them; {record.positive} above."
        )
        charts.append(Chart(key="calibration", drawn="calibration", marks=tuple(series[0]), caption=caption))
    return Charts(charts=tuple(charts), shape="square")


def _find_point(record: Record) -> tuple[float, ...]:
    """Return (1 - specificity, sensitivity) at the thresholds in use; nothing where none are."""
    metrics = record.shown_metrics
    measures = None if metrics is None or not record.thresholds else metrics.headline_units
    if measures is None or measures.sensitivity.value is None or measures.specificity.value is None:
        return ()
    return 1 - measures.specificity.value, measures.sensitivity.value


def chart_scores(record: Record) -> Charts | None:
    """Return each slide's probability as a dot; None where nothing was predicted."""
    if record.shown is None:
        return None
    scores = record.list_scores(record.shown, record.positive, series=record.positive, by_slide=True)
    if not scores:
        return None
    two = len(record.classes) == 2
    thresholds = tuple(sorted(set(record.thresholds.values()))) if two else ()
    caption = f"Each dot is a {record.unit}, placed by its predicted probability of {record.positive}, one row a label."
    if thresholds:
        caption += " Dashed: the threshold of each fold."
    marks: tuple[ScoreMark, ...] = tuple(scores)
    return _alone(Chart(key="scores", drawn="scores", marks=marks, caption=caption, guides=thresholds))


def chart_cka(record: Record) -> Charts | None:
    """Return CKA by block of each fine-tuned arm, as the paper's figure 2, and the matrix where it is kept."""
    pairs = [pair for pair in record.cka if pair.cka]
    charts, matrices = [], []
    for number, arm in enumerate(list(dict.fromkeys(pair.arm for pair in pairs))[:_MOST_TUNED]):
        group = [pair for pair in pairs if pair.arm == arm]
        caption = (
            f"CKA by block, {group[0].base} against {arm}: 1 is unchanged. Bars are 95% jackknife intervals over "
            "slides, of each fold by itself."
        )
        marks = tuple(_list_block_marks(group))
        charts.append(Chart(key=f"cka-{number}", drawn="blocks", marks=marks, caption=caption, title=arm))
        matrix = next((pair.matrix for pair in group if pair.matrix), None)
        if matrix is not None:
            matrices.append(
                Chart(
                    key=f"cka-matrix-{number}",
                    drawn="alignment",
                    marks=tuple(
                        PairMark(first=first, second=second, value=value)
                        for first, row in enumerate(matrix, 1)
                        for second, value in enumerate(row, 1)
                    ),
                    caption=f"Every block of the frozen encoder against every block of {arm}, one fold.",
                    title=f"{arm}, all blocks",
                    labels=("frozen", "fine-tuned"),
                )
            )
    return Charts(charts=(*charts, *matrices), shape="broad") if charts else None


def _list_block_marks(pairs: Sequence[CkaPair]) -> list[BlockMark]:
    """Return the folds (of the first seed, five at most) and the mean of the control with random weights."""
    first = [pair for pair in pairs if pair.seed == pairs[0].seed][: _MOST_CURVES - 1]
    marks = [
        BlockMark(
            series=f"fold {pair.fold}",
            block=block + 1,
            value=np.nan if value is None else value,
            low=None if pair.low is None else pair.low[block],
            high=None if pair.high is None else pair.high[block],
        )
        for pair in first
        for block, value in enumerate(pair.cka)
    ]
    random = [pair.random for pair in pairs if pair.random]
    means = np.mean(np.array(random, dtype=np.float64), axis=0).tolist() if random else []
    return marks + [
        BlockMark(series="random weights (control)", block=block, value=value) for block, value in enumerate(means, 1)
    ]


def _alone(chart: Chart) -> Charts:
    return Charts(charts=(chart,))


def _mark_figure(name: str, figure: Figure, *, emphasised: bool = False) -> ArmMark | None:
    if figure.value is None:
        return None
    low, high = figure.interval or (None, None)
    return ArmMark(name=name, auc=figure.value, low=low, high=high, emphasised=emphasised)


def _mark_arms(record: Record) -> list[ArmMark]:
    numbers = number_arms(record)
    return [_mark_arm(record, arm, numbers[arm.arm]) for arm in record.arms]


def _mark_arm(record: Record, arm: ArmVerdict, number: int) -> ArmMark:
    described = record.described.get(arm.arm)
    folds = tuple(auc for auc in arm.fold_auc if auc is not None)
    return ArmMark(
        name=arm.arm,
        auc=arm.auc,
        low=arm.interval[0],
        high=arm.interval[1],
        folds=folds if len(folds) > 1 else (),
        cost=max(arm.cost or 0.0, 1e-9),
        number=number,
        series=arm.arm if described is None else ", ".join(described.series),
        finetuned="frozen" if described is None else described.finetuned,
        emphasised=bool(record.kind_of(arm.arm)),
    )
