"""What is in a folder of bags: each bag in a line, and whether one model can learn from all."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lamella.errors import BagError
from lamella.features.atlaspatch import is_atlaspatch, list_encoders
from lamella.features.bag_checks import TOOLS, list_doubts, list_missing
from lamella.features.encoder_choice import split_address
from lamella.features.finding import find_bags
from lamella.features.h5_reading import open_h5
from lamella.features.layouts import open_bag
from lamella.features.lazyslide import list_tables


@dataclass(frozen=True, slots=True, kw_only=True)
class BagLine:
    """One bag of a folder.

    Attributes:
        slide_id: By the file's name.
        file: The file's name.
        tool: Who wrote it; None where it cannot be opened.
        encoder: Its encoder, or `not stated`.
        n_tiles: Number of tiles.
        width: Length of an embedding.
        mpp: Resolution the encoder saw, um per pixel; None where it is not known.
        missing: What it does not hold.
        wrong: What contradicts the rest, or why it cannot be opened.
    """

    slide_id: str
    file: str
    tool: str | None = None
    encoder: str | None = None
    n_tiles: int | None = None
    width: int | None = None
    mpp: float | None = None
    missing: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FolderContent:
    """The bags of a folder.

    Attributes:
        bags: A line each, by slide.
        remarks: What keeps one model from learning from all of them; empty where nothing does.
    """

    bags: tuple[BagLine, ...]
    remarks: tuple[str, ...]


def inspect_folder(folder: Path, *, slide_mpp: float | None = None) -> FolderContent:
    """Return what the bags of a folder hold; they are opened one after the other, and their features are not read.

    Args:
        folder: The folder; `FOLDER#ENCODER` where its files hold embeddings of several.
        slide_mpp: Resolution of the slides' level 0, um per pixel, for layouts that do not state it.

    Raises:
        BagError: If it holds no bag.
    """
    lines = tuple(_describe(slide_id, path, slide_mpp) for slide_id, path in find_bags(folder))
    return FolderContent(lines, tuple(_compare(lines)))


def list_held_encoders(path: Path) -> list[str]:
    """List the encoders of a file that holds embeddings of several, as they are named after the `#`; else nothing.

    Raises:
        BagError: If it is damaged.
    """
    if path.suffix == ".zarr" and path.is_dir():
        return list_tables(path)
    if path.suffix in (".h5", ".hdf5"):
        with open_h5(path) as file:
            return list_encoders(file) if is_atlaspatch(file) else []
    return []


def _describe(slide_id: str, path: Path, slide_mpp: float | None) -> BagLine:
    file = split_address(path)[0].name
    try:
        bag = open_bag(path, slide_mpp=slide_mpp)
    except BagError as error:
        return BagLine(slide_id=slide_id, file=file, wrong=(str(error),))
    return BagLine(
        slide_id=slide_id,
        file=file,
        tool=TOOLS[bag.layout] + (", of the whole slide" if bag.is_slide_embedding else ""),
        encoder=bag.encoder or "not stated",
        n_tiles=bag.shape[0],
        width=bag.shape[1],
        mpp=None if bag.mpp is None else round(bag.mpp, 4),
        missing=list_missing(bag),
        wrong=list_doubts(bag),
    )


def _compare(lines: Iterable[BagLine]) -> Iterable[str]:
    """Say in what the bags that could be opened differ."""
    opened = [line for line in lines if line.tool is not None]
    filled = [line for line in opened if line.n_tiles]
    for what, values in (
        ("written by", [line.tool for line in opened]),
        ("encoder", [line.encoder for line in opened]),
        ("width", [line.width for line in filled]),
        ("mpp", ["not stated" if line.mpp is None else line.mpp for line in opened]),
    ):
        counted = Counter(values).most_common()
        if len(counted) > 1:
            parts = ", ".join(f"{value} ({number:,})" for value, number in counted[:4])
            more = f" and {len(counted) - 4} more" if len(counted) > 4 else ""
            yield f"{what} differs between bags: {parts}{more}. One model needs bags made alike."
