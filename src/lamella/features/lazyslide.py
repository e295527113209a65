"""LazySlide's stores: SpatialData folders (.zarr) as wsidata writes them, one table of embeddings an encoder.

`tables/<encoder>_<tiles>/X` is `(N, D)`, `obs/tile_id` says which tile each row is of, and
`shapes/<tiles>/shapes.parquet` holds `tile_id`, `x` and `y` of each tile, level-0 px. Attributes of the store:
`tile_spec.<tiles>` (sizes, mpp) and `slide_properties` (`shape` as (height, width), `mpp`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError, LamellaError
from lamella.features.bag import FeatureBag
from lamella.features.encoder_choice import choose_encoder
from lamella.features.zarr_reading import ZarrArray, damaged, load_attributes, open_array
from lamella.memory import refuse_beyond_memory
from lamella.regular import say_irregular


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of embeddings: its folder, the shapes it is of, the column that names them, and the encoder."""

    folder: Path
    region: str
    id_column: str
    encoder: str


def is_lazyslide(path: Path) -> bool:
    """Tell whether a folder is a SpatialData store with tables."""
    return (path / "tables").is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs"))


def list_tables(path: Path) -> list[str]:
    """List the tables of embeddings in a store, as they are named after the `#`.

    Raises:
        BagError: If the store is damaged.
    """
    return [table.folder.name for table in _list_tables(path, load_attributes(path, path.name))]


def open_lazyslide(path: Path, slide_mpp: float | None, encoder: str | None) -> FeatureBag:
    """Return the bag of one table of embeddings in a store, its embeddings still in it.

    Args:
        path: The store.
        slide_mpp: Resolution of the slide's level 0, um per pixel; None takes what the store states.
        encoder: Which table, or which encoder where it has one table; None takes the only one.

    Raises:
        BagError: If the store is damaged, holds none, or several and none is named.
    """
    if not path.is_dir():
        kind = say_irregular(path) or ("a file" if path.exists() else None)
        if kind is None:
            raise BagError(f"there is no folder '{path}'. Check the name.")
        raise BagError(f"'{path.name}' is {kind} and a store is a folder. Name the folder that wsidata wrote.")
    if not is_lazyslide(path):
        raise BagError(f"'{path.name}' is no SpatialData store with tables of embeddings. Name one that wsidata wrote.")
    attributes = load_attributes(path, path.name)
    tables = _list_tables(path, attributes)
    named = [table.folder.name for table in tables if table.encoder == encoder]
    chosen = choose_encoder(
        path.name, [table.folder.name for table in tables], named[0] if len(named) == 1 else encoder
    )
    table = next(table for table in tables if table.folder.name == chosen)
    stored = open_array(table.folder / "X", path, is_whole=True)
    if len(stored.shape) != 2:
        raise BagError(
            f"'X' of table '{chosen}' in '{path.name}' has shape {stored.shape}, and a bag is (tiles, width)."
        )
    try:
        return _build(path, attributes, table, stored, slide_mpp)
    except LamellaError:  # a ValueError or OSError too
        raise
    except (TypeError, ValueError, AttributeError, KeyError, IndexError, OverflowError) as error:
        raise damaged(path.name, error) from error


def _build(
    path: Path, attributes: Mapping[str, Any], table: _Table, stored: ZarrArray, slide_mpp: float | None
) -> FeatureBag:
    slide = dict(attributes.get("slide_properties") or {})
    spec = dict((attributes.get("tile_spec") or {}).get(table.region) or {})
    slide_mpp = _size(slide, "mpp") if slide_mpp is None else slide_mpp
    width, height, scale = _size(spec, "width"), _size(spec, "height"), _size(spec, "base_downsample")
    corners = _read_corners(path, table, stored.shape[0])
    size = slide.get("shape")
    return FeatureBag(
        slide_id=path.stem,
        shape=(stored.shape[0], stored.shape[1]),
        coords_l0=corners,
        coords_um=None if corners is None or slide_mpp is None else corners.astype(np.float64) * slide_mpp,
        layout="lazyslide",
        encoder=table.encoder,
        tile_px=int(width) if width is not None and width == height else None,
        mpp=_size(spec, "mpp"),
        tile_l0=None if width is None or height is None or scale is None else (width * scale, height * scale),
        slide_size=None if size is None else (int(size[1]), int(size[0])),  # it states (height, width)
        provenance={f"tile_{key}": value for key, value in spec.items() if isinstance(value, (str, int, float))},
        read_stored=partial(_read_all, stored),
        read_slice=stored.read_rows,
    )


def _read_all(stored: ZarrArray) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return stored.read().astype(np.float32, copy=False)


def _list_tables(path: Path, attributes: Mapping[str, Any]) -> list[_Table]:
    """List the tables that annotate tiles; others are of cells or genes."""
    specs = attributes.get("tile_spec")
    tables = []
    for folder in sorted((path / "tables").iterdir()):
        stated = load_attributes(folder, path.name) if folder.is_dir() else {}
        region = stated.get("region")
        region = region[0] if isinstance(region, list) and len(region) == 1 else region
        if not isinstance(region, str) or (isinstance(specs, dict) and specs and region not in specs):
            continue
        if not any((folder / "X" / name).is_file() for name in ("zarr.json", ".zarray")):
            continue  # sparse, or empty
        id_column = str(stated.get("instance_key", "tile_id"))
        if any(mark in region + id_column for mark in "/\\") or ".." in (region, id_column):
            raise damaged(path.name, f"table '{folder.name}' names '{region}' and '{id_column}'")
        tables.append(_Table(folder, region, id_column, folder.name.removesuffix(f"_{region}") or folder.name))
    return tables


def _read_corners(path: Path, table: _Table, n_rows: int) -> NDArray[np.int64] | None:
    """Return the corner of each row's tile, `(N, 2)` int64, level-0 px; None where the store has no columns x and y.

    Raises:
        BagError: If a row is of a tile that is not there, or a corner is no pixel.
    """
    import pyarrow.lib
    import pyarrow.parquet

    shapes = path / "shapes" / table.region / "shapes.parquet"
    if not shapes.is_file():
        return None
    try:
        with pyarrow.parquet.ParquetFile(shapes) as file:
            if not {"x", "y"} <= set(file.schema_arrow.names):
                return None
            refuse_beyond_memory(
                file.metadata.num_rows * 24.0, f"'{shapes.name}' of '{path.name}'", "Get it again.", error=BagError
            )
            has_ids = table.id_column in file.schema_arrow.names
            content = file.read(columns=["x", "y", *([table.id_column] if has_ids else [])])
            corners = np.stack([content.column(name).to_numpy() for name in ("x", "y")], axis=1)
            ids = content.column(table.id_column).to_numpy() if has_ids else np.arange(len(corners))
    except LamellaError:
        raise
    except (pyarrow.lib.ArrowException, OSError, ValueError, KeyError) as error:
        raise damaged(path.name, error) from error
    if corners.dtype.kind not in "fiu" or not np.isfinite(corners).all() or np.abs(corners).max(initial=0) > 2**53:
        raise damaged(path.name, f"a corner of '{table.region}' is no pixel")
    column = table.folder / "obs" / table.id_column
    if column.is_dir():
        rows = open_array(column, path).read()
        if rows.shape != (n_rows,):
            raise damaged(path.name, f"{n_rows} rows and {rows.shape} ids of tiles")
    else:
        rows = np.arange(n_rows)
    if len(np.unique(ids)) != len(ids) or len(np.unique(rows)) != len(rows):
        raise damaged(path.name, f"'{table.id_column}' names a tile twice")
    order = np.argsort(ids, kind="stable")
    places = np.searchsorted(ids[order], rows)
    if (places >= len(ids)).any() or (ids[order][places] != rows).any():
        raise BagError(
            f"table '{table.folder.name}' of '{path.name}' has rows of tiles that '{table.region}' does not hold: the "
            "tiles were made again since. Extract that slide's features again."
        )
    return corners[order][places].astype(np.int64)


def _size(stated: Mapping[str, Any], key: str) -> float | None:
    """Return a stated number above 0; None where it is not stated.

    Raises:
        ValueError: If it is stated and no such number.
    """
    value = stated.get(key)
    if value is None:
        return None
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{key} is {value}")
    return number
