"""What is done with each kind of input, through to a result, and a digest of that: equal digests, equal results."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_MOST_BLOCKS = 2  # of a slide, that are read as its tiles are encoded


def read_slide(path: Path) -> str:
    """Open a slide, find its tissue, place its tiles and read them as extraction does."""
    from lamella.cohort import CohortSlide
    from lamella.features.blocks import list_blocks, read_block
    from lamella.features.plan import CutSettings, plan_slide
    from lamella.slide import hash_fully
    from lamella.tiles import TileSpec

    cut = CutSettings(spec=TileSpec(tile_px=16, mpp=0.5))
    item = CohortSlide(slide_id="S", path=path, patient_id="P", slide_mpp=0.5)
    plan = plan_slide(item, cut)
    with plan.slide as slide:
        parts: list[Any] = [slide.size, slide.level_dimensions, slide.stated_mpp, slide.magnification, slide.format]
        parts += [slide.read_overview((96, 64)), slide.read_box((17.0, 9.0), (128, 96), 0.5)]
        for level, (width, height) in enumerate(slide.level_dimensions):
            parts.append(slide.read_region((width // 3, height // 4), level, (min(64, width), min(48, height))))
        parts += [plan.tissue.mask, plan.corners_l0, plan.provenance["colour"]]
        for number, block in enumerate(list_blocks(plan.corners_l0, plan.block_sizes)):
            if number == _MOST_BLOCKS:
                break
            parts.append(read_block(slide, block, cut.spec, plan.level))
    hash_fully(path)
    return digest(parts)


def read_bag(path: Path) -> str:
    """Load a bag of any tool's layout, describe it, and train on it."""
    from lamella.features.inspect import inspect_file
    from lamella.features.layouts import load_bag

    bag = load_bag(path, slide_mpp=0.5)
    inspect_file(path)
    trained = _train({"a": bag.features, "b": bag.features + 1, "c": bag.features - 1})
    stated = [getattr(bag, field.name) for field in dataclasses.fields(bag) if not field.name.startswith("read_")]
    return digest([bag.features, *stated, trained])


def train_on_bags(path: Path) -> str:
    """Load a folder of our bags as a run does, and train on it."""
    from lamella.features.bag import FEATURE_KEYS
    from lamella.runs.bags import load_bag_folder

    bags = load_bag_folder(path, [f"S{k}" for k in range(6)])
    keys = [bags.key(slide_id) for slide_id in bags.features]
    # What is stated under names that no one reads, such as that of a hash with a letter changed, is no result.
    stated = [[getattr(bag, name, None) for name in sorted(FEATURE_KEYS)] for bag in bags.facts.values()]
    return digest([keys, *bags.corners_l0.values(), repr(stated), _train(bags.features)])


def _train(features: dict[str, Any]) -> bytes:
    """Train a head for one epoch, and predict."""
    from lamella.mil import fit_model
    from lamella.mil.settings import TrainSettings

    labels = {slide_id: "xy"[place % 2] for place, slide_id in enumerate(features)}
    model = fit_model(
        features, labels, train=list(features), val=[], classes=("x", "y"), settings=TrainSettings(epochs=1)
    )
    return model.predict(next(iter(features.values()))).probabilities.tobytes()


def read_patches(path: Path) -> str:
    """Load the tiles of a slide, as extraction does to see whether they are those that are wanted."""
    from lamella.features.bag import PATCH_KEYS, find_differences, load_patches
    from lamella.features.inspect import inspect_file

    corners, stated = load_patches(path)
    inspect_file(path)
    known = [stated.get(name) for name in PATCH_KEYS]
    return digest([corners, repr(known), find_differences(path, {"tile_px": 256}, PATCH_KEYS)])


def read_attention(path: Path) -> str:
    """Load attention as numbers, and lay it on its slide."""
    from lamella.maps import stitch_tiles
    from lamella.reports.draw.heatmap import SlideAttention
    from lamella.runs.attention import load_attention

    record = load_attention(path)
    size = record.slide_size or (620, 500)
    tiles = SlideAttention(
        attention=record.attention.astype(np.float64),
        coords_l0=record.coords_l0,
        tile_size_l0=record.tile_l0,
        slide_size=size,
        slide_mpp=record.slide_mpp or (0.5, 0.5),
    )
    raster = stitch_tiles(tiles.attention, tiles.coords_l0, tiles.tile_size_l0, slide_size=size, shape=(50, 62))
    return digest([*(getattr(record, field.name) for field in dataclasses.fields(record)), raster])


def read_weights(path: Path) -> str:
    """Load a weights file, fit it to its network, and encode a tile."""
    from lamella.encoders import EncoderSpec
    from lamella.encoders.network import build_network

    return _encode(build_network(EncoderSpec("timm:test_resnet.r160_in1k", str(path))))


def read_encoder(path: Path) -> str:
    """Build an encoder from its file of ours, and encode a tile."""
    from lamella.encoders import EncoderSpec, find_encoder
    from lamella.encoders.network import build_network
    from lamella.encoders.tuned import load_seen

    card, seen = find_encoder(str(path)), load_seen(str(path))
    about = repr(dataclasses.astuple(dataclasses.replace(card, name="", network="")))
    return digest([about, repr(seen), _encode(build_network(EncoderSpec(str(path))))])


def _encode(network: Any) -> str:
    import torch

    tiles = torch.linspace(0, 255, 3 * 64 * 64).reshape(1, 3, 64, 64)
    with torch.inference_mode():
        embedding = network(tiles).numpy()
    return digest([embedding])


def read_keras(path: Path) -> str:
    """Load the tensors of a Keras file."""
    from lamella.encoders.formats import load_state

    return digest([(key, tensor.numpy()) for key, tensor in sorted(load_state(path).items())])


def read_hub(path: Path) -> str:
    """Read a hub's configuration, and build its network."""
    from lamella.encoders.foreign import read_hub_card
    from lamella.encoders.timm_trunk import create_trunk

    card = read_hub_card("hf-hub:owner/name", path)
    trunk = create_trunk(card.network, dict(card.model_args))
    return digest([repr(card), sum(one.numel() for one in trunk.parameters())])


def read_cohort(path: Path) -> str:
    """Load a cohort's table, divide it, and write it again."""
    from lamella.cohort import list_rounds, load_cohort, save_cohort, split_folds

    cohort = load_cohort(path)
    rows = [dataclasses.astuple(row) for row in cohort.slides]
    divided = cohort if any(row.fold is not None or row.split for row in cohort.slides) else split_folds(cohort)
    rounds = list_rounds(divided)
    save_cohort(divided, path.parent / "again.csv")
    load_cohort(path.parent / "again.csv")
    return digest([repr(rows).replace(str(path.parent), ""), repr(rounds)])


def read_predictions(path: Path) -> str:
    """Measure a table of predictions."""
    from lamella.reports.summary import list_remarks, summarise_run
    from lamella.runs.measure import measure_table

    metrics = measure_table(path)
    return digest([repr(metrics.as_json()), repr(list(summarise_run(metrics))), repr(list_remarks(metrics))])


def read_regions(path: Path) -> str:
    """Rasterise outlines, as regions to include and as lesions."""
    from lamella.explain.outlines import load_truth
    from lamella.tissue.region_files import RegionChoice
    from lamella.tissue.regions import rasterise_regions

    choice = RegionChoice(kind="include", path=path)
    choice.survey(["S"])
    region = choice.load("S", (0, 0, 1600, 1200))
    mask = rasterise_regions(region, (60, 80), (1600, 1200))
    return digest([mask, load_truth(path, (1600, 1200))((60, 80))])


def read_mask(path: Path) -> str:
    """Rasterise a mask of lesions."""
    from lamella.explain.outlines import load_truth

    return digest([load_truth(path, (1600, 1200))((60, 80))])


def read_design(path: Path) -> str:
    """Load a declared study."""
    from lamella.studies.design import load_design

    return digest([repr(load_design(path))])


def read_run(path: Path) -> str:
    """Open a finished run, predict an embedding by it, and write its page."""
    from lamella.reports.page import write_page
    from lamella.runs.predict import open_run, read_run_encoder

    run = open_run(path)
    features = np.random.default_rng(0).normal(size=(5, run.models[0].embedding_dim)).astype(np.float32)
    found = [model.predict(features).probabilities for model in run.models]
    about = [run.classes, run.positive, repr(run.settings), repr(run.threshold), repr(read_run_encoder(run)), *found]
    return digest([*about, write_page(path).read_bytes()])


def read_page(path: Path) -> str:
    """Write the page of a folder of predictions."""
    from lamella.reports.page import write_page

    return digest([write_page(path).read_bytes()])


def map_again(path: Path) -> str:
    """Map the classes of two slides of a run."""
    from lamella.encoders import RuntimeSettings
    from lamella.pipeline.run import map_classes
    from lamella.runs.settings import CamSettings

    runtime = RuntimeSettings(runtime="torch", precision="fp32", n_threads=1)
    records, failures = map_classes(path / "run", CamSettings(runtime=runtime), slide_ids=["S-00", "S-01"])
    _refuse_failures(failures)
    return digest([repr(records)])


def localise_again(path: Path) -> str:
    """Measure a run against lesions."""
    from lamella.explain.localise import LocaliseSettings, localise_run
    from lamella.runs.predict import open_run

    settings = LocaliseSettings(lesions=path / "lesions", cam=None)
    content, failures = localise_run(open_run(path / "run"), settings)
    _refuse_failures(failures)
    return digest([repr(content)])


def predict_new(path: Path) -> str:
    """Predict a new slide by a run."""
    from lamella.pipeline.predict import predict

    found = predict(path / "run", [path / "new.tif"], path / "out")
    return digest([(one.logits, one.attention) for one in found])


def resume_run(path: Path) -> str:
    """Run a cohort again into its folder, as after an interruption."""
    from lamella.cohort import load_cohort
    from lamella.encoders import EncoderSpec, RuntimeSettings
    from lamella.features.plan import CutSettings
    from lamella.features.settings import ExtractSettings
    from lamella.mil.settings import TrainSettings
    from lamella.pipeline.run import run_cohort
    from lamella.runs.settings import RunSettings
    from lamella.tiles import TileSpec

    runtime = RuntimeSettings(runtime="torch", precision="fp32", n_threads=1)
    cut = CutSettings(spec=TileSpec(tile_px=64, mpp=0.5))
    extract = ExtractSettings(cut=cut, encoders=(EncoderSpec("efficientnet-lite0@1"),), runtime=runtime)
    settings = RunSettings(extract=extract, train=TrainSettings(epochs=2), n_seeds=1, n_folds=3, n_heatmaps=0)
    result = run_cohort(load_cohort(path / "cohort" / "cohort.csv"), settings, path / "run")
    _refuse_failures(result.failures)
    return digest([(prediction.slide_id, prediction.logits) for prediction in result.predictions])


def pass_on(path: Path) -> str:
    """Export the model of a run, and open what was exported."""
    from lamella.exports.write import export_model

    export_model(path / "run", path / "passed")
    return read_export(path / "passed")


def _refuse_failures(failures: Any) -> None:
    """Raise the first failure, which a verb lists and goes on."""
    from lamella.errors import ModelError

    for failure in failures:
        raise ModelError(f"slide '{failure.slide_id}' failed: {failure.reason}")


def read_study(path: Path) -> str:
    """Open a study's folder, judge it again, and write its page."""
    from lamella.reports.page import write_page
    from lamella.studies.judge import judge_again

    page = write_page(path).read_bytes()
    return digest([page, repr(judge_again(path))])


def read_export(path: Path) -> str:
    """Open an exported model, and predict an embedding by it."""
    from lamella.exports.open import open_export

    predictor = open_export(path)
    dim = predictor.members[0].model.embedding_dim
    features = np.random.default_rng(0).normal(size=(5, dim)).astype(np.float32)
    found = [member.model.predict(features).probabilities for member in predictor.members]
    return digest([predictor.classes, predictor.positive, repr(predictor.settings), *found])


TARGETS: dict[str, Callable[[Path], str]] = {
    "slide": read_slide,
    "bag": read_bag,
    "train": train_on_bags,
    "patches": read_patches,
    "attention": read_attention,
    "weights": read_weights,
    "encoder": read_encoder,
    "keras": read_keras,
    "hub": read_hub,
    "cohort": read_cohort,
    "predictions": read_predictions,
    "regions": read_regions,
    "mask": read_mask,
    "design": read_design,
    "run": read_run,
    "page": read_page,
    "map": map_again,
    "localise": localise_again,
    "predict": predict_new,
    "resume": resume_run,
    "pass on": pass_on,
    "study": read_study,
    "export": read_export,
}


def digest(parts: list[Any]) -> str:
    """Return a hash of values and arrays."""
    sha = hashlib.sha256()
    for part in parts:
        for piece in part if isinstance(part, tuple) else (part,):
            content = (str(piece.dtype), piece.shape, piece.tobytes()) if isinstance(piece, np.ndarray) else piece
            sha.update(repr(content).encode("utf-8", "backslashreplace"))
    return sha.hexdigest()
