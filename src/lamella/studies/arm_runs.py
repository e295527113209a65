"""Running one arm of a study, in a folder that is a run of its own: everything that reads a run reads an arm.

DIR/arms/<arm>/              a run folder (study.folder), whose bags lie in the study's `features`
DIR/arms/<arm>/finetuned/    stage 2 that went on from it: the arms `head` and `tuned` of the same encoder
DIR/arms/<arm>/permuted/     the control with permuted labels, where this arm is the declared one
"""

import csv
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamella.analysis.auc import estimate_auc
from lamella.analysis.metrics import measure
from lamella.analysis.predictions import number_groups
from lamella.cohort import Cohort, CohortSlide, list_rounds
from lamella.errors import ModelError
from lamella.explain.localise import permute_labels
from lamella.explain.tuned_blocks import compare_tuned
from lamella.features.extract import ExtractReport
from lamella.features.settings import ExtractSettings
from lamella.files import parse_json_file, write_record, write_text
from lamella.mil import SlideModel, load_model
from lamella.progress import Progress, SilentProgress
from lamella.runs.bags import RunBags
from lamella.runs.execute import Trained, analyse_bags, save_run_cohort
from lamella.runs.folder import RunFolder
from lamella.runs.record import save_run_record
from lamella.runs.rounds import Protocol, keep_available, train_protocol
from lamella.runs.settings import StageTwo, TrainingSettings, describe_encoder, join_settings
from lamella.runs.stage_two import StageOne, finetune_rounds, train_rounds
from lamella.studies.arms import Arm
from lamella.studies.outcome import ArmOutcome, SlideLogits, tabulate


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FrozenRun:
    """A finished stage 1 of an arm, and all that stage 2 or a control needs of it.

    Attributes:
        arm: Which arm.
        folder: Its run folder.
        bags: Of its encoder.
        extract: How they were made.
        trained: Its rounds and models.
        training: How its heads were trained.
        outcome: What came out.
    """

    arm: Arm
    folder: RunFolder
    bags: RunBags
    extract: ExtractSettings
    trained: Trained
    training: TrainingSettings
    outcome: ArmOutcome


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
    bags: RunBags,
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
    write_record(folder.local / "encoder.json", describe_encoder(extract.encoder))
    rounds, notes = list_rounds(cohort), list(cohort.notes)
    _, metrics, trained = analyse_bags(cohort, rounds, bags, training, folder, notes, progress)
    save_run_record(join_settings(training, extract), cohort, place.report, bags, notes, folder)
    rows = [
        SlideLogits(slide=slide, fold=one.fold, seed=model.settings.seed, side=side, logits=found.logits)
        for one in trained.protocol.rounds
        for model in trained.models[one.fold]
        for side in ("test", "val")
        for slide in _slides_of(cohort, getattr(one, side), bags)
        for found in (model.predict(bags.features[slide.slide_id]),)
    ]
    models = [(one.fold, model) for one in trained.protocol.rounds for model in trained.models[one.fold]]
    outcome = ArmOutcome(
        arm=arm,
        rows=tuple(rows),
        best_epochs={(fold, model.settings.seed): model.training.best_epoch for fold, model in models},
        val_losses=_find_losses(models),
        metrics=metrics["arms"]["model"],
    )
    return FrozenRun(
        arm=arm, folder=folder, bags=bags, extract=extract, trained=trained, training=training, outcome=outcome
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
    begin = StageOne(
        rounds=base.trained.protocol.rounds, models=base.trained.models, bags=base.bags, extract=base.extract
    )
    found = finetune_rounds(begin, cohort, stage, base.folder, progress)
    metrics = _load_metrics(base.folder)
    metrics["stage_two"] = found
    write_record(base.folder.metrics, metrics)
    return [_read_stage_two(base, arm, cohort) for arm in arms], found["notes"]


def continue_fold(
    base: FrozenRun, fold: int, cohort: Cohort, stage: StageTwo, progress: Progress
) -> dict[str, list[SlideLogits]]:
    """Return what head only and fine-tuning make of a frozen arm in one fold alone; finished trainings are kept.

    Args:
        base: The frozen arm.
        fold: Number of the round.
        cohort: With folds or splits.
        stage: How.
        progress: Where to report to.

    Returns:
        Of `head` and `tuned` the fold's test slides, by seed, read from all tiles.
    """
    begin = StageOne(
        rounds=[one for one in base.trained.protocol.rounds if one.fold == fold],
        models=base.trained.models,
        bags=base.bags,
        extract=base.extract,
    )
    rows: dict[str, list[SlideLogits]] = {"head": [], "tuned": []}
    for one in train_rounds(begin, cohort, stage, base.folder, progress)[0]:
        if one.arm in rows and one.reading == "all":
            rows[one.arm].append(
                SlideLogits(slide=one.slide, fold=one.fold, seed=one.seed, side="test", logits=one.logits)
            )
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class PermutedRuns:
    """What an arm reaches, by one seed, and what it reaches with permuted labels.

    Attributes:
        auc: Its own.
        aucs: Of each run.
        within: Of each run, over pairs among whom labels were exchanged (same fold, same batch). Labels of a batch
            stay in it, so a batch that is mostly of one class keeps much of the truth, and `aucs` may lie above 1/2
            without any leak; this may not. None where no run has such a pair.
    """

    auc: float
    aucs: list[float]
    within: list[float] | None


def permute_arm(base: FrozenRun, cohort: Cohort, n: int, progress: Progress) -> PermutedRuns:
    """Train an arm's heads again on permuted labels, one seed.

    Labels are exchanged among the patients of a fold, and of a batch where batches are given: everything that learns
    is trained anew. Shuffling finished predictions would be no test.
    """
    settings = dataclasses.replace(base.training.train)
    own = _find_auc(base.outcome.rows, base.outcome, cohort, settings.seed)
    if own is None:
        raise ModelError("no fold tests slides of two classes, so nothing can be told apart. Ask for fewer folds.")
    aucs: list[float] = []
    within: list[float] = []
    with progress.stage("permute labels", n, "runs") as stage:
        for number in range(n):
            permuted = permute_labels(cohort, seed=number, within_batch=True)
            folder = RunFolder(base.folder.path / "permuted" / f"{number}")
            protocol = Protocol(name="fold", rounds=keep_available(list_rounds(permuted), base.bags.features, permuted))
            models = train_protocol(protocol, base.bags, permuted, [settings], folder, SilentProgress())
            rows = [
                SlideLogits(slide=slide, fold=one.fold, seed=settings.seed, side="test", logits=found.logits)
                for one in protocol.rounds
                for slide in _slides_of(permuted, one.test, base.bags)
                for found in (models[one.fold][0].predict(base.bags.features[slide.slide_id]),)
            ]
            for found, exchanged in ((aucs, False), (within, True)):
                auc = _find_auc(rows, base.outcome, permuted, settings.seed, among_exchanged=exchanged)
                found.extend([] if auc is None else [auc])
            stage.advance()
    return PermutedRuns(auc=own, aucs=aucs, within=within or None)


def compare_blocks(base: FrozenRun, arm: Arm, cohort: Cohort, progress: Progress) -> list[dict[str, Any]]:
    """Compare an arm's fine-tuned encoders with the frozen one, block by block, over the test slides of each fold."""
    tests = {one.fold: _slides_of(cohort, one.test, base.bags) for one in base.trained.protocol.rounds}
    rows = compare_tuned(base.folder, base.extract.encoder, tests, base.extract.cut, progress=progress)
    return [{"arm": arm.name, "base": base.arm.name, **row} for row in rows]


def _slides_of(cohort: Cohort, slide_ids: Sequence[str], bags: RunBags) -> list[CohortSlide]:
    by_id = {slide.slide_id: slide for slide in cohort.slides}
    return [by_id[i] for i in slide_ids if i in bags.features]


def _best_loss(model: SlideModel) -> float | None:
    """Return the validation log-loss of the epoch that was kept."""
    return next((e.val_log_loss for e in model.training.history if e.epoch == model.training.best_epoch), None)


def _find_losses(models: Sequence[tuple[int, SlideModel]]) -> dict[int, float]:
    """Return the log-loss on validation of each fold, mean over its models."""
    losses: dict[int, list[float]] = {}
    for fold, model in models:
        loss = _best_loss(model)
        if loss is not None:
            losses.setdefault(fold, []).append(loss)
    return {fold: float(np.mean(own)) for fold, own in losses.items()}


def _find_auc(
    rows: Sequence[SlideLogits], outcome: ArmOutcome, cohort: Cohort, seed: int, *, among_exchanged: bool = False
) -> float | None:
    """Return the AUC over pairs of the same fold, or also of the same batch; None where there is no such pair."""
    table = tabulate(dataclasses.replace(outcome, rows=tuple(rows)), cohort, outcome.tested, seeds=[seed])
    groups = table.folds
    if among_exchanged and table.batches is not None:
        cells = [f"{fold} {batch}" for fold, batch in zip(table.folds.tolist(), table.batches, strict=True)]
        groups = number_groups(cells)
    estimate = estimate_auc(table.logits, table.targets, folds=groups)
    return None if estimate is None else float(estimate.auc[0])


def _read_stage_two(base: FrozenRun, arm: Arm, cohort: Cohort) -> ArmOutcome:
    """Return what one arm of stage 2 predicted, as `finetuned/predictions.csv` has it, from all tiles."""
    by_id = {slide.slide_id: slide for slide in cohort.slides}
    with (base.folder.finetuned / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        read = [row for row in csv.DictReader(stream) if row["arm"] == arm.finetuned and row["reading"] == "all"]
    rows = tuple(
        SlideLogits(
            slide=by_id[row["slide_id"]],
            fold=int(row["fold"]),
            seed=int(row["seed"]),
            side="test",
            logits=np.array([float(row[f"logit_{name}"]) for name in cohort.classes]),
        )
        for row in read
    )
    models = {
        (fold, seed): load_model(base.folder.stage_two(fold, seed) / arm.finetuned / "model")
        for fold, seed in sorted({(row.fold, row.seed) for row in rows})
    }
    outcome = ArmOutcome(
        arm=arm,
        rows=rows,
        best_epochs={key: model.training.best_epoch for key, model in models.items()},
        val_losses=_find_losses([(fold, model) for (fold, _), model in models.items()]),
        metrics={},
    )
    return dataclasses.replace(outcome, metrics=measure(tabulate(outcome, cohort, outcome.tested, seeds=outcome.seeds)))


def _load_metrics(folder: RunFolder) -> dict[str, Any]:
    return dict(parse_json_file(folder.metrics))


def _relative(target: Path, start: Path) -> str:
    return Path(os.path.relpath(target, start)).as_posix()
