"""Feature bags: the embeddings of one slide, where its tiles lie, and how both were made.

On disk a bag is TRIDENT's layout plus our attributes (docs/formats.md):

    OUT/<tile>px_<mpp>mpp_<stride>px/patches/<slide_id>_patches.h5       where the tiles lie
    OUT/<tile>px_<mpp>mpp_<stride>px/features_<encoder>/<slide_id>.h5    what the encoder made of them

This module needs no torch: bags open on any laptop.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.features.h5_reading import Attribute, open_h5, read_attributes, read_corners
from lamella.features.h5_seal import refuse_changed, seal_h5
from lamella.features.h5_writing import H5Writer, writing_h5
from lamella.files import replacing
from lamella.tiles import TileSpec

FORMAT = 1
Provenance = Mapping[str, str | int | float]  # how tiles were placed and encoded; lists as JSON text
PATCH_KEYS = (
    "slide_quickhash", "slide_image", "slide_mpp_x", "slide_mpp_y", "tile_px", "mpp", "stride_px", "min_tissue",
    "tissue", "regions", "max_upsample", "tiles_per_slide",
)  # fmt: skip
FEATURE_KEYS = (*PATCH_KEYS, "encoder", "fingerprint", "dtype")


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureBag:
    """The embeddings of one slide, which are read from their file when they are first asked for.

    Attributes:
        slide_id: Which slide.
        shape: `(N, D)`, tiles and width of an embedding.
        coords_l0: `(N, 2)` int64 top-left corners `(x, y)`, level-0 pixels; None where the file states um and the
            slide's resolution is not known (STAMP).
        coords_um: `(N, 2)` float64 top-left corners `(x, y)` in um from the slide's corner; None where unknown.
        layout: Who wrote it: `lamella`, `trident`, `clam`, `stamp`, `atlaspatch`, `mussel`, `slide2vec` or `lazyslide`;
            `slide embedding` where a single vector states no tool.
        encoder: Name of the encoder, None where the file does not say.
        tile_px: Side of a tile as the encoder saw it, in pixels; None where the file does not say.
        mpp: Resolution the encoder saw, in um per pixel; None where the file does not say.
        tile_l0: `(width, height)` of a tile, level-0 pixels; None where the file does not say.
        slide_size: `(width, height)` of level 0, in pixels; None where the file does not say.
        provenance: All attributes of the file; of a bag of ours also `seen_patients`, where it has them.
        read_stored: Reads the embeddings, `(N, D)`, anew and holds nothing: of a bag of ours as they are stored, half
            the memory in float16; of others float32.
        read_slice: Reads the embeddings from one row to before another so, without the rest; None where the file must
            be read whole.
        is_slide_embedding: True where the one instance is an embedding of the whole slide.
    """

    slide_id: str
    shape: tuple[int, int]
    coords_l0: NDArray[np.int64] | None
    coords_um: NDArray[np.float64] | None
    layout: str
    encoder: str | None
    tile_px: int | None
    mpp: float | None
    tile_l0: tuple[float, float] | None
    slide_size: tuple[int, int] | None
    provenance: Mapping[str, Attribute | list[str]]
    read_stored: Callable[[], NDArray[Any]] = field(repr=False)
    read_slice: Callable[[int, int], NDArray[Any]] | None = field(default=None, repr=False)
    is_slide_embedding: bool = False

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """`(N, D)` float32, one row a tile; held once they are read.

        Raises:
            BagError: If the file is damaged, or is not as it was written.
        """
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused before it is used
            return self.read_stored().astype(np.float32, copy=False)

    def read_rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return embeddings `start` to before `stop`, float32, and hold nothing; the others are not read, or checked.

        Raises:
            BagError: If the file is damaged.
        """
        if self.read_slice is None:
            return self.features[start:stop]
        with np.errstate(over="ignore"):
            return self.read_slice(start, stop).astype(np.float32, copy=False)

    @property
    def corners_l0(self) -> NDArray[np.int64]:
        """`coords_l0`, and `(0, 2)` where they are not known."""
        return np.zeros((0, 2), np.int64) if self.coords_l0 is None else self.coords_l0

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the encoder's weights, normalisation and network; None where the file does not say."""
        value = self.provenance.get("fingerprint")
        return None if value is None else str(value)


@dataclass(frozen=True, slots=True)
class BagFolder:
    """Where the bags of one tile spec and one encoder lie.

    Attributes:
        out: The features folder the user named.
        spec: How the tiles are cut.
        encoder: Name of the encoder, as the user writes it.
    """

    out: Path
    spec: TileSpec
    encoder: str

    @property
    def root(self) -> Path:
        """The folder that TRIDENT's readers take as their base."""
        return self.out / self.spec.folder

    @property
    def features(self) -> Path:
        """The folder of the bags."""
        return self.root / f"features_{folder_name(self.encoder)}"

    def patches_path(self, slide_id: str) -> Path:
        """Return where the tiles of a slide are written."""
        return self.root / "patches" / f"{slide_id}_patches.h5"

    def features_path(self, slide_id: str) -> Path:
        """Return where the bag of a slide is written."""
        return self.features / f"{slide_id}.h5"


def folder_name(encoder: str) -> str:
    """Return an encoder's name as part of a folder's name.

    Example:
        >>> folder_name("hf-hub:owner/net@3")
        'hf-hub_owner_net_3'
    """
    for character in "@:/\\":
        encoder = encoder.replace(character, "_")
    return encoder


def save_patches(path: Path, coords_l0: NDArray[np.int64], provenance: Provenance) -> None:
    """Write where the tiles of a slide lie, in TRIDENT's layout, whole or not at all."""
    with writing_h5(path) as file:
        _write_coords(file, coords_l0, provenance)
        _write_attributes(file, provenance)
        seal_h5(file)


def load_patches(path: Path) -> tuple[NDArray[np.int64], dict[str, Attribute]]:
    """Return the tiles of a slide, `(N, 2)` int64 `(x, y)` level-0 corners, and how they were placed.

    Raises:
        BagError: If the file cannot be read.
    """
    with open_h5(path) as file:
        corners_l0, stated = read_corners(file), read_attributes(file)
        refuse_changed(file, {}, made_by="lamella extract")
        return corners_l0, stated


def read_seen_patients(file: h5py.File) -> dict[str, list[str]]:
    """Return `seen_patients`, salted hashes of the patients that the encoder has seen, where the bag has them."""
    if "seen_patients" not in file:
        return {}
    held = file["seen_patients"]
    if held.size * held.dtype.itemsize > Path(file.filename).stat().st_size:  # it is written as it is
        raise ValueError(f"seen_patients claims {held.size:,} names in a smaller file")
    return {"seen_patients": [name.decode() for name in held[:]]}


class BagWriter:
    """Writes one bag row by row into a temporary file; nothing bears the final name until all is there.

    Args:
        path: Final name.
        coords_l0: `(N, 2)` int64 corners of all tiles, level-0 pixels, in the order in which rows will come.
        dim: Length D of an embedding.
        dtype: `float16` or `float32`.
    """

    def __init__(self, path: Path, coords_l0: NDArray[np.int64], *, dim: int, dtype: str) -> None:
        self._replacing = replacing(path)
        self._coords_l0 = coords_l0
        self._dtype = np.dtype(dtype)
        self.n_written = 0
        self._sha256 = hashlib.sha256()
        temporary = self._replacing.__enter__()
        try:
            self._writer = H5Writer(temporary)
        except OSError as error:
            self._replacing.__exit__(type(error), error, None)
            raise
        # About 256 KiB a chunk: one read brings hundreds of rows, not one (the field's files have one row a chunk).
        rows = max(1, min(len(coords_l0), (256 * 1024) // max(1, dim * self._dtype.itemsize)))
        self._features = self._writer.file.create_dataset(
            "features", (len(coords_l0), dim), dtype=self._dtype, chunks=(rows, dim) if len(coords_l0) else None
        )

    def append(self, rows: NDArray[np.float32]) -> None:
        """Write the next rows, `(n, D)` float32.

        Raises:
            BagError: If a value is beyond what float16 holds.
            OutputError: If the disk is full.
        """
        with np.errstate(over="ignore"):  # what overflows is refused in the next line
            stored = rows.astype(self._dtype)
        if not np.isfinite(stored).all():
            raise BagError(
                f"embeddings reach {np.abs(rows).max():.3g}, more than {self._dtype.name} holds. Pass --dtype float32."
            )
        self._features[self.n_written : self.n_written + len(rows)] = stored
        self._sha256.update(np.ascontiguousarray(stored).data)
        self.n_written += len(rows)
        self._check()

    def finish(self, provenance: Provenance, *, seen_patients: Sequence[str] = ()) -> None:
        """Write the coordinates and attributes and give the file its name.

        Args:
            provenance: How the bag was made.
            seen_patients: Salted hashes of the patients that a fine-tuned encoder has seen.

        Raises:
            BagError: If rows are missing.
            OutputError: If the disk is full.
        """
        if self.n_written != len(self._coords_l0):
            self.discard()
            raise BagError(f"{self.n_written} of {len(self._coords_l0)} tiles were encoded. Run the command again.")
        file = self._writer.file
        _write_coords(file, self._coords_l0, provenance)
        if seen_patients:  # too long for an attribute
            file["seen_patients"] = np.array(sorted(set(seen_patients)), dtype="S16")
        self._features.attrs["encoder"] = provenance.get("encoder", "")
        self._features.attrs["name"] = provenance.get("slide_id", "")
        _write_attributes(file, provenance)
        seal_h5(file, {"features": self._sha256.hexdigest()})
        self._writer.close()
        self._check()
        self._replacing.__exit__(None, None, None)

    def discard(self) -> None:
        """Remove what was written."""
        self._leave(BagError("discarded"))

    def _check(self) -> None:
        """Discard the file and raise, where the operating system has refused to write it."""
        try:
            self._writer.check()
        except OSError as error:
            raised = self._leave(error)
            if raised is not None:
                raise raised from error

    def _leave(self, error: Exception) -> Exception | None:
        """Leave `replacing` by an error, which removes the file; return what it made of it."""
        self._writer.close()
        try:
            self._replacing.__exit__(type(error), error, None)
        except (BagError, OSError) as raised:
            return raised
        return None


def find_differences(path: Path, wanted: Provenance, keys: tuple[str, ...]) -> tuple[str, ...]:
    """List how a finished file was made otherwise than is now wanted, one clause each; empty where it matches.

    Raises:
        BagError: If the file cannot be read.
    """
    return list_differences(read_stated(path), wanted, keys)


def read_stated(path: Path) -> dict[str, Attribute]:
    """Return what a finished file states of how it was made.

    Raises:
        BagError: If the file cannot be read.
    """
    with open_h5(path) as file:
        return {"slide_image": ""} | read_attributes(file)  # older files are of the image that is read by itself


def list_differences(stated: Mapping[str, Attribute], wanted: Provenance, keys: tuple[str, ...]) -> tuple[str, ...]:
    """List in what attributes a file differs from what is wanted, one clause each."""
    return tuple(
        f"{key} {_short(stated.get(key, 'not stated'))} (now {_short(wanted[key])})"
        for key in keys
        if key in wanted and not _same(stated.get(key), wanted[key])
    )


def _write_coords(file: h5py.File, coords_l0: NDArray[np.int64], provenance: Provenance) -> None:
    """Write `coords` with the attributes that TRIDENT's readers look for."""
    dataset = file.create_dataset("coords", data=coords_l0.astype(np.int64))
    tile_px, mpp = int(provenance["tile_px"]), float(provenance["mpp"])
    slide_mpp = float(provenance["slide_mpp_x"])
    dataset.attrs.update(
        {
            "patch_size": tile_px,
            "patch_size_level0": round(tile_px * mpp / slide_mpp),
            "level0_magnification": float(provenance.get("magnification") or round(10 / slide_mpp, 3)),
            "target_magnification": round(10 / mpp, 3),
            "overlap": tile_px - int(provenance["stride_px"]),
            "name": str(provenance["slide_id"]),
            "savetodir": "",
            "level0_width": int(provenance["slide_width"]),
            "level0_height": int(provenance["slide_height"]),
            "mpp": mpp,
            "slide_mpp": slide_mpp,
        }
    )


def _write_attributes(file: h5py.File, provenance: Provenance) -> None:
    for key, value in provenance.items():
        file.attrs[key] = value
    file.attrs["format"] = FORMAT


def _same(stated: Attribute | None, wanted: Attribute) -> bool:
    if isinstance(stated, (int, float)) and isinstance(wanted, (int, float)):
        return bool(np.isclose(stated, wanted, rtol=1e-9, atol=0))
    return bool(stated == wanted)


def _short(value: Attribute) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 20 else text[:12] + "..."
