"""What is meant to be passed on names nobody: a name, a path and a label picture are planted, every file is searched.

Searched are the bytes of each file, and what is packed inside: HDF5 attributes and texts, deflated PNG texts, TIFF
tags, pictures inlined in the page, and the colours of every picture.
"""

import base64
import csv
import io
import json
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

import lamella
from lamella.cli import build_app
from lamella.encoders import EncoderSpec
from lamella.encoders.network import build_network
from tests.tiny import LABEL_COLOURS, draw_tissue, save_cohort_table, save_labelled_slide

NAME, ID, FOLDER, NOTE = "Rosalind-Example", "AC26-004417", "ward-seven-secret", "Rosalind Example 1920-07-25"
ENCODER = """\
import torch


class Colours(torch.nn.Module):
    def forward(self, tiles):
        return torch.cat([tiles.mean((2, 3)), tiles.std((2, 3))], 1)


def build():
    return Colours()
"""
STUDY = """\
tiles: {default: {tile_px: 64, mpp: 0.5}}
arms: [{encoders: [resnet18], depths: [1], weights: [random]}]
split: given
seeds: 1
train: {epochs: 2}
permutations: 0
cka: false
cam: true
"""


def draw_ward(place: Path) -> tuple[Path, Path]:
    """Draw labelled slides and regions in a telling folder, the last slide gone; return the table and the regions."""
    secret = place / FOLDER / "slides of the ward"
    rows = []
    for i in range(8):
        slide_id = f"{ID}-{i}"
        path = secret / f"{slide_id}.svs"
        save_labelled_slide(path, draw_tissue(i, malignant=i % 2 == 1), said=NOTE)
        if i == 7:
            path.unlink()  # one slide fails, and its reason is a sentence about a file
        rows.append({"slide": path.name, "patient_id": f"{NAME}-{i}", "label": "b" if i % 2 else "a", "split": "train"})
    for row, split in zip(rows[2:], ("val", "val", *["test"] * 4), strict=True):
        row["split"] = split
    table = save_cohort_table(secret / "cohort.csv", rows)
    regions = secret / "regions"
    regions.mkdir()
    ring = [[100, 60], [540, 60], [540, 460], [100, 460], [100, 60]]
    text = str({"type": "Polygon", "coordinates": [ring]}).replace("'", '"')
    (regions / f"{ID}-0.geojson").write_text(text, encoding="utf-8")
    return table, regions


def run_study(place: Path, out: Path, *options: str, name: str = "") -> str:
    """Draw labelled slides in a telling folder, run them, and return what was said on standard error.

    The encoder is one's own, from that folder, where no `name` is given.
    """
    table, regions = draw_ward(place)
    encoder = place / FOLDER / "mine.py"
    encoder.write_text(ENCODER, encoding="utf-8")
    command = ["run", str(table), "--out", str(out), "--tile-px", "64", "--seeds", "1", "--epochs", "2"]
    command += ["--encoder", name or f"{encoder}:build", "--include", str(regions), *options]
    done = CliRunner().invoke(build_app(), command)
    assert done.exit_code == 1, done.output
    assert "1 not done" in done.stderr, done.output
    return done.stderr


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder without pseudonyms."""
    place = tmp_path_factory.mktemp("plain")
    run_study(place, place / "run")
    return place / "run"


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder with pseudonyms."""
    place = tmp_path_factory.mktemp("hidden")
    run_study(place, place / "run", "--pseudonyms")
    return place / "run"


def list_public(run: Path) -> list[Path]:
    """List the files of a run that may be passed on: all outside local/ and features/."""
    files = [path for path in sorted(run.rglob("*")) if path.is_file()]
    public = [path for path in files if not {"local", "features"} & {*path.relative_to(run).parts}]
    assert len(public) > 25
    return public


def unpack(content: bytes) -> Iterator[bytes]:
    """Yield a file's bytes, and what is packed in them."""
    yield content
    for inlined in re.findall(rb"data:[\w/+.-]+;base64,([A-Za-z0-9+/=]+)", content):
        yield from unpack(base64.b64decode(inlined))
    if content.startswith(b"\x89PNG"):
        for start in (found.start() for found in re.finditer(rb"zTXt|iTXt|iCCP|eXIf", content)):
            size = int.from_bytes(content[start - 4 : start], "big")
            chunk = content[start + 4 : start + 4 + size]
            for packed in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", chunk):
                try:
                    yield zlib.decompress(chunk[packed.start() :])
                except zlib.error:
                    continue
    if content.startswith(b"\x89HDF"):
        yield from _unpack_h5(content)
    if content.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG", b"\xff\xd8\xff")):
        with Image.open(io.BytesIO(content)) as picture:
            for frame in range(getattr(picture, "n_frames", 1)):
                picture.seek(frame)
                yield repr({**picture.info, **dict(getattr(picture, "tag_v2", {}))}).encode()


def _unpack_h5(content: bytes) -> Iterator[bytes]:
    said: list[str] = []
    with h5py.File(io.BytesIO(content), "r") as file:
        said += [repr(list(file.attrs.items()))]
        file.visititems(lambda name, item: said.append(f"{name} {list(item.attrs.items())!r}"))
        for item in file.values():
            if item.dtype.kind in "OS":
                said.append(repr(item[()]))
    yield "\n".join(said).encode()


def find_words(paths: list[Path], run: Path, words: tuple[str, ...]) -> list[str]:
    """List where a word stands, in whatever case and coding, in the files' names and contents."""
    found = []
    for path in paths:
        where = str(path.relative_to(run))
        contents = [where.encode(), *unpack(path.read_bytes())]
        for word in words:
            forms = {word.encode(), word.replace(" ", "%20").encode(), word.encode("utf-16-le")}
            forms.add(base64.b64encode(word.encode())[:-4])
            if any(form.lower() in content.lower() for form in forms for content in contents):
                found.append(f"{where}: {word}")
    return found


def count_label_pixels(content: bytes) -> int:
    """Count the pixels of all pictures in a file that have one of the label's two colours, give or take JPEG."""
    n = 0
    for part in unpack(content):
        if not part.startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"RIFF")):
            continue
        with Image.open(io.BytesIO(part)) as picture:
            for frame in range(getattr(picture, "n_frames", 1)):
                picture.seek(frame)
                if picture.mode not in ("RGB", "RGBA", "P", "L"):
                    continue
                pixels = np.asarray(picture.convert("RGB"), dtype=int)
                for colour in LABEL_COLOURS:
                    n += int((np.abs(pixels - np.array(colour)).max(axis=2) <= 12).sum())
    return n


def test_the_search_finds_what_is_planted(plain: Path, tmp_path: Path) -> None:
    slide = plain.parent / FOLDER / "slides of the ward" / f"{ID}-0.svs"
    assert find_words([slide], plain.parent, (NOTE, FOLDER)) == [
        f"{FOLDER}/slides of the ward/{ID}-0.svs: {NOTE}",
        f"{FOLDER}/slides of the ward/{ID}-0.svs: {FOLDER}",
    ]
    picture = Image.new("RGB", (40, 30), LABEL_COLOURS[0])
    picture.save(tmp_path / "label.png")
    assert count_label_pixels((tmp_path / "label.png").read_bytes()) == 1200
    inlined = b"data:image/png;base64," + base64.b64encode((tmp_path / "label.png").read_bytes())
    assert count_label_pixels(b"<img src='" + inlined + b"'>") == 1200
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", data=[1]).attrs["note"] = NAME
    assert find_words([tmp_path / "x.h5"], tmp_path, (NAME,)) == [f"x.h5: {NAME}"]


def test_under_pseudonyms_no_file_to_pass_on_holds_name_id_or_path(hidden: Path) -> None:
    words = (NAME, ID, FOLDER, "slides of the ward", NOTE, *NOTE.split()[:2], str(hidden.parent))
    assert find_words(list_public(hidden), hidden, words) == []


def test_without_pseudonyms_no_file_to_pass_on_holds_a_path_or_the_labels_text(plain: Path) -> None:
    words = (FOLDER, "slides of the ward", NOTE, str(plain.parent))
    assert find_words(list_public(plain), plain, words) == []


def test_bags_hold_no_path_and_no_label_text(plain: Path, hidden: Path) -> None:
    for run in (plain, hidden):
        bags = sorted((run / "features").rglob("*.h5"))
        assert len(bags) == 14
        assert find_words(bags, run, (FOLDER, "slides of the ward", NOTE, NAME, str(run.parent))) == []
        with h5py.File(next(path for path in bags if path.parent.name == "patches")) as file:
            assert file["coords"].attrs["savetodir"] == ""
    assert find_words(sorted((hidden / "features").rglob("*.h5")), hidden, (ID,)) == []


@pytest.mark.parametrize("which", ["plain", "hidden"])
def test_no_picture_shows_the_label(which: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(which)
    assert {
        str(path.relative_to(run)): n for path in list_public(run) if (n := count_label_pixels(path.read_bytes()))
    } == {}


def test_the_key_and_the_paths_stay_under_local(hidden: Path) -> None:
    with (hidden / "local" / "pseudonyms.csv").open(encoding="utf-8", newline="") as stream:
        key = {row["slide_id"]: row["pseudonym"] for row in csv.DictReader(stream)}
    assert sorted(key) == [f"{ID}-{i}" for i in range(8)]
    with (hidden / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        assert {row["slide_id"] for row in csv.DictReader(stream)} <= set(key.values())
    with (hidden / "failures.csv").open(encoding="utf-8", newline="") as stream:
        (failed,) = csv.DictReader(stream)
    assert failed["slide_id"] == key[f"{ID}-7"]
    assert "is not there" in failed["reason"]
    assert FOLDER in (hidden / "local" / "cohort.csv").read_text(encoding="utf-8")


def test_a_study_under_pseudonyms_names_nobody_and_finds_its_outlines_still(tmp_path: Path) -> None:
    table, regions = draw_ward(tmp_path)
    (regions / f"{ID}-5.geojson").write_bytes((regions / f"{ID}-0.geojson").read_bytes())
    design = tmp_path / FOLDER / "study.yaml"
    design.write_text(STUDY, encoding="utf-8")
    out = tmp_path / "study"
    command = ["study", str(design), "--cohort", str(table), "--out", str(out), "--pseudonyms"]
    done = CliRunner().invoke(build_app(), [*command, "--lesions", str(regions)])
    assert done.exit_code == 1, done.output
    assert "1 not done" in done.stderr, done.output
    words = (NAME, ID, FOLDER, "slides of the ward", NOTE, *NOTE.split()[:2], str(tmp_path))
    assert find_words(list_public(out), out, words) == []
    (arm,) = json.loads((out / "localisation.json").read_text(encoding="utf-8"))["arms"]
    assert arm["maps"]["attention"]["n_slides"] == 1
    with (out / "failures.csv").open(encoding="utf-8", newline="") as stream:
        (failed,) = csv.DictReader(stream)
    assert "is not there" in failed["reason"]


def test_pseudonyms_change_names_and_nothing_else(plain: Path, hidden: Path) -> None:
    """Regions are found by slide id: under pseudonyms they must be found still."""
    numbers = []
    for run in (plain, hidden):
        with (run / "ledger.csv").open(encoding="utf-8", newline="") as stream:
            numbers.append([(row["step"], row["kept_um2"], row["n_tiles"]) for row in csv.DictReader(stream)])
    assert any("include" in step for step, _, _ in numbers[0]), numbers[0]
    assert numbers[0] == numbers[1]


def test_a_run_passed_on_without_local_and_features_still_predicts(hidden: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(hidden, run, ignore=lambda folder, names: [n for n in names if n in ("local", "features")])
    (tmp_path / "mine.py").write_text(ENCODER, encoding="utf-8")
    save_labelled_slide(tmp_path / "new.svs", draw_tissue(9), said=NOTE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        done = CliRunner().invoke(
            build_app(), ["predict", "run", "new.svs", "--trust", "mine.py", "--out", "out", "--quiet"]
        )
    assert done.exit_code == 0, done.output
    found = find_words(list_outputs(tmp_path / "out"), tmp_path, (NOTE, str(tmp_path)))
    assert found == []


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with exports of a run without pseudonyms, frozen and tuned, whose weights lie in a telling folder."""
    pytest.importorskip("onnx")
    place = tmp_path_factory.mktemp("exported")
    weights = place / FOLDER / f"{NAME}.safetensors"
    weights.parent.mkdir()
    network = build_network(EncoderSpec("resnet18", "random"))
    save_file(network.blocks.named_state(), weights)
    run = place / "run"
    fine = ["--finetune", "tuned", "--top-k", "4", "--finetune-epochs", "1"]
    run_study(place, run, "--weights", str(weights), *fine, name="resnet18@1")
    for arm, options in (("frozen", ["--onnx"]), ("tuned", []), ("head", ["--pseudonyms"])):
        out = place / "models" / arm
        done = CliRunner().invoke(build_app(), ["export", str(run), "--out", str(out), "--arm", arm, *options])
        assert done.exit_code == 0, done.output
    return place / "models"


def test_an_exported_model_names_nobody_and_no_path_and_shows_no_label(exported: Path) -> None:
    files = list_outputs(exported)
    assert {"encoder.onnx", "heads.onnx", "encoder.xml", "encoder.safetensors", "model.safetensors", "seen.json"} <= {
        path.name for path in files
    }
    words = (NAME, ID, FOLDER, "slides of the ward", NOTE, *NOTE.split()[:2], str(exported.parent), str(Path.home()))
    source = str(Path(lamella.__file__).parent)
    assert find_words(files, exported, (*words, source, "site-packages")) == []
    assert {path.name: n for path in files if (n := count_label_pixels(path.read_bytes()))} == {}


def list_outputs(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]
