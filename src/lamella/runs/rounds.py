"""Training and predicting the rounds of a study: every model that is needed, none twice."""

import dataclasses
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lamella.cohort import Cohort, Round
from lamella.errors import CohortError, ModelError
from lamella.files import remove
from lamella.mil import SlideModel, SlidePrediction, average_predictions, load_model, save_model
from lamella.mil.batches import Bag
from lamella.mil.settings import TrainSettings
from lamella.mil.together import FitJob, fit_together
from lamella.mil.width import fit_projection, read_whole
from lamella.progress import Progress
from lamella.runs.bags import RunBags, hash_json
from lamella.runs.folder import RunFolder
from lamella.runs.predictions import tabulate

_NONE = np.zeros(0, np.float32)  # of predictions whose attention nobody asks for: it may be a million numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A way of dividing the cohort: `fold` (the folds or splits) or `batch` (each batch left out in turn)."""

    name: str
    rounds: tuple[Round, ...]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ProtocolOutcome:
    """What came out of one protocol.

    Attributes:
        protocol: Which.
        predictions: The long table: test and validation slides of every round, by each of the round's models.
        tested: Of each test slide, the mean over its round's models.
    """

    protocol: Protocol
    predictions: pd.DataFrame
    tested: tuple[SlidePrediction, ...] = ()


def keep_available(rounds: Sequence[Round], available: Container[str], cohort: Cohort) -> tuple[Round, ...]:
    """Take slides without a bag out of the rounds.

    Raises:
        CohortError: If a side of a round is left without a class.
    """
    label = {slide.slide_id: slide.label for slide in cohort.slides}
    kept = []
    for round_ in rounds:
        sides = {side: tuple(i for i in getattr(round_, side) if i in available) for side in ("train", "val", "test")}
        for side in ("train", "val"):
            missing = sorted(set(cohort.classes) - {str(label[i]) for i in sides[side]})
            if missing:
                raise CohortError(
                    f"round {round_.fold} is left without a {side} slide of class '{missing[0]}', since slides could "
                    "not be done (features/failures.csv says why). Mend those slides, or ask for fewer folds."
                )
        kept.append(Round(fold=round_.fold, **sides))
    return tuple(kept)


def train_protocol(
    protocol: Protocol,
    bags: RunBags,
    cohort: Cohort,
    settings: Sequence[TrainSettings],
    folder: RunFolder,
    progress: Progress,
    *,
    width: int | None = None,
) -> dict[int, list[SlideModel]]:
    """Return the models of each round, one a seed; finished ones of the same data and settings are loaded.

    Where one is missing, all are trained together anew and the missing ones kept: a head's last bits depend on the
    heads that are trained beside it, and a run that was killed is to end with the same bytes.

    Args:
        protocol: The rounds.
        bags: Of all slides in them.
        cohort: For labels and classes.
        settings: One for each seed.
        folder: Where models are kept.
        progress: Where to report to.
        width: Most numbers of an embedding that heads read: principal components of each round's training tiles. None,
            and embeddings that are no wider, leave them as they are.
    """
    labels = {slide.slide_id: str(slide.label) for slide in cohort.slides}
    wanted = [(round_, setting) for round_ in protocol.rounds for setting in settings]
    paths = [folder.model(protocol.name, round_.fold, setting.seed) for round_, setting in wanted]
    keys = [_find_key(round_, setting, bags, labels, cohort, width) for round_, setting in wanted]
    kept = [_load_finished(path, key) for path, key in zip(paths, keys, strict=True)]
    remove_models(folder, protocol.name, but=paths)
    if any(model is None for model in kept):
        jobs = [
            FitJob(train=round_.train, val=round_.val, settings=setting, labels=labels) for round_, setting in wanted
        ]
        fitted = _fit(bags.features, jobs, cohort.classes, width, progress)
        _forget_results(folder)  # an earlier run's: from here on its models are not all there
        for number, (round_, _) in enumerate(wanted):
            if kept[number] is None:
                trained = _describe(fitted[number], round_, keys[number], bags, cohort)
                save_model(trained, paths[number])
                kept[number] = trained
    models: dict[int, list[SlideModel]] = {}
    for (round_, _), model in zip(wanted, kept, strict=True):
        assert model is not None
        models.setdefault(round_.fold, []).append(model)
    return models


def _fit(
    features: Mapping[str, Bag], jobs: Sequence[FitJob], classes: tuple[str, ...], width: int | None, progress: Progress
) -> list[SlideModel]:
    """Fit heads, on principal components of their own training tiles where embeddings are wider than that."""
    sides = list(dict.fromkeys((job.train, job.val) for job in jobs))
    projections = (
        {} if width is None else {side: fit_projection([features[i] for i in side[0]], width) for side in sides}
    )
    if not any(projections.values()):
        return fit_together(features, jobs, classes, progress=progress)
    fitted: dict[int, SlideModel] = {}
    for side in sides:  # one after the other: only one side's narrowed bags are held
        projection = projections[side]
        assert projection is not None  # of embeddings of one width
        narrowed = {i: projection.apply(features[i]) for i in (*side[0], *side[1])}
        places = [place for place, job in enumerate(jobs) if (job.train, job.val) == side]
        models = fit_together(narrowed, [jobs[place] for place in places], classes, progress=progress)
        fitted |= {place: read_whole(model, projection) for place, model in zip(places, models, strict=True)}
    return [fitted[place] for place in range(len(jobs))]


def remove_models(folder: RunFolder, protocol: str, *, but: Collection[Path] = ()) -> None:
    """Remove the models of a protocol that an earlier run with other folds or seeds left; nothing may read them."""
    strays = [path for path in sorted(folder.models.glob(f"{protocol}[0-9]*/seed*")) if path not in but]
    if strays:
        _forget_results(folder)  # until this run is finished too
    for path in strays:
        remove(path)
        if not any(path.parent.iterdir()):
            remove(path.parent)


def _forget_results(folder: RunFolder) -> None:
    """Remove what is written last, once a run is finished: its record and its figures."""
    remove(folder.settings)
    remove(folder.metrics)


def predict_protocol(
    protocol: Protocol, models: Mapping[int, Sequence[SlideModel]], bags: RunBags, cohort: Cohort
) -> ProtocolOutcome:
    """Predict the test and validation slides of each round by each of that round's models."""
    by_id = {slide.slide_id: slide for slide in cohort.slides}
    predictions: list[SlidePrediction] = []
    tested: dict[str, list[SlidePrediction]] = {}
    for round_ in protocol.rounds:
        for model in models[round_.fold]:
            for side, slide_ids in (("test", round_.test), ("val", round_.val)):
                for slide_id in slide_ids:
                    prediction = model.predict(bags.features[slide_id]).of(
                        by_id[slide_id], fold=round_.fold, seed=model.settings.seed, side=side
                    )
                    predictions.append(dataclasses.replace(prediction, attention=_NONE))
                    if side == "test":
                        tested.setdefault(slide_id, []).append(prediction)
    return ProtocolOutcome(
        protocol=protocol,
        predictions=tabulate(predictions, cohort.classes),
        tested=tuple(map(average_predictions, tested.values())),
    )


def _find_key(
    round_: Round,
    settings: TrainSettings,
    bags: RunBags,
    labels: Mapping[str, str],
    cohort: Cohort,
    width: int | None,
) -> str:
    """Return what a model is made from, hashed: settings, classes, and each slide's side, label and bag."""
    return hash_json(
        [
            dataclasses.asdict(settings),
            cohort.classes,
            [[side, i, labels[i], bags.key(i)] for side in ("train", "val") for i in getattr(round_, side)],
            *([] if width is None else [width]),
        ]
    )


def _load_finished(path: Path, key: str) -> SlideModel | None:
    """Return a model that was made from the same; None where there is none."""
    if not path.exists():
        return None
    try:
        model = load_model(path)
    except ModelError:
        return None  # damaged or of an old version: trained again, which loses nothing
    return model if model.provenance.get("key") == key else None


def _describe(model: SlideModel, round_: Round, key: str, bags: RunBags, cohort: Cohort) -> SlideModel:
    """Return a model with what its folder says of where it comes from."""
    shared = ("encoder", "weights", "fingerprint", "tile_px", "mpp", "stride_px", "min_tissue", "tissue", "precision",
              "tiles_per_slide")  # fmt: skip
    patients = {slide.slide_id: slide.patient_id for slide in cohort.slides}
    return dataclasses.replace(
        model,
        positive=cohort.positive,
        provenance=bags.facts[round_.train[0]].choose(shared)
        | {
            "key": key,
            "seen_patients": sorted({patients[i] for i in (*round_.train, *round_.val)}),
            "seen_images": sorted(image for i in (*round_.train, *round_.val) for image in bags.facts[i].list_images()),
        },
    )
