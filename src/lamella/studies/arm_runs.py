"""Running one arm of a study, in a folder that is a run of its own: everything that reads a run reads an arm.

DIR/arms/<arm>/              a run folder (study.folder), whose bags lie in the study's `features`
DIR/arms/<arm>/finetuned/    stage 2 that went on from it: the arms `head` and `tuned` of the same encoder
DIR/arms/<arm>/permuted/     the control with permuted labels, where this arm is the declared one
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lamella.analysis.auc import estimate_auc
from lamella.analysis.metrics import measure
from lamella.analysis.permutation import Permutations, judge_permutations
from lamella.analysis.predictions import number_groups
from lamella.cohort import Cohort, Round, list_rounds
from lamella.cohort.permute import permute_labels
from lamella.errors import ModelError
from lamella.explain.records import CkaPair
from lamella.explain.tuned_blocks import compare_tuned
from lamella.features.extract import ExtractReport
from lamella.features.settings import ExtractSettings
from lamella.files import write_text
from lamella.mil import TrainingRecord
from lamella.progress import Progress, SilentProgress
from lamella.runs.execute import Analysis, analyse_bags, describe_given_run, describe_run, save_run_cohort
from lamella.runs.folder import RunFolder
from lamella.runs.record import EncoderRecord
from lamella.runs.rounds import Protocol, keep_available, predict_protocol, train_protocol
from lamella.runs.settings import StageTwo, TrainingSettings, join_settings
from lamella.runs.stage_two import StageOne, train_rounds
from lamella.runs.stage_two_scores import StageTwoOutcome, finetune_rounds
from lamella.runs.units import Units
from lamella.studies.arms import Arm
from lamella.studies.outcome import ArmOutcome, average_arm


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FrozenRun:
    """A finished stage 1 of an arm, and all that stage 2 or a control needs of it.

    Attributes:
        arm: Which arm.
        folder: Its run folder.
        units: What was predicted, with the bags of its encoder.
        extract: How they were made; None of bags that were there.
        training: How its heads were trained.
        analysis: Its rounds, models, predictions and metrics.
        outcome: What came out.
    """

    arm: Arm
    folder: RunFolder
    units: Units
    extract: ExtractSettings | None
    training: TrainingSettings
    analysis: Analysis
    outcome: ArmOutcome

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The folds, without the slides that could not be done."""
        return self.analysis.outcome.protocol.rounds

    def begin(self, *folds: int) -> StageOne:
        """Return what stage 2 goes on from, in some folds or, where none is named, in all."""
        assert self.extract is not None, "bags that were there have no encoder to train"
        rounds = [round_ for round_ in self.rounds if not folds or round_.fold in folds]
        return StageOne(rounds=rounds, models=self.analysis.models, bags=self.units.bags, extract=self.extract)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ArmPlace:
    """Where an arm runs, and on what.

    Attributes:
        cohort: With folds or splits.
        folder: The arm's run folder.
        features: The bags that arms share; `folder` is told where they are.
        report: What their extraction said.
    """

    cohort: Cohort
    folder: RunFolder
    features: Path
    report: ExtractReport


def run_frozen(
    arm: Arm,
    place: ArmPlace,
    units: Units,
    extract: ExtractSettings,
    training: TrainingSettings,
    progress: Progress,
) -> FrozenRun:
    """Train, predict and measure an arm's stage 1; what is finished is kept.

    Raises:
        CohortError: If too little of the cohort is left.
        LeakageError: If the encoder has seen what it is tested on.
    """
    folder, cohort = place.folder, place.cohort
    write_text(folder.path / "features.at", _relative(place.features, folder.path) + "\n")
    save_run_cohort(cohort, folder)
    EncoderRecord(name=extract.encoder.name, weights=extract.encoder.weights).save(folder.local / "encoder.json")
    analysis = analyse_bags(units, training, folder, progress)
    notes = [*cohort.notes, *analysis.notes]
    analysis.metrics.save(folder.metrics)
    settings = join_settings(training, extract)
    describe_run(settings, cohort, place.report, units.parts, notes, folder).save(folder.settings)
    return _finish(arm, folder, extract, training, analysis)


def run_given(arm: Arm, folder: RunFolder, units: Units, training: TrainingSettings, progress: Progress) -> FrozenRun:
    """Train, predict and measure an arm whose bags are there; what is finished is kept.

    Raises:
        CohortError: If too little of the cohort is left.
        LeakageError: If the encoder has seen what it is tested on.
    """
    save_run_cohort(units.origin, folder)
    analysis = analyse_bags(units, training, folder, progress)
    analysis.metrics.save(folder.metrics)
    notes = [*units.origin.notes, *analysis.notes]
    describe_given_run(training, units.origin, units.parts, notes, folder).save(folder.settings)
    return _finish(arm, folder, None, training, analysis)


def _finish(
    arm: Arm,
    folder: RunFolder,
    extract: ExtractSettings | None,
    training: TrainingSettings,
    analysis: Analysis,
) -> FrozenRun:
    models = [(fold, model) for fold, several in analysis.models.items() for model in several]
    outcome = ArmOutcome(
        arm=arm,
        predictions=analysis.outcome.predictions,
        best_epochs={(fold, model.settings.seed): model.training.best_epoch for fold, model in models},
        val_losses=_find_losses([(fold, model.training) for fold, model in models]),
        metrics=analysis.metrics.scores.model,
    )
    return FrozenRun(
        arm=arm,
        folder=folder,
        units=analysis.units,
        extract=extract,
        training=training,
        analysis=analysis,
        outcome=outcome,
    )


def run_stage_two(
    base: FrozenRun, arms: Sequence[Arm], cohort: Cohort, stage: StageTwo, progress: Progress
) -> tuple[list[ArmOutcome], list[str]]:
    """Run the arms that go on from a frozen one: head only, tuned, or both; finished trainings are kept.

    Args:
        base: The frozen arm.
        arms: Of its encoder, depth, weights, head and tiles.
        cohort: With folds or splits.
        stage: How; the tuned arm brings its head-only control along.
        progress: Where to report to.

    Returns:
        An outcome an arm, and what must be said of the training.

    Raises:
        EncoderError: If the encoder cannot be trained as asked.
        SlideError: If a slide that is learned from cannot be read any more.
    """
    outcome = finetune_rounds(base.begin(), cohort, stage, base.folder, progress)
    base.analysis.metrics.model_copy(update={"stage_two": outcome.scores}).save(base.folder.metrics)
    return [_judge_stage_two(outcome, arm, cohort) for arm in arms], list(outcome.scores.notes)


def continue_fold(
    base: FrozenRun, fold: int, cohort: Cohort, stage: StageTwo, progress: Progress
) -> dict[str, pd.DataFrame]:
    """Return what head only and fine-tuning make of a frozen arm in one fold alone; finished trainings are kept.

    Args:
        base: The frozen arm.
        fold: Number of the round.
        cohort: With folds or splits.
        stage: How.
        progress: Where to report to.

    Returns:
        Of `head` and `tuned` the long table of the fold's test slides, read from all tiles.
    """
    predictions = train_rounds(base.begin(fold), cohort, stage, base.folder, progress)[0]
    return {kind: _pick(predictions, kind) for kind in ("head", "tuned")}


def permute_arm(base: FrozenRun, n: int, progress: Progress) -> Permutations:
    """Train an arm's heads again on permuted labels, one seed; return what that control says.

    Labels are exchanged among the patients of a fold, and of a batch where batches are given: everything that learns
    is trained anew. Shuffling finished predictions would be no test.
    """
    settings, cohort, bags = dataclasses.replace(base.training.train), base.units.cohort, base.units.bags
    auc = _find_auc(base.outcome.predictions, cohort, settings.seed)
    if auc is None:
        raise ModelError("no fold tests slides of two classes, so nothing can be told apart. Ask for fewer folds.")
    aucs: list[float] = []
    within: list[float] = []
    with progress.stage("permute labels", n, "runs") as stage:
        for number in range(n):
            permuted = permute_labels(cohort, seed=number, within_batch=True)
            folder = RunFolder(base.folder.path / "permuted" / f"{number}")
            protocol = Protocol(name="fold", rounds=keep_available(list_rounds(permuted), bags.features, permuted))
            models = train_protocol(
                protocol, bags, permuted, [settings], folder, SilentProgress(), width=base.training.width
            )
            predictions = predict_protocol(protocol, models, bags, permuted).predictions
            for reached, exchanged in ((aucs, False), (within, True)):
                permuted_auc = _find_auc(predictions, permuted, settings.seed, among_exchanged=exchanged)
                reached.extend([] if permuted_auc is None else [permuted_auc])
            stage.advance()
    return judge_permutations(auc, aucs, within=within or None, arm=base.arm.name)


def compare_blocks(base: FrozenRun, arm: Arm, cohort: Cohort, progress: Progress) -> list[CkaPair]:
    """Compare an arm's fine-tuned encoders with the frozen one, block by block, over the test slides of each fold."""
    slides = {slide.slide_id: slide for slide in cohort.slides}
    tests = {round_.fold: [slides[i] for i in round_.test] for round_ in base.rounds}
    assert base.extract is not None
    pairs = compare_tuned(base.folder, base.extract.encoder, tests, base.extract.cut, progress=progress)
    return [pair.model_copy(update={"arm": arm.name, "base": base.arm.name}) for pair in pairs]


def _find_losses(records: Sequence[tuple[int, TrainingRecord]]) -> dict[int, float]:
    """Return the log-loss on validation of each fold's kept epochs, mean over its trainings."""
    losses: dict[int, list[float]] = {}
    for fold, record in records:
        for epoch in record.history:
            if epoch.epoch == record.best_epoch and epoch.val_log_loss is not None:
                losses.setdefault(fold, []).append(epoch.val_log_loss)
    return {fold: float(np.mean(values)) for fold, values in losses.items()}


def _find_auc(predictions: pd.DataFrame, cohort: Cohort, seed: int, *, among_exchanged: bool = False) -> float | None:
    """Return the AUC over pairs of the same fold, or also of the same batch; None where there is no such pair."""
    table = average_arm(predictions, cohort, seeds=[seed])
    groups = table.folds
    if among_exchanged and table.batches is not None:
        cells = [f"{fold} {batch}" for fold, batch in zip(table.folds.tolist(), table.batches, strict=True)]
        groups = number_groups(cells)
    estimate = estimate_auc(table.logits, table.targets, folds=groups)
    return None if estimate is None else float(estimate.auc[0])


def _pick(predictions: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return what head only or fine-tuning says, reading all tiles."""
    wanted = (predictions["finetuned"] == kind) & (predictions["reading"] == "all")
    return predictions[wanted].drop(columns=["finetuned", "reading"])


def _judge_stage_two(stage_two: StageTwoOutcome, arm: Arm, cohort: Cohort) -> ArmOutcome:
    """Return what came out of one arm of stage 2."""
    predictions = _pick(stage_two.predictions, arm.finetuned)
    trainings = [training for training in stage_two.trainings if training.finetuned == arm.finetuned]
    return ArmOutcome(
        arm=arm,
        predictions=predictions,
        best_epochs={(training.fold, training.seed): training.record.best_epoch for training in trainings},
        val_losses=_find_losses([(training.fold, training.record) for training in trainings]),
        metrics=measure(average_arm(predictions, cohort)),
    )


def _relative(target: Path, start: Path) -> str:
    return Path(os.path.relpath(target, start)).as_posix()
