"""Models whose maps localisation measures: those of the run, and of controls that are trained beside it."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from lamella.cohort import Cohort, list_rounds
from lamella.cohort.permute import permute_labels
from lamella.encoders import EncoderSpec
from lamella.errors import CohortError
from lamella.explain.cam_mapper import CamMapper
from lamella.explain.cam_parts import CamPart, PartFinder
from lamella.features.extract import extract_cohort
from lamella.features.settings import ExtractSettings
from lamella.mil.settings import TrainSettings
from lamella.progress import Progress
from lamella.runs.bags import load_bags
from lamella.runs.facts import read_facts
from lamella.runs.folder import RunFolder
from lamella.runs.leaks import refuse_seen_by_encoder
from lamella.runs.predict import FinishedRun
from lamella.runs.rounds import Protocol, keep_available, train_protocol
from lamella.runs.settings import CamSettings


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Models whose maps are measured: the run's, or a control's."""

    name: str
    find_parts: Callable[[str], Sequence[CamPart]]
    mapper: CamMapper | None
    folder: Path


def run_source(run: FinishedRun, cam: CamSettings | None, arm: str, cohort: Cohort, extract: ExtractSettings) -> Source:
    """Return the run's own models and maps."""
    settings = dataclasses.replace(cam or CamSettings(), finetuned=arm)
    finder = PartFinder(run, settings, cohort, None)
    mapper = None if cam is None else CamMapper(run.classes, settings, run.positive, extract)
    return Source("", finder.find, mapper, run.folder.cam_of(arm))


def refuse_seen(source: Source, slide_ids: Sequence[str], cohort: Cohort) -> None:
    """Refuse slides that an encoder of a source has seen.

    Raises:
        LeakageError: Naming the slide, and how it was seen.
    """
    facts = {}
    for slide_id in slide_ids:
        for part in source.find_parts(slide_id):
            path = part.bags / f"{slide_id}.h5"
            if path.exists():
                facts[slide_id] = read_facts(part.open_bag(slide_id))
    refuse_seen_by_encoder(list(facts), facts, cohort)


def control_source(
    run: FinishedRun,
    cam: CamSettings | None,
    cohort: Cohort,
    extract: ExtractSettings,
    kind: str,
    progress: Progress,
) -> Source:
    """Train a control on the run's folds; what is finished is kept."""
    folder = RunFolder(run.folder.path / "controls" / kind.replace(" ", "-"))
    bag_folder = extract.folder(run.folder.features)
    control, labelled = extract, cohort
    if kind == "random weights":
        spec = EncoderSpec(extract.encoder.name, "random")
        control = dataclasses.replace(extract, encoders=(spec,))
        bag_folder = extract_cohort(cohort.slides, control, folder.features, progress=progress).folder
    else:
        labelled = permute_labels(cohort)
    available = [row.slide_id for row in cohort.slides if bag_folder.features_path(row.slide_id).exists()]
    bags = load_bags(bag_folder, available)
    protocol = Protocol(name="fold", rounds=keep_available(list_rounds(labelled), bags.features, labelled))
    train = TypeAdapter(TrainSettings).validate_python(run.settings.train)
    seeds = [dataclasses.replace(train, seed=train.seed + i) for i in range(run.settings.n_seeds)]
    models = train_protocol(protocol, bags, labelled, seeds, folder, progress, width=run.settings.width)
    fold_of = {slide_id: round_.fold for round_ in protocol.rounds for slide_id in round_.test}

    def find_parts(slide_id: str) -> Sequence[CamPart]:
        if slide_id not in fold_of:
            raise CohortError(f"slide '{slide_id}' was not tested by the control with {kind}. Leave --controls out.")
        return (CamPart(encoder=control.encoder, models=tuple(models[fold_of[slide_id]]), bags=bag_folder.features),)

    frozen = None if cam is None else dataclasses.replace(cam, finetuned="frozen")
    mapper = None if frozen is None else CamMapper(run.classes, frozen, run.positive, control)
    return Source(kind, find_parts, mapper, folder.cam)
