"""Stage 2 of a run: head only and tuned, beside stage 1, each on all tiles and on its own most attended ones.

DIR/finetuned/fold<k>/seed<s>/<finetuned>/       a training: encoder, model, epochs
DIR/finetuned/fold<k>/seed<s>/tuned/features/    bags of the tuned encoder, of the fold's test slides
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from lamella.cohort import Cohort, CohortSlide, Round
from lamella.encoders import EncoderSpec, find_encoder, fingerprint_encoder
from lamella.encoders.network import build_network
from lamella.encoders.packing import save_tuned_encoder
from lamella.encoders.tuned import SeenSlides, make_seen
from lamella.errors import LamellaError
from lamella.features.extract import extract_cohort
from lamella.features.settings import ExtractSettings
from lamella.files import remove
from lamella.finetune.fit import fit_encoder
from lamella.finetune.inputs import FitPlaces, LabelledSlides
from lamella.finetune.settings import FinetuneSettings
from lamella.finetune.tiles import choose_top
from lamella.mil import SlideModel, SlidePrediction, TrainingRecord, load_model, save_model
from lamella.mil.batches import Bag
from lamella.progress import AlikeOnce, Progress
from lamella.runs.attended import AttendedTiles, BagTiles, encode_tiles
from lamella.runs.bags import RunBags, hash_json, load_bags
from lamella.runs.folder import RunFolder
from lamella.runs.predict import find_tuned_file
from lamella.runs.predictions import tabulate
from lamella.runs.settings import StageTwo
from lamella.slide import hash_quickly, open_slide
from lamella.slide.signature import sign_slide

if TYPE_CHECKING:
    from pydantic import JsonValue

READINGS = ("all", "top")
STAGE_1 = "stage 1"
_Reading = tuple[str, str, SlidePrediction]  # what was trained, what it read, what it says


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Job:
    """One fold and seed of stage 2, and all it needs."""

    folder: Path
    round_: Round
    seed: int
    model: SlideModel
    extract: ExtractSettings
    stage: StageTwo
    tiles: BagTiles
    progress: Progress
    called: str

    @property
    def bags(self) -> RunBags:
        """Of the frozen encoder."""
        return self.tiles.bags

    @property
    def slides(self) -> dict[str, CohortSlide]:
        """Of the cohort, by id."""
        return {slide.slide_id: slide for slide in self.tiles.cohort.slides}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StageOne:
    """What stage 2 goes on from.

    Attributes:
        rounds: The folds.
        models: Of each fold, a model a seed.
        bags: Of the frozen encoder.
        extract: How the bags were made.
    """

    rounds: Sequence[Round]
    models: Mapping[int, Sequence[SlideModel]]
    bags: RunBags
    extract: ExtractSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How one training of stage 2 went.

    Attributes:
        fold: Number of the round.
        seed: Of the model that it went on from.
        finetuned: `head` or `tuned`.
        record: Its epochs; epoch 0 is stage 1.
    """

    fold: int
    seed: int
    finetuned: str
    record: TrainingRecord


def train_rounds(
    stage_1: StageOne, cohort: Cohort, stage: StageTwo, folder: RunFolder, progress: Progress
) -> tuple[pd.DataFrame, list[Training]]:
    """Train stage 2 of some folds and predict what they test; finished trainings are kept, and nothing is measured.

    Args:
        stage_1: Folds, models and bags.
        cohort: For paths, labels and patients.
        stage: How.
        folder: The run's.
        progress: Where to report to.

    Returns:
        The long table with two columns more, `finetuned` (`stage 1`, `head` or `tuned`) and `reading` (`all` tiles, or
        its own `top` ones), and how the training of each fold and seed went.
    """
    readings: list[_Reading] = []
    trainings: list[Training] = []
    alike = AlikeOnce(progress, of="the fine-tuned encoders of all folds and seeds")
    tiles = BagTiles(cohort=cohort, bags=stage_1.bags, cut=stage_1.extract.cut)
    begun = [
        (round_, number, model)
        for round_ in stage_1.rounds
        for number, model in enumerate(list(stage_1.models[round_.fold])[: stage.n_seeds])
    ]
    for nth, (round_, number, model) in enumerate(begun, start=1):
        job = _Job(
            folder=folder.stage_two(round_.fold, model.settings.seed),
            round_=round_,
            seed=model.settings.seed,
            model=model,
            extract=stage_1.extract,
            stage=dataclasses.replace(
                stage, finetune=dataclasses.replace(stage.finetune, seed=stage.finetune.seed + number)
            ),
            tiles=tiles,
            progress=alike,
            called=f"{nth} of {len(begun)}",
        )
        predicted, trained = _run_job(job)
        readings += predicted
        trainings += trained
    table = tabulate([prediction for _, _, prediction in readings], cohort.classes)
    table["finetuned"] = [kind for kind, _, _ in readings]
    table["reading"] = [reading for _, reading, _ in readings]
    return table, trainings


def _run_job(job: _Job) -> tuple[list[_Reading], list[Training]]:
    """Train and predict all that is made of one fold and seed."""
    trainings: list[Training] = []
    test = [slide_id for slide_id in job.round_.test if slide_id in job.bags.features]
    readings = _read_twice(job, STAGE_1, job.model, {slide_id: job.bags.features[slide_id] for slide_id in test})
    for kind in job.stage.finetuned:
        model, encoder = _train_or_load(job, kind)
        trainings.append(Training(fold=job.round_.fold, seed=job.seed, finetuned=kind, record=model.training))
        features = job.bags.features if kind == "head" else _encode_again(job, encoder, test)
        readings += _read_twice(job, kind, model, {i: features[i] for i in test if i in features})
    return readings, trainings


def _read_twice(job: _Job, kind: str, model: SlideModel, features: Mapping[str, Bag]) -> list[_Reading]:
    """Predict slides from all tiles, and from the k of them that this very model attends most."""
    slides, readings = job.slides, []
    for slide_id, rows in features.items():
        whole = model.predict(rows)
        top = model.predict(rows[choose_top(whole.attention, job.stage.finetune.k)])
        for reading, prediction in zip(READINGS, (whole, top), strict=True):
            readings.append((kind, reading, prediction.of(slides[slide_id], fold=job.round_.fold, seed=job.seed)))
    return readings


def _train_or_load(job: _Job, kind: str) -> tuple[SlideModel, EncoderSpec]:
    """Return a model and its encoder; finished ones of the same data and settings are loaded."""
    folder = job.folder / kind
    settings = dataclasses.replace(job.stage.finetune, finetuned=kind)
    provenance = job.model.provenance
    key = hash_json([settings.as_json(), provenance.get("key"), provenance.get("fingerprint")])
    if (folder / "model" / "model.json").exists():
        try:
            model = load_model(folder / "model")
            path = None if kind == "head" else find_tuned_file(folder, model)
            if model.provenance.get("stage_2_key") == key and (kind == "head" or path is not None):
                _drop_states(folder, key)  # a kill may have come between the model and their removal
                return model, job.extract.encoder if path is None else EncoderSpec(str(path))
        except LamellaError:
            pass  # damaged: trained again
    return _train(job, folder, settings, key)


def _train(job: _Job, folder: Path, settings: FinetuneSettings, key: str) -> tuple[SlideModel, EncoderSpec]:
    round_, model, slides = job.round_, job.model, job.slides
    learned = (*round_.train, *round_.val)
    classes = job.tiles.cohort.classes
    for path in sorted(folder.glob("*")):
        if key[:12] not in path.name:  # of a training with other settings: its bags may bear this one's name
            remove(path)
    result = fit_encoder(
        build_network(job.extract.encoder),
        model,
        AttendedTiles(job.tiles, learned, model, settings.k, folder / f"chosen-{key[:12]}"),
        slides=LabelledSlides(
            targets={i: classes.index(str(slides[i].label)) for i in learned}, train=round_.train, val=round_.val
        ),
        settings=settings,
        places=FitPlaces(
            checkpoint=folder / f"epoch-{key[:12]}.pt",
            maps=folder / f"maps-{key[:12]}",
            name=f"fine-tune {'head' if settings.finetuned == 'head' else 'encoder and head'}, {job.called}",
        ),
        progress=job.progress,
    )
    base = find_encoder(job.extract.encoder.name)
    encoder, provenance = job.extract.encoder, dict(model.provenance)
    if settings.finetuned == "tuned":
        seen = _list_seen(slides[i] for i in learned)
        described: dict[str, JsonValue] = {**settings.as_json(), "best_epoch": result.best_epoch}
        path = save_tuned_encoder(result.network, base, seen, folder, trained=described)
        encoder = EncoderSpec(str(path))
        provenance |= {"encoder": path.stem, "encoder_file": path.name, "fingerprint": fingerprint_encoder(encoder)}
    tuned = dataclasses.replace(
        model,
        head=result.head,
        training=dataclasses.replace(model.training, best_epoch=result.best_epoch, history=result.history[1:]),
        threshold=None,
        provenance=provenance | {"stage_2_key": key, "stage_2": settings.as_json()},
    )
    save_model(tuned, folder / "model")
    _drop_states(folder, key)
    return tuned, encoder


def _drop_states(folder: Path, key: str) -> None:
    """Remove what is of use to an unfinished training alone: the state after each epoch, maps, choices of tiles."""
    for path in sorted(folder.glob(f"*-{key[:12]}*")):
        remove(path)


def _list_seen(slides: Iterable[CohortSlide]) -> SeenSlides:
    """Return what an encoder has seen of these slides."""
    rows = []
    for row in slides:
        with open_slide(row.path, slide_mpp=row.slide_mpp, image=row.slide_image) as slide:
            rows.append((row.slide_id, row.patient_id, hash_quickly(row.path), sign_slide(slide)))
    return make_seen(rows)


def _encode_again(job: _Job, encoder: EncoderSpec, test: Sequence[str]) -> Mapping[str, Bag]:
    """Encode the test slides with the tuned encoder: all their tiles, or those that stage 1 attends most."""
    if job.stage.evaluate == "all":
        slides = [slide for slide_id, slide in job.slides.items() if slide_id in set(test)]
        settings = dataclasses.replace(job.extract, encoders=(encoder,))
        report = extract_cohort(
            slides, settings, job.folder / "tuned" / "features", is_part=True, progress=job.progress
        )
        failed = {failure.slide_id for failure in report.failures}
        return load_bags(report.folder, [i for i in test if i not in failed]).features
    network = build_network(encoder)
    tiles = job.tiles.choose(test, job.model, job.stage.finetune.k)
    return {slide_id: encode_tiles(network, tiles.read(slide_id)) for slide_id in test}
