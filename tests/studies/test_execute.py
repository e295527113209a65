"""A whole study on tiny slides: arms, controls, verdict, page; killed, run again, and given more arms."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.cohort import Cohort, load_cohort
from lamella.encoders import RuntimeSettings
from lamella.errors import CohortError, ModelError, SettingsError
from lamella.exports.source import find_source
from lamella.features.failures import Failure
from lamella.files import parse_json_file
from lamella.pipeline.study import compare_arms
from lamella.studies import execute
from lamella.studies.arms import Arm
from lamella.studies.design import StudyDesign, check_design
from lamella.studies.execute import Study, execute_study
from lamella.studies.facts import plan_study
from lamella.studies.judge import find_chains, judge_again
from lamella.studies.options import StudyOptions
from lamella.studies.work import Engine, WorkItem
from tests.tiny import draw_cohort

OPTIONS = StudyOptions(runtime=RuntimeSettings(runtime="torch", n_threads=1))
DESIGN = check_design(
    {
        "tiles": {"default": {"tile_px": 64, "mpp": 0.5}},
        "arms": [
            {"encoders": ["resnet18"], "depths": [2, 1], "weights": ["random"]},
            {"encoders": ["resnet18"], "depths": [2], "weights": ["random"], "finetuned": ["head", "tuned"]},
            {"encoders": ["resnet18-ciga"]},
        ],
        "comparisons": [
            {"name": "III", "title": "Fine-tuned", "rule": "tuned against frozen"},
            {"name": "IV", "title": "Depth", "pairs": [["resnet18@1, random weights", "resnet18@2, random weights"]]},
        ],
        "seeds": 2,
        "folds": 3,
        "train": {"epochs": 3},
        "finetune": {"k": 4, "epochs": 1, "train_blocks": 1, "n_seeds": 2},
        "permutations": 2,
        "cka": True,
    },
    "the test",
)
FILES = ("results.csv", "verdict.json", "controls.json", "metrics.json", "costs.json", "predictions.parquet")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return load_cohort(draw_cohort(tmp_path_factory.mktemp("cohort"), 24))


@pytest.fixture(scope="module")
def study(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return compare_arms(cohort, DESIGN, tmp_path_factory.mktemp("study") / "out", options=OPTIONS)


def test_every_arm_runs_or_says_what_gets_its_weights(study: Study) -> None:
    rows = {row["arm"]: row for row in study.record["arms"]}
    assert {name for name, row in rows.items() if row["state"] == "done"} == {
        "resnet18@2, random weights",
        "resnet18@1, random weights",
        "resnet18@2, random weights, head only",
        "resnet18@2, random weights, tuned",
    }
    waiting = rows["resnet18-ciga@4"]
    assert waiting["state"] == "waiting for weights"
    assert "lamella weights fetch resnet18-ciga" in waiting["command"]


def test_outlines_that_are_not_clear_are_refused_before_anything_runs(cohort: Cohort, tmp_path: Path) -> None:
    lesions = tmp_path / "lesions"
    lesions.mkdir()
    options = dataclasses.replace(OPTIONS, lesions=lesions)
    with pytest.raises(CohortError, match=r"no file in 'lesions' is called after a slide \(0 of 12\)"):
        execute_study(cohort, DESIGN, tmp_path / "out", options=options)
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}}
    features = [feature | {"properties": {"classification": {"name": name}}} for name in ("Tumor", "Stroma")]
    slide_id = next(slide.slide_id for slide in cohort.slides if slide.label == "malignant")
    (lesions / f"{slide_id}.geojson").write_text(json.dumps(features))
    with pytest.raises(SettingsError, match="--lesion-class Tumor"):
        execute_study(cohort, DESIGN, tmp_path / "out", options=options)
    assert not list((tmp_path / "out").rglob("*.h5"))


def test_results_open_in_pandas_and_hold_a_row_an_arm_fold_and_seed(study: Study) -> None:
    results = pd.read_csv(study.folder.results)
    assert len(results) == 4 * 3 * 2
    assert {"arm", "encoder", "depth", "weights", "finetuned", "head", "fold", "seed", "n_patients", "auc"} <= {
        *results
    }
    predictions = pd.read_parquet(study.folder.predictions)
    test = predictions[predictions["side"] == "test"]
    assert (test.groupby(["arm", "seed"])["slide_id"].nunique() == 24).all()
    assert {"logit_benign", "logit_malignant"} <= {*predictions}


def test_comparisons_are_on_the_same_patients_and_declared(study: Study) -> None:
    assert study.verdict is not None
    tables = {table["name"]: table["rows"] for table in study.verdict["tables"]}
    assert [row["arm"] for row in tables["III"]] == [
        "resnet18@2, random weights, head only",
        "resnet18@2, random weights, tuned",
    ]
    assert len(tables["IV"]) == 1
    assert study.verdict["n_patients"] == 24
    assert study.verdict["n_seeds"] == 2


def test_the_control_retrains_on_permuted_labels(study: Study) -> None:
    controls = json.loads(study.folder.controls.read_text())
    assert controls["permutations"]["n"] == 2
    assert study.verdict is not None
    shown = study.verdict["verdict"]["arm"] or study.verdict["verdict"]["best_arm"]
    assert controls["arm"] == shown
    assert controls["permutations"]["arm"] == shown.removesuffix(", tuned").removesuffix(", head only")
    assert set(controls["baselines"]) == {"colour", "tissue", "batch"}
    batches = {slide.batch for slide in study.cohort.slides} - {None}
    assert [row["arm"] for row in controls["robustness"]] == (
        [o.arm.name for o in study.outcomes] if len(batches) > 1 else []
    )


def test_fine_tuned_encoders_are_compared_block_by_block(study: Study) -> None:
    pairs = json.loads(study.folder.cka.read_text())["pairs"]
    assert len(pairs) == 3 * 2
    assert {pair["arm"] for pair in pairs} == {"resnet18@2, random weights, tuned"}
    assert all(len(pair["cka"]) == 2 for pair in pairs)


def test_how_often_fine_tuning_kept_stage_1_is_said(study: Study) -> None:
    tuned = next(arm for arm in study.record["arms"] if arm["finetuned"] == "tuned")
    base = tuned["arm"].removesuffix(", tuned")
    metrics = json.loads((study.runs[base].metrics).read_text())
    kept = metrics["stage_two"]["best_epochs"]
    assert len(kept) == 3 * 2 * 2  # folds, seeds, arms
    said = [note for note in study.record["notes"] if "no epoch did better" in note]
    assert said == [f"{base}: {note}" for note in metrics["stage_two"]["notes"]]
    assert len(said) == len({one["arm"] for one in kept if one["best_epoch"] == 0})


def test_the_page_shows_the_verdict_the_tables_and_what_did_not_run(study: Study) -> None:
    assert study.verdict is not None
    page = study.folder.page.read_text(encoding="utf-8")
    for text in (study.verdict["verdict"]["use"], "Table III: Fine-tuned", "resnet18-ciga@4", "TRIPOD"):
        assert text.replace("'", "&#39;") in page or text in page
    assert page.count('class="compare"') == 12


def test_run_again_nothing_is_trained_and_every_file_is_the_same(
    study: Study, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (study.folder.path / name).read_bytes() for name in FILES}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("lamella.runs.rounds.fit_together", refuse)
    monkeypatch.setattr("lamella.runs.stage_two.fit_encoder", refuse)
    compare_arms(cohort, DESIGN, study.folder.path, options=OPTIONS)
    assert {name: (study.folder.path / name).read_bytes() for name in FILES} == before


def test_the_plan_printed_is_the_work_done_and_after_each_kill_the_rest_is_to_the_figures_of_an_undisturbed_run(
    study: Study, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "costs.json").write_bytes(study.folder.costs.read_bytes())  # seconds differ from run to run
    printed = [row["work"] for row in plan_study(DESIGN, cohort, out, options=OPTIONS).list_rows()]
    assert printed == [
        "extract default, random weights",
        *(f"train resnet18@{depth}-random" for depth in (1, 2)),
        *(f"finetune resnet18@2-random fold{fold}" for fold in range(3)),
        "permute the arm that is shown",
        "cka resnet18@2-random-tuned",
    ]
    did: list[str] = []
    run = WorkItem.run
    for killed_at in (1, 4, 6, 7, None):

        def run_or_die(item: WorkItem, engine: Engine, killed_at: int | None = killed_at) -> Sequence[Failure]:
            if len(did) == killed_at:
                raise KeyboardInterrupt
            failures = run(item, engine)
            did.append(item.key)
            return failures

        with monkeypatch.context() as patch:
            patch.setattr(WorkItem, "run", run_or_die)
            with pytest.raises(KeyboardInterrupt) if killed_at is not None else nullcontext():
                execute_study(cohort, DESIGN, out, options=OPTIONS)
        record = parse_json_file(out / "study.json")
        assert [row["item"] for row in record["work"] if row["state"] == "to do"] == printed[len(did) :]
    assert did == printed
    assert sorted(path.name for path in (out / "arms").iterdir()) == ["resnet18@1-random", "resnet18@2-random"]
    for name in ("results.csv", "verdict.json", "controls.json", "metrics.json", "cka.json", "predictions.parquet"):
        assert (out / name).read_bytes() == (study.folder.path / name).read_bytes(), name


def test_the_status_of_a_study_is_its_work_list(study: Study) -> None:
    told = CliRunner().invoke(build_app(), ["study", str(study.folder.path), "--status"])
    assert told.exit_code == 0
    for item in (
        "extract default, random weights",
        "finetune resnet18@2-random fold2",
        "permute the arm that is shown",
    ):
        (line,) = [line for line in told.output.splitlines() if item in line]
        assert line.strip().endswith("done")


def test_a_folder_named_by_keys_is_gone_on_with_and_no_model_is_trained_again(
    study: Study, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As version 0.1.0 left it: no marks of finished work; one of the arms was under way."""
    out = tmp_path / "out"
    shutil.copytree(study.folder.path, out)
    shutil.rmtree(out / "local" / "work")
    frozen = [arm for arm in DESIGN.list_arms() if arm.finetuned == "frozen" and arm.weights == "random"]
    for arm in frozen:
        (out / "arms" / arm.folder).rename(out / "arms" / arm.key)
    record = parse_json_file(out / "study.json")
    del record["work"]
    unfinished = next(row for row in record["arms"] if row["arm"] == "resnet18@1, random weights")
    unfinished["state"] = "not run"
    (out / "study.json").write_text(json.dumps(record))
    plan = plan_study(DESIGN, cohort, out, options=OPTIONS)
    assert [item.key for item in plan.todo] == [
        "extract default, random weights",
        "train resnet18@1-random",
        "permute the arm that is shown",
        "cka resnet18@2-random-tuned",
    ]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("lamella.runs.rounds.fit_together", refuse)
    monkeypatch.setattr("lamella.runs.stage_two.fit_encoder", refuse)
    execute_study(cohort, DESIGN, out, options=OPTIONS)
    assert {path.name for path in (out / "arms").iterdir()} == {arm.key for arm in frozen}
    for name in ("results.csv", "verdict.json", "controls.json", "cka.json"):
        assert (out / name).read_bytes() == (study.folder.path / name).read_bytes(), name
    assert plan_study(DESIGN, cohort, out, options=OPTIONS).todo == ()
    for arm in ("resnet18@1, random weights", "resnet18@2, random weights, tuned"):
        assert find_source(out, arm).members


def test_arms_may_be_added_and_are_marked_and_other_settings_are_refused(
    study: Study, cohort: Cohort, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(study.folder.path, out)
    content = DESIGN.model_dump()
    content["arms"] = [
        *content["arms"],
        {"encoders": ["resnet18"], "weights": ["random"], "heads": ["mean"], "depths": [1]},
    ]
    more = execute_study(cohort, StudyDesign.model_validate(content), out, options=OPTIONS)
    assert more.verdict is not None
    later = {one["arm"]: one["added_later"] for one in more.verdict["arms"]}
    assert [name for name, added in later.items() if added] == ["resnet18@1, random weights, mean"]
    with pytest.raises(SettingsError, match="'folds' is 3 and 2 is asked for"):
        execute_study(cohort, DESIGN.model_copy(update={"folds": 2}), out, options=OPTIONS)


def test_what_lies_past_the_budget_is_listed_as_not_run(cohort: Cohort, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, budget_s=1e-9)
    found = execute_study(cohort, DESIGN, tmp_path / "out", options=options)
    assert found.verdict is None
    assert {row["state"] for row in found.record["arms"]} == {"not run", "waiting for weights"}
    assert found.record["status"] == "budget spent"


def test_camelyon16_as_downloaded_is_studied_on_its_split_and_localised_on_complete_outlines(tmp_path: Path) -> None:
    from lamella.cohort.datasets import gather_camelyon16_outlines, load_camelyon16
    from tests.cohort.test_datasets import draw_camelyon16

    folder = draw_camelyon16(tmp_path / "c16")
    design = check_design(
        {
            "tiles": {"default": {"tile_px": 64, "mpp": 0.5}},
            "arms": [{"encoders": ["resnet18"], "depths": [1], "weights": ["random"]}],
            "split": "given",
            "seeds": 1,
            "train": {"epochs": 1},
            "permutations": 0,
            "cam": True,
        },
        "the test",
    )
    lesions = gather_camelyon16_outlines(folder, tmp_path / "out" / "local" / "outlines")
    options = dataclasses.replace(OPTIONS, lesions=lesions)
    found = compare_arms(load_camelyon16(folder), design, tmp_path / "out", options=options)
    assert found.verdict is not None
    assert found.verdict["verdict"]["kind"] == "too few"
    assert found.verdict["n_patients"] == 4
    (arm,) = json.loads(found.folder.localisation.read_text())["arms"]
    assert arm["maps"]["attention"]["n_slides"] == 1  # test_001; test_114 is partly annotated
    assert "test_114" in " ".join(arm["notes"])


def test_a_budget_leaves_out_what_does_not_fit_and_says_what_it_would_cost(
    study: Study, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plan_study(DESIGN, cohort, tmp_path / "out", options=OPTIONS).seconds
    options = dataclasses.replace(OPTIONS, budget_s=max(30.0, whole / 3))
    gathered: list[object] = []
    gather = execute.gather_facts
    monkeypatch.setattr(execute, "gather_facts", lambda *a, **k: gathered.append(a) or gather(*a, **k))
    found = execute_study(cohort, DESIGN, tmp_path / "out", options=options)
    assert len(gathered) == 1  # slides are looked at and encoders timed once
    left = [row for row in found.record["arms"] if row["state"] == "not run"]
    assert len(found.outcomes) + len(left) == 4
    assert all(row["estimated_seconds"] is not None and "budget" in row["reason"] for row in left)
    after = execute_study(cohort, DESIGN, tmp_path / "out", options=OPTIONS)
    assert len(after.outcomes) == 4
    assert after.verdict is not None
    assert study.verdict is not None
    assert [one["auc"] for one in after.verdict["arms"]] == [one["auc"] for one in study.verdict["arms"]]


def test_a_study_is_judged_again_from_its_folder_alone(study: Study, tmp_path: Path) -> None:
    """As version 0.1.0 left it: no reference encoder in the design, another verdict; slides and models are gone."""
    copy = tmp_path / "study"
    copy.mkdir()
    for name in ("study.json", "predictions.parquet", "costs.json", "cohort.csv", "verdict.json"):
        (copy / name).write_bytes((study.folder.path / name).read_bytes())
    record, verdict = (parse_json_file(copy / name) for name in ("study.json", "verdict.json"))
    del record["design"]["reference"]
    (copy / "study.json").write_text(json.dumps(record))
    old = {
        "margin": 0.05,
        "tables": verdict["tables"],
        "verdict": {"kind": "cannot tell", "sentence": "One can't tell."},
    }
    (copy / "verdict.json").write_text(json.dumps(old))
    found = judge_again(copy)
    assert found.as_json() == parse_json_file(copy / "verdict.json")
    assert study.verdict is not None
    for key in ("arms", "tables", "chains", "ladder", "verdict"):
        assert json.dumps(found[key]) == json.dumps(study.verdict[key])
    told = CliRunner().invoke(build_app(), ["study", str(copy), "--judge"])
    assert told.exit_code == 0
    assert found["verdict"]["use"] in told.output
    assert "smallest margin" in told.output
    assert (copy / "report.html").exists()
    (copy / "predictions.parquet").unlink()
    with pytest.raises(ModelError, match=r"no predictions that can be read \(predictions.parquet\)"):
        judge_again(copy)
    with pytest.raises(ModelError, match=r"holds no study \(study.json\)"):
        judge_again(tmp_path)


def test_chains_are_arms_equal_in_all_but_depth() -> None:
    arms = [
        Arm(encoder="a", depth=4),
        Arm(encoder="b", depth=3),
        Arm(encoder="b", depth=4),
        Arm(encoder="b", depth=4, finetuned="tuned"),
        Arm(encoder="b", depth=2, head="mean"),
        Arm(encoder="c", depth=4),
        Arm(encoder="c", depth=1),
        Arm(encoder="b", depth=1),
    ]
    by_name = {arm.name: arm for arm in arms}
    assert find_chains(by_name, (), added_later={"b@1"}) == [["b@4", "b@3"]]
    assert find_chains(by_name, ()) == [["b@4", "b@3", "b@1"]]
    assert find_chains(by_name, ("c", "b"), added_later={"b@1"}) == [["c@4", "c@1"], ["b@4", "b@3"]]
    assert find_chains(by_name, ("a",)) == []
