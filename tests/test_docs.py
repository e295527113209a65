"""The docs say what is true: every command and Python example in them runs, and what is made from the program is.

The commands of a page run one after the other in a folder that holds what the page speaks of (cohort.csv, slides,
regions, bags of other tools), on slides of 420 x 340 px: tiles of 512 px become tiles of 64, `QUICK` is appended, what
is not asked for trains briefly and is drawn few times, and torch computes.
"""

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import click
import h5py
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import lamella
from lamella.analysis.metrics import measure
from lamella.cli import build_app, list_commands
from lamella.encoders import RuntimeSettings
from lamella.files import write_json, write_text
from lamella.mil.settings import TrainSettings
from lamella.runs.settings import RunSettings, TrainingSettings
from lamella.samples import draw_cohort
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_PAGES = ["README.md", "docs/tutorial.md", "docs/study.md", "docs/export.md"]
GALLERY = ROOT / "docs" / "troubleshooting.md"  # its commands are run by tests/test_gallery.py

# In documented text, 512 px become 64, and a large count a small one.
SMALLER = {"512px": "64px", "tile_px=512": "tile_px=64", "(512, 512)": "(64, 64)", "--tile-px 512": "--tile-px 64"}
_TILES, _TRAINING = ["--tile-px", "64"], ["--epochs", "2", "--seeds", "1", "--folds", "3"]
QUICK = {
    "audit": _TILES,
    "tissue": _TILES,
    "tiles": _TILES,
    "extract": _TILES,
    "train": _TRAINING,
    "run": [*_TILES, *_TRAINING, "--heatmaps", "1"],
    "study": ["--tile-px", "64", "--permutations", "1"],
    "sample": ["--slides", "2"],
    "demo": ["--slides", "20"],
}
# These need a network, a file that only a registry has or an optional package: words are checked, nothing is done.
ONLY_PARSED = (("bag", "export"), ("weights", "fetch"), ("weights", "add", "densenet121-capricorn"))
SLIDES = [f"S-{number:04d}" for number in range(412, 424)]


def _drop_options(words: list[str], replaced: list[str]) -> list[str]:
    """Return the words without the options that are replaced, and their values: one given twice is refused."""
    names = {word for word in replaced if word.startswith("--")}
    return [word for i, word in enumerate(words) if not {word, words[i - 1] if i else ""} & names]


def test_the_command_reference_is_what_help_says() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == make().write_cli_reference(), "run: make docs"


def test_the_table_of_encoders_is_what_the_cards_say() -> None:
    page = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    assert make().tabulate_encoders() in page, "run: make docs"
    assert make().write_encoders_page(page) == page


def test_every_verb_stands_in_the_tutorial_or_the_readme() -> None:
    told = " ".join((ROOT / page).read_text(encoding="utf-8") for page in RUN_PAGES)
    assert [verb for verb in list_commands() if f"lamella {verb}" not in told and verb != "weights"] == []


@pytest.mark.parametrize("page", RUN_PAGES)
def test_the_commands_and_examples_of_a_page_run(page: str, desk: Path) -> None:
    for kind, text in list_blocks(ROOT / page):
        if kind == "python":
            run_example(smaller(text), desk)
            continue
        for command in list_lamella(text):
            run_command(command)


def test_commands_elsewhere_in_the_docs_stand_on_pages_whose_commands_run() -> None:
    for page in PAGES:
        if str(page.relative_to(ROOT)) not in RUN_PAGES and page != GALLERY:
            assert [c for kind, text in list_blocks(page) if kind != "python" for c in list_lamella(text)] == []


def test_examples_on_other_pages_run(desk: Path) -> None:
    for page in PAGES:
        if str(page.relative_to(ROOT)) not in RUN_PAGES:
            for kind, text in list_blocks(page):
                if kind == "python":
                    run_example(smaller(text), desk)


def test_the_pipeline_in_the_packages_docstring_runs(desk: Path) -> None:
    lines = (lamella.__doc__ or "").splitlines()
    code = "\n".join(line.removeprefix("    ") for line in lines if line.startswith("    "))
    (desk / "new.svs").symlink_to(desk / "new" / "S-0900.svs")
    run_example("import lamella\nfrom pathlib import Path\n" + smaller(code), desk)
    assert (desk / "run" / "report.html").is_file()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, lamella; dir(lamella); lamella.LamellaError\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules} - sys.stdlib_module_names))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "pandas", "openvino", "matplotlib", "cv2", "typer"} & set(loaded)


def test_public_names_are_there_and_the_stub_names_the_same() -> None:
    stub = (ROOT / "src" / "lamella" / "__init__.pyi").read_text(encoding="utf-8")
    named = re.findall(r'^    "(\w+)",$', stub, re.MULTILINE)
    assert set(named) == set(lamella.__all__)
    assert set(named) <= set(dir(lamella))
    assert [name for name in named if getattr(lamella, name, None) is None] == []
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = lamella.train


def test_links_between_the_docs_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if urlsplit(target).scheme:
                continue
            path, _, anchor = target.partition("#")
            linked = page.parent / path if path else page
            if not linked.exists() or (anchor and anchor not in list_anchors(linked)):
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "pictures").iterdir())
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size > 300_000] == []


def test_no_tracked_file_names_a_place_on_this_machine_or_its_registry() -> None:
    places = list_places()
    found = []
    for name in list_tracked():
        content = (ROOT / name).read_bytes()
        if b"\0" not in content[:8000]:
            text = content.decode("utf-8", errors="replace")
            found += [f"{name}: {place.pattern}" for place in places if place.search(text)]
    assert found == []


# Reading pages ------------------------------------------------------------------------------------------------------


def make() -> ModuleType:
    """Load docs/make.py."""
    spec = importlib.util.spec_from_file_location("docs_make", ROOT / "docs" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def list_blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield kind and text of a page's blocks of commands and of Python."""
    for kind, text in re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        if kind in ("console", "bash", "sh", "shell", "python"):
            yield kind, text


def list_lamella(text: str) -> list[str]:
    """List the `lamella` commands of a block, `$ ` taken off."""
    lines = [line.removeprefix("$ ") for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("lamella ")]


def list_anchors(page: Path) -> set[str]:
    """List what a link to a heading of a page may end in, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def smaller(text: str) -> str:
    """Return documented text as it runs here."""
    for large, small in SMALLER.items():
        text = text.replace(large, small)
    return text


def list_tracked() -> list[str]:
    """List the files that git tracks; skip where this is no clone."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git clone")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def list_places() -> list[re.Pattern[str]]:
    """List what names this machine: folders of the clone, of the home and of Python, hosts that packages come from."""
    folders = {str(ROOT.parent), str(Path.home()), str(Path(sys.base_prefix).parent)}
    folders = {folder for folder in folders if folder.count("/") and folder not in ("/", "/usr", "/usr/local", "/tmp")}
    asked = [sys.executable, "-m", "pip", "config", "list"]
    config = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    hosts = {urlsplit(url).hostname for url in re.findall(r"https?://[^\s'\"]+", config)}
    hosts -= {None, "localhost", "127.0.0.1"}
    return [re.compile(rf"(?<![\w.~-]){re.escape(folder)}/") for folder in sorted(folders)] + [
        re.compile(re.escape(str(host))) for host in sorted(map(str, hosts))
    ]


# Running what they say ----------------------------------------------------------------------------------------------


def run_command(command: str) -> None:
    """Run a documented command, quickly; it must end with 0."""
    words = shlex.split(smaller(command))[1:]
    if any(tuple(words[: len(start)]) == start for start in ONLY_PARSED):
        parse(words)
        return
    ended = CliRunner().invoke(build_app(), [*_drop_options(words, QUICK.get(words[0], [])), *QUICK.get(words[0], [])])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == 0, f"{command}\n{ended.output}"


def parse(words: list[str]) -> None:
    """Check that a command takes these words."""
    command: click.Command = typer.main.get_command(build_app())
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    command.make_context("lamella", words)


def run_example(code: str, desk: Path) -> None:
    """Run a Python example, or write it down where its first line says it is a file."""
    named = re.match(r"# (\w+\.py)\n", code)
    if named:
        write_text(desk / named[1], code)
    exec(compile(code, "<docs>", "exec"), {"__name__": "docs"})


@pytest.fixture(scope="module")
def drawer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with everything the docs speak of, made once."""
    folder = tmp_path_factory.mktemp("drawer")
    rows = []
    for number, slide_id in enumerate(SLIDES):
        malignant = number % 2 == 1
        tiny.save_slide(folder / "slides" / f"{slide_id}.svs", draw(number, malignant=malignant))
        rows.append(
            {
                "slide": f"slides/{slide_id}.svs",
                "patient_id": f"P-{number}",
                "label": "tumour" if malignant else "benign",
                "batch": "ABC"[number // 2 % 3],
            }
        )
    tiny.save_cohort_table(folder / "cohort.csv", rows)
    for number in (900, 901):
        tiny.save_slide(folder / "new" / f"S-{number:04d}.svs", draw(number, malignant=number == 901))
    new = [
        {"slide": "new/S-0900.svs", "patient_id": "N-0", "label": "benign"},
        {"slide": "new/S-0901.svs", "patient_id": "N-1", "label": "tumour"},
    ]
    tiny.save_cohort_table(folder / "new.csv", new)
    ring = [[120, 150], [180, 150], [180, 210], [120, 210], [120, 150]]
    write_json(folder / "regions" / "S-0412.geojson", {"type": "Polygon", "coordinates": [ring]})
    for slide_id in SLIDES[1::2]:
        write_json(folder / "outlines" / f"{slide_id}.geojson", {"type": "Polygon", "coordinates": [ring]})
    save_bags_of_others(folder)
    save_resnet(folder / "resnet18-weights.pth")
    return folder


def draw(seed: int, *, malignant: bool) -> np.ndarray:
    """Draw a slide of few tiles."""
    return tiny.draw_tissue(seed, malignant=malignant, width=420, height=340)


def save_bags_of_others(folder: Path) -> None:
    """Write bags as TRIDENT, CLAM and STAMP do."""
    rng = np.random.default_rng(0)
    trident, clam, stamp = (
        folder / "trident" / "20x_512px_0px_overlap" / "features_uni_v1", folder / "clam" / "pt_files",
        folder / "stamp" / "uni-1234",
    )  # fmt: skip
    trident = Path(smaller(str(trident)))
    for place in (trident, clam, stamp):
        place.mkdir(parents=True)
    for number, slide_id in enumerate(SLIDES):
        features = rng.normal(size=(7, 12)).astype(np.float32) + number % 2
        coords = np.stack([np.arange(7) * 64, np.full(7, 128)], axis=1)
        save_trident_bag(trident / f"{slide_id}.h5", features, coords)
        torch.save(torch.from_numpy(features), clam / f"{slide_id}.pt")
        with h5py.File(stamp / f"{slide_id}.h5", "w") as file:
            file["feats"], file["coords"] = features.astype(np.float16), coords * 0.5
            file.attrs.update({"extractor": "uni", "unit": "um", "tile_size_um": 32.0, "tile_size_px": 64})

    (folder / "elsewhere" / "uni_v1").mkdir(parents=True)
    for number in (900, 901):
        features = rng.normal(size=(7, 12)).astype(np.float32) + number % 2
        save_trident_bag(folder / "elsewhere" / "uni_v1" / f"S-{number:04d}.h5", features, coords)


def save_trident_bag(path: Path, features: np.ndarray, coords: np.ndarray) -> None:
    """Write a bag as TRIDENT does."""
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = features, coords
        file["features"].attrs["encoder"] = "uni_v1"
        file["coords"].attrs.update(
            {
                "patch_size": 64, "patch_size_level0": 64, "level0_magnification": 20, "target_magnification": 20,
                "overlap": 0, "name": path.stem, "savetodir": "", "level0_width": 620, "level0_height": 500,
            }
        )  # fmt: skip


def save_resnet(path: Path) -> None:
    """Write weights of the true form, untrained."""
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("resnet18", num_classes=0).state_dict(), path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of weights and compiled networks of this module's own."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def desk(drawer: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to run a page's commands in: what the docs speak of lies there, and it is the current one."""
    for thing in drawer.iterdir():
        (tmp_path / thing.name).symlink_to(thing)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAMELLA_HOME", str(store))
    for made, name, value in (
        (draw_cohort, "size", (640, 512)),
        (TrainSettings.__init__, "epochs", 2),
        (TrainingSettings.__init__, "n_seeds", 1),
        (TrainingSettings.__init__, "n_folds", 3),
        (RunSettings.__init__, "n_heatmaps", 1),
        (measure, "n_draws", 50),
        (RuntimeSettings.__init__, "runtime", "torch"),  # to convert a network for OpenVINO takes longer than to use it
        (RuntimeSettings.__init__, "n_threads", 1),  # tests run side by side, and waiting threads spin
        (TrainSettings.__init__, "n_threads", 1),
    ):
        monkeypatch.setitem(made.__kwdefaults__, name, value)
    monkeypatch.setattr("lamella.runs.measure._BASELINE_DRAWS", 50)
    for name in ("DEMO_TILE_PX", "DEMO_STRIDE_PX"):
        monkeypatch.setattr(f"lamella.demo.{name}", 64)
    return tmp_path
