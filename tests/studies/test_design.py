"""The declared file: presets that load back to the same, and errors that name line and remedy."""

from pathlib import Path

import pytest

from lamella.errors import SettingsError
from lamella.studies.arms import CHOSEN_ARMS, Arm
from lamella.studies.design import StudyDesign, check_design, dump_design, load_design, parse_time
from lamella.studies.design_parts import RULES, ArmBlock
from lamella.studies.presets import find_preset

PRESETS = ("paper", "quick", "camelyon16", "gastro")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_printed_and_read_again_is_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(dump_design(find_preset(name)), encoding="utf-8")
    assert load_design(path) == find_preset(name)


def test_the_paper_preset_declares_its_four_tables_and_nine_encoders() -> None:
    design = find_preset("paper")
    tables = {table["name"]: table["rows"] for table in design.list_tables(design.list_arms())}
    assert len([arm for arm, _ in tables["I"] if "lite" not in arm and "capricorn" not in arm]) == 8
    assert dict(tables["II"])["resnet18-ciga@4"] == "resnet18@4"
    assert dict(tables["II"])["resnet50-mormont@4"] == "resnet50@4"
    assert dict(tables["III"])["densenet121@4, head only"] == "densenet121@4"
    assert dict(tables["IV"])["resnet18@1"] == "resnet18@4"


def test_every_arm_has_a_name_and_a_key_of_its_own() -> None:
    for name in PRESETS:
        arms = find_preset(name).list_arms()
        assert len({arm.name for arm in arms}) == len({arm.key for arm in arms}) == len(arms)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "arms:\n  - encoders: [resnet18]\n    dephts: [4]\n",
            "line 3: 'arms.0.dephts' is no key of a study. The nearest",
        ),
        ("arms:\n  - encoders: [resnet81]\n", "line 2: no encoder is called 'resnet81'"),
        ("arms:\n  - encoders: [resnet18]\nmargin: 2\n", "line 3: margin is 2"),
        ("arms:\n  - encoders: ['resnet18@3']\n", "Write the encoder alone"),
        ("arms:\n  - encoders: [resnet18]\nbudget: soon\n", "Write it such as 3h"),
        ("arms:\n  - encoders: [resnet18]\n    tiles: [fine]\n", "an arm's tiles are called 'fine'"),
        ("arms: [", "is not YAML"),
        ("", "declares nothing"),
        ("arms: []\n", "arms"),
    ],
)
def test_a_mistake_is_one_line_with_its_place_and_remedy(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_design(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_of_transformer_blocks_is_part_of_an_encoders_name_and_a_depth_is_not() -> None:
    whole = "timm:vit_tiny_patch16_224@block06"
    assert ArmBlock(encoders=(whole,), depths=(4, 2)).encoders == (whole,)
    with pytest.raises(ValueError, match="names a depth"):
        ArmBlock(encoders=(f"{whole}@2",))


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="The nearest is 'quick'"):
        find_preset("quik")


def test_the_command_line_changes_every_tile_spec_and_leaves_the_rest() -> None:
    design = find_preset("quick")
    changed = design.with_changes(mpp=0.25, tile_px=None, stride_px=112, margin=0.1)
    assert (changed.tiles["default"].mpp, changed.tiles["default"].stride_px) == (0.25, 112)
    assert changed.tiles["default"].tile_px == design.tiles["default"].tile_px
    assert changed.margin == 0.1
    assert changed.arms == design.arms
    with pytest.raises(SettingsError, match="margin"):
        design.with_changes(margin=0.9)


def test_what_is_written_down_holds_no_folder() -> None:
    design = check_design({"arms": [{"encoders": ["resnet18"]}], "localise": "/home/someone/outlines"}, "here")
    assert "someone" not in str(design.as_plain())


def test_comparisons_leave_out_arms_that_did_not_run() -> None:
    design = find_preset("paper")
    ran = [Arm(encoder="resnet18", depth=depth) for depth in (4, 2)]
    tables = {table["name"]: table["rows"] for table in design.list_tables(ran)}
    assert tables["IV"] == [("resnet18@2", "resnet18@4")]
    assert tables["I"] == tables["II"] == tables["III"] == []


@pytest.mark.parametrize("text", ["", "3", "h", "-1h", "1.2.3h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="no time"):
        parse_time(text)


def test_a_design_needs_arms() -> None:
    with pytest.raises(SettingsError, match="arms"):
        check_design({}, "here")
    assert StudyDesign.model_validate({"arms": [{"encoders": ["resnet18"]}]}).list_arms() == (Arm(encoder="resnet18"),)


ONE = "arms:\n  - encoders: [resnet18]\n    finetuned: [frozen, tuned]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ONE + "seeds: 2\nfolds: 4\nseeds: 3\n", "line 6: 'seeds' stands twice. Keep one"),
        (
            ONE + "tiles:\n  default: {tile_px: 224, mp: 0.5}\n",
            "line 5: 'tiles.default.mp' is no key of a study. The nearest is 'mpp'",
        ),
        (ONE + "train: {epoch: 3}\n", "line 4: 'train.epoch' is no key of a study. The nearest is 'epochs'"),
        (ONE + "split: folds5\n", "line 4: split is 'folds5'. The nearest is 'folds'; there are folds, holdout, given"),
        (ONE + "folds: 2\n", "line 4: folds is 2 and should be greater than or equal to 3"),
        (ONE + "seeds: some\n", "line 4: seeds is 'some' and should be a whole number. Leave"),
        ("arms:\n  - depths: [4]\n", "line 2: a block of arms names no encoders and no features. Add encoders"),
        ("arms:\n  - encoders: resnet18\n", "line 2: arms.0.encoders is 'resnet18' and should be a list"),
        ("arms:\n  - encoders: [resnet18]\n    depths: [4, 5]\n", "line 3: arms.0.depths.1 is 5"),
        (
            ONE + "control_arm: resnet18\n",
            "line 4: 'resnet18' is no frozen arm of the study. The nearest is 'resnet18@4'",
        ),
        (ONE + "comparisons:\n  - {name: X, title: t}\n", "line 5: table 'X' needs a rule or pairs, one of the two"),
        (
            ONE + "comparisons:\n  - name: X\n    title: t\n    pairs: [['resnet18@4, tund', 'resnet18@4']]\n",
            "line 7: table 'X' names 'resnet18@4, tund', which is no arm. The nearest is 'resnet18@4, tuned'",
        ),
        (
            ONE + "comparisons:\n  - name: X\n    title: t\n    rule: depth against 4\n    encoders: [resnet50]\n",
            "line 8: table 'X' names 'resnet50' and no arm has it. The nearest is 'resnet18'",
        ),
        ("arms:\n  - encoders: [resnet18]\n    weights: [a/w.pth, b/w.pth]\n", "line 1: two arms would be called"),
        ("arms:\n  - encoders: [resnet18]\n    tiles: [fine]\n", "line 3: an arm's tiles are called 'fine'"),
    ],
)
def test_a_mistake_says_its_line_and_the_nearest_that_there_is(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_design(path)
    assert f"'mine.yaml', {said}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_passed_on_names_files_without_their_folders() -> None:
    design = check_design(
        {
            "arms": [{"encoders": ["resnet18"], "weights": ["auto", "/home/someone/w.pth"]}],
            "localise": "C:\\someone\\out",
        },
        "here",
    )
    plain = design.as_plain()
    assert "someone" not in str(plain)
    assert plain["arms"][0]["weights"] == ["auto", "w.pth"]
    assert plain["localise"] == "out"


def test_a_printed_design_explains_every_key() -> None:
    text = dump_design(find_preset("quick"))
    for key in StudyDesign.model_fields:
        lines = text.splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{key}:"))
        assert lines[at - 1].startswith("# ")


def test_a_budget_is_seconds() -> None:
    assert StudyDesign.model_validate({"arms": [{"encoders": ["resnet18"]}], "budget": "90m"}).budget_s == 5400
    assert StudyDesign.model_validate({"arms": [{"encoders": ["resnet18"]}]}).budget_s is None


def test_what_is_best_in_each_fold_may_stand_in_a_table() -> None:
    content = {
        "arms": [{"encoders": ["resnet18"], "depths": [4, 3]}],
        "comparisons": [{"name": "III", "title": "t", "pairs": [["best of each fold, tuned", "best of each fold"]]}],
    }
    design = check_design(content | {"finetune_best": True}, "here")
    rows = design.list_tables((*design.list_arms(), *CHOSEN_ARMS))[0]["rows"]
    assert rows == [("best of each fold, tuned", "best of each fold")]
    with pytest.raises(SettingsError, match="which is no arm"):
        check_design(content, "here")


def test_what_is_best_in_each_fold_stands_in_no_table_that_goes_by_encoder_or_depth() -> None:
    tables = [{"name": rule, "title": rule, "rule": rule} for rule in RULES]
    design = check_design({"arms": [{"encoders": ["resnet18", "resnet50"]}], "comparisons": tables}, "here")
    found = {one["name"]: one["rows"] for one in design.list_tables((*design.list_arms(), *CHOSEN_ARMS))}
    assert found["each against the first"] == [("resnet50@4", "resnet18@4")]
    assert found["tuned against frozen"] == [
        ("best of each fold, head only", "best of each fold"),
        ("best of each fold, tuned", "best of each fold"),
    ]
    assert found["depth against 4"] == found["histology against ImageNet"] == []


def test_a_table_that_still_names_what_was_once_best_over_all_folds_says_what_to_declare() -> None:
    content = {
        "finetune_best": True,
        "arms": [{"encoders": ["resnet18"]}],
        "comparisons": [{"name": "III", "title": "t", "pairs": [["resnet18@4, tuned", "resnet18@4"]]}],
    }
    with pytest.raises(SettingsError, match="names 'resnet18@4, tuned', which is no arm") as caught:
        check_design(content, "here")
    assert "best of each fold, tuned" in str(caught.value)


def test_histology_weights_are_compared_with_imagenets_of_the_same_network_head_and_tiles() -> None:
    content = {
        "tiles": {"default": {}, "fine": {"mpp": 0.25}},
        "arms": [
            {"encoders": ["resnet18", "resnet18-ciga"], "tiles": ["default", "fine"], "heads": ["attention", "mean"]}
        ],
        "comparisons": [{"name": "II", "title": "t", "rule": "histology against ImageNet"}],
    }
    design = check_design(content, "here")
    (table,) = design.list_tables(design.list_arms())
    assert len(table["rows"]) == 4
    assert all(arm.replace("-ciga", "") == base for arm, base in table["rows"])
