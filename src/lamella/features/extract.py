"""Extraction: slides x encoders -> bags.

Several encoders share the tiles: each is read and decoded once. Encoders that are one network cut at different depths
share the network too: it runs once. What is finished is kept, a slide that fails is listed and the others go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lamella.cohort import CohortSlide
from lamella.encoders import find_encoder, fingerprint_encoder
from lamella.encoders.overlap import find_overlap
from lamella.encoders.scale import refuse_unfit
from lamella.features.bag import BagFolder
from lamella.features.failures import Failure, save_failures
from lamella.features.plan import survey_regions
from lamella.features.said import SlideNotes, list_notes
from lamella.features.settings import BagTarget, ExtractSettings
from lamella.features.stream import Extraction
from lamella.features.todo import Todo, find_todo
from lamella.files import refuse_links
from lamella.progress import Progress, SilentProgress
from lamella.temporaries import sweep_temporaries


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractReport:
    """What an extraction did.

    Attributes:
        folders: Where the bags lie, a folder an encoder.
        done: Slides encoded now, by at least one encoder.
        kept: Slides whose finished bags were all used again.
        failures: Slides that could not be finished.
        n_tiles: Tiles encoded now.
        seconds: Time from the first batch handed over to the last bag written.
        runtime: What encoded, in words; empty when nothing was.
        notes: What must be said aloud.
    """

    folders: tuple[BagFolder, ...]
    done: tuple[str, ...]
    kept: tuple[str, ...]
    failures: tuple[Failure, ...]
    n_tiles: int
    seconds: float
    runtime: str
    notes: tuple[str, ...]

    @property
    def folder(self) -> BagFolder:
        """Where the bags of the first encoder lie."""
        return self.folders[0]


def extract_cohort(
    slides: Sequence[CohortSlide],
    settings: ExtractSettings,
    out: Path,
    *,
    is_part: bool = False,
    progress: Progress | None = None,
) -> ExtractReport:
    """Encode the tiles of slides into one bag each for each encoder; finished bags of the same provenance are kept.

    Args:
        slides: What to encode.
        settings: How. A slide that has the bags of some of the encoders gets only those of the others.
        out: Folder for the bags; see `BagFolder` for what goes where. `failures.csv` (`slide_id, stage, reason`) is
            written there when a slide fails, and removed when none does.
        is_part: Whether these are some slides of a cohort that was looked through as a whole: then its regions need not
            fit these.
        progress: Where to report to.

    Raises:
        EncoderError: If an encoder is unknown, cannot run as asked, or would see a resolution that it is not made for.
        WeightsError: If its weights are not here.
        OutputError: If `out` cannot be written or the disk is full.
        SettingsError: If regions fit no slide, or it is not clear which of them count.
    """
    progress = progress or SilentProgress()
    if not settings.off_spec:
        for spec in settings.encoders:
            refuse_unfit(find_encoder(spec.name), settings.cut.spec.tile_px, settings.cut.spec.mpp)
    said = [] if is_part else list(survey_regions(slides, settings.cut))
    targets = [
        BagTarget(encoder, fingerprint_encoder(encoder), settings.folder(out, encoder)) for encoder in settings.encoders
    ]
    refuse_links(out)
    sweep_temporaries(targets[0].folder.root)
    todo = find_todo(slides, settings, targets)
    said += filter(
        None,
        (find_overlap(find_encoder(spec.name), (slide.path.stem for slide in slides)) for spec in settings.encoders),
    )
    for note in said:
        progress.say(note)
    parts = []
    for missing in todo.missing:
        extraction = Extraction(todo, missing, settings, targets)
        extraction.run(progress)
        parts.append(extraction)
    save_failures(todo.failures, out / "failures.csv")
    notes = _gather_notes(slides, targets, todo, parts, settings)
    already = {note for part in parts for notes_of in part.runtime_notes.values() for note in notes_of}
    for note in notes:
        if note not in already:
            progress.say(note)
    return ExtractReport(
        folders=tuple(target.folder for target in targets),
        done=tuple(slide_id for part in parts for slide_id in part.done),
        kept=tuple(todo.kept),
        failures=tuple(todo.failures),
        n_tiles=sum(part.n_tiles for part in parts),
        seconds=sum(part.seconds for part in parts),
        runtime=next((part.runtime_name for part in parts if part.runtime_name), ""),
        notes=tuple(dict.fromkeys([*said, *notes])),
    )


def _gather_notes(
    slides: Sequence[CohortSlide],
    targets: Sequence[BagTarget],
    todo: Todo,
    parts: Sequence[Extraction],
    settings: ExtractSettings,
) -> list[str]:
    """Gather what must be said of bags made now and earlier alike."""
    of_runtimes: dict[BagTarget, list[str]] = {}
    of_slides: dict[str, SlideNotes] = {}
    for target in targets:
        for slide_id, bag in todo.standing.get(target, {}).items():
            of_runtimes.setdefault(target, []).extend(bag.runtime_notes)
            of_slides.setdefault(slide_id, bag.slide)
    for part in parts:
        for target, notes in part.runtime_notes.items():
            of_runtimes.setdefault(target, []).extend(notes)
        of_slides |= part.slide_notes
    in_order = [(slide.slide_id, of_slides[slide.slide_id]) for slide in slides if slide.slide_id in of_slides]
    return list_notes(targets, of_runtimes, in_order, settings.cut.spec)
