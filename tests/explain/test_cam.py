"""Class activation maps of a run: they sum to what the model said, lie where they should, and leak nothing."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from lamella.cohort import gather_slides, load_cohort
from lamella.encoders import EncoderSpec, RuntimeSettings
from lamella.encoders.network import build_network
from lamella.encoders.runtime.cells import open_cell_reader
from lamella.errors import CohortError, EncoderError, ModelError, SettingsError
from lamella.explain.cam_mapper import CamMapper
from lamella.explain.cam_parts import CamPart
from lamella.explain.cam_record import load_cam_record
from lamella.features.extract import ExtractSettings, extract_cohort
from lamella.features.plan import CutSettings
from lamella.finetune.settings import FinetuneSettings
from lamella.maps import load_map
from lamella.mil import fit_model, load_model, predict_ensemble
from lamella.mil.heads import Head, MeanPool
from lamella.mil.settings import TrainSettings
from lamella.pipeline.predict import predict_slides
from lamella.pipeline.run import map_classes, run_cohort
from lamella.progress import SilentProgress
from lamella.runs.bags import load_bags
from lamella.runs.settings import CamSettings, RunSettings, StageTwo
from lamella.slide import open_slide
from lamella.tiles import TileSpec
from tests.runs.test_stage_two import write_cohort
from tests.tiny import draw_tissue, save_slide

EXTRACT = ExtractSettings(
    cut=CutSettings(spec=TileSpec(tile_px=64, mpp=0.5, stride_px=48)),
    encoders=(EncoderSpec("resnet18@2", "random"),),
    runtime=RuntimeSettings(runtime="torch", n_threads=1),
    dtype="float32",
)
SETTINGS = RunSettings(
    extract=EXTRACT,
    train=TrainSettings(epochs=3),
    n_seeds=2,
    n_folds=3,
    stage_two=StageTwo(finetune=FinetuneSettings(k=4, epochs=1, n_threads=1), n_seeds=2),
    n_heatmaps=2,
    cam=CamSettings(),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    names = {f"S-{i:02}.tiff": ("benign", "malignant")[i % 2] for i in range(12)}
    for i, name in enumerate(names):
        save_slide(folder / name, draw_tissue(i, malignant=bool(i % 2), width=310, height=250))
    out = tmp_path_factory.mktemp("run")
    return run_cohort(write_cohort(folder, names), SETTINGS, out), out


def test_a_run_maps_the_slides_that_have_heatmaps_and_shows_them(run):
    result, out = run
    drawn = sorted(path.parent.name for path in (out / "cam").glob("*/cam.png"))
    assert drawn == sorted(p.slide_id for p in result.predictions[:2])
    page = (out / "report.html").read_text()
    assert page.count('where the contrast comes from">') == 2


@pytest.mark.parametrize("arm", ["frozen", "tuned"])
def test_cells_tile_biases_and_constant_sum_to_the_contrast_of_models_that_did_not_learn_from_the_slide(run, arm):
    result, out = run
    records, failures = map_classes(out, CamSettings(finetuned=arm))
    assert failures == ()
    assert len(records) == 12
    by_id = {slide.slide_id: slide for slide in result.cohort.slides}
    for record in records:
        fold = by_id[record.slide_id].fold
        if arm == "frozen":
            models = [load_model(path) for path in sorted(out.glob(f"models/fold{fold}/seed*"))]
            features = load_bags(EXTRACT.folder(out / "features"), [record.slide_id]).features[record.slide_id]
            logits = predict_ensemble(models, features).logits
            assert record.contrast == pytest.approx(logits[1] - logits[0], rel=1e-4, abs=1e-6)
            for model in models:
                assert record.slide_id not in (*model.training.train, *model.training.val)
        scale = max(abs(record.contrast), abs(record.cells), abs(record.tile_bias))
        assert abs(record.residual) <= 1e-4 * scale
        folder = out / "cam" / (record.slide_id if arm == "frozen" else f"{arm}/{record.slide_id}")
        tiles = np.load(folder / "tiles.npy")
        assert tiles.sum() == pytest.approx(record.cells + record.tile_bias, rel=1e-9)
        assert load_cam_record(folder) == record


def test_a_map_that_is_there_is_kept_and_one_of_another_class_is_not(run, monkeypatch):
    _, out = run
    first = map_classes(out, CamSettings(), slide_ids=["S-03"])[0][0]
    before = (out / "cam" / "S-03" / "cam.tiff").stat().st_mtime_ns
    again = map_classes(out, CamSettings(), slide_ids=["S-03"])[0][0]
    assert (again, (out / "cam" / "S-03" / "cam.tiff").stat().st_mtime_ns) == (first, before)
    other = map_classes(out, CamSettings(target="benign"), slide_ids=["S-03"])[0][0]
    assert other.contrast == pytest.approx(-first.contrast)
    assert other.cells == pytest.approx(-first.cells, rel=1e-4)
    map_classes(out, CamSettings(), slide_ids=["S-03"])


def test_the_map_covers_the_slide_and_the_contours_lie_on_tissue(run):
    _, out = run
    record = map_classes(out, CamSettings(), slide_ids=["S-05"])[0][0]
    raster = load_map(out / "cam" / "S-05" / "cam.tiff")
    assert record.slide_um == (155.0, 125.0)
    assert raster.shape == (round(250 / 8), round(310 / 8))  # a cell of depth 2 is 8 px
    features = json.loads((out / "cam" / "S-05" / "cam.geojson").read_text())["features"]
    assert {feature["properties"]["classification"]["name"] for feature in features} <= {
        "CAM for malignant",
        "CAM against malignant",
    }
    for feature in features:
        points = np.concatenate([np.array(ring) for area in feature["geometry"]["coordinates"] for ring in area])
        assert (points >= -8).all()
        assert (points <= [318, 258]).all()
    with Image.open(out / "cam" / "S-05" / "cam.png") as picture:
        assert picture.width > 900


def test_grad_cam_needs_no_sum_and_its_map_differs(run):
    _, out = run
    exact = map_classes(out, CamSettings(), slide_ids=["S-07"])[0][0]
    before = load_map(out / "cam" / "S-07" / "cam.tiff")
    record = map_classes(out, CamSettings(method="grad"), slide_ids=["S-07"])[0][0]
    after = load_map(out / "cam" / "S-07" / "cam.tiff")
    assert record.residual is None
    assert record.contrast == pytest.approx(exact.contrast, rel=1e-4)
    assert after.shape == before.shape
    assert not np.allclose(before, after, equal_nan=True)


def test_predicted_slides_are_mapped_by_all_models(run, tmp_path):
    _, out = run
    save_slide(tmp_path / "new.tiff", draw_tissue(50, malignant=True, width=310, height=250))
    predictions, failures = predict_slides(out, gather_slides([tmp_path / "new.tiff"]), tmp_path / "predicted")
    assert failures == ()
    records, failures = map_classes(out, CamSettings(), predicted=tmp_path / "predicted")
    assert failures == ()
    assert records[0].contrast == pytest.approx(predictions[0].logits[1] - predictions[0].logits[0], rel=1e-4, abs=1e-6)
    assert (tmp_path / "predicted" / "cam" / "new" / "cam.png").exists()


def test_what_cannot_be_mapped_is_refused_in_one_line(run):
    _, out = run
    with pytest.raises(CohortError, match="no slide of the run is called 'S-99'"):
        map_classes(out, CamSettings(), slide_ids=["S-99"])
    with pytest.raises(SettingsError, match="no class is called 'cancer'"):
        map_classes(out, CamSettings(target="cancer"))
    with pytest.raises(SettingsError, match="--method exact or --method grad"):
        CamSettings(method="gradcam")
    with pytest.raises(ModelError, match="no fine-tuned encoders"):
        map_classes(out, CamSettings(finetuned="tuned"), predicted=out)


def test_a_network_whose_embedding_is_no_mean_of_a_map_is_refused_and_read_by_gradients():
    spec = EncoderSpec("timm:vit_tiny_patch16_224", "random")
    with pytest.raises(EncoderError, match="--method grad"):
        open_cell_reader(spec, RuntimeSettings(), tile_px=224)
    reader = open_cell_reader(spec, RuntimeSettings(), tile_px=224, by_gradient=True)
    tiles = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    weights = np.random.default_rng(1).normal(size=(2, 192)).astype(np.float32)
    (cells,) = reader.read([(tiles, weights)])
    assert cells.shape == (2, 14, 14)
    assert cells.std() > 0
    # Twice the weight, twice the cells: what is differentiated is linear in it.
    (doubled,) = reader.read([(tiles, 2 * weights)])
    np.testing.assert_allclose(doubled, 2 * cells, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["resnet18@1", "resnet18@3", "densenet121@2", "efficientnet-lite0@3", "efficientnet-lite0"]
)
@pytest.mark.parametrize("runtime", ["auto", "torch"])
def test_weighted_cells_are_the_feature_maps_times_the_weights(name, runtime, tmp_path, monkeypatch):
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path))
    spec = EncoderSpec(name, "random")
    tiles = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        (maps,) = build_network(spec).read_maps(torch.from_numpy(tiles).permute(0, 3, 1, 2).float())
    weights = np.random.default_rng(1).normal(size=(2, maps.shape[1])).astype(np.float32)
    reader = open_cell_reader(spec, RuntimeSettings(runtime=runtime, n_threads=1), tile_px=64)
    cells = np.concatenate(list(reader.read((tiles[i : i + 1], weights[i : i + 1]) for i in range(2))))
    wanted = np.einsum("ndhw,nd->nhw", maps.numpy(), weights)
    np.testing.assert_allclose(cells, wanted, atol=2e-5 * np.abs(wanted).max())
    half_read = reader.read([(tiles[:1], weights[:1])] * 2)
    next(half_read)
    assert torch.is_grad_enabled()  # whoever reads half of it may train in between


@pytest.mark.parametrize("name", ["resnet18@2", "densenet121@2", "efficientnet-lite0@2"])
def test_an_impulse_on_an_asymmetric_slide_peaks_where_it_is(name, tmp_path):
    """A dot at the centre of a cell's receptive field: the map's peak lies within a pixel of it."""
    weights = tmp_path / "means.pth"
    network = build_network(EncoderSpec(name, "random"))
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):  # a plain mean: every feature is the picture, blurred
            module.weight.data = torch.full_like(module.weight, 1 / module.weight[0].numel())
    torch.save(network.blocks.named_state(), weights)
    spec = EncoderSpec(name, str(weights))
    extract = dataclasses.replace(
        EXTRACT, encoders=(spec,), cut=CutSettings(spec=TileSpec(tile_px=128, mpp=0.5, min_tissue=0.0))
    )
    reader = open_cell_reader(spec, RuntimeSettings(runtime="torch"), tile_px=128)
    grey = ((network.mean + 0.15 * network.std).flatten() * 255).numpy()  # above the mean, so that no ReLU cuts it
    noise = np.random.default_rng(0).normal(0, 6, (384, 640, 1))
    blank = np.round(grey + noise - (0, 25, 0)).astype(np.uint8)  # tinted: what is grey is no tissue
    dotted = blank.copy()
    column, row = 7, 9
    x = 256 + reader.grid.first + column * reader.grid.stride
    y = 128 + reader.grid.first + row * reader.grid.stride
    dotted[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] += 40
    names = {"blank.tiff": "a", "dotted.tiff": "b"}
    for file, pixels in zip(names, (blank, dotted), strict=True):
        save_slide(tmp_path / file, pixels, compression="deflate")
    cohort = load_cohort(write_cohort(tmp_path, names) and tmp_path / "cohort.csv")
    report = extract_cohort(cohort.slides, extract, tmp_path / "bags")
    assert report.failures == ()
    bags = load_bags(report.folder, ["blank", "dotted"]).features
    rng = np.random.default_rng(0)
    made = {f"T{i}": bags["dotted"] + rng.normal(0, 0.05, bags["dotted"].shape).astype(np.float32) for i in range(6)}
    model = fit_model(
        made,
        {key: "ab"[i % 2] for i, key in enumerate(made)},
        train=[f"T{i}" for i in range(4)],
        val=["T4", "T5"],
        classes=("a", "b"),
        settings=TrainSettings(head="mean", epochs=1),
    )
    # Linear all through: each cell is then the same sum of its features, in every tile of both slides.
    torch.manual_seed(0)
    head = Head(torch.nn.Sequential(torch.nn.Linear(model.embedding_dim, 4)), MeanPool(), 4, 2)
    model = dataclasses.replace(model, head=head)
    mapper = CamMapper(("a", "b"), CamSettings(runtime=RuntimeSettings(runtime="torch")), "b", extract)
    part = CamPart(encoder=spec, models=(model,), bags=report.folder.features)
    rasters = []
    with SilentProgress().stage("", None, "") as stage:
        for slide in cohort.slides:
            mapper.map_slide(slide, [part], [part.open_bag(slide.slide_id)], tmp_path / slide.slide_id, stage)
            rasters.append(load_map(tmp_path / slide.slide_id / "cam.tiff"))
    with open_slide(tmp_path / "dotted.tiff") as slide:
        pixel = np.array(slide.size) / np.array(rasters[0].shape[::-1])
    change = np.abs(rasters[1] - rasters[0])
    change[np.isnan(change)] = 0
    peak = np.argwhere(change > 0.999 * change.max())
    centre = (peak.mean(axis=0)[::-1] + 0.5) * pixel
    assert np.abs(centre - [x, y]).max() <= pixel.max()
