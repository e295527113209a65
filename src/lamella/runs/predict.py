"""Predicting new slides with a finished run or an export: cut and encode as it did, average its models' logits."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from lamella.analysis.thresholds import Threshold
from lamella.cohort import Cohort
from lamella.encoders import EncoderSpec
from lamella.encoders.trust import find_trusted
from lamella.errors import ModelError
from lamella.features.extract import extract_cohort
from lamella.features.failures import Failure
from lamella.files import find_inside, refuse_links
from lamella.mil import SlideModel, SlidePrediction, check_bag_fits, load_model
from lamella.progress import Progress, SilentProgress
from lamella.records import load_content
from lamella.runs.bags import load_bags
from lamella.runs.folder import RunFolder, refuse_changed_tables
from lamella.runs.leaks import refuse_seen_by_encoder
from lamella.runs.metrics import Metrics
from lamella.runs.predicting import BagsByEncoder, begin_prediction, finish_prediction, is_labelled, predict_slide
from lamella.runs.predictor import Member, Predictor, list_seen
from lamella.runs.record import EncoderRecord, RunRecord, SettingsRecord
from lamella.runs.settings import restore_extract_settings
from lamella.runs.units import gather_units


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Finetuned:
    """A model of stage 2.

    Attributes:
        fold: Number of the round.
        home: Folder of the arm; a tuned encoder and its bags lie in it.
        model: The head.
    """

    fold: int
    home: Path
    model: SlideModel

    @property
    def encoder(self) -> EncoderSpec:
        """The tuned encoder.

        Raises:
            ModelError: If it is lost.
        """
        path = find_tuned_file(self.home, self.model)
        if path is None:
            raise ModelError(
                f"fold {self.fold} has lost a fine-tuned encoder. Run `lamella run` again: it makes what is missing."
            )
        return EncoderSpec(str(path))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FinishedRun:
    """What of a finished run is needed to predict new slides.

    Attributes:
        folder: Where it lies.
        classes: In the order of the logits.
        positive: The class whose probability is scored.
        settings: How it cut, encoded and trained.
        models: All models of its rounds and seeds.
        threshold: What was frozen for new slides; None where there is none.
        folds: Of each model, the round it was trained in.
    """

    folder: RunFolder
    classes: tuple[str, ...]
    positive: str | None
    settings: SettingsRecord
    models: tuple[SlideModel, ...]
    threshold: Threshold | None
    folds: tuple[int, ...]

    def predictor(self) -> Predictor:
        """Return its models as what predicts new slides."""
        return Predictor(
            called="run",
            folder=self.folder.path,
            classes=self.classes,
            positive=self.positive,
            settings=self.settings,
            members=self.list_members(find_run_encoder(self)),
            threshold=self.threshold,
            seen=list_seen(self.models),
        )

    def list_members(self, encoder: EncoderSpec) -> tuple[Member, ...]:
        """List its own models beside the encoder, as this machine has it."""
        pairs = zip(self.models, self.folds, strict=True)
        return tuple(Member(model=model, fold=fold, encoder=encoder) for model, fold in pairs)

    def list_finetuned(self, finetuned: str) -> list[Finetuned]:
        """List the models of stage 2 that go on from this run's own models, by fold and seed.

        What an earlier run with other folds, seeds or settings left there is passed over.

        Args:
            finetuned: `head` or `tuned`.

        Raises:
            ModelError: If one is damaged.
        """
        models = []
        for fold, first in zip(self.folds, self.models, strict=True):
            home = self.folder.stage_two(fold, first.settings.seed) / finetuned
            if not (home / "model" / "model.json").exists():
                continue
            model = load_model(home / "model")
            if model.provenance.get("key") == first.provenance.get("key"):
                models.append(Finetuned(fold=fold, home=home, model=model))
        return models


def open_run(path: Path) -> FinishedRun:
    """Open a finished run.

    Raises:
        ModelError: If the folder is not one, or its run did not finish.
    """
    folder = RunFolder(path)
    if not folder.settings.exists():
        raise ModelError(f"'{path}' holds no finished run (no run.json). Name the --out folder of a `lamella run`.")
    refuse_links(folder.path)
    record = RunRecord.load(folder.settings)
    metrics = Metrics.load(folder.metrics) if folder.metrics.exists() else None
    refuse_changed_tables(path, record.files, made_by="lamella run")
    paths = sorted(folder.models.glob("fold*/seed*"))
    if not paths:
        raise ModelError(f"'{path}' holds no models. Run `lamella run` again: it makes what is missing.")
    return FinishedRun(
        folder=folder,
        classes=record.classes,
        positive=record.positive,
        settings=record.settings,
        models=tuple(map(load_model, paths)),
        threshold=None if metrics is None else metrics.frozen_threshold,
        folds=tuple(int(path.parent.name.removeprefix("fold")) for path in paths),
    )


def find_tuned_file(home: Path, model: SlideModel) -> Path | None:
    """Find the fine-tuned encoder that a model of stage 2 names, in the folder of its arm; None where it is not there.

    Args:
        home: Folder of the arm.
        model: The model; its record may have been written by anyone, so it names a file of weights or nothing.
    """
    name = str(model.provenance.get("encoder_file"))
    return find_inside(home, name) if name.endswith(".safetensors") else None


def predict_cohort(
    source: FinishedRun | Predictor,
    cohort: Cohort,
    out: Path,
    *,
    features: Path | None = None,
    prevalence: float | None = None,
    progress: Progress | None = None,
) -> tuple[list[SlidePrediction], tuple[Failure, ...]]:
    """Cut, encode and predict new slides; with labels, measure at the frozen threshold (external validation).

    Args:
        source: Of `open_run`, `open_export` or `open_predictor`.
        cohort: New slides, labelled or not.
        out: Where to write predictions, attention and, with labels, `metrics.json`.
        features: Folder of the bags; those in it are kept. None is the one in `out`.
        prevalence: With labels: where predictive values and net benefit are wanted besides.
        progress: Where to report to.

    Returns:
        One prediction a slide, or a patient by models of patients, and the slides that could not be done.

    Raises:
        LeakageError: If labels are given and the models have learned from one of these slides or patients.
        ModelError: If the bags do not fit the models.
    """
    progress = progress or SilentProgress()
    predictor = source.predictor() if isinstance(source, FinishedRun) else source
    encoders = predictor.encoders
    folder = begin_prediction(predictor, cohort, out, prevalence=prevalence, progress=progress)
    extract = dataclasses.replace(restore_extract_settings(predictor.settings, encoders[0]), encoders=encoders)
    report = extract_cohort(cohort.slides, extract, features or folder.features, progress=progress)
    failed = {failure.slide_id for failure in report.failures}
    done = [slide for slide in cohort.slides if slide.slide_id not in failed]
    ids = [slide.slide_id for slide in done]
    bags = {encoder: load_bags(home, ids) for encoder, home in zip(encoders, report.folders, strict=True)}
    if is_labelled(cohort):
        for loaded in bags.values():
            refuse_seen_by_encoder(ids, loaded.facts, cohort)
    for slide in done:
        _check_fits(predictor, slide.slide_id, bags)
    known = dataclasses.replace(cohort, slides=tuple(done))
    units = {encoder: gather_units(known, loaded, predictor.settings.unit) for encoder, loaded in bags.items()}
    first = units[predictor.members[0].encoder]
    predictions = [predict_slide(predictor, row, units, folder) for row in first.cohort.slides]
    notes = (*report.notes, *first.notes)
    for note in first.notes:
        progress.say(note)
    if predictor.settings.precision == "int8":
        notes = (*notes, "the run asked for int8, whose scales are those of its own tiles: new slides are not in int8")
        progress.say(notes[-1])
    finish_prediction(predictor, predictions, folder, prevalence=prevalence, notes=notes, progress=progress)
    return predictions, report.failures


def _check_fits(predictor: Predictor, slide_id: str, bags: BagsByEncoder) -> None:
    """Refuse a bag that was not made as those were that the models learned from."""
    for member in predictor.members:
        facts = bags[member.encoder].facts[slide_id]
        try:
            check_bag_fits(
                member.model,
                fingerprint=facts.fingerprint,
                mpp=facts.mpp,
                tile_px=facts.tile_px,
                embedding_dim=bags[member.encoder].width,
                encoder=facts.encoder,
            )
        except ModelError as error:
            raise ModelError(f"slide '{slide_id}' cannot be predicted by this {predictor.called}: {error}") from error


def find_run_encoder(run: FinishedRun) -> EncoderSpec:
    """Return the run's encoder, built from the user's own trusted file where it is Python code.

    Raises:
        EncoderError: If it is Python code, and the user trusts no file of its name.
        ModelError: If the record of it is damaged.
    """
    spec = read_run_encoder(run)
    if run.settings.unknown:  # a name that another tool gave its bags: nothing is built by it
        return spec
    return EncoderSpec(name=find_trusted(spec.name), weights=spec.weights)


def read_run_encoder(run: FinishedRun) -> EncoderSpec:
    """Return the encoder that a run's record names, which may be anything: it is for reading, not for building.

    Where the run's machine found it stands under `local/`, which may not have come along.

    Raises:
        ModelError: If the record of it is damaged.
    """
    local = load_content(run.folder.local / "encoder.json", EncoderRecord, made_by="lamella run")
    if local is not None:
        return EncoderSpec(name=local.name, weights=local.weights)
    return EncoderSpec(name=run.settings.encoder_name, weights="random" if run.settings.weights == "random" else "auto")
