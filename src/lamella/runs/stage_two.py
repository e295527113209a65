"""Stage 2 of a study: head only and tuned, beside stage 1, each on all tiles and on its own most attended ones.

DIR/finetuned/arms.json                          AUC of every arm, differences from stage 1, intervals
DIR/finetuned/predictions.csv                    what each arm says of each slide
DIR/finetuned/fold<k>/seed<s>/<arm>/             a training: encoder, model, epochs
DIR/finetuned/fold<k>/seed<s>/tuned/features/    bags of the tuned encoder, of the fold's test slides
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.auc import estimate_auc, find_auc_interval
from lamella.analysis.differences import find_differences
from lamella.analysis.predictions import PredictionTable, average_by_patient
from lamella.cohort import Cohort, CohortSlide, Round
from lamella.encoders import EncoderSpec, find_encoder, fingerprint_encoder
from lamella.encoders.network import build_network
from lamella.encoders.packing import save_tuned_encoder
from lamella.encoders.tuned import SeenSlides, make_seen
from lamella.errors import CohortError, LamellaError
from lamella.features.extract import extract_cohort
from lamella.features.settings import ExtractSettings
from lamella.files import remove, replacing, write_record, write_table
from lamella.finetune.fit import FitPlaces, LabelledSlides, fit_encoder
from lamella.finetune.settings import FinetuneSettings
from lamella.finetune.tiles import ChosenTiles, SlideTiles, choose_top
from lamella.mil import SlideModel, TrainingRecord, load_model, save_model
from lamella.progress import AlikeOnce, Progress
from lamella.runs.bags import RunBags, hash_json, load_bags
from lamella.runs.folder import RunFolder
from lamella.runs.predict import find_tuned_file
from lamella.runs.settings import StageTwo
from lamella.slide import hash_quickly, open_slide
from lamella.slide.signature import sign_slide

READINGS = ("all", "top")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ArmPrediction:
    """What one arm says of one slide, reading all tiles or its own most attended ones."""

    slide: CohortSlide
    fold: int
    seed: int
    arm: str
    reading: str
    logits: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Place:
    """One fold and seed of stage 2, and all it needs."""

    folder: Path
    fold: Round
    seed: int
    model: SlideModel
    extract: ExtractSettings
    stage: StageTwo
    cohort: Cohort
    bags: RunBags
    progress: Progress
    called: str


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
        arm: `head` or `tuned`.
        record: Its epochs; epoch 0 is stage 1.
    """

    fold: int
    seed: int
    arm: str
    record: TrainingRecord

    def as_json(self) -> dict[str, Any]:
        """Return the epoch that was kept, as `arms.json` has it."""
        return {"fold": self.fold, "seed": self.seed, "arm": self.arm, "best_epoch": self.record.best_epoch}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StageTwoOutcome:
    """What came out of stage 2.

    Attributes:
        predictions: What each arm says of each slide.
        trainings: Of each fold, seed and arm.
        scores: What `arms.json` holds.
    """

    predictions: list[ArmPrediction]
    trainings: list[Training]
    scores: dict[str, Any]


def finetune_rounds(
    stage_1: StageOne, cohort: Cohort, stage: StageTwo, folder: RunFolder, progress: Progress
) -> StageTwoOutcome:
    """Train stage 2 of every fold, and measure its arms beside stage 1; finished trainings are kept.

    Args:
        stage_1: Folds, models and bags.
        cohort: For paths, labels and patients.
        stage: How.
        folder: The run's.
        progress: Where to report to.

    Raises:
        EncoderError: If the encoder cannot be trained as asked.
        SlideError: If a slide that is learned from cannot be read any more.
    """
    predictions, trainings = train_rounds(stage_1, cohort, stage, folder, progress)
    best_epochs = [training.as_json() for training in trainings]
    whole, lost = _keep_whole(predictions)
    found = measure_arms(whole, cohort)
    found["settings"] = dataclasses.asdict(stage)
    found["best_epochs"] = best_epochs
    found["notes"] = _say_unchanged(best_epochs)
    if lost:
        found["notes"].append(
            f"{len(lost)} slides could not be encoded with a fine-tuned encoder (finetuned/*/*/tuned/features/"
            f"failures.csv says why) and are left out of every arm of stage 2: {', '.join(lost[:3])}"
            f"{', ...' if len(lost) > 3 else ''}."
        )
    for note in found["notes"]:
        progress.say(note)
    write_record(folder.finetuned / "arms.json", found)
    _save_predictions(predictions, cohort, folder.finetuned / "predictions.csv")
    return StageTwoOutcome(predictions=predictions, trainings=trainings, scores=found)


def train_rounds(
    stage_1: StageOne, cohort: Cohort, stage: StageTwo, folder: RunFolder, progress: Progress
) -> tuple[list[ArmPrediction], list[Training]]:
    """Train stage 2 of some folds and predict what they test; finished trainings are kept, and nothing is measured.

    Args:
        stage_1: Folds, models and bags.
        cohort: For paths, labels and patients.
        stage: How.
        folder: The run's.
        progress: Where to report to.

    Returns:
        What each arm says of each slide, and how the training of each fold, seed and arm went.
    """
    predictions: list[ArmPrediction] = []
    number = 0
    trainings: list[Training] = []
    alike = AlikeOnce(progress, of="the fine-tuned encoders of all folds and seeds")
    n_places = sum(min(stage.n_seeds, len(stage_1.models[one.fold])) for one in stage_1.rounds)
    for one in stage_1.rounds:
        for seed, model in enumerate(list(stage_1.models[one.fold])[: stage.n_seeds]):
            number += 1
            place = _Place(
                folder=folder.stage_two(one.fold, model.settings.seed),
                fold=one,
                seed=model.settings.seed,
                model=model,
                extract=stage_1.extract,
                stage=dataclasses.replace(
                    stage, finetune=dataclasses.replace(stage.finetune, seed=stage.finetune.seed + seed)
                ),
                cohort=cohort,
                bags=stage_1.bags,
                progress=alike,
                called=f"{number} of {n_places}",
            )
            predicted, trained = _run_place(place)
            predictions += predicted
            trainings += trained
    return predictions, trainings


def measure_arms(predictions: Sequence[ArmPrediction], cohort: Cohort) -> dict[str, Any]:
    """Measure arms on the same slides: AUC within folds with intervals, and paired differences from stage 1.

    A patient's score is the mean over its slides and over the seeds. The noise of training enters the differences by
    the SD over seeds, where there are several.
    """
    names = list(dict.fromkeys((p.arm, p.reading) for p in predictions))
    seeds = sorted({p.seed for p in predictions})
    stacked = {name: _tabulate([p for p in predictions if (p.arm, p.reading) == name], cohort) for name in names}
    first = next(iter(stacked.values()))
    estimate = estimate_auc(
        np.stack([table.logits for table in stacked.values()]),
        first.targets,
        folds=first.folds,
        patients=first.patients,
    )
    seed_auc = np.array([[_auc_of_seed(predictions, name, seed, cohort) for seed in seeds] for name in names])
    differences = None if estimate is None else find_differences(estimate, seed_auc=seed_auc)
    rows = []
    for place, (arm, reading) in enumerate(names):
        row: dict[str, Any] = {"arm": arm, "reading": reading, "auc": None, "interval": None, "less_stage_1": None}
        if estimate is not None:
            row["auc"] = float(estimate.auc[place])
            row["interval"] = list(find_auc_interval(estimate, arm=place))
            base = names.index(("stage 1", reading))
            row["auc_by_seed"] = seed_auc[place].tolist()
            if place != base and differences is not None:
                difference = differences.compare(place, base)
                row["less_stage_1"] = {"difference": difference.difference, "interval": list(difference.interval)}
        rows.append(row)
    return {"arms": rows, "n_patients": len(first.labels), "n_seeds": len(seeds)}


def _auc_of_seed(predictions: Sequence[ArmPrediction], name: tuple[str, str], seed: int, cohort: Cohort) -> float:
    table = _tabulate([p for p in predictions if (p.arm, p.reading) == name and p.seed == seed], cohort)
    estimate = estimate_auc(table.logits, table.targets, folds=table.folds, patients=table.patients)
    return float("nan") if estimate is None else float(estimate.auc[0])


def _tabulate(predictions: Sequence[ArmPrediction], cohort: Cohort) -> PredictionTable:
    """Return one row a patient: the mean logits over seeds, then over slides."""
    by_slide: dict[str, list[ArmPrediction]] = {}
    for one in predictions:
        by_slide.setdefault(one.slide.slide_id, []).append(one)
    ordered = [by_slide[slide_id] for slide_id in sorted(by_slide)]
    return average_by_patient(
        PredictionTable(
            classes=cohort.classes,
            positive=cohort.positive,
            slide_ids=tuple(group[0].slide.slide_id for group in ordered),
            patient_ids=tuple(group[0].slide.patient_id for group in ordered),
            labels=tuple(str(group[0].slide.label) for group in ordered),
            folds=np.array([group[0].fold for group in ordered]),
            logits=np.stack([np.mean([one.logits for one in group], axis=0) for group in ordered]),
        )
    )


def _keep_whole(predictions: Sequence[ArmPrediction]) -> tuple[list[ArmPrediction], list[str]]:
    """Return the predictions of the slides that every arm, reading and seed predicted, and the ids of the others.

    Raises:
        CohortError: If no slide was.
    """
    wanted = {(one.arm, one.reading, one.seed) for one in predictions}
    found: dict[str, set[tuple[str, str, int]]] = {}
    for one in predictions:
        found.setdefault(one.slide.slide_id, set()).add((one.arm, one.reading, one.seed))
    lost = sorted(slide_id for slide_id, own in found.items() if own != wanted)
    if len(lost) == len(found):
        raise CohortError(
            "no slide could be predicted by every arm of stage 2. Mend the slides that "
            "finetuned/*/*/tuned/features/failures.csv lists, and run the same command again."
        )
    return [one for one in predictions if one.slide.slide_id not in set(lost)], lost


def _say_unchanged(best_epochs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say of each arm how often no epoch was better than stage 1, so that what is called trained is as it was."""
    notes = []
    for arm, name in (("head", "the head alone"), ("tuned", "encoder and head")):
        own = [one["best_epoch"] for one in best_epochs if one["arm"] == arm]
        if own.count(0):
            notes.append(
                f"in {own.count(0)} of {len(own)} trainings on of {name} no epoch did better on validation than stage "
                "1, which was kept as it was: there, a difference from stage 1 says nothing of fine-tuning."
            )
    return notes


def _run_place(place: _Place) -> tuple[list[ArmPrediction], list[Training]]:
    """Train and predict every arm of one fold and seed."""
    trainings: list[Training] = []
    test = [slide_id for slide_id in place.fold.test if slide_id in place.bags.features]
    found = [
        one
        for slide_id in test
        for one in _read_twice(place, slide_id, "stage 1", place.model, place.bags.features[slide_id])
    ]
    for arm in place.stage.arms:
        model, encoder = _train_or_load(place, arm)
        trainings.append(Training(fold=place.fold.fold, seed=place.seed, arm=arm, record=model.training))
        if arm == "head":
            features: Mapping[str, NDArray[Any]] = place.bags.features
        else:
            features = _encode_again(place, encoder, test)
        for slide_id in test:
            if slide_id in features:
                found += _read_twice(place, slide_id, arm, model, features[slide_id])
    return found, trainings


def _read_twice(
    place: _Place, slide_id: str, arm: str, model: SlideModel, features: NDArray[Any]
) -> list[ArmPrediction]:
    """Predict a slide from all tiles, and from the k of them that this very arm attends most."""
    slide = next(slide for slide in place.cohort.slides if slide.slide_id == slide_id)
    whole = model.predict(features)
    top = model.predict(features[choose_top(whole.attention, place.stage.finetune.k)])
    return [
        ArmPrediction(slide=slide, fold=place.fold.fold, seed=place.seed, arm=arm, reading=reading, logits=found.logits)
        for reading, found in zip(READINGS, (whole, top), strict=True)
    ]


def _train_or_load(place: _Place, arm: str) -> tuple[SlideModel, EncoderSpec]:
    """Return the model and the encoder of an arm; finished ones of the same data and settings are loaded."""
    folder = place.folder / arm
    settings = dataclasses.replace(place.stage.finetune, arm=arm)
    key = hash_json(
        [dataclasses.asdict(settings), place.model.provenance.get("key"), place.model.provenance.get("fingerprint")]
    )
    if (folder / "model" / "model.json").exists():
        try:
            model = load_model(folder / "model")
            path = None if arm == "head" else find_tuned_file(folder, model)
            if model.provenance.get("stage_2_key") == key and (arm == "head" or path is not None):
                return model, place.extract.encoder if path is None else EncoderSpec(str(path))
        except LamellaError:
            pass  # damaged: trained again
    return _train(place, arm, settings, key)


def _train(place: _Place, arm: str, settings: FinetuneSettings, key: str) -> tuple[SlideModel, EncoderSpec]:
    folder, one, model = place.folder / arm, place.fold, place.model
    slides = {slide.slide_id: slide for slide in place.cohort.slides}
    for path in sorted(folder.glob("*")):
        if key[:12] not in path.name:  # of a training with other settings: its bags may bear this one's name
            remove(path)
    network = build_network(place.extract.encoder)
    result = fit_encoder(
        network,
        model,
        _FoldTiles(place, settings, folder / f"chosen-{key[:12]}"),
        slides=LabelledSlides(
            targets={i: place.cohort.classes.index(str(slides[i].label)) for i in (*one.train, *one.val)},
            train=one.train,
            val=one.val,
        ),
        settings=settings,
        places=FitPlaces(
            checkpoint=folder / f"epoch-{key[:12]}.pt",
            maps=folder / f"maps-{key[:12]}",
            name=f"fine-tune {'head' if arm == 'head' else 'encoder and head'}, {place.called}",
        ),
        progress=place.progress,
    )
    base = find_encoder(place.extract.encoder.name)
    encoder, provenance = place.extract.encoder, dict(model.provenance)
    if arm == "tuned":
        seen = _list_seen(slides[i] for i in (*one.train, *one.val))
        described = dataclasses.asdict(settings) | {"best_epoch": result.best_epoch}
        path = save_tuned_encoder(result.network, base, seen, folder, trained=described)
        encoder = EncoderSpec(str(path))
        provenance |= {"encoder": path.stem, "encoder_file": path.name, "fingerprint": fingerprint_encoder(encoder)}
    tuned = dataclasses.replace(
        model,
        head=result.head,
        training=dataclasses.replace(model.training, best_epoch=result.best_epoch, history=result.history[1:]),
        threshold=None,
        provenance=provenance | {"stage_2_key": key, "stage_2": dataclasses.asdict(settings)},
    )
    save_model(tuned, folder / "model")
    for path in sorted(folder.glob(f"*-{key[:12]}*")):
        remove(path)  # the state after each epoch, maps and choices of tiles: of use to an unfinished training alone
    return tuned, encoder


def _list_seen(slides: Any) -> SeenSlides:
    """Return what an encoder has seen of these slides."""
    rows = []
    for item in slides:
        with open_slide(item.path, slide_mpp=item.slide_mpp, image=item.slide_image) as slide:
            rows.append((item.slide_id, item.patient_id, hash_quickly(item.path), sign_slide(slide)))
    return make_seen(rows)


def _encode_again(place: _Place, encoder: EncoderSpec, test: Sequence[str]) -> Mapping[str, NDArray[Any]]:
    """Encode the test slides with the tuned encoder: all their tiles, or those that stage 1 attends most."""
    slides = [slide for slide in place.cohort.slides if slide.slide_id in set(test)]
    settings = dataclasses.replace(place.extract, encoders=(encoder,))
    folder = place.folder / "tuned"
    if place.stage.evaluate == "all":
        report = extract_cohort(slides, settings, folder / "features", is_part=True, progress=place.progress)
        failed = {failure.slide_id for failure in report.failures}
        return load_bags(report.folder, [i for i in test if i not in failed]).features
    network = build_network(encoder)
    tiles = _choose_by_model(place, test, place.model, place.stage.finetune.k)
    return {slide_id: _encode(network, tiles.read(slide_id)) for slide_id in test}


def _encode(network: Any, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Encode `(n, H, W, 3)` uint8 tiles in torch, a few at once."""
    import torch

    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(tiles[start : start + 8]).permute(0, 3, 1, 2).float())
            for start in range(0, len(tiles), 8)
        ]
        return torch.cat(parts).numpy()


class _FoldTiles:
    """The most attended tiles of the training and validation slides of a fold; it can choose them again."""

    def __init__(self, place: _Place, settings: FinetuneSettings, folder: Path) -> None:
        one = place.fold
        self._place, self._settings, self._folder = place, settings, folder
        self._tiles = _choose_by_model(place, (*one.train, *one.val), place.model, settings.k)

    def read(self, slide_id: str) -> NDArray[np.uint8]:
        """Return the tiles that stage 1 attends most, `(k, H, W, 3)` uint8."""
        return self._tiles.read(slide_id)

    def choose_again(self, network: Any, head: Any, epoch: int) -> SlideTiles:
        """Choose by the network as it is after an epoch, or take what was chosen then."""
        path, one = self._folder / f"after-{epoch}.npz", self._place.fold
        if not path.exists():
            model = dataclasses.replace(self._place.model, head=head)
            places = {}
            for slide_id in (*one.train, *one.val):
                attention = model.predict(self._encode_all(network, slide_id)).attention
                places[slide_id] = choose_top(attention, self._settings.k)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **cast("Any", places))
        with np.load(path, allow_pickle=False) as kept:
            return _read_chosen(self._place, {name: kept[name] for name in kept.files})

    def _encode_all(self, network: Any, slide_id: str) -> NDArray[np.float32]:
        """Encode all tiles of a slide, a few read at once."""
        n, parts = len(self._place.bags.corners_l0[slide_id]), []
        for start in range(0, n, 64):
            some = _read_chosen(self._place, {slide_id: np.arange(start, min(start + 64, n))})
            parts.append(_encode(network, some.read(slide_id)))
        return np.concatenate(parts)


def _choose_by_model(place: _Place, slide_ids: Sequence[str], model: SlideModel, k: int) -> SlideTiles:
    """Return the tiles of some slides that a model attends most."""
    attention = {i: model.predict(place.bags.features[i]).attention for i in slide_ids}
    return _read_chosen(place, {i: choose_top(one, k) for i, one in attention.items()})


def _read_chosen(place: _Place, rows: Mapping[str, NDArray[np.int64]]) -> SlideTiles:
    """Return a source of tiles by their places in the bags."""
    slides = {slide.slide_id: slide for slide in place.cohort.slides}
    cut = place.extract.cut
    chosen = {i: ChosenTiles(slides[i], place.bags.corners_l0[i][own]) for i, own in rows.items()}
    return SlideTiles(chosen, cut.spec, max_upsample=cut.max_upsample)


def _save_predictions(predictions: Sequence[ArmPrediction], cohort: Cohort, path: Path) -> None:
    columns = ["slide_id", "patient_id", "label", "fold", "seed", "arm", "reading"]
    rows = [
        {
            "slide_id": one.slide.slide_id,
            "patient_id": one.slide.patient_id,
            "label": one.slide.label,
            "fold": one.fold,
            "seed": one.seed,
            "arm": one.arm,
            "reading": one.reading,
            **{f"logit_{name}": repr(float(value)) for name, value in zip(cohort.classes, one.logits, strict=True)},
        }
        for one in predictions
    ]
    write_table(path, [*columns, *(f"logit_{name}" for name in cohort.classes)], rows)
