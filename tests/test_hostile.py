"""A folder that was passed on by anyone: opening it runs nothing, deletes nothing, and stays inside it.

A run with an encoder of one's own is the bait: its record names Python files that leave a canary when they are run.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import lamella
from lamella.cli import build_app
from lamella.encoders import EncoderSpec, find_encoder
from lamella.encoders.network import build_network, create_trunk
from lamella.encoders.trust import trusting
from lamella.encoders.tuned import SeenSlides, save_encoder_file
from lamella.errors import EncoderError, LamellaError
from lamella.files import find_inside, write_json
from lamella.study.predict import open_run
from tests.tiny import draw_cohort, draw_tissue, save_slide

OWN = """\
import torch


class Colours(torch.nn.Module):
    def forward(self, tiles):
        return torch.cat([tiles.mean((2, 3)), tiles.std((2, 3))], 1)


def build():
    return Colours()
"""
CUT = ["--tile-px", "64", "--quiet"]
SMALL = [*CUT, "--folds", "3", "--seeds", "1", "--epochs", "1", "--heatmaps", "1"]


def invoke(*words: str | Path) -> tuple[int, str]:
    """Run a command; return its exit code and what it said, in one line where it refused."""
    done = CliRunner().invoke(build_app(), [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, done.stderr.strip()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one's own encoder, beside its cohort and the encoder's file."""
    place = tmp_path_factory.mktemp("hostile")
    draw_cohort(place / "slides")
    save_slide(place / "new.tif", draw_tissue(77))
    (place / "mine.py").write_text(OWN, encoding="utf-8")
    code, said = invoke(
        "run",
        place / "slides" / "cohort.csv",
        "--encoder",
        f"{place / 'mine.py'}:build",
        *SMALL,
        "--out",
        place / "run",
    )
    assert code == 0, said
    return place / "run"


@pytest.fixture
def bait(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, with code in it that leaves `ran` beside the copy when it is run."""
    copy = shutil.copytree(run, tmp_path / "run")
    evil = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n{OWN}"
    for place in ("mine.py", "evil.py", "local/mine.py", "models/mine.py"):
        (copy / place).write_text(evil, encoding="utf-8")
    return copy


def name_encoder(run: Path, name: str) -> None:
    """Let all records of a run name another encoder."""
    record = json.loads((run / "run.json").read_text())
    record["settings"]["encoder"] = name
    write_json(run / "run.json", record)
    if (run / "local").is_dir():
        write_json(run / "local" / "encoder.json", {"name": name, "weights": "auto"})


VERBS: dict[str, Callable[[Path, Path, Path], list[str | Path]]] = {
    "predict": lambda run, new, out: ["predict", run, new, "--out", out],
    "cam": lambda run, new, out: ["cam", run],
    "localise": lambda run, new, out: ["localise", run, "--lesions", new.parent],
    "export": lambda run, new, out: ["export", run, "--out", out],
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("named", ["mine.py:build", "{run}/mine.py:build", "{run}/evil.py:build@4"])
def test_code_that_a_run_names_is_not_run(bait: Path, run: Path, tmp_path: Path, verb: str, named: str) -> None:
    name_encoder(bait, named.format(run=bait))
    code, said = invoke(*VERBS[verb](bait, run.parent / "new.tif", tmp_path / "out"))
    assert code == 1
    assert len(said.splitlines()) == 1
    assert ("code, which a file of weights cannot carry" if verb == "export" else "--trust PATH/") in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("named", ["mine.py:build", "{run}/mine.py:build", "../../elsewhere/mine.py:build"])
def test_the_trusted_file_is_the_users_and_never_the_folders(bait: Path, run: Path, tmp_path: Path, named: str) -> None:
    name_encoder(bait, named.format(run=bait))
    new = run.parent / "new.tif"
    trust = ["--trust", str(run.parent / "mine.py")]
    code, said = invoke("predict", bait, new, *trust, "--out", tmp_path / "out", "--quiet")
    assert (code, said) == (0, "")
    assert not (tmp_path / "ran").exists()
    mine = lamella.predict(bait, [new], tmp_path / "again", trust=[run.parent / "mine.py"])
    first = lamella.predict(run, [new], tmp_path / "first", trust=[run.parent / "mine.py"])
    assert mine[0].probabilities.tolist() == first[0].probabilities.tolist()
    assert "predictions.csv" in {path.name for path in (tmp_path / "out").iterdir()}


def test_a_trusted_file_of_another_name_or_content_does_not_stand_in(bait: Path, run: Path, tmp_path: Path) -> None:
    new = run.parent / "new.tif"
    (tmp_path / "other.py").write_text(OWN, encoding="utf-8")
    code, said = invoke("predict", bait, new, "--trust", tmp_path / "other.py", "--out", tmp_path / "out")
    assert (code, "--trust PATH/mine.py" in said) == (1, True)
    (tmp_path / "mine.py").write_text(OWN.replace("tiles.std((2, 3))", "2 * tiles.std((2, 3))"), encoding="utf-8")
    code, said = invoke("predict", bait, new, "--trust", tmp_path / "mine.py", "--out", tmp_path / "out")
    assert (code, "cannot be predicted by this run" in said) == (1, True)
    (tmp_path / "notes.txt").write_text("no code")
    code, said = invoke("predict", bait, new, "--trust", tmp_path / "notes.txt", "--out", tmp_path / "out")
    assert (code, "is not a Python file" in said) == (1, True)


def test_trust_ends_with_the_command_and_with_the_block(run: Path, tmp_path: Path) -> None:
    own = f"{run.parent / 'mine.py'}:build"
    with trusting(own):
        assert find_encoder(own).embedding_dim == 6
    with pytest.raises(EncoderError, match=r"--trust PATH/mine\.py"):
        find_encoder(own)
    code, said = invoke("encoders", "--profile", own, "--tile-px", "64")  # typed: it runs, but has no blocks
    assert (code, "where its blocks end is not known" in said) == (1, True)
    with pytest.raises(EncoderError, match=r"--trust PATH/mine\.py"):
        build_network(EncoderSpec(own))
    with pytest.raises(EncoderError, match=r"--trust PATH/mine\.py"):
        lamella.map_classes(run, lamella.CamSettings())


def test_a_file_of_weights_makes_no_code_run(bait: Path, tmp_path: Path) -> None:
    network = build_network(EncoderSpec("resnet18@1", "random"))
    for number, named in enumerate((f"{bait}/evil.py:build", "evil.py:build", "hf-hub:owner/name", "local-dir:/tmp/x")):
        card = lamella.find_encoder("resnet18")
        values = {name: getattr(card, name) for name in card.__slots__} | {"network": named}
        path = tmp_path / f"passed-on-{number}.safetensors"
        save_encoder_file(network.blocks.named_state(), type(card)(**values), path, seen=SeenSlides(), trained={})
        with pytest.raises(LamellaError, match=r"code|may load files"):
            build_network(EncoderSpec(str(path)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg", "cache_dir"])
def test_a_card_gives_timm_no_argument_that_opens_files(argument: str, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=f"argument '{argument}'"):
        create_trunk("resnet18", {argument: str(tmp_path / "canary.pth")})


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/passwd", "mine.py:build", "a/../../b", ".", "link.bin"])
def test_a_record_names_files_inside_its_folder_only(name: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "evil.safetensors").write_text("outside")
    (tmp_path / "home" / "link.bin").symlink_to(tmp_path / "evil.safetensors")
    assert find_inside(tmp_path / "home", name) is None


def test_a_study_file_makes_no_code_run(run: Path, bait: Path, tmp_path: Path) -> None:
    design = tmp_path / "study.yaml"
    design.write_text(
        f"tiles: {{default: {{tile_px: 64, mpp: 0.5}}}}\narms: [{{encoders: ['{bait}/mine.py:build']}}]\nfolds: 3\n"
        "seeds: 1\ntrain: {epochs: 1}\npermutations: 0\ncka: false\ncam: false\n"
    )
    table = run.parent / "slides" / "cohort.csv"
    code, said = invoke("study", design, "--cohort", table, "--out", tmp_path / "study", "--quiet")
    assert (code, "--trust PATH/mine.py" in said) == (1, True)
    assert not (tmp_path / "ran").exists()
    assert open_run(run).settings["encoder"] == "mine.py:build"
