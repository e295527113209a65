"""The declared file: presets that load back to the same, and errors that name line and remedy."""

from pathlib import Path

import pytest

from lamella.errors import SettingsError
from lamella.study.arms import Arm
from lamella.study.design import StudyDesign, check_design, dump_design, load_design, parse_time
from lamella.study.presets import find_preset

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
