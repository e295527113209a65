"""What a folder of a run or of a study holds: one record for both, since a run is a study of one arm.

Pages are made from this alone, never from objects of a running study, so they can be made again years later.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lamella.analysis.figure import NO_FIGURE, Figure
from lamella.analysis.scores import Score
from lamella.analysis.verdict import ArmVerdict, Conclusion, ExternalVerdict, Verdict
from lamella.defaults import UnitName
from lamella.explain.records import CkaPair, Localisation
from lamella.reports.charts.marks import ScoreMark
from lamella.runs.metrics import StageTwoScore
from lamella.runs.record import RunRecord
from lamella.studies.looks import Controls
from lamella.studies.record import ArmRecord, EncoderCost, StudyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideRecord:
    """One slide.

    Attributes:
        slide_id: Its key.
        patient_id: Whose it is.
        label: Its class; empty where not known.
        batch: Its batch; empty where not known.
        split: `train`, `val` or `test`; empty with folds.
        fold: Round in which it was tested; None where it was not.
        n_tiles: How many tiles it has; None where not known.
        shares: Its probabilities by class, as the shown arm sees it; empty where it was not predicted. Where patients
            are predicted, those of its patient.
        slides: Of a patient, its slides: `slide_id` is the patient's then.
    """

    slide_id: str
    patient_id: str
    label: str
    batch: str = ""
    split: str = ""
    fold: int | None = None
    n_tiles: int | None = None
    shares: Mapping[str, float]
    slides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What the shown arm says of a slide.

    Attributes:
        slide: Which slide.
        predicted: The class it is called.
        probability: Of the positive class; with several classes of its label, or of the predicted one without a label.
        loss: Log-loss of its label: the larger, the worse the error; None without a label.
        right: Whether the predicted class is its label; None without a label.
    """

    slide: SlideRecord
    predicted: str
    probability: float
    loss: float | None
    right: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """Tissue of one slide after one step: area kept and taken away, um2."""

    slide_id: str
    step: str
    kept_um2: float
    removed_um2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRow:
    """A slide that could not be done: where it stopped and why."""

    slide_id: str
    stage: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Record:
    """What a folder holds.

    Attributes:
        folder: Where it lies.
        run: `run.json`; None of a study, and where it is absent.
        study: `study.json`; None of a run.
        classes: Labels, in the order of the predictions' columns.
        scored: The class whose probability is shown; None with several classes of which none is positive.
        shown: Name of the arm whose slides and curves are shown; None where none ran.
        unit: What is predicted: slides, or patients, whose slides are one bag each.
        slides: Of the cohort, in its order.
        predictions: Of the tested slides, a row an arm and slide: `arm slide_id patient_id label fold logit_<class>`.
        metrics: By arm.
        baselines: Every measure of a run's baselines, by name; `controls` has their AUC, of a study too.
        left_out: Of a run's model with each batch left out; None where that was not done.
        stage_two: Frozen, control and fine-tuned, of a run.
        verdict: Of a study whose arms ran.
        external: Of predictions by several models: whether what was recommended holds for these patients.
        controls: Permuted labels, baselines, batches.
        within_batches: AUC of the shown arm over pairs of the same fold and batch.
        thresholds: Of the shown arm, by fold; empty where the likeliest class counts.
        threshold_note: How these were chosen.
        cka: Fine-tuned encoders against frozen ones.
        localisation: Maps against outlines, by arm.
        no_localisation: Why there are none, where that was written down.
        costs: On what arms were timed.
        ledger: Tissue by slide and step.
        failures: Slides that could not be done.
        notes: What must be said with the results.
        missing: Files that are not there, in words.
    """

    folder: Path
    run: RunRecord | None
    study: StudyRecord | None
    classes: tuple[str, ...]
    scored: str | None
    shown: str | None
    unit: UnitName = "slide"
    slides: tuple[SlideRecord, ...]
    predictions: pd.DataFrame
    metrics: Mapping[str, Score]
    baselines: Mapping[str, Score] = field(default_factory=dict)
    left_out: Score | None = None
    stage_two: tuple[StageTwoScore, ...] = ()
    verdict: Verdict | None = None
    external: ExternalVerdict | None = None
    controls: Controls = field(default_factory=Controls)
    within_batches: Figure = field(default=NO_FIGURE)
    thresholds: Mapping[int, float]
    threshold_note: str = ""
    cka: tuple[CkaPair, ...] = ()
    localisation: tuple[Localisation, ...] = ()
    no_localisation: str = ""
    costs: tuple[EncoderCost, ...] = ()
    ledger: tuple[LedgerRow, ...] = ()
    failures: tuple[FailureRow, ...] = ()
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def positive(self) -> str:
        """The class that is scored, or the last."""
        return self.scored or self.classes[-1]

    @property
    def is_external(self) -> bool:
        """Whether the slides are new to the models (`lamella predict`)."""
        return self.run is not None and self.run.external

    @property
    def is_one_round(self) -> bool:
        """Whether all slides were tested in one round: a split of train, val and test, no cross-validation."""
        if self.study is not None:
            return self.verdict is not None and not self.verdict.cross_validated
        return not self.is_external and len({slide.fold for slide in self.slides if slide.fold is not None}) == 1

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the packages that bear on results."""
        content = self.study or self.run
        return {} if content is None else content.versions

    @property
    def cost_unit(self) -> str:
        """What costs are in, where they were given and not measured here; else nothing."""
        return "" if self.study is None else self.study.cost_unit or ""

    @property
    def arms(self) -> tuple[ArmVerdict, ...]:
        """What the verdict says of each arm that ran."""
        return () if self.verdict is None else self.verdict.arms

    @property
    def conclusion(self) -> Conclusion:
        """What to use; empty where no arm ran."""
        return Conclusion() if self.verdict is None else self.verdict.verdict

    @property
    def described(self) -> Mapping[str, ArmRecord]:
        """Each arm of the design, by name."""
        return {} if self.study is None else {arm.arm: arm for arm in self.study.arms}

    @property
    def shown_metrics(self) -> Score | None:
        """Every measure of the shown arm."""
        return self.metrics.get(self.shown or "")

    @property
    def counts_patients(self) -> bool:
        """Whether patients are scored, not slides."""
        if self.verdict is not None:
            return self.verdict.units == "patients"
        return self.shown_metrics is not None and self.shown_metrics.counts_patients

    def list_units(self) -> list[SlideRecord]:
        """List what is predicted: the slides, or each patient with its slides together."""
        if self.unit == "slide":
            return list(self.slides)
        patients: dict[str, list[SlideRecord]] = {}
        for slide in self.slides:
            patients.setdefault(slide.patient_id, []).append(slide)
        return [_merge_slides(patient, slides) for patient, slides in patients.items()]

    def kind_of(self, arm: str) -> str:
        """Return `recommended`, `best` (of highest AUC) or nothing."""
        if arm == self.conclusion.arm:
            return "recommended"
        return "best" if arm == self.conclusion.best_arm else ""

    def find_call(self, slide: SlideRecord) -> Call | None:
        """Find what the shown arm says of a slide, at its fold's threshold where there is one; None if nothing."""
        shares = slide.shares
        if not shares:
            return None
        predicted = max(shares, key=lambda name: shares[name])
        threshold = self.thresholds.get(slide.fold or 0)
        if len(shares) == 2 and self.scored in shares and threshold is not None:
            other = next(name for name in shares if name != self.scored)
            predicted = str(self.scored) if shares[str(self.scored)] >= threshold else other
        share = shares.get(slide.label)
        shown = self.scored or (slide.label if share is not None else predicted)
        return Call(
            slide=slide,
            predicted=predicted,
            probability=shares.get(shown, math.nan),
            loss=None if share is None else -math.log(max(share, 1e-300)),
            right=None if not slide.label else predicted == slide.label or share == shares[predicted],
        )

    def list_calls(self) -> list[Call]:
        """List what the shown arm says, the worst errors first; slides without a label by their probability."""
        calls = [call for slide in self.list_units() if (call := self.find_call(slide)) is not None]
        return sorted(calls, key=lambda call: (-(call.loss or 0.0), -call.probability, call.slide.slide_id))

    def list_scores(self, arm: str, positive: str, *, series: str = "", by_slide: bool = False) -> list[ScoreMark]:
        """List an arm's test scores for a class, by patient where patients are compared; none with one kind only."""
        frame = self.predictions[self.predictions["arm"] == arm] if len(self.predictions) else self.predictions
        if frame.empty or positive not in self.classes:
            return []
        frame = frame[frame["label"] != ""]
        logits = [f"logit_{name}" for name in self.classes]
        if self.counts_patients and not by_slide:
            first = {"label": "first", "fold": "first"}
            means = dict.fromkeys(logits, "mean")
            frame = frame.groupby("patient_id", as_index=False, sort=self.study is not None).agg(first | means)
        truth = frame["label"] == positive
        if not by_slide and (truth.all() or not truth.any()):
            return []
        shares = find_shares(frame[logits].to_numpy(np.float64))[:, self.classes.index(positive)]
        return [
            ScoreMark(
                series=series or arm, label=str(label), is_positive=label == positive, score=share, fold=int(fold)
            )
            for label, share, fold in zip(frame["label"], shares.tolist(), frame["fold"], strict=True)
        ]


def find_shares(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities `(n, C)` of logits `(n, C)`."""
    return np.asarray(np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)))


def _merge_slides(patient: str, slides: Sequence[SlideRecord]) -> SlideRecord:
    """Return a patient as what is predicted."""
    known = [slide.n_tiles for slide in slides if slide.n_tiles is not None]
    batches = {slide.batch for slide in slides}
    return replace(
        slides[0],
        slide_id=patient,
        batch=slides[0].batch if len(batches) == 1 else "",
        n_tiles=sum(known) if known else None,
        slides=tuple(sorted(slide.slide_id for slide in slides)),
    )
