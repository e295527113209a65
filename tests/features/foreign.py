"""Bags of other tools, made to the layouts of their own writers (docs/formats.md); width is not height."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

RNG = np.random.default_rng(11)
N_TILES = 5
FEATURES = RNG.normal(size=(N_TILES, 8)).astype(np.float32)
OTHERS = RNG.normal(size=(N_TILES, 6)).astype(np.float32)
VECTOR = RNG.normal(size=12).astype(np.float32)
COORDS = np.array([[0, 512], [512, 512], [1024, 512], [0, 1024], [512, 1536]])
SLIDE_SIZE, SLIDE_MPP, TILE_L0, TILE_PX = (4000, 3000), 0.25, 512, 256
_TRIDENT_COORDS = {
    "patch_size": TILE_PX, "patch_size_level0": TILE_L0, "level0_magnification": 40, "target_magnification": 20,
    "overlap": 0, "name": "S-1", "savetodir": "/somewhere", "level0_width": 4000, "level0_height": 3000,
}  # fmt: skip


def write_trident_slide(root: Path, *, encoder: str = "titan") -> Path:
    """Write TRIDENT's embedding of a slide; its encoder stands in the name of the folder alone."""
    path = root / f"slide_features_{encoder}" / "S-1.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("features", data=VECTOR)
        data.attrs.update({"name": "S-1", "savetodir": "/somewhere"})
        file.create_dataset("coords", data=COORDS).attrs.update(_TRIDENT_COORDS)
    return path


def write_stamp_slide(path: Path, *, feat_type: str = "slide") -> Path:
    """Write STAMP 2's embedding of a slide or a patient."""
    with h5py.File(path, "w") as file:
        file["feats"] = VECTOR if feat_type == "slide" else VECTOR[None]
        about = {"version": "2.5.0", "encoder": "chief", "precision": "torch.float32", "stamp_version": "2.5.0"}
        file.attrs.update(about | {"code_hash": "00000000", "feat_type": feat_type})
    return path


def write_atlaspatch(path: Path, encoders: Mapping[str, NDArray[Any]], *, slide: bool = False) -> Path:
    """Write AtlasPatch's file with embeddings of some encoders; with `slide` also one of the slide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    boxes = np.concatenate([COORDS, np.tile([TILE_PX, TILE_PX, 1], (N_TILES, 1))], axis=1).astype(np.int32)
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=boxes, chunks=(8192, 5), maxshape=(None, 5))
        passports = [f"S-1__x{x}_y{y}_rw256_rh256_lv1_mag40_tmag20_total5" for x, y in COORDS]
        file.create_dataset("passports", data=np.array(passports, "S160"), chunks=(8192,), maxshape=(None,))
        for name, rows in encoders.items():
            file.create_dataset(
                f"features/{name}", data=rows, chunks=(2, rows.shape[1]), maxshape=(None, rows.shape[1])
            )
        if slide:
            dataset = file.create_dataset("slide_features/titan", data=VECTOR)
            dataset.attrs.update({"encoder_name": "titan", "source_patch_encoder": "conch_v15", "num_patches": N_TILES})
        sizes = {"patch_size": TILE_PX, "patch_size_level0": TILE_L0, "level0_width": 4000, "level0_height": 3000}
        scales = {"level0_magnification": 40, "target_magnification": 20, "mpp": SLIDE_MPP, "magnification": 40}
        names = {"wsi_path": "/somewhere/S-1.svs", "filename": "S-1.svs", "passport_version": 2, "num_patches": N_TILES}
        file.attrs.update(sizes | scales | names | {"overlap": 0})
    return path


def write_atlaspatch_patient(path: Path) -> Path:
    """Write AtlasPatch's embedding of a patient."""
    with h5py.File(path, "w") as file:
        file["features"] = VECTOR
        file.attrs.update({"encoder_name": "moozy", "num_slides": 2})
    return path


def write_mussel(path: Path, *, features: NDArray[Any] = FEATURES) -> Path:
    """Write Mussel's file: gzip, sizes as attributes of `coords`, `patch_size` in level-0 px."""
    with h5py.File(path, "w") as file:
        packed = {"compression": "gzip", "shuffle": True, "chunks": (128, features.shape[1]), "maxshape": (None, 8)}
        file.create_dataset("features", data=features, **packed)
        place = file.create_dataset("coords", data=COORDS, chunks=(128, 2), maxshape=(None, 2), compression="gzip")
        place.attrs.update(
            {
                "seg_level": 2, "segment_threshold": 15, "use_otsu": False, "patch_size": 448, "step_size": 512,
                "patch_size_to_resize_to_for_desired_mpp": 224, "patch_level": 0, "mpp": 0.5, "native_mpp": SLIDE_MPP,
                "mpp_is_fallback": False, "level_dim": np.array(SLIDE_SIZE), "name": "S-1", "overlap": 0.0,
            }
        )  # fmt: skip
    return path


def write_slide2vec(out: Path, *, suffix: str = ".npz", picked: list[int] | None = None, tiles: bool = True) -> Path:
    """Write slide2vec's embeddings of tiles with hs2p's coordinates; `picked` are the tiles that have embeddings."""
    rows = FEATURES if picked is None else FEATURES[picked]
    path = out / "tile_embeddings" / f"S-1{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".pt":
        import torch

        torch.save(torch.from_numpy(rows), path)
    else:
        index = np.arange(N_TILES) if picked is None else np.array(picked)
        np.savez_compressed(path, features=rows, tile_index=index.astype(np.int32))
    _write_json(
        path.with_name("S-1.meta.json"),
        {
            "sample_id": "S-1", "artifact_type": "tile_embeddings", "format": suffix[1:], "feature_dim": rows.shape[1],
            "num_tiles": len(rows), "encoder_name": "uni2", "encoder_level": "tile", "tile_size_lv0": TILE_L0,
            "requested_tile_size_px": TILE_PX, "requested_spacing_um": 0.5, "encoder_input_size_px": 224,
            "image_path": "/somewhere/S-1.svs", "mask_path": None, "annotation": None, "compatibility": {"a": [1]},
        },
    )  # fmt: skip
    if tiles:
        write_hs2p(out)
    return path


def write_hs2p(out: Path) -> None:
    """Write hs2p's coordinates of a slide."""
    (out / "tiles").mkdir()
    columns = {"x": COORDS[:, 0], "y": COORDS[:, 1], "tissue_fractions": np.ones(N_TILES, np.float32)}
    np.savez_compressed(out / "tiles" / "S-1.coordinates.npz", tile_index=np.arange(N_TILES, dtype=np.int32), **columns)
    slide = {"dimensions": list(SLIDE_SIZE), "base_spacing_um": SLIDE_MPP, "level_downsamples": [1.0]}
    artifact = {"coordinate_space": "level0_px", "tile_order": "x_then_y", "annotation": None}
    _write_json(out / "tiles" / "S-1.coordinates.meta.json", {"slide": slide, "artifact": artifact})


def write_slide2vec_slide(out: Path, *, suffix: str = ".npz") -> Path:
    """Write slide2vec's embedding of a slide."""
    path = out / "slide_embeddings" / f"S-1{suffix}"
    path.parent.mkdir(parents=True)
    if suffix == ".pt":
        import torch

        torch.save(torch.from_numpy(VECTOR), path)
    else:
        np.savez_compressed(path, features=VECTOR)
    about = {"sample_id": "S-1", "artifact_type": "slide_embeddings", "format": suffix[1:], "feature_dim": 12}
    _write_json(path.with_name("S-1.meta.json"), about | {"encoder_name": "titan", "encoder_level": "slide"})
    return path


def write_lazyslide(
    path: Path, tables: Mapping[str, NDArray[Any]], *, zarr_format: int = 3, tile_ids: list[int] | None = None
) -> Path:
    """Write a store as wsidata does: a table `<encoder>_tiles` of each, its rows by `tile_id`, tiles as Parquet."""
    import pyarrow
    import pyarrow.parquet
    import zarr

    spec = {
        "height": 224, "width": 224, "stride_height": 224, "stride_width": 224, "mpp": 0.5, "ops_level": 0,
        "ops_downsample": 2.0, "base_level": 0, "base_downsample": 2.0, "tissue_name": "tissues",
    }  # fmt: skip
    slide = {"shape": [SLIDE_SIZE[1], SLIDE_SIZE[0]], "n_level": 1, "mpp": SLIDE_MPP, "magnification": 40.0}
    root = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    root.attrs.update(
        {"spatialdata_attrs": {"version": "0.2"}, "slide_properties": slide, "tile_spec": {"tiles": spec}}
    )
    ids = np.arange(1, N_TILES + 1) if tile_ids is None else np.array(tile_ids)
    root.create_group("tables")
    for encoder, rows in tables.items():
        table = root.create_group(f"tables/{encoder}_tiles")
        about = {"encoding-type": "anndata", "spatialdata-encoding-type": "ngff:regions_table"}
        table.attrs.update(about | {"region": "tiles", "region_key": "library_id", "instance_key": "tile_id"})
        table.create_array("X", data=rows, chunks=(2, rows.shape[1]))
        table.create_array("obs/tile_id", data=ids)
    shapes = path / "shapes" / "tiles"
    shapes.mkdir(parents=True)
    columns = {"tile_id": np.arange(1, N_TILES + 1), "x": COORDS[:, 0], "y": COORDS[:, 1]}
    pyarrow.parquet.write_table(pyarrow.table(columns), shapes / "shapes.parquet")
    return path


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True))
