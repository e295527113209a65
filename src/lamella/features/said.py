"""What must be said of bags: kept in them, so that a run that finds them finished says it as the one that made them."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lamella.encoders import SettledPrecision, find_encoder, group_by_trunk
from lamella.encoders.scale import find_seen, fits, say_unfit
from lamella.features.h5_reading import Attribute
from lamella.features.settings import BagTarget
from lamella.files import parse_json
from lamella.slide import Slide
from lamella.tiles import TileSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideNotes:
    """What must be said of how a slide was read.

    Attributes:
        notes: Of the file and of its tissue.
        overruled: The resolution that the file states and the one that was given instead, um per pixel; None where the
            file's was taken.
    """

    notes: tuple[str, ...] = ()
    overruled: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """How the embeddings of a bag were computed.

    Attributes:
        runtime: What encoded, in words.
        precision: At which precision.
        check_cosine: Least cosine to fp32 over the tiles of the check; -1 where nothing was checked.
        check_tiles: How many those were.
    """

    runtime: str
    precision: str
    check_cosine: float
    check_tiles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingBag:
    """What a finished bag states of its making that later bags and notes depend on.

    Attributes:
        making: How it was computed; None where it does not say.
        runtime_notes: What was said when its encoder was opened.
        slide: What was said of its slide.
    """

    making: Making | None
    runtime_notes: tuple[str, ...]
    slide: SlideNotes


def gather_slide_notes(slide: Slide, tissue_notes: Sequence[str]) -> SlideNotes:
    """Return what must be said of an open slide, and of its tissue."""
    overruled = None if slide.overruled_mpp is None else (slide.overruled_mpp[0], slide.mpp[0])
    return SlideNotes(notes=(*slide.notes, *tissue_notes), overruled=overruled)


def write_notes(runtime_notes: Sequence[str], slide: SlideNotes) -> str:
    """Return what was said as JSON text, an attribute of the bag."""
    overruled = list(slide.overruled) if slide.overruled is not None else None
    return json.dumps({"runtime": list(runtime_notes), "slide": list(slide.notes), "overruled_mpp": overruled})


def read_standing(attributes: Mapping[str, Attribute]) -> StandingBag:
    """Return what a finished bag states; one of an earlier version, or a damaged one, has nothing to say."""
    making = None
    try:
        if {field.name for field in dataclasses.fields(Making)} <= attributes.keys():
            making = Making(
                runtime=str(attributes["runtime"]),
                precision=str(attributes["precision"]),
                check_cosine=float(attributes["check_cosine"]),
                check_tiles=int(attributes["check_tiles"]),
            )
        said = parse_json(str(attributes.get("notes", "{}")))
        pair = said.get("overruled_mpp")
        slide = SlideNotes(
            notes=tuple(map(str, said.get("slide", ()))),
            overruled=None if pair is None else (float(pair[0]), float(pair[1])),
        )
        return StandingBag(making=making, runtime_notes=tuple(map(str, said.get("runtime", ()))), slide=slide)
    except (ValueError, TypeError, AttributeError, LookupError):
        return StandingBag(making=making, runtime_notes=(), slide=SlideNotes())


def find_settled(bags: Iterable[StandingBag]) -> SettledPrecision | None:
    """Return how finished bags of one encoder were computed, for the rest to be computed alike; None where they differ.

    Which tiles are left decides nothing then: a run that was interrupted ends as if it had not been.
    """
    kinds = {bag.making: bag for bag in bags}
    if len(kinds) != 1 or None in kinds:
        return None
    ((making, bag),) = kinds.items()
    assert making is not None
    return SettledPrecision(runtime=making.runtime, precision=making.precision, notes=bag.runtime_notes)


def list_notes(
    targets: Sequence[BagTarget],
    runtime_notes: Mapping[BagTarget, Iterable[str]],
    slides: Iterable[tuple[str, SlideNotes]],
    spec: TileSpec,
) -> list[str]:
    """List everything that must be said of bags, the same whenever and in however many runs they were made.

    Args:
        targets: The encoders.
        runtime_notes: Of each encoder, what its bags say of its opening.
        slides: `(slide_id, its notes)` in the order of the cohort.
        spec: How tiles are cut.
    """
    noted = list(slides)
    said = [note for target in targets for note in runtime_notes.get(target, ())]
    said += _say_overruled(noted)
    said += _say_resized([target for target in targets if target in runtime_notes], spec)
    said += join_slide_notes((slide_id, slide.notes) for slide_id, slide in noted)
    return list(dict.fromkeys(said))


def _say_overruled(slides: Sequence[tuple[str, SlideNotes]]) -> list[str]:
    """Say which files were taken for another resolution than they state."""
    others = [(slide_id, slide.overruled) for slide_id, slide in slides if slide.overruled is not None]
    if not others:
        return []
    slide_id, (stated, given) = others[0]
    more = f" (and {len(others) - 1} more slides)" if len(others) > 1 else ""
    return [
        f"slide '{slide_id}' states {stated:.4g} um/px and is taken for {given:g}, as given{more}. Where only some "
        "files lack theirs, give it by a column slide_mpp instead"
    ]


def _say_resized(targets: Sequence[BagTarget], spec: TileSpec) -> list[str]:
    """Say of each encoder that resizes tiles at what resolution it saw them, and what it was not made for."""
    said = []
    for trunk in group_by_trunk([target.encoder for target in targets]):
        card = find_encoder(trunk.deepest.name)
        seen_px, seen_mpp = find_seen(card, spec.tile_px, spec.mpp)
        if not fits(card, spec.tile_px, spec.mpp):
            said.append(say_unfit(card, spec.tile_px, spec.mpp))
        elif seen_px != spec.tile_px:
            takes = f"{seen_px} px only" if card.fixed_input else card.sizes
            said.append(
                f"encoder '{trunk.name}' takes {takes}: tiles of {spec.tile_px} px at {spec.mpp:g} um/px are resized "
                f"to {seen_px} px, and it sees {seen_mpp:.4g} um/px"
            )
        if card.size_step > 1 and card.input_px not in (None, seen_px):
            said.append(
                f"encoder '{trunk.name}' was trained at {card.input_px} px and sees {seen_px} px: its position "
                "embeddings are interpolated"
            )
    return said


def join_slide_notes(notes: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Return a sentence for each note that slides have.

    Args:
        notes: `(slide_id, its notes)`.

    Example:
        >>> join_slide_notes([("S-1", ["alpha is ignored"]), ("S-2", ["alpha is ignored"]), ("S-3", [])])
        ["slide 'S-1' (and 1 more): alpha is ignored"]
    """
    slides: dict[str, list[str]] = {}
    for slide_id, said in notes:
        for note in said:
            slides.setdefault(note, []).append(slide_id)
    return [
        f"slide '{ids[0]}'{f' (and {len(ids) - 1} more)' if len(ids) > 1 else ''}: {note}"
        for note, ids in slides.items()
    ]
