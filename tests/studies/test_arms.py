"""Arms, their names and the folders they are kept in."""

import re
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from lamella.studies.arms import FINETUNED, Arm
from lamella.studies.folder import StudyFolder

TEXTS = st.one_of(st.text(min_size=1, max_size=100), st.sampled_from(["random", "mean", "tuned", "20x", "20X", "a-b"]))
ARMS = st.builds(
    Arm,
    encoder=st.one_of(TEXTS, st.sampled_from(["resnet18", "own/net.py:build"])),
    depth=st.integers(1, 4),
    weights=st.one_of(st.sampled_from(["auto", "random"]), TEXTS),
    finetuned=st.sampled_from(FINETUNED),
    head=st.sampled_from(["attention", "mean", "clam-sb"]),
    tiles=st.one_of(st.just("default"), TEXTS),
)


@given(ARMS, ARMS)
@example(Arm(encoder="net", tiles="random"), Arm(encoder="net", weights="random"))
@example(Arm(encoder="net", tiles="mean"), Arm(encoder="net", tiles="Mean"))
@example(Arm(encoder="net", weights="a", tiles="b-c"), Arm(encoder="net", weights="a-b", tiles="c"))
@example(Arm(encoder="net", head="clam-sb"), Arm(encoder="net", weights="clam", tiles="sb"))
@example(Arm(encoder="a/net"), Arm(encoder="b/net"))
def test_arms_of_other_names_have_other_folders_on_every_system(first: Arm, second: Arm) -> None:
    for arm in (first, second):
        assert re.fullmatch(r"[a-z0-9._@-]{1,100}", arm.folder)
        assert not arm.folder.startswith((".", "-"))
        assert not arm.folder.endswith(".")
    assert (first.folder == second.folder) == (first.name == second.name)


def test_folders_are_called_after_what_is_in_them_and_those_of_version_0_1_0_are_found(tmp_path: Path) -> None:
    arm, folder = Arm(encoder="efficientnet-lite0", depth=3, tiles="20x"), StudyFolder(tmp_path)
    assert folder.models(arm) == tmp_path / "arms" / "efficientnet-lite0@3-20x"
    (tmp_path / "arms" / arm.key).mkdir(parents=True)
    assert folder.models(arm) == tmp_path / "arms" / arm.key
    weights = Arm(encoder="resnet18", weights="/elsewhere/best.safetensors")
    recorded = Arm(encoder="resnet18", weights="best.safetensors")
    (tmp_path / "arms" / weights.key).mkdir()
    assert folder.models(recorded, key=weights.key) == folder.models(weights) == tmp_path / "arms" / weights.key
