"""Stage 2 in a run: three arms on the same slides, encoders that carry what they have seen, and six ways to cheat."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamella.cohort import Cohort, gather_slides, load_cohort
from lamella.encoders import EncoderSpec, RuntimeSettings, find_encoder
from lamella.encoders.network import build_network
from lamella.encoders.tuned import load_seen
from lamella.errors import LeakageError, ModelError, SettingsError
from lamella.explain.cam import map_run
from lamella.explain.tuned_blocks import list_trained
from lamella.features.extract import ExtractSettings, extract_cohort
from lamella.features.layouts import load_bag
from lamella.features.plan import CutSettings
from lamella.files import parse_json_file
from lamella.finetune.settings import FinetuneSettings
from lamella.mil import load_model
from lamella.mil.settings import TrainSettings
from lamella.runs import stage_two as finetune
from lamella.runs.bags import load_bags
from lamella.runs.execute import execute_run, train_on_bags
from lamella.runs.folder import RunFolder
from lamella.runs.predict import open_run
from lamella.runs.settings import CamSettings, RunSettings, StageTwo, TrainingSettings
from lamella.slide import open_slide
from lamella.tiles import TileSpec
from tests.tiny import draw_tissue, save_slide

EXTRACT = ExtractSettings(
    cut=CutSettings(spec=TileSpec(tile_px=64, mpp=0.5, stride_px=64)),
    encoders=(EncoderSpec("resnet18@2", "random"),),
    runtime=RuntimeSettings(runtime="torch", n_threads=1),
)
FINETUNE = FinetuneSettings(k=4, epochs=2, encoder_lr=1e-4, head_lr=1e-3, n_threads=1)
SETTINGS = RunSettings(
    extract=EXTRACT,
    train=TrainSettings(epochs=3),
    n_seeds=1,
    n_folds=3,
    stage_two=StageTwo(finetune=FINETUNE),
)


def write_cohort(folder: Path, names: dict[str, str], *, patients: dict[str, str] | None = None) -> Cohort:
    table = folder / "cohort.csv"
    with table.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["slide", "label", "patient_id"])
        for name, label in names.items():
            rows.writerow([name, label, (patients or {}).get(name, Path(name).stem)])
    return load_cohort(table)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    names = {f"S-{i:02}.tiff": ("benign", "malignant")[i % 2] for i in range(12)}
    for i, name in enumerate(names):
        save_slide(folder / name, draw_tissue(i, malignant=bool(i % 2)))
    cohort = write_cohort(folder, names)
    out = tmp_path_factory.mktemp("run")
    return execute_run(cohort, SETTINGS, out), out, folder


def encoder_of(out: Path, fold: int = 0) -> EncoderSpec:
    return EncoderSpec(str(next((out / "finetuned" / f"fold{fold}" / "seed0" / "tuned").glob("*.safetensors"))))


def sides(result, fold: int = 0):
    """Return the slides of a fold: train and val together, and test."""
    test = [slide for slide in result.cohort.slides if slide.fold == fold]
    return [slide for slide in result.cohort.slides if slide.fold != fold], test


def test_the_table_has_every_arm_on_all_tiles_and_on_its_own_most_attended(run):
    result, out, _ = run
    arms = json.loads((out / "finetuned" / "arms.json").read_text())["arms"]
    assert [(arm["arm"], arm["reading"]) for arm in arms] == [
        (arm, reading) for arm in ("stage 1", "head", "tuned") for reading in ("all", "top")
    ]
    for score in arms:
        assert 0 <= score["interval"][0] <= score["auc"] <= score["interval"][1] <= 1
        assert (score["less_stage_1"] is None) == (score["arm"] == "stage 1")
    assert result.metrics.stage_two.as_json()["arms"] == arms
    with (out / "finetuned" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12 * 6
    stage_1 = {p.slide_id: p.logits for p in result.predictions}
    for row in rows:
        if (row["arm"], row["reading"]) == ("stage 1", "all"):
            assert float(row["logit_malignant"]) == pytest.approx(stage_1[row["slide_id"]][1])


def test_run_again_it_trains_nothing_and_finds_the_same(run, monkeypatch):
    result, out, _ = run
    before = (out / "finetuned" / "arms.json").read_text()
    monkeypatch.setattr("lamella.runs.stage_two.fit_encoder", None)
    execute_run(result.cohort, SETTINGS, out)
    assert (out / "finetuned" / "arms.json").read_text() == before


def test_run_again_with_other_settings_nothing_of_the_earlier_training_is_left(run, tmp_path):
    """A second encoder beside the run's own was compared, mapped and exported in its place."""
    result, first, _ = run
    out = tmp_path / "run"
    shutil.copytree(first, out)
    assert not [*out.rglob("epoch-*.pt"), *out.rglob("maps-*")]  # of use to an unfinished training alone
    for home in (out / "finetuned").glob("fold*/seed0/tuned"):
        shutil.copy(next(home.glob("*.safetensors")), home / "a-stray.safetensors")
    slower = StageTwo(finetune=dataclasses.replace(FINETUNE, encoder_lr=5e-4))
    again = execute_run(result.cohort, dataclasses.replace(SETTINGS, stage_two=slower), out)
    record = parse_json_file(out / "run.json")
    assert record["runtime"] == parse_json_file(first / "run.json")["runtime"] != ""
    assert record["extraction"]["n_encoded"] == 0
    for home in (out / "finetuned").glob("fold*/seed0/tuned"):
        name = load_model(home / "model").provenance["encoder_file"]
        assert [path.name for path in home.glob("*.safetensors")] == [name]
        assert [path.name for path in (home / "features").glob("*/features_*")] == [f"features_{Path(name).stem}"]
    shutil.copytree(out / "finetuned" / "fold0" / "seed0", out / "finetuned" / "fold0" / "seed7")  # not of this run
    assert list_trained(RunFolder(out)) == [(fold, 0) for fold in range(3)]
    epochs = again.metrics.stage_two.best_epochs
    assert [(epoch.fold, epoch.seed, epoch.finetuned) for epoch in epochs] == [
        (fold, 0, arm) for fold in range(3) for arm in ("head", "tuned")
    ]


def test_what_a_kill_left_beside_a_finished_training_goes_when_it_is_run_again(run, tmp_path):
    """The model was there and the maps that it was trained on not yet removed."""
    result, first, _ = run
    out = tmp_path / "run"
    shutil.copytree(first, out)
    for home in (out / "finetuned").glob("fold*/seed0/*"):
        key = load_model(home / "model").provenance["stage_2_key"][:12]
        (home / f"maps-{key}").mkdir()
        (home / f"maps-{key}" / "S-00.npy").touch()
        (home / f"epoch-{key}.pt").touch()
    execute_run(result.cohort, SETTINGS, out)
    assert not [*out.rglob("epoch-*.pt"), *out.rglob("maps-*")]


def test_a_run_of_other_folds_leaves_no_model_of_the_earlier_ones(run, tmp_path):
    """They would predict new slides too, and have learned from slides that the new split tests."""
    result, first, _ = run
    out = tmp_path / "run"
    shutil.copytree(first, out)
    assert len(open_run(out).models) == 3
    sides = dict(zip(sorted({slide.fold for slide in result.cohort.slides}), ("test", "val", "train"), strict=True))
    slides = tuple(dataclasses.replace(slide, fold=None, split=sides[slide.fold]) for slide in result.cohort.slides)
    settings = dataclasses.replace(SETTINGS, stage_two=None)
    again = execute_run(dataclasses.replace(result.cohort, slides=slides), settings, out)
    opened = open_run(out)
    assert (len(opened.models), opened.folds) == (1, (0,))
    assert {path.stem for path in opened.folder.attention.glob("*.h5")} == {p.slide_id for p in again.predictions}
    assert len(again.predictions) == 4


def test_a_network_tuned_from_another_stage_1_is_not_the_runs(run, tmp_path):
    result, first, _ = run
    out = tmp_path / "run"
    shutil.copytree(first, out)
    assert [tuned.fold for tuned in open_run(out).list_finetuned("tuned")] == [0, 1, 2]
    other = dataclasses.replace(SETTINGS, stage_two=None, train=TrainSettings(epochs=2))
    execute_run(result.cohort, other, out)
    assert open_run(out).list_finetuned("tuned") == []
    with pytest.raises(ModelError, match="no fine-tuned encoders"):
        map_run(open_run(out), CamSettings(finetuned="tuned"))


def test_what_training_on_did_not_better_is_said(run, tmp_path):
    result, first, _ = run
    out = tmp_path / "run"
    shutil.copytree(first, out)
    wild = StageTwo(finetune=dataclasses.replace(FINETUNE, encoder_lr=0.3, head_lr=0.5, epochs=1))
    again = execute_run(result.cohort, dataclasses.replace(SETTINGS, stage_two=wild), out)
    kept = [epoch.finetuned for epoch in again.metrics.stage_two.best_epochs if epoch.best_epoch == 0]
    assert "tuned" in kept
    assert f"in {kept.count('tuned')} of 3 trainings on of encoder and head no epoch" in " ".join(again.notes)


def test_a_slide_that_the_tuned_encoder_cannot_read_is_left_out_of_every_arm(run, tmp_path, monkeypatch):
    """It ended the run with a traceback once all folds were trained."""
    result, first, _ = run
    out = tmp_path / "run"
    shutil.copytree(first, out)
    shutil.rmtree(out / "finetuned" / "fold1" / "seed0" / "tuned" / "features")
    gone = next(slide for slide in result.cohort.slides if slide.fold == 1)
    extract = finetune.extract_cohort
    monkeypatch.setattr(
        finetune,
        "extract_cohort",
        lambda slides, *given, **named: extract([s for s in slides if s is not gone], *given, **named),
    )
    monkeypatch.setattr(
        finetune, "load_bags", lambda folder, ids: load_bags(folder, [i for i in ids if i != gone.slide_id])
    )
    again = execute_run(result.cohort, SETTINGS, out)
    assert again.metrics.stage_two.n_patients == 11
    assert f"left out of every arm of stage 2: {gone.slide_id}." in " ".join(again.notes)


def test_folds_that_the_table_brings_are_used_and_said(run, tmp_path):
    result, first, _ = run
    out = tmp_path / "run"
    shutil.copytree(first, out)
    again = execute_run(result.cohort, dataclasses.replace(SETTINGS, stage_two=None, n_folds=4), out)
    assert "the table brings 3 folds, which are used: --folds 4 makes none" in " ".join(again.notes)


def test_more_seeds_to_fine_tune_than_there_are_is_refused():
    with pytest.raises(SettingsError, match=r"3 seeds of stage 1 are to be fine-tuned and it has 1.*--seeds 3"):
        dataclasses.replace(SETTINGS, stage_two=StageTwo(finetune=FINETUNE, n_seeds=3))


def test_the_tuned_encoder_has_a_card_of_its_own_and_can_be_cut_again(run):
    _, out, _ = run
    spec = encoder_of(out)
    card = find_encoder(spec.name)
    assert (card.depth, card.embedding_dim) == (2, 128)
    assert "fine-tuned from resnet18@2" in card.source
    assert find_encoder(f"{spec.name}@1").embedding_dim == 64
    assert build_network(EncoderSpec(f"{spec.name}@1")).blocks.depth == 1
    moved = build_network(spec).blocks.named_state()
    frozen = build_network(EncoderSpec("resnet18@2", "random")).blocks.named_state()
    assert moved.keys() == frozen.keys()
    seen = load_seen(spec.name)
    assert len(seen.slides) == 8
    assert not any("S-" in str(dataclasses.astuple(slide)[:2]) for slide in seen.slides)


def test_a_bag_of_the_tuned_encoder_says_whether_it_has_seen_the_slide(run, tmp_path):
    result, out, _ = run
    learned, test = sides(result)
    settings = dataclasses.replace(EXTRACT, encoders=(encoder_of(out),))
    report = extract_cohort([learned[0], test[0]], settings, tmp_path)
    bags = [load_bag(report.folder.features_path(slide.slide_id)) for slide in (learned[0], test[0])]
    assert "patient" in bags[0].provenance["leak"]
    assert bags[1].provenance["leak"] == ""


def evaluate(cohort: Cohort, spec: EncoderSpec, tested: set[str], out: Path) -> None:
    """Train on the slides that are not tested, test on those, with bags of an encoder."""
    report = extract_cohort(cohort.slides, dataclasses.replace(EXTRACT, encoders=(spec,)), out / "bags")
    assert not report.failures
    rest = [slide for slide in cohort.slides if slide.slide_id not in tested]
    split = {slide.slide_id: "val" if number % 4 < 2 else "train" for number, slide in enumerate(rest)}
    slides = tuple(
        dataclasses.replace(slide, split=split.get(slide.slide_id, "test"), fold=None) for slide in cohort.slides
    )
    settings = TrainingSettings(train=TrainSettings(epochs=1), n_seeds=1)
    train_on_bags(dataclasses.replace(cohort, slides=slides), report.folder.features, settings, out / "trained")


def with_new_slides(folder: Path, result, copies: dict[str, str], *, patients: dict[str, str] | None = None) -> Cohort:
    """Return a cohort of eight new slides to train on, and slides made of what the encoder may have seen."""
    names = {}
    for i in range(8):
        save_slide(folder / f"N-{i}.tiff", draw_tissue(100 + i, malignant=bool(i % 2)))
        names[f"N-{i}.tiff"] = ("benign", "malignant")[i % 2]
    return write_cohort(folder, names | copies, patients=patients)


CHEATS = ("own fold", "another fold", "renamed", "other metadata", "other format", "copied bags")


@pytest.mark.parametrize("cheat", CHEATS)
def test_testing_on_what_the_encoder_has_seen_is_refused(run, tmp_path, cheat):
    result, out, _ = run
    learned, _ = sides(result)
    spec = encoder_of(out)
    victims = [next(s for s in learned if s.label == label) for label in ("benign", "malignant")]
    if cheat in ("own fold", "another fold"):
        # "another fold": an encoder tuned in fold 0 saw what is fold 1's test.
        tested = victims if cheat == "own fold" else sides(result, fold=1)[1]
        with pytest.raises(LeakageError, match="patient was among those"):
            evaluate(result.cohort, spec, {slide.slide_id for slide in tested}, tmp_path)
        return
    copies, patients = {}, {}
    for number, victim in enumerate(victims):
        name = f"copy-{number}.tiff"
        if cheat == "renamed":
            shutil.copy(victim.path, tmp_path / name)
        elif cheat == "other metadata":
            with open_slide(victim.path) as slide:
                pixels = slide.read_region((0, 0), 0, slide.size)
            save_slide(tmp_path / name, pixels, mpp=0.52)
        elif cheat == "other format":
            name = f"copy-{number}.jpg"
            with open_slide(victim.path) as slide:
                Image.fromarray(slide.read_region((0, 0), 0, slide.size)).save(tmp_path / name, quality=70)
        else:
            shutil.copy(victim.path, tmp_path / name)
        copies[name] = victim.label
        patients[name] = f"new-patient-{number}"
    cohort = with_new_slides(tmp_path, result, copies, patients=patients)
    if cheat == "other format":
        slides = tuple(dataclasses.replace(s, slide_mpp=0.5) for s in cohort.slides)
        cohort = dataclasses.replace(cohort, slides=slides)
    tested = {Path(name).stem for name in copies}
    if cheat == "copied bags":
        settings = dataclasses.replace(EXTRACT, encoders=(spec,))
        report = extract_cohort(cohort.slides, settings, tmp_path / "bags")
        moved = tmp_path / "elsewhere"
        shutil.copytree(report.folder.features, moved)
        for name in tested:
            (moved / f"{name}.h5").rename(moved / f"X{name}.h5")
        slides = tuple(
            dataclasses.replace(s, slide_id=f"X{s.slide_id}", patient_id=f"P{s.slide_id}", split="test", fold=None)
            if s.slide_id in tested
            else dataclasses.replace(s, split="val" if int(s.slide_id[-1]) < 4 else "train", fold=None)
            for s in cohort.slides
        )
        with pytest.raises(LeakageError, match="trained on this very file"):
            train_on_bags(
                dataclasses.replace(cohort, slides=slides),
                moved,
                TrainingSettings(train=TrainSettings(epochs=1), n_seeds=1),
                tmp_path / "trained",
            )
        return
    says = {"renamed": "this very file", "other metadata": "the same image", "other format": "the same image"}[cheat]
    with pytest.raises(LeakageError, match=says):
        evaluate(cohort, spec, tested, tmp_path)


@pytest.mark.parametrize("way", ["own test", "new slides", "frozen encoder"])
def test_honest_ways_are_let_through(run, tmp_path, way):
    result, out, _ = run
    learned, test = sides(result)
    if way == "own test":
        evaluate(result.cohort, encoder_of(out), {slide.slide_id for slide in test}, tmp_path)
    elif way == "new slides":
        cohort = with_new_slides(tmp_path, result, {})
        evaluate(cohort, encoder_of(out), {"N-0", "N-1"}, tmp_path)
    else:
        evaluate(result.cohort, EXTRACT.encoder, {slide.slide_id for slide in learned[:4]}, tmp_path)


def test_signatures_tell_slides_apart_and_know_copies(tmp_path):
    from lamella.slide.signature import is_same_slide, sign_slide

    signatures = []
    for seed in range(12):
        with open_slide(save_slide(tmp_path / f"{seed}.tiff", draw_tissue(seed))) as slide:
            signatures.append(sign_slide(slide))
    for i, first in enumerate(signatures):
        for j, second in enumerate(signatures):
            assert is_same_slide(first, second) == (i == j)
    turned = np.rot90(draw_tissue(3)).copy()
    with open_slide(save_slide(tmp_path / "turned.tiff", turned)) as slide:
        assert is_same_slide(signatures[3], sign_slide(slide))


def test_gathered_slides_without_labels_only_carry_the_note(run, tmp_path):
    result, out, _ = run
    learned, _ = sides(result)
    report = extract_cohort(
        gather_slides([learned[0].path]).slides, dataclasses.replace(EXTRACT, encoders=(encoder_of(out),)), tmp_path
    )
    assert not report.failures
