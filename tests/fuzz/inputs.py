"""Bags, weights, tables and outlines that are mutated: every layout that is read, and ours."""

import io
import json
import zipfile
from pathlib import Path

import cv2
import h5py
import numpy as np
import tifffile
import yaml
from PIL import Image

from tests.fuzz.originals import Original, list_files

_PROVENANCE = {
    **{"slide_quickhash": "ab" * 32, "slide_sha256": "cd" * 32, "slide_image": "", "slide_mpp_x": 0.25},
    **{"slide_mpp_y": 0.25, "mpp_source": "file", "slide_width": 4000, "slide_height": 3000, "magnification": 40.0},
    **{"tile_px": 256, "mpp": 0.5, "stride_px": 256, "min_tissue": 0.5, "tissue": "glass", "regions": ""},
    **{"max_upsample": 1.1, "encoder": "resnet18", "fingerprint": "ef" * 32, "dtype": "float16", "embedding_dim": 12},
    **{"precision": "fp32", "ledger": '[["whole slide", 10.0, 0.0]]', "colour": "[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]"},
}


def make_bags(folder: Path) -> list[Original]:
    """Write a bag of each layout, ours with its tiles, and attention."""
    import torch

    from lamella.features.bag import BagWriter, save_patches
    from tests.features import foreign
    from tests.gallery.scenes.runs import save_attention_file

    folder.mkdir()
    rng = np.random.default_rng(0)
    features = rng.normal(size=(9, 12)).astype(np.float32)
    coords = np.stack([np.arange(9) % 4, np.arange(9) // 4], axis=1).astype(np.int64) * 512
    tile = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20}
    size = {"overlap": 0, "name": "S1", "savetodir": "None", "level0_width": 4000, "level0_height": 3000}
    with h5py.File(folder / "trident.h5", "w") as file:
        file.create_dataset("features", data=features.astype(np.float16), chunks=(1, 12))
        file.create_dataset("coords", data=coords, chunks=(1, 2)).attrs.update(tile | size)
        file["features"].attrs.update({"name": "S1", "savetodir": "None", "encoder": "uni_v1"})
    (folder / "clam" / "patches").mkdir(parents=True)
    (folder / "clam" / "h5_files").mkdir()
    with h5py.File(folder / "clam" / "h5_files" / "S1.h5", "w") as file:
        file.create_dataset("features", data=features, chunks=(4, 12), maxshape=(None, 12), compression="gzip")
        file.create_dataset("coords", data=coords.astype(np.int32), chunks=(4, 2), maxshape=(None, 2))
    with h5py.File(folder / "clam" / "patches" / "S1.h5", "w") as file:
        place = file.create_dataset("coords", data=coords, chunks=(1, 2), maxshape=(None, 2))
        place.attrs.update({"patch_size": 256, "patch_level": 1, "downsample": np.array([2.0, 2.0]), "name": "S1"})
    with h5py.File(folder / "stamp.h5", "w") as file:
        file["feats"], file["coords"] = features.astype(np.float16), coords * 0.25
        about = {"stamp_version": "2.5.0", "extractor": "uni", "unit": "um", "tile_size_um": 256.0, "tile_size_px": 224}
        file.attrs.update(about | {"code_hash": "x", "feat_type": "tile"})
    with h5py.File(folder / "stamp1.h5", "w") as file:
        file["feats"], file["coords"] = features, coords * (224 / 512)
        file.attrs["extractor"] = "mahmood-uni"
    torch.save(torch.from_numpy(features), folder / "clam.pt")
    torch.save({"features": torch.from_numpy(features), "coords": torch.from_numpy(coords)}, folder / "dict.pt")
    torch.save(torch.from_numpy(features), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    save_attention_file(str(folder / "attention.h5"), slide_size=(620, 500))
    save_patches(folder / "S1_patches.h5", coords, _PROVENANCE | {"slide_id": "S1"})
    (folder / "ours").mkdir()
    for k in range(6):
        writer = BagWriter(folder / "ours" / f"S{k}.h5", coords, dim=12, dtype="float16")
        writer.append(features + k % 2)
        writer.finish(_PROVENANCE | {"slide_id": f"S{k}"}, seen_patients=["0" * 16] if k == 1 else ())
    kinds = {"TRIDENT": "trident.h5", "STAMP": "stamp.h5", "STAMP 1": "stamp1.h5", "lamella": "ours/S1.h5"}
    kinds |= {"CLAM tensor": "clam.pt", "dict": "dict.pt", "CLAM tensor, before torch 1.6": "legacy.pt"}
    foreign.write_atlaspatch(folder / "atlaspatch.h5", {"uni_v1": foreign.FEATURES}, slide=True)
    foreign.write_mussel(folder / "mussel.h5")
    foreign.write_trident_slide(folder)
    np.savez_compressed(folder / "any.npz", features=features)
    kinds |= {"AtlasPatch": "atlaspatch.h5", "Mussel": "mussel.h5", "NumPy": "any.npz"}
    kinds |= {"TRIDENT, of a slide": "slide_features_titan/S-1.h5"}
    clam = Original("bag: CLAM", "bag", folder / "clam", ("h5_files/S1.h5", "patches/S1.h5"), opened="h5_files/S1.h5")
    return [
        *(Original(f"bag: {name}", "bag", folder / file) for name, file in kinds.items()),
        clam,
        *_make_bag_folders(folder),
        Original("bags: folder", "train", folder / "ours", ("S0.h5", "S1.h5", "S3.h5")),
        Original("tiles", "patches", folder / "S1_patches.h5"),
        Original("attention", "attention", folder / "attention.h5"),
    ]


def _make_bag_folders(folder: Path) -> list[Original]:
    """Write the bags that are several files: slide2vec's with their metadata and tiles, and LazySlide's stores."""
    from tests.features import foreign

    originals = []
    for suffix in (".npz", ".pt"):
        out = folder / f"slide2vec{suffix}"
        opened = foreign.write_slide2vec(out, suffix=suffix).relative_to(out).as_posix()
        originals.append(Original(f"bag: slide2vec, {suffix}", "bag", out, list_files(out), opened=opened))
    for zarr_format in (2, 3):
        out = folder / f"lazyslide{zarr_format}"
        foreign.write_lazyslide(out / "S-1.zarr", {"uni2": foreign.FEATURES}, zarr_format=zarr_format)
        name = f"bag: LazySlide, Zarr {zarr_format}"
        originals.append(Original(name, "bag", out, list_files(out), share=1.5, opened="S-1.zarr"))
    return originals


def make_weights(folder: Path) -> list[Original]:
    """Write a tiny network in each format of weights, an encoder's file of ours, and a hub's configuration."""
    import safetensors.torch
    import timm
    import torch

    from lamella.encoders import EncoderSpec
    from lamella.encoders.packing import carry_encoder

    folder.mkdir()
    network = timm.create_model("test_resnet", pretrained=False)
    state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, folder / "weights.safetensors")
    lightning = {"state_dict": state, "epoch": 3, "hyper_parameters": Path("x"), "callbacks": {"a": [1, 2]}}
    torch.save(lightning, folder / "lightning.ckpt")
    carry_encoder(EncoderSpec("timm:test_resnet.r160_in1k", "random"), folder / "ours.safetensors")
    declared = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "license": "mit", "num_classes": 0}
    config = {"architecture": "test_vit", "model_args": {"img_size": 64}, "pretrained_cfg": declared}
    (folder / "config.json").write_text(json.dumps(config | {"global_pool": "avg", "num_features": 64}))
    _write_keras(folder / "densenet.keras")
    names = ("zip.pth", "legacy.pth", "weights.safetensors", "lightning.ckpt")
    return [
        *(Original(f"weights: {name}", "weights", folder / name) for name in names),
        Original("weights: our encoder", "encoder", folder / "ours.safetensors"),
        Original("weights: hub configuration", "hub", folder / "config.json"),
        Original("weights: Keras", "keras", folder / "densenet.keras"),
    ]


def _write_keras(path: Path) -> None:
    """Write a `.keras` archive of the layout that is read, with the first two layers of a DenseNet and its head."""
    rng = np.random.default_rng(1)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["layers/functional/layers/conv2d/vars/0"] = rng.normal(size=(7, 7, 3, 8)).astype(np.float32)
        for index in range(4):
            file[f"layers/functional/layers/batch_normalization/vars/{index}"] = rng.random(8).astype(np.float32)
        file["layers/dense/vars/0"] = np.ones((8, 4), np.float32)
        file["layers/dense/vars/1"] = np.zeros(4, np.float32)
    layers = [
        {"class_name": "Conv2D", "config": {"name": "conv1_conv"}},
        {"class_name": "BatchNormalization", "config": {"name": "conv1_bn"}},
    ]
    functional = {"class_name": "Functional", "config": {"layers": layers}}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": [{"class_name": "InputLayer"}, functional]}}))
        archive.writestr("model.weights.h5", content.getvalue())


def make_tables(folder: Path) -> list[Original]:
    """Write cohorts, predictions and a study's design."""
    import pandas as pd

    folder.mkdir()
    names = "slide,patient_id,label,fold,batch,slide_mpp"
    rows = [
        f"S-{i}.tif,P-{i // 2},{('benign', 'malignant')[i // 2 % 2]},{i // 4 % 3},B{i // 6},{0.25}" for i in range(16)
    ]
    text = "\n".join([names, *rows]) + "\n"
    (folder / "cohort.csv").write_text(text)
    (folder / "cohort.tsv").write_text(text.replace(",", "\t"))
    (folder / "excel.csv").write_bytes(("sep=;\n" + text.replace(",", ";")).encode("utf-16"))
    split = [row.rsplit(",", 3)[0] + f",{('train', 'val', 'test')[i // 2 % 3]}" for i, row in enumerate(rows)]
    (folder / "split.csv").write_text("\n".join(["slide,patient_id,label,split", *split]) + "\n")
    pd.read_csv(io.StringIO(text)).to_parquet(folder / "cohort.parquet")
    told = [f"S-{i},P-{i},{i % 2},{i % 3},{0.3 + 0.02 * i},{0.7 - 0.02 * i}" for i in range(16)]
    (folder / "predictions.csv").write_text("\n".join(["slide_id,patient_id,label,fold,prob_0,prob_1", *told]) + "\n")
    design = {
        "tiles": {"default": {"tile_px": 224, "mpp": 0.5}},
        "arms": [{"encoders": ["resnet18", "resnet34"], "depths": [4, 3]}],
        "comparisons": [{"name": "I", "title": "Depth", "pairs": [["resnet18@3", "resnet18@4"]]}],
        "seeds": 2,
        "folds": 5,
        "train": {"epochs": 5, "lr": 0.001},
        "budget": "2h",
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(design))
    cohorts = {"comma": "cohort.csv", "tab": "cohort.tsv", "Excel's UTF-16": "excel.csv", "split": "split.csv"}
    return [
        *(Original(f"table: cohort, {name}", "cohort", folder / file) for name, file in cohorts.items()),
        Original("table: cohort, Parquet", "cohort", folder / "cohort.parquet"),
        Original("table: predictions", "predictions", folder / "predictions.csv"),
        Original("study file", "design", folder / "study.yaml", share=1.5),
    ]


ASAP = """<?xml version="1.0"?><ASAP_Annotations><Annotations>
<Annotation Name="a" Type="Polygon" PartOfGroup="tumor" Color="#F4FA58"><Coordinates>
<Coordinate Order="0" X="100.5" Y="200"/><Coordinate Order="1" X="700" Y="220"/><Coordinate Order="2" X="500" Y="900"/>
</Coordinates></Annotation></Annotations><AnnotationGroups><Group Name="tumor" PartOfGroup="None" Color="#64FE2E"/>
</AnnotationGroups></ASAP_Annotations>"""
IMAGESCOPE = """<?xml version="1.0"?><Annotations MicronsPerPixel="0.25"><Annotation Id="1" Name="tumor"><Regions>
<Region Id="1" Type="0" NegativeROA="0"><Vertices><Vertex X="100" Y="200"/><Vertex X="700" Y="220"/>
<Vertex X="500" Y="900"/></Vertices></Region></Regions></Annotation></Annotations>"""


def make_regions(folder: Path) -> list[Original]:
    """Write outlines and masks of every kind that is read."""
    folder.mkdir()
    ring = [[150.0, 100.0], [970.0, 100.5], [970.0, 850.0], [150.0, 850.0], [150.0, 100.0]]
    hole = [[300.0, 300.0], [400.0, 300.0], [400.0, 400.0], [300.0, 300.0]]
    named = {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}}
    shapes = {
        "regions": {"type": "Polygon", "coordinates": [ring]},
        "several": {"type": "MultiPolygon", "coordinates": [[ring, hole], [[[9, 9], [60, 9], [60, 70], [9, 9]]]]},
    }
    for name, shape in shapes.items():
        feature = {"type": "Feature", "id": "00000000-0000-4000-8000-000000000001", "geometry": shape}
        content = {"type": "FeatureCollection", "features": [feature | {"properties": named}]}
        (folder / f"{name}.geojson").write_text(json.dumps(content))
    (folder / "asap.xml").write_text(ASAP)
    (folder / "imagescope.xml").write_text(IMAGESCOPE)
    mask = np.zeros((60, 80), np.uint8)
    mask[10:30, 20:50] = 255
    cv2.imwrite(str(folder / "mask.png"), mask)
    colours = np.dstack([mask, mask // 2, mask // 3])
    cv2.imwrite(str(folder / "colours.png"), colours)
    Image.fromarray(mask).quantize(4).save(folder / "palette.png")
    tifffile.imwrite(folder / "mask.tif", mask, compression="deflate")
    tiled = {"tile": (64, 64), "compression": "lzw", "metadata": None}
    tifffile.imwrite(folder / "tiles.tif", np.kron(mask, np.ones((4, 4), np.uint8)), **tiled)
    kinds = {"GeoJSON": "regions.geojson", "GeoJSON, several": "several.geojson"}
    kinds |= {"ASAP": "asap.xml", "ImageScope": "imagescope.xml"}
    masks = {"PNG": "mask.png", "PNG, colours": "colours.png", "PNG, palette": "palette.png", "TIFF": "mask.tif"}
    masks |= {"TIFF, tiles": "tiles.tif"}
    return [
        *(Original(f"regions: {name}", "regions", folder / file) for name, file in kinds.items()),
        *(Original(f"mask: {name}", "mask", folder / file) for name, file in masks.items()),
    ]
