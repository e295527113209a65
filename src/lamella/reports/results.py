"""Results: `metrics.json` read back into a few plain classes. The only module that knows its keys.

What a file lacks is left out: an older or partial `metrics.json` still makes a page, which then says what is missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95% interval.

    Attributes:
        value: The estimate.
        low: Lower end of the interval; None where there is none.
        high: Upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Return it with two digits after the point.

        Example:
            >>> str(Estimate(0.9512, 0.861, 0.983)), str(Estimate(-0.004))
            ('0.95 (0.86 to 0.98)', '0.00')
        """
        if self.low is None or self.high is None:
            return format_number(self.value)
        return f"{format_number(self.value)} ({format_number(self.low)} to {format_number(self.high)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Results of a part of the slides: all, one batch, or patients.

    Attributes:
        name: Which part.
        n: How many slides or patients; None where not known.
        measures: Figures by name: `auc`, `auc_pooled`, `sensitivity` and so on.
        reasons: Why a figure cannot be had, by its name.
    """

    name: str
    n: int | None
    measures: Mapping[str, Estimate]
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Results of the model, or of a baseline on the same folds.

    Attributes:
        name: `model`, `left out`, `colour`, `tissue` or `batch`.
        slides: Results by slide; None where there are none.
        patients: Results by patient; None where they were not counted, or patients' slides differ in label.
        batches: Results within each batch.
        within_batches: AUC over pairs of the same fold and the same batch: what a batch's look cannot explain.
        calibration: `intercept` and `slope`, where known.
        reason: Why there are no results.
    """

    name: str
    slides: Group | None
    patients: Group | None = None
    batches: tuple[Group, ...] = ()
    within_batches: Estimate | None = None
    calibration: Mapping[str, Estimate] = field(default_factory=dict)
    reason: str = ""

    @property
    def headline(self) -> Group | None:
        """Results by patient where patients were scored, else by slide."""
        return self.slides if self.patients is None else self.patients

    @property
    def auc(self) -> Estimate | None:
        """The headline figure: AUC within folds."""
        return None if self.headline is None else self.headline.measures.get("auc")

    @property
    def counts_patients(self) -> bool:
        """Whether patients were scored and are fewer than slides."""
        return self.patients is not None and self.slides is not None and self.patients.n != self.slides.n


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTwoArm:
    """One line of the comparison of frozen and fine-tuned.

    Attributes:
        arm: `stage 1`, `head` (the control) or `tuned`.
        reading: `all` tiles, or its own `top` ones.
        auc: Within folds.
        less_stage_1: Paired difference from stage 1 of the same reading; None for stage 1 itself.
    """

    arm: str
    reading: str
    auc: Estimate | None
    less_stage_1: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a run found, as numbers.

    Attributes:
        model: The model itself.
        baselines: Colour, tissue and batch, where measured.
        left_out: The model with each batch left out in turn; None where this was not done.
        left_out_baselines: The baselines with each batch left out.
        thresholds: Probability from which a slide is called positive, by fold.
        threshold_note: How it was chosen.
        stage_two: Frozen, control and fine-tuned, where there was fine-tuning.
        cka: How far fine-tuning moved each block, a row a fold and seed.
        notes: What must be said beside the results.
    """

    model: Arm
    baselines: tuple[Arm, ...] = ()
    left_out: Arm | None = None
    left_out_baselines: tuple[Arm, ...] = ()
    thresholds: Mapping[int, float] = field(default_factory=dict)
    threshold_note: str = ""
    stage_two: tuple[StageTwoArm, ...] = ()
    cka: tuple[Json, ...] = ()
    notes: tuple[str, ...] = ()


def read_results(metrics: Json, pairs: Sequence[Json] = ()) -> Results | None:
    """Read the content of `metrics.json`, and the rows of `cka.json`.

    Returns:
        The results; None where the file holds none for the model.
    """
    arms = _find_map(metrics, "arms") or {}
    block, left_out = _find_map(arms, "model"), _find_map(arms, "leave_one_batch_out")
    if block is None:
        return None
    thresholds, note = _read_thresholds(metrics, block)
    return Results(
        model=_read_arm("model", block),
        baselines=_read_baselines(arms),
        left_out=None if left_out is None else _read_arm("left out", left_out),
        left_out_baselines=() if left_out is None else _read_baselines(left_out),
        thresholds=thresholds,
        threshold_note=note,
        stage_two=_read_stage_two(_find_map(metrics, "stage_two") or {}),
        cka=tuple(row for row in pairs if "cka" in row),
        notes=tuple(dict.fromkeys((*_read_notes(metrics), *_read_notes(block)))),
    )


def _read_stage_two(block: Json) -> tuple[StageTwoArm, ...]:
    arms = []
    for row in block.get("arms") or ():
        difference = row.get("less_stage_1")
        arms.append(
            StageTwoArm(
                arm=str(row["arm"]),
                reading=str(row["reading"]),
                auc=None if row.get("auc") is None else _with_interval(float(row["auc"]), row.get("interval")),
                less_stage_1=None
                if difference is None
                else _with_interval(float(difference["difference"]), difference.get("interval")),
            )
        )
    return tuple(arms)


def format_number(value: float, digits: int = 2) -> str:
    """Return a number with `digits` after the point, and no minus before a zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _read_baselines(block: Json) -> tuple[Arm, ...]:
    """Read what colour, tissue and batch alone reach."""
    found = _find_map(block, "baselines") or {}
    return tuple(_read_arm(name, one) for name, one in found.items() if isinstance(one, Mapping))


def _read_arm(name: str, block: Json) -> Arm:
    """Read one arm; the figures by slide stand in a block of their own or in the arm itself."""
    slides = _find_map(block, "slides") or block
    patients = _find_map(block, "patients")
    calibration = _find_map(slides if patients is None else patients, "calibration") or {}
    batches = block.get("batches") or ()
    groups = [_read_group("slides", slides), None if patients is None else _read_group("patients", patients)]
    by_slide, by_patient = (group if group is not None and group.measures else None for group in groups)
    return Arm(
        name=name,
        slides=by_slide,
        patients=by_patient,
        batches=tuple(_read_batches(batches)),
        within_batches=_read_estimate(block, "auc_within_batches"),
        calibration={key: found for key in ("intercept", "slope") if (found := _read_estimate(calibration, key))},
        reason=str(block.get("reason") or ""),
    )


def _read_group(name: str, block: Json) -> Group:
    """Read every figure of a block, and why others are not there."""
    measures = {key: found for key in MEASURES if (found := _read_estimate(block, key)) is not None}
    absent = {key: _find_map(block, key) or {} for key in MEASURES if key not in measures}
    n = block.get("n")
    return Group(
        name=name,
        n=n if isinstance(n, int) else None,
        measures=measures,
        reasons={key: str(found["reason"]) for key, found in absent.items() if found.get("reason")},
    )


def _read_batches(batches: Any) -> Iterator[Group]:
    """Read results by batch from a list of blocks that name theirs."""
    for block in batches if isinstance(batches, list) else ():
        if isinstance(block, Mapping):
            yield _read_group(str(block.get("batch", "")), block)


def _read_estimate(block: Json, key: str) -> Estimate | None:
    """Read a figure: a number (its interval under `<key>_interval`), or a block of value and interval."""
    found = block.get(key)
    if isinstance(found, bool):
        return None
    if isinstance(found, int | float):
        return _with_interval(float(found), block.get(f"{key}_interval"))
    if isinstance(found, Mapping):
        value = found.get("value", found.get("estimate"))
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _with_interval(float(value), found.get("interval") or [found.get("low"), found.get("high")])
    return None


def _with_interval(value: float, interval: Any) -> Estimate:
    if (
        isinstance(interval, list | tuple)
        and len(interval) == 2
        and all(isinstance(end, int | float) for end in interval)
    ):
        return Estimate(value, float(interval[0]), float(interval[1]))
    return Estimate(value)


def _read_thresholds(metrics: Json, block: Json) -> tuple[dict[int, float], str]:
    """Read the thresholds by fold, and how they were chosen."""
    found = block.get("thresholds") or metrics.get("thresholds")
    values, notes = {}, []
    for fold, one in found.items() if isinstance(found, Mapping) else ():
        value = one.get("value") if isinstance(one, Mapping) else one
        if isinstance(value, int | float) and str(fold).isdigit():
            values[int(fold)] = float(value)
        if isinstance(one, Mapping) and one.get("note"):
            notes.append(str(one["note"]))
    return values, "; in other folds ".join(dict.fromkeys(notes))


def _read_notes(block: Json) -> tuple[str, ...]:
    found = block.get("notes") or ()
    return tuple(str(note) for note in found) if isinstance(found, list | tuple) else (str(found),)


def _find_map(block: Json, *keys: str) -> Json | None:
    """Return the first block found under one of `keys`."""
    return next((found for key in keys if isinstance(found := block.get(key), Mapping)), None)


MEASURES = {
    "auc": "AUC within folds",
    "auc_pooled": "AUC, folds pooled",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
    "brier": "Brier score (lower is better)",
    "log_loss": "log-loss (lower is better)",
}
"""Figures that the page shows, in order, with their names in words."""
