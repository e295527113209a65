"""A run: cohort -> bags -> models -> out-of-fold predictions -> metrics, doing only what is missing."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lamella import __version__
from lamella.cohort import (
    Cohort,
    Round,
    check_same_images,
    find_missing,
    list_rounds,
    save_cohort,
    split_by_batch,
    split_folds,
)
from lamella.defaults import N_FOLDS
from lamella.errors import CohortError
from lamella.features.extract import ExtractReport, extract_cohort
from lamella.features.failures import Failure
from lamella.files import refuse_links, write_table
from lamella.mil import SlideModel, SlidePrediction
from lamella.progress import Progress, SilentProgress
from lamella.runs.bags import RunBags, load_bag_folder, load_bags
from lamella.runs.folder import RunFolder, hash_tables
from lamella.runs.given import describe_bags
from lamella.runs.leaks import refuse_seen_by_encoder
from lamella.runs.measure import measure_run
from lamella.runs.metrics import Metrics
from lamella.runs.predictions import save_predictions
from lamella.runs.record import BagsPlace, EncoderRecord, Extraction, RunRecord, list_versions
from lamella.runs.rounds import (
    Protocol,
    ProtocolOutcome,
    keep_available,
    predict_protocol,
    remove_models,
    train_protocol,
)
from lamella.runs.settings import RunSettings, TrainingSettings, describe_settings
from lamella.runs.stage_two import StageOne
from lamella.runs.stage_two_scores import finetune_rounds
from lamella.runs.unit_attention import save_run_attention
from lamella.runs.units import Units, gather_units, refuse_mixed_labels
from lamella.slide import hash_readable
from lamella.temporaries import sweep_temporaries


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Run:
    """What came out of a run.

    Attributes:
        folder: Where everything lies.
        cohort: With the folds or splits that were used.
        predictions: Out-of-fold, one a slide, or a patient where patients are predicted.
        metrics: As `metrics.json` holds them.
        failures: Slides that could not be done.
        notes: What must be said aloud.
    """

    folder: RunFolder
    cohort: Cohort
    predictions: tuple[SlidePrediction, ...]
    metrics: Metrics
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]


def execute_run(cohort: Cohort, settings: RunSettings, out: Path, *, progress: Progress | None = None) -> Run:
    """Run one encoder on a cohort into a folder; finished parts of an earlier run are kept.

    Args:
        cohort: Labelled slides. Without folds or splits, folds are made (stratified, by patient).
        settings: How.
        out: The run folder.
        progress: Where to report to.

    Raises:
        CohortError: If the cohort does not hang together, or too little of it is left.
        LeakageError: If a patient is on two sides of a split, or one image has two ids.
        OutputError: If the folder cannot be written.
    """
    progress = progress or SilentProgress()
    folder = RunFolder(out)
    refuse_links(folder.path)
    sweep_temporaries(folder.path)
    notes = list(cohort.notes)
    notes += _say_division(cohort, settings, progress)
    cohort = make_rounds(cohort, settings)
    list_rounds(cohort)
    refuse_mixed_labels(cohort, settings.unit)
    check_images(cohort)
    save_run_cohort(cohort, folder)
    EncoderRecord(name=settings.extract.encoder.name, weights=settings.extract.encoder.weights).save(
        folder.local / "encoder.json"
    )
    report = extract_cohort(cohort.slides, settings.extract, folder.features, progress=progress)
    failed = {failure.slide_id for failure in report.failures}
    notes += report.notes
    if failed:
        notes.append(f"{len(failed)} of {len(cohort.slides)} slides could not be done; failures.csv says why.")
    if len(failed) == len(cohort.slides):
        raise CohortError(f"none of the {len(failed)} slides could be encoded. The first: {report.failures[0].reason}")
    available = [slide.slide_id for slide in cohort.slides if slide.slide_id not in failed]
    bags = load_bags(report.folder, available)
    save_ledger(cohort, bags, folder)
    analysis = analyse_bags(gather_units(cohort, bags, settings.unit), settings, folder, progress)
    notes += analysis.notes
    metrics = analysis.metrics
    if settings.stage_two is not None:
        begin = StageOne(
            rounds=analysis.outcome.protocol.rounds, models=analysis.models, bags=bags, extract=settings.extract
        )
        scores = finetune_rounds(begin, cohort, settings.stage_two, folder, progress).scores
        metrics = metrics.model_copy(update={"stage_two": scores})
        notes += scores.notes
    metrics.save(folder.metrics)
    describe_run(settings, cohort, report, bags, notes, folder).save(folder.settings)
    return Run(
        folder=folder,
        cohort=cohort,
        predictions=analysis.outcome.tested,
        metrics=metrics,
        failures=report.failures,
        notes=tuple(notes),
    )


def train_on_bags(
    cohort: Cohort, bags_folder: Path, settings: TrainingSettings, out: Path, *, progress: Progress | None = None
) -> Run:
    """Train and test heads on bags that are there already, of any tool that `open_bag` reads.

    Args:
        cohort: Labelled slides; the slide files themselves are not opened.
        bags_folder: Folder of bags by slide id; `FOLDER#ENCODER` where files hold several encoders.
        settings: How.
        out: Where models, predictions and metrics go.
        progress: Where to report to.

    Raises:
        BagError: If a bag is absent, damaged, or of another encoder than the others.
        CohortError: If the cohort does not hang together.
        LeakageError: If a patient is on two sides of a split.
    """
    list_rounds(make_rounds(cohort, settings))  # what is wrong with the table is said before gigabytes are read
    refuse_mixed_labels(cohort, settings.unit)
    bags = load_bag_folder(bags_folder, [slide.slide_id for slide in cohort.slides])
    return execute_on_bags(cohort, bags, settings, out, progress=progress)


def execute_on_bags(
    cohort: Cohort, bags: RunBags, settings: TrainingSettings, out: Path, *, progress: Progress | None = None
) -> Run:
    """Train and test heads on bags that are loaded, one of each slide of the cohort.

    Args:
        cohort: Labelled slides; the slide files themselves are not opened.
        bags: Of all of them.
        settings: How.
        out: Where models, predictions and metrics go.
        progress: Where to report to.

    Raises:
        CohortError: If the cohort does not hang together.
        LeakageError: If a patient is on two sides of a split.
    """
    progress = progress or SilentProgress()
    folder, notes = RunFolder(out), list(cohort.notes)
    refuse_links(folder.path)
    sweep_temporaries(folder.path)
    notes += _say_division(cohort, settings, progress)
    cohort = make_rounds(cohort, settings)
    list_rounds(cohort)
    save_run_cohort(cohort, folder)
    analysis = analyse_bags(gather_units(cohort, bags, settings.unit), settings, folder, progress)
    analysis.metrics.save(folder.metrics)
    record = describe_given_run(settings, cohort, bags, [*notes, *analysis.notes], folder)
    record.save(folder.settings)
    return Run(
        folder=folder,
        cohort=cohort,
        predictions=analysis.outcome.tested,
        metrics=analysis.metrics,
        failures=(),
        notes=record.notes,
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Analysis:
    """What came out of training and testing on bags.

    Attributes:
        units: What was predicted, with its bags.
        outcome: Of the cohort's own rounds.
        models: Of each of them, one a seed.
        metrics: As `metrics.json` is to hold them; whoever is done with the run writes it.
        notes: What must be said aloud.
    """

    units: Units
    outcome: ProtocolOutcome
    models: dict[int, list[SlideModel]]
    metrics: Metrics
    notes: list[str]


def analyse_bags(units: Units, settings: TrainingSettings, folder: RunFolder, progress: Progress) -> Analysis:
    """Train what is missing, predict and measure; models, attention and predictions are written, metrics returned."""
    cohort, bags = units.cohort, units.bags
    protocols, notes = _list_protocols(cohort, list_rounds(cohort), bags, settings)
    notes = [*units.notes, *notes]
    for name in {"fold", "batch"} - {protocol.name for protocol in protocols}:
        remove_models(folder, name)
    for protocol in protocols:
        tested = [slide_id for round_ in protocol.rounds for unit in round_.test for slide_id in units.slides[unit]]
        refuse_seen_by_encoder(tested, units.parts.facts, units.origin)
    seeds = [dataclasses.replace(settings.train, seed=settings.train.seed + i) for i in range(settings.n_seeds)]
    models = [
        train_protocol(protocol, bags, cohort, seeds, folder, progress, width=settings.width) for protocol in protocols
    ]
    outcomes = [
        predict_protocol(protocol, trained, bags, cohort) for protocol, trained in zip(protocols, models, strict=True)
    ]
    metrics = measure_run(outcomes, bags, cohort, sensitivity=settings.sensitivity)
    notes += save_run_attention(outcomes[0].tested, units, folder)
    save_predictions(outcomes[0].tested, cohort.classes, folder.predictions)
    return Analysis(units=units, outcome=outcomes[0], models=models[0], metrics=metrics, notes=notes)


def describe_run(
    settings: RunSettings,
    cohort: Cohort,
    report: ExtractReport,
    bags: RunBags,
    notes: Sequence[str],
    folder: RunFolder,
) -> RunRecord:
    """Return what `run.json` is to hold: what was asked, what it ran on, what was said aloud."""
    runtimes = [f"{bag.runtime}, {bag.precision}" for bag in bags.facts.values() if bag.runtime is not None]
    return RunRecord(
        lamella_version=__version__,
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        classes=cohort.classes,
        positive=cohort.positive,
        settings=describe_settings(settings),
        runtime="; ".join(dict.fromkeys(runtimes)),
        extraction=Extraction(
            n_encoded=len(report.done),
            n_kept=len(report.kept),
            n_failed=len(report.failures),
            n_tiles=report.n_tiles,
            seconds=round(report.seconds, 1),
        ),
        notes=tuple(notes),
        versions=list_versions(),
        files=hash_tables(folder.path),
    )


def describe_given_run(
    settings: TrainingSettings, cohort: Cohort, bags: RunBags, notes: Sequence[str], folder: RunFolder
) -> RunRecord:
    """Return what `run.json` is to hold of a run on bags that were there; where they lie is written under `local/`."""
    described, said = describe_bags(settings, list(bags.facts.values()), width=bags.width)
    if bags.given is not None:
        BagsPlace(folder=str(bags.given.absolute())).save(folder.given_bags)
    return RunRecord(
        lamella_version=__version__,
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        classes=cohort.classes,
        positive=cohort.positive,
        settings=described,
        notes=(*notes, *said),
        versions=list_versions(),
        files=hash_tables(folder.path),
    )


def make_rounds(cohort: Cohort, settings: TrainingSettings) -> Cohort:
    """Make folds where the cohort brings neither folds nor splits."""
    if any(slide.fold is not None or slide.split is not None for slide in cohort.slides):
        return cohort
    return split_folds(cohort, n_folds=settings.n_folds, seed=settings.split_seed)


def _say_division(cohort: Cohort, settings: TrainingSettings, progress: Progress) -> list[str]:
    """Say aloud where another number of folds is asked for than the table brings: the table's count."""
    n_folds = len({slide.fold for slide in cohort.slides if slide.fold is not None})
    brings_split = any(slide.split is not None for slide in cohort.slides)
    if settings.n_folds in (n_folds, N_FOLDS) or not (n_folds or brings_split):
        return []
    division = f"{n_folds} folds" if n_folds else "a split of train, val and test"
    note = (
        f"the table brings {division}, which are used: --folds {settings.n_folds} makes none. To have them made, take "
        f"the column '{'fold' if n_folds else 'split'}' out of the table."
    )
    progress.say(note)
    return [note]


def check_images(cohort: Cohort) -> None:
    """Refuse the same image under two ids; slides that cannot be read are left to the extraction to list."""
    missing = {slide.slide_id for slide in find_missing(cohort)}
    check_same_images(
        hash_readable({slide.slide_id: slide.path for slide in cohort.slides if slide.slide_id not in missing})
    )


def save_run_cohort(cohort: Cohort, folder: RunFolder) -> None:
    """Write the cohort twice: with paths for this machine, without for everyone."""
    save_cohort(cohort, folder.local / "cohort.csv")
    columns = ["slide_id", "patient_id", "label", "split", "fold", "batch"]
    rows = [{name: getattr(slide, name) for name in columns} for slide in cohort.slides]
    write_table(folder.cohort, columns, rows)


def save_ledger(cohort: Cohort, bags: RunBags, folder: RunFolder) -> None:
    """Write what each step of finding tissue kept and removed, a row a slide and step."""
    rows = []
    for slide in cohort.slides:
        if slide.slide_id not in bags.facts:
            continue
        for step, kept, removed in bags.facts[slide.slide_id].ledger:
            rows.append(
                {
                    "slide_id": slide.slide_id,
                    "step": step,
                    "kept_um2": round(kept, 1),
                    "removed_um2": round(removed, 1),
                    "n_tiles": len(bags.features[slide.slide_id]),
                }
            )
    write_table(folder.ledger, ["slide_id", "step", "kept_um2", "removed_um2", "n_tiles"], rows)


def _list_protocols(
    cohort: Cohort, rounds: Sequence[Round], bags: RunBags, settings: TrainingSettings
) -> tuple[list[Protocol], list[str]]:
    """List the ways of dividing the cohort: its own, and each batch left out or a note of why that cannot be done."""
    protocols = [Protocol(name="fold", rounds=keep_available(rounds, bags.features, cohort))]
    n_batches = len({slide.batch for slide in cohort.slides})
    if not settings.by_batch or n_batches < 3 or any(slide.batch is None for slide in cohort.slides):
        return protocols, []
    try:
        left_out = list_rounds(split_by_batch(cohort))
        protocols.append(Protocol(name="batch", rounds=keep_available(left_out, bags.features, cohort)))
    except CohortError as error:
        return protocols, [f"no batch was left out in turn: {error}"]
    return protocols, []
