"""A study leaves tiles to its encoders: blocks whose encoders want others become several."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lamella.errors import SettingsError
from lamella.studies.design import StudyDesign, check_design, dump_design
from lamella.studies.folder import StudyFolder
from lamella.studies.record import refuse_other_design


def declare(content: dict[str, object]) -> StudyDesign:
    return check_design(content, "'study.yaml'")


def sizes(design: StudyDesign) -> dict[str, tuple[int, float]]:
    return {name: (spec.tile_px, spec.mpp) for name, spec in design.tiles.items()}


@pytest.mark.parametrize(
    "tiles", [{}, {"tiles": {"default": {"tile_px": "auto", "mpp": "auto"}}}, {"tiles": {"default": {}}}]
)
def test_each_encoder_has_the_tiles_that_it_was_made_for(tiles: dict[str, object]) -> None:
    design = declare(
        tiles | {"arms": [{"encoders": ["resnet18", "uni", "conch-v1.5", "h-optimus-0"], "depths": [4, 3]}]}
    )
    assert sizes(design) == {"default": (512, 0.5), "224px_0.5mpp": (224, 0.5), "448px_0.5mpp": (448, 0.5)}
    assert [arm.name for arm in design.list_arms() if arm.depth == 4] == [
        "resnet18@4",
        "uni@4, 224px_0.5mpp",
        "h-optimus-0@4, 224px_0.5mpp",
        "conch-v1.5@4, 448px_0.5mpp",
    ]


def test_encoders_that_agree_share_the_default_and_names_stay_short() -> None:
    design = declare({"arms": [{"encoders": ["uni"]}, {"encoders": ["h-optimus-0"]}]})
    assert sizes(design) == {"default": (224, 0.5)}
    assert [arm.name for arm in design.list_arms()] == ["uni@4", "h-optimus-0@4"]


def test_what_is_given_is_taken_and_other_specs_are_left_alone() -> None:
    tiles = {"default": {"mpp": 0.25}, "coarse": {"tile_px": 128, "mpp": 2.0, "stride_px": 64}}
    design = declare({"tiles": tiles, "arms": [{"encoders": ["virchow2", "resnet18"], "tiles": ["default", "coarse"]}]})
    assert sizes(design) == {"coarse": (128, 2.0), "default": (224, 0.25), "512px_0.25mpp": (512, 0.25)}
    assert len(design.list_arms()) == 4


def test_numbers_on_the_command_line_are_for_all_arms() -> None:
    design = declare({"arms": [{"encoders": ["resnet18", "uni"]}]}).with_changes(tile_px=224, mpp=0.5)
    assert sizes(design) == {"default": (224, 0.5)}
    assert [arm.name for arm in design.list_arms()] == ["resnet18@4", "uni@4"]


def test_what_is_written_reads_back_the_same(tmp_path) -> None:
    import yaml

    design = declare({"arms": [{"encoders": ["resnet18", "uni"]}]})
    assert declare(yaml.safe_load(dump_design(design))) == design


def test_tiles_that_an_encoder_was_not_made_for_are_refused_before_any_slide_is_read() -> None:
    content = {"tiles": {"default": {"tile_px": 512, "mpp": 0.5}}, "arms": [{"encoders": ["h-optimus-0"]}]}
    with pytest.raises(SettingsError, match=r"would see 1.143 um/px: .* Write tile_px: 224 and mpp: 0.5, or off_s"):
        declare(content)
    assert declare(content | {"off_spec": True}).off_spec


@pytest.mark.parametrize(
    "content", [[], {"arms": 3}, {"tiles": [], "arms": [{}]}, {"arms": [{"encoders": 5}]}, {"tiles": {"a": 3}}]
)
def test_what_is_no_study_is_refused_as_before(content: object) -> None:
    with pytest.raises(SettingsError):
        declare(content)  # type: ignore[arg-type]


def test_an_arm_may_be_added_with_tiles_of_its_own_and_off_spec_may_be_insisted_on_later(tmp_path: Path) -> None:
    before, folder = declare({"arms": [{"encoders": ["resnet18"]}]}), StudyFolder(tmp_path)
    earlier = SimpleNamespace(design=SimpleNamespace(as_json=before.as_plain))
    more = declare({"arms": [{"encoders": ["resnet18", "uni"]}], "off_spec": True})
    refuse_other_design(earlier, more, folder)
    other = declare({"tiles": {"default": {"mpp": 1.0}}, "arms": [{"encoders": ["resnet18"]}]})
    with pytest.raises(SettingsError, match="holds a study whose 'tiles'"):
        refuse_other_design(earlier, other, folder)
