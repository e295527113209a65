"""The files that are mutated: each of the true form, made by the tools that write it, small."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import tifffile

from tests.tiny import draw_cohort, draw_tissue, save_labelled_slide, save_slide


@dataclass(frozen=True, slots=True)
class Original:
    """An input that is mutated.

    Attributes:
        name: What it is.
        target: What opens it, a key of `tests.fuzz.targets.TARGETS`.
        path: The file or folder.
        files: Of a folder, the files of which one is mutated, relative to it.
        share: How many mutants it gets, relative to the others.
    """

    name: str
    target: str
    path: Path
    files: tuple[str, ...] = ()
    share: float = 1.0


def make_originals(folder: Path, *, with_folders: bool = True, shared: Path | None = None) -> list[Original]:
    """Make every original below a folder; `with_folders` also runs, exports and studies, which takes a minute."""
    folder.mkdir(parents=True, exist_ok=True)
    originals = [
        *_make_slides(folder / "slides", shared),
        *_make_bags(folder / "bags"),
        *_make_weights(folder / "weights"),
        *_make_tables(folder / "tables"),
        *_make_regions(folder / "regions"),
    ]
    return originals + (_make_folders(folder / "folders") if with_folders else [])


def _make_slides(folder: Path, shared: Path | None) -> list[Original]:
    folder.mkdir()
    pixels = draw_tissue(3, width=331, height=262)
    tiled = {"photometric": "rgb", "metadata": None, "tile": (64, 96)}
    tiled |= {"resolution": (20000, 20000), "resolutionunit": 3}
    paths = {
        "JPEG pyramid": save_slide(folder / "jpeg.tif", pixels),
        "deflate pyramid": save_slide(folder / "deflate.tif", pixels, compression="deflate"),
        "SVS": save_labelled_slide(folder / "aperio.svs", pixels, said="x"),
        "LZW strips": folder / "lzw.tif",
        "JPEG 2000": folder / "jp2k.tif",
        "OME-TIFF": folder / "slide.ome.tif",
        "zstd BigTIFF": folder / "zstd.tif",
        "PNG": folder / "field.png",
        "JPEG": folder / "field.jpg",
    }
    tifffile.imwrite(paths["LZW strips"], pixels, compression="lzw", photometric="rgb", rowsperstrip=32, metadata=None)
    tifffile.imwrite(paths["JPEG 2000"], pixels, compression="jpeg2000", **tiled)
    tifffile.imwrite(paths["zstd BigTIFF"], pixels, compression="zstd", bigtiff=True, **tiled)
    with tifffile.TiffWriter(paths["OME-TIFF"], ome=True) as file:
        options = {"photometric": "rgb", "tile": (64, 96), "compression": "deflate"}
        about = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        file.write(pixels, subifds=1, metadata=about, **options)
        file.write(pixels[::2, ::2].copy(), subfiletype=1, **options)
    cv2.imwrite(str(paths["PNG"]), pixels[..., ::-1])
    cv2.imwrite(str(paths["JPEG"]), pixels[..., ::-1])
    if shared is not None:
        for name, source in (("DICOM", "openslide-boxes_0.dcm"), ("small SVS", "openslide-small.svs")):
            paths[name] = Path(shutil.copyfile(shared / "slides" / source, folder / source))
        paths["NDPI"] = Path(shutil.copyfile(shared / "slides" / "test3-DAPI-2-387.ndpi", folder / "slide.ndpi"))
    shares = {"NDPI": 0.1}  # a large file
    return [Original(f"slide: {name}", "slide", path, share=shares.get(name, 1.0)) for name, path in paths.items()]


def _make_bags(folder: Path) -> list[Original]:
    import torch

    from tests.gallery_scenes import save_attention_file

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
    with h5py.File(folder / "clam.h5", "w") as file:
        file.create_dataset("features", data=features, chunks=(4, 12), maxshape=(None, 12))
        file.create_dataset("coords", data=coords.astype(np.int32), chunks=(4, 2), maxshape=(None, 2))
    with h5py.File(folder / "stamp.h5", "w") as file:
        file["feats"], file["coords"] = features.astype(np.float16), coords * 0.25
        about = {"stamp_version": "2.5.0", "extractor": "uni", "unit": "um", "tile_size_um": 256.0, "tile_size_px": 224}
        file.attrs.update(about | {"code_hash": "x", "feat_type": "tile"})
    torch.save(torch.from_numpy(features), folder / "clam.pt")
    torch.save({"features": torch.from_numpy(features), "coords": torch.from_numpy(coords)}, folder / "dict.pt")
    save_attention_file(str(folder / "attention.h5"), slide_size=(620, 500))
    kinds = {"TRIDENT": "trident.h5", "CLAM": "clam.h5", "STAMP": "stamp.h5"}
    kinds |= {"CLAM tensor": "clam.pt", "dict": "dict.pt"}
    bags = [Original(f"bag: {name}", "bag", folder / file) for name, file in kinds.items()]
    return [*bags, Original("attention", "attention", folder / "attention.h5")]


def _make_weights(folder: Path) -> list[Original]:
    import safetensors.torch
    import timm
    import torch

    folder.mkdir()
    network = timm.create_model("test_resnet", pretrained=False)
    state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, folder / "weights.safetensors")
    lightning = {"state_dict": state, "epoch": 3, "hyper_parameters": Path("x"), "callbacks": {"a": [1, 2]}}
    torch.save(lightning, folder / "lightning.ckpt")
    names = ("zip.pth", "legacy.pth", "weights.safetensors", "lightning.ckpt")
    return [Original(f"weights: {name}", "weights", folder / name) for name in names]


def _make_tables(folder: Path) -> list[Original]:
    folder.mkdir()
    rows = [f"S-{i}.tif,P-{i // 2},{('benign', 'malignant')[i // 2 % 2]},{i % 3},{0.25}" for i in range(16)]
    (folder / "cohort.csv").write_text("\n".join(["slide,patient_id,label,fold,slide_mpp", *rows]) + "\n")
    (folder / "cohort.tsv").write_text("\n".join(["slide,patient_id,label,fold,slide_mpp", *rows]).replace(",", "\t"))
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
    import yaml

    (folder / "study.yaml").write_text(yaml.safe_dump(design))
    return [
        Original("table: cohort, comma", "cohort", folder / "cohort.csv"),
        Original("table: cohort, tab", "cohort", folder / "cohort.tsv"),
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


def _make_regions(folder: Path) -> list[Original]:
    folder.mkdir()
    ring = [[150.0, 100.0], [970.0, 100.5], [970.0, 850.0], [150.0, 850.0], [150.0, 100.0]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    named = {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}}
    feature = {"type": "Feature", "id": "00000000-0000-4000-8000-000000000001", "geometry": shape, "properties": named}
    (folder / "regions.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    (folder / "asap.xml").write_text(ASAP)
    (folder / "imagescope.xml").write_text(IMAGESCOPE)
    mask = np.zeros((60, 80), np.uint8)
    mask[10:30, 20:50] = 255
    cv2.imwrite(str(folder / "mask.png"), mask)
    tifffile.imwrite(folder / "mask.tif", mask, compression="deflate")
    kinds = {"GeoJSON": "regions.geojson", "ASAP": "asap.xml", "ImageScope": "imagescope.xml"}
    masks = {"mask, PNG": "mask.png", "mask, TIFF": "mask.tif"}
    return [Original(f"regions: {name}", "regions", folder / file) for name, file in (kinds | masks).items()]


def _make_folders(folder: Path) -> list[Original]:
    """Run, study and export on a tiny cohort."""
    from lamella.cohort import load_cohort
    from lamella.compare import compare_arms
    from lamella.encoders import EncoderSpec, RuntimeSettings
    from lamella.features.extract import ExtractSettings
    from lamella.features.plan import CutSettings
    from lamella.mil.settings import TrainSettings
    from lamella.pipeline import run_cohort
    from lamella.study.design import check_design
    from lamella.study.execute import StudyOptions
    from lamella.study.export import export_model
    from lamella.study.settings import RunSettings
    from lamella.tiles import TileSpec

    runtime = RuntimeSettings(runtime="torch", precision="fp32", n_threads=1)
    extract = ExtractSettings(
        cut=CutSettings(spec=TileSpec(tile_px=64, mpp=0.5)),
        encoders=(EncoderSpec("efficientnet-lite0@1"),),
        runtime=runtime,
    )
    cohort = load_cohort(draw_cohort(folder / "cohort", 12))
    settings = RunSettings(extract=extract, train=TrainSettings(epochs=2), n_seeds=1, n_folds=3)
    run_cohort(cohort, settings, folder / "run")
    export_model(folder / "run", folder / "export")
    design = {
        "tiles": {"default": {"tile_px": 64, "mpp": 0.5}},
        "arms": [{"encoders": ["resnet18"], "depths": [2, 1], "weights": ["random"]}, {"encoders": ["resnet18-ciga"]}],
        "seeds": 1,
        "folds": 3,
        "train": {"epochs": 2},
        "permutations": 1,
    }
    compare_arms(cohort, check_design(design, "here"), folder / "study", options=StudyOptions(runtime=runtime))
    for large in ("run/features", "study/features", "run/heatmaps"):  # not read by what is tried here
        shutil.rmtree(folder / large, ignore_errors=True)
    return [
        Original("run folder", "run", folder / "run", _list_files(folder / "run")),
        Original("study folder", "study", folder / "study", _list_files(folder / "study", "*")),
        Original("exported model", "export", folder / "export", _list_files(folder / "export")),
    ]


def _list_files(folder: Path, pattern: str = "**/*") -> tuple[str, ...]:
    """List the files of a folder that are not pages or pictures."""
    skipped = {".html", ".png", ".jpg", ".tiff", ".md"}
    files = (path for path in sorted(folder.glob(pattern)) if path.is_file() and path.suffix not in skipped)
    return tuple(path.relative_to(folder).as_posix() for path in files if path.stat().st_size < 4_000_000)
