"""Studies of bags that are there already: of any tool, beside encoders of ours, priced or not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from lamella.analysis.frames import judge_arms
from lamella.cli import build_app
from lamella.cohort import load_cohort, split_folds
from lamella.encoders import RuntimeSettings
from lamella.errors import LamellaError, SettingsError
from lamella.exports.card import load_card
from lamella.exports.write import export_model
from lamella.features.bag import BagWriter
from lamella.pipeline.compare import compare_tables
from lamella.pipeline.study import compare_arms
from lamella.studies.design import add_features, check_design, dump_design, load_design
from lamella.studies.facts import plan_study
from lamella.studies.judge import judge_again
from lamella.studies.options import StudyOptions
from lamella.studies.record import describe_study
from tests.features import foreign
from tests.tiny import draw_cohort

Floats = NDArray[np.float32]
OPTIONS = StudyOptions(runtime=RuntimeSettings(runtime="torch", n_threads=1))
QUICK = {"seeds": 1, "folds": 3, "train": {"epochs": 8}, "permutations": 0}
N = 36


def list_bags(dim: int, shift: float, *, seed: int) -> dict[str, tuple[Floats, NDArray[np.int64]]]:
    """Return features and corners by slide id; odd slides have planted tiles."""
    rng, bags = np.random.default_rng(seed), {}
    for i in range(N):
        n = int(rng.integers(12, 30))
        features = rng.normal(size=(n, dim)).astype(np.float32)
        if i % 2:
            features[:4, :4] += shift
        bags[f"S{i:02d}"] = features, np.stack([np.arange(n) % 8 * 512, np.arange(n) // 8 * 512], axis=1)
    return bags


def write_trident(path: Path, features: Floats, corners: NDArray[np.int64]) -> None:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file.create_dataset("features", data=features, chunks=(1, features.shape[1]))
        file.create_dataset("coords", data=corners).attrs.update(
            {"patch_size": 256, "patch_size_level0": 512, "level0_width": 6000, "level0_height": 5000}
        )


def write_clam(path: Path, features: Floats, corners: NDArray[np.int64]) -> None:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file.create_dataset("features", data=features)
        file.create_dataset("coords", data=corners)


def write_tensor(path: Path, features: Floats, corners: NDArray[np.int64]) -> None:
    import torch

    torch.save(torch.from_numpy(features), path.with_suffix(".pt"))


def write_stamp(path: Path, features: Floats, corners: NDArray[np.int64]) -> None:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file.create_dataset("feats", data=features)
        file.create_dataset("coords", data=corners * 0.25)
        file.attrs.update({"unit": "um", "tile_size_um": 128.0, "tile_size_px": 256, "extractor": "any"})


def write_lamella(path: Path, features: Floats, corners: NDArray[np.int64]) -> None:
    writer = BagWriter(path.with_suffix(".h5"), corners, dim=features.shape[1], dtype="float32")
    writer.append(features)
    writer.finish(
        {
            "slide_id": path.stem, "slide_sha256": path.stem, "slide_quickhash": path.stem, "fingerprint": "0" * 64,
            "encoder": "any", "tile_px": 256, "mpp": 0.5, "stride_px": 256, "slide_mpp_x": 0.25, "slide_mpp_y": 0.25,
            "slide_width": 6000, "slide_height": 5000, "tissue_um2": 1e6, "colour": "[200, 150, 180, 9, 9, 9]",
        }
    )  # fmt: skip


def write_by(write: Callable[[Path], object], path: Path, features: Floats, corners: NDArray[np.int64]) -> None:
    """Write by one of `tests.features.foreign`, whose files are of five tiles of a slide S-1."""
    drawn = {"N_TILES": len(features), "COORDS": corners, "FEATURES": features, "SLIDE_SIZE": (6000, 5000)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in drawn.items():
            patch.setattr(foreign, name, value)
        write(path.parent / f"making {path.stem}")
    for made in sorted((path.parent / f"making {path.stem}").rglob("S-1.*")):
        folder = {"tiles": path.parent.parent / "tiles"}.get(made.parent.name, path.parent)
        folder.mkdir(exist_ok=True)
        made.rename(folder / made.name.replace("S-1", path.stem))
    shutil.rmtree(path.parent / f"making {path.stem}")


def write_atlaspatch(path: Path, features: Floats, corners: NDArray[np.int64]) -> None:
    def write(folder: Path) -> None:
        foreign.write_atlaspatch(folder / "S-1.h5", {"uni": features})

    write_by(write, path, features, corners)


def write_slide2vec(path: Path, features: Floats, corners: NDArray[np.int64]) -> None:
    write_by(foreign.write_slide2vec, path, features, corners)


def write_lazyslide(path: Path, features: Floats, corners: NDArray[np.int64]) -> None:
    def write(folder: Path) -> None:
        folder.mkdir()
        foreign.write_lazyslide(folder / "S-1.zarr", {"uni": features})

    write_by(write, path, features, corners)


LAYOUTS: dict[str, Callable[[Path, Floats, NDArray[np.int64]], None]] = {
    "trident": write_trident,
    "clam": write_clam,
    "tensor": write_tensor,
    "stamp": write_stamp,
    "lamella": write_lamella,
    "atlaspatch": write_atlaspatch,
    "slide2vec": write_slide2vec,
    "lazyslide": write_lazyslide,
}


def write_folder(folder: Path, layout: str, dim: int, shift: float, *, seed: int) -> Path:
    folder.mkdir(parents=True)
    for slide_id, (features, corners) in list_bags(dim, shift, seed=seed).items():
        LAYOUTS[layout](folder / slide_id, features, corners)
    return folder


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort whose slides are nowhere, and two good folders of bags and a poor one, in TRIDENT's layout."""
    folder = tmp_path_factory.mktemp("desk")
    rows = [f"nowhere/S{i:02d}.svs,S{i:02d},P{i:02d},{('benign', 'tumour')[i % 2]}" for i in range(N)]
    (folder / "cohort.csv").write_text("\n".join(["slide,slide_id,patient_id,label", *rows]) + "\n")
    write_folder(folder / "uni2", "trident", 32, 3.0, seed=0)
    write_folder(folder / "virchow2", "trident", 48, 3.0, seed=1)
    write_folder(folder / "poor", "trident", 16, 0.0, seed=2)
    return folder


def design_of(desk: Path, *names: str, **more: object) -> dict[str, object]:
    return {"arms": [{"features": {name: str(desk / name) for name in names}}], **QUICK, **more}


def test_three_folders_of_bags_are_compared_by_one_command(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(dump_design(check_design(design_of(desk, "virchow2", "poor"), "here")))
    words = ["study", str(tmp_path / "mine.yaml"), "--cohort", str(desk / "cohort.csv"), "--features",
             f"uni2={desk / 'uni2'}", "--out", str(tmp_path / "out"), "--quiet"]  # fmt: skip
    ended = CliRunner().invoke(build_app(), words)
    assert ended.exit_code == 0, ended.output
    assert "seconds a slide" not in ended.output
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert [arm["arm"] for arm in verdict["arms"]] == ["virchow2", "poor", "uni2"]
    assert {row["arm"] for row in verdict["verdict"]["shown_worse"]} <= {"poor"}
    assert all(arm["cost"] is None for arm in verdict["arms"])
    del verdict["record_sha256"]
    assert judge_again(tmp_path / "out").as_json() == verdict
    page = (tmp_path / "out" / "report.html").read_text()
    assert "costs are not known" in page
    assert "cheapest" not in page
    assert str(desk) not in (tmp_path / "out" / "study.json").read_text()
    assert (tmp_path / "out" / "arms" / "uni2" / "attention" / "S01.h5").exists()


def test_what_a_study_of_bags_recommends_is_asked_again_of_bags_from_elsewhere(desk: Path, tmp_path: Path) -> None:
    design = check_design(design_of(desk, "uni2", "virchow2", "poor", margin=0.1), "here")
    study = compare_arms(load_cohort(desk / "cohort.csv"), design, tmp_path / "out", options=OPTIONS)
    assert study.verdict is not None
    assert study.verdict.verdict.arm == "uni2"
    rows = [f"nowhere/N{i:02d}.svs,N{i:02d},Q{i:02d},{('benign', 'tumour')[i % 2]}" for i in range(N)]
    (tmp_path / "new.csv").write_text("\n".join(["slide,slide_id,patient_id,label", *rows]) + "\n")
    words = ["predict", str(tmp_path / "out"), "--cohort", str(tmp_path / "new.csv"), "--quiet"]
    for name, dim, shift, seed in (("uni2", 32, 3.0, 10), ("virchow2", 48, 3.0, 11), ("poor", 16, 0.0, 12)):
        folder = write_folder(tmp_path / "new" / name, "trident", dim, shift, seed=seed)
        for path in folder.glob("S*.h5"):
            path.rename(folder / path.name.replace("S", "N"))
        words += ["--features", f"{name}={folder}"]
    ended = CliRunner().invoke(build_app(), [*words, "--out", str(tmp_path / "validated")])
    assert ended.exit_code == 0, ended.output
    external = json.loads((tmp_path / "validated" / "external.json").read_text())
    assert external["answer"] == "confirmed"
    assert [(arm["arm"], "uni2" in arm["worse_than"]) for arm in external["arms"]] == [
        *(("uni2", False), ("virchow2", False), ("poor", True))
    ]
    page = (tmp_path / "validated" / "report.html").read_text()
    assert external["sentence"] in page
    assert "Does the recommendation hold for these patients?" in page
    ended = CliRunner().invoke(build_app(), [*words[:-2], "--out", str(tmp_path / "short")])
    assert ended.exit_code == 1
    assert "'poor' has no bags" in ended.output
    export_model(tmp_path / "out", tmp_path / "model")
    assert load_card(tmp_path / "model").arm == "uni2"


def test_costs_that_are_given_or_that_a_cards_name_brings_rank_the_arms(desk: Path, tmp_path: Path) -> None:
    cohort = load_cohort(desk / "cohort.csv")
    (tmp_path / "costs.csv").write_text("arm,seconds_a_slide\nuni2,9\nvirchow2,3\n")
    given = check_design(design_of(desk, "uni2", "virchow2", costs=str(tmp_path / "costs.csv")), "here")
    study = compare_arms(cohort, given, tmp_path / "given", options=OPTIONS)
    assert study.verdict is not None
    assert {arm.arm: arm.cost for arm in study.verdict.arms} == {"uni2": 9, "virchow2": 3}
    assert study.record.cost_unit == "seconds a slide"
    assert judge_again(tmp_path / "given").as_json() == study.verdict.as_json()
    named = {"resnet18": str(desk / "uni2"), "resnet50": str(desk / "virchow2")}
    carded = check_design({"arms": [{"features": named}], **QUICK}, "here")
    study = compare_arms(cohort, carded, tmp_path / "carded", options=OPTIONS)
    assert study.verdict is not None
    assert study.record.cost_unit == "GFLOPs a slide"
    cost = {arm.arm: arm.cost or 0.0 for arm in study.verdict.arms}
    assert 0 < cost["resnet18"] < cost["resnet50"]


def test_the_layout_of_a_file_does_not_change_a_digit(desk: Path, tmp_path: Path) -> None:
    cohort = load_cohort(desk / "cohort.csv")
    judged = []
    for layout in LAYOUTS:
        folders = {
            name: str(write_folder(tmp_path / layout / name / "bags", layout, dim, shift, seed=seed))
            for name, dim, shift, seed in (("good", 24, 3.0, 0), ("other", 16, 1.0, 1))
        }
        design = check_design({"arms": [{"features": folders}], **QUICK, "train": {"epochs": 2}}, "here")
        study = compare_arms(cohort, design, tmp_path / layout / "out", options=OPTIONS)
        assert study.verdict is not None
        judged.append(study.verdict.as_json())
    assert all(verdict == judged[0] for verdict in judged)


def test_run_again_nothing_is_trained_and_a_missing_bag_leaves_every_arm(desk: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "short", "trident", 16, 3.0, seed=3)
    (folder / "S07.h5").unlink()
    (folder / "S09.h5").write_bytes(b"no bag")
    with h5py.File(folder / "S11.h5", "r+") as file:
        file["features"][2, 3] = np.nan
    design = check_design({"arms": [{"features": {"uni2": str(desk / "uni2"), "short": str(folder)}}], **QUICK}, "here")
    cohort = load_cohort(desk / "cohort.csv")
    study = compare_arms(cohort, design, tmp_path / "out", options=OPTIONS)
    assert study.verdict is not None
    assert study.verdict.n_patients == N - 3
    assert [(failure.slide_id, failure.stage) for failure in study.failures] == [
        (name, "bags") for name in ("S07", "S09", "S11")
    ]
    models = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "arms").rglob("*.safetensors")}
    again = compare_arms(cohort, design, tmp_path / "out", options=OPTIONS)
    assert again.verdict is not None
    assert again.verdict.as_json() == study.verdict.as_json()
    assert models == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "arms").rglob("*.safetensors")}
    assert models
    assert plan_study(design, cohort, tmp_path / "out", options=OPTIONS).todo == ()


def test_bags_stand_beside_an_encoder_of_ours(tmp_path: Path) -> None:
    cohort = load_cohort(draw_cohort(tmp_path / "slides", 12))
    folder = tmp_path / "given"
    folder.mkdir()
    bags = list(list_bags(16, 3.0, seed=4).values())
    for number, slide in enumerate(cohort.slides):
        write_trident(folder / slide.slide_id, *bags[number])
    design = add_features(
        check_design(
            {
                "arms": [{"encoders": ["resnet18"], "depths": [1], "weights": ["random"]}],
                "tiles": {"default": {"tile_px": 64, "mpp": 0.5}},
                **QUICK,
            },
            "here",
        ),
        [f"given={folder}"],
    )
    study = compare_arms(cohort, design, tmp_path / "out", options=OPTIONS)
    assert study.verdict is not None
    assert [arm.arm for arm in study.verdict.arms] == ["resnet18@1, random weights", "given"]
    assert {row.arm: row.state for row in study.record.arms} == {"resnet18@1, random weights": "done", "given": "done"}
    assert (tmp_path / "out" / "ledger.csv").exists()


def test_a_folder_that_is_not_there_is_said_and_the_others_run(desk: Path, tmp_path: Path) -> None:
    cohort = load_cohort(desk / "cohort.csv")
    names = {"uni2": str(desk / "uni2"), "gone": str(tmp_path / "gone")}
    study = compare_arms(
        cohort, check_design({"arms": [{"features": names}], **QUICK}, "here"), tmp_path / "out", options=OPTIONS
    )
    states = {row.arm: (row.state, row.reason) for row in study.record.arms}
    assert states["uni2"][0] == "done"
    assert states["gone"][0] == "not run"
    assert "there is no folder" in str(states["gone"][1])


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"features": {"a": "x"}, "encoders": ["resnet18"]}, "both encoders and features"),
        ({}, "no encoders and no features"),
        ({"features": {"a": "x"}, "depths": [3]}, "no depths"),
        ({"features": {"a@2": "x"}}, "without @"),
    ],
)
def test_blocks_that_cannot_be_are_one_line(block: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_design({"arms": [block]}, "here")


@pytest.mark.parametrize("named", [["uni2"], ["=x"], ["uni2=a", "uni2=b"]])
def test_features_on_the_command_line_are_names_and_folders(named: list[str]) -> None:
    with pytest.raises(SettingsError, match="--features"):
        add_features(None, named)


def test_a_design_of_bags_is_written_and_read_back(tmp_path: Path) -> None:
    design = add_features(None, ["uni2=bags/uni2", "conch=bags/conch"])
    (tmp_path / "mine.yaml").write_text(dump_design(design))
    assert load_design(tmp_path / "mine.yaml") == design


def test_a_run_on_bags_ends_with_a_page_and_heatmaps_where_slides_are_there(tmp_path: Path) -> None:
    table = draw_cohort(tmp_path / "slides", 12)
    cohort, folder = load_cohort(table), tmp_path / "bags"
    folder.mkdir()
    for number, slide in enumerate(cohort.slides):
        features, _ = list(list_bags(16, 3.0, seed=5).values())[number]
        corners = np.stack([np.arange(4) % 2 * 128, np.arange(4) // 2 * 128], axis=1)
        with h5py.File(folder / f"{slide.slide_id}.h5", "w") as file:
            file["features"] = features[:4]
            file.create_dataset("coords", data=corners).attrs.update({"patch_size": 64, "patch_size_level0": 128})
    (cohort.slides[3].path).unlink()
    training = ["--folds", "3", "--seeds", "1", "--epochs", "2", "--quiet"]
    words = ["run", str(table), "--features", str(folder), "--out", str(tmp_path / "out"), *training]
    ended = CliRunner().invoke(build_app(), words)
    assert ended.exit_code == 0, ended.output
    assert (tmp_path / "out" / "report.html").exists()
    drawn = {path.parent.name for path in (tmp_path / "out" / "heatmaps").rglob("attention.png")}
    assert drawn == {slide.slide_id for slide in cohort.slides} - {cohort.slides[3].slide_id}
    refused = CliRunner().invoke(build_app(), [*words, "--cam"])
    assert refused.exit_code == 1
    assert "--cam needs the encoder" in refused.output


def test_depths_without_prices_are_tested_from_the_deepest() -> None:
    rows = [
        {"arm": name, "patient_id": f"P{i}", "label": i % 2, "score": (i % 2) * signal + np.sin(7.0 * i + shift)}
        for name, signal, shift in (("r@4", 9, 0.0), ("r@3", 9, 0.1), ("r@2", 9, 0.2), ("r@1", 0, 2.0))
        for i in range(120)
    ]
    verdict = judge_arms(pd.DataFrame(rows), chains=[["r@4", "r@3", "r@2", "r@1"]])
    assert [step.arm for step in verdict.chains[0].steps] == ["r@3", "r@2", "r@1"]
    assert verdict.verdict.arm == "r@2"


def test_no_two_arms_of_features_share_a_folder() -> None:
    design = {"arms": [{"features": {"uni": "a", "uni-mean": "b", "Uni": "c"}, "heads": ["attention", "mean"]}]}
    folders = [arm.folder for arm in check_design(design, "here").list_arms()]
    assert len(set(folders)) == 6
    assert folders[:2] == ["uni", "uni-mean"]


def test_costs_that_do_not_fit_are_refused_before_anything_is_trained(desk: Path, tmp_path: Path) -> None:
    cohort = load_cohort(desk / "cohort.csv")
    for content, said in (("arm,cost\nuni2,3\n", "Call it seconds_a_slide"), ("arm,gflops\nuni,3\n", "no cost of arm")):
        (tmp_path / "costs.csv").write_text(content)
        design = check_design(design_of(desk, "uni2", costs=str(tmp_path / "costs.csv")), "here")
        with pytest.raises(LamellaError, match=said):
            compare_arms(cohort, design, tmp_path / "out", options=OPTIONS)
        assert not (tmp_path / "out" / "arms").exists()


def test_a_comparison_overwrites_nothing_but_a_comparison(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "models").mkdir(parents=True)
    (tmp_path / "study").mkdir()
    design = check_design(design_of(desk, "uni2"), "here")
    record = describe_study(split_folds(load_cohort(desk / "cohort.csv")), design, status="running", arms=())
    record.save(tmp_path / "study" / "study.json")
    rows = "\n".join(f"p{i},{'ab'[i % 2]},0.{3 + i % 3 + i % 2},0.{7 - i % 3 - i % 2}" for i in range(40))
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"patient_id,label,prob_a,prob_b\n{rows}\n")
    tables = {name: tmp_path / f"{name}.csv" for name in ("a", "b")}
    for folder in ("run", "study"):
        with pytest.raises(SettingsError, match="would overwrite"):
            compare_tables(tables, tmp_path / folder)
    for _ in range(2):
        compare_tables(tables, tmp_path / "compared")
