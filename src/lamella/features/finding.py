"""Finding the bags in a folder, of whichever tool: by slide, each once."""

from collections.abc import Iterator
from pathlib import Path

from lamella.errors import BagError
from lamella.features.encoder_choice import split_address
from lamella.features.lazyslide import is_lazyslide

BAG_SUFFIXES = (".h5", ".pt", ".npz", ".zarr")  # the first that a slide has is taken
_INNER_SUFFIX = ".features"  # Mussel's `<slide>.features.h5`
_NO_BAGS = (".coordinates", "_patches")  # hs2p's and TRIDENT's tiles
_BELOW = ("features_*", "slide_features_*", "*/features_*", "*/slide_features_*", "patches", "h5_files", "pt_files",
          "tile_embeddings", "slide_embeddings", "h5", "pt")  # fmt: skip


def find_bags(folder: Path | str) -> list[tuple[str, Path]]:
    """List the bags in a folder, `(slide_id, path)` by slide; nothing is opened.

    Where a slide has several files, such as CLAM's .h5 and .pt, the first suffix of `BAG_SUFFIXES` is taken, which says
    most. `FOLDER#ENCODER` names the encoder of files that hold several; each path then ends so too.

    Args:
        folder: The folder itself; those below it are named in the error where it holds no bag.

    Raises:
        BagError: If it is no folder, or holds no bag.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("S-2.pt", "S-1.pt", "S-1.h5", "S-1.coordinates.npz"):
        ...     (folder / name).touch()
        >>> [(slide_id, path.name) for slide_id, path in find_bags(folder)]
        [('S-1', 'S-1.h5'), ('S-2', 'S-2.pt')]
    """
    folder, encoder = split_address(folder)
    if not folder.is_dir():
        raise BagError(f"'{folder}' is no folder. Name the folder of the bags.")
    bags: dict[str, Path] = {}
    for path in sorted(_list_files(folder), key=lambda path: (BAG_SUFFIXES.index(path.suffix), path.name)):
        bags.setdefault(path.stem.removesuffix(_INNER_SUFFIX), path)
    if not bags:
        below = sorted({path for pattern in _BELOW for path in folder.glob(pattern) if any(_list_files(path))})
        named = (
            f" Its folder '{below[0].relative_to(folder)}' does: name that." if below else " Name the folder of bags."
        )
        raise BagError(f"'{folder}' holds no bag ({', '.join(BAG_SUFFIXES)}).{named}")
    return [
        (slide_id, path if encoder is None else path.with_name(f"{path.name}#{encoder}"))
        for slide_id, path in sorted(bags.items())
    ]


def _list_files(folder: Path) -> Iterator[Path]:
    """List the files of a folder that may be bags; stores of Zarr are folders."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.suffix not in BAG_SUFFIXES or path.name.startswith(".") or path.stem.endswith(_NO_BAGS):
            continue
        if is_lazyslide(path) if path.suffix == ".zarr" else not path.is_dir():  # an OME-Zarr is a slide
            yield path
