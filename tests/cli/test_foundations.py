"""What every verb shares: errors in one line, help at once, options alike."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

import lamella.cli
from lamella.cli import build_app
from lamella.cli.encoder_options import EncoderOptions
from lamella.cli.groups import takes_groups
from lamella.cli.options import ColumnOptions, TalkOptions
from lamella.cli.tile_options import TileOptions
from lamella.errors import SlideError

HEAVY = ("torch", "timm", "openvino", "cv2", "pandas", "openslide", "pyvips", "fastslide", "matplotlib", "scipy")


def run_python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, lamella.cli\nsys.argv = ['lamella', '--help']\n"
        f"try: lamella.cli.main()\nfinally: print('HEAVY', sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    start = time.perf_counter()
    done = run_python(code)
    seconds = time.perf_counter() - start
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr
    assert seconds < 5, "ordinarily 0.2 s; 5 s is a machine busy with other tests"


def test_an_error_that_a_user_can_mend_is_one_line_and_exit_1(tmp_path: Path) -> None:
    done = run_python(
        "import sys; from lamella.cli import main\n"
        f"sys.argv = ['lamella', 'split', {str(tmp_path / 'no.csv')!r}, '--out', 'x.csv']; main()"
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"there is no cohort table '{tmp_path / 'no.csv'}'. "
        "Give the path of a CSV or Parquet table with the columns slide and label.\n"
    )


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `lamella split` raise."""

    def load(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ColumnOptions, "load", load)


def test_ctrl_c_is_one_line_and_exit_130(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    done = CliRunner().invoke(build_app(), ["split", "c.csv", "--out", "x.csv"])
    assert done.exit_code == 130
    assert done.stderr == "stopped; nothing is half-written, run the same command again to go on\n"


def test_an_error_of_several_lines_is_still_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, SlideError("slide 'a'\n  is cut short.\nCopy it again."))
    done = CliRunner().invoke(build_app(), ["split", "c.csv", "--out", "x.csv"])
    assert (done.exit_code, done.stderr) == (1, "slide 'a' is cut short. Copy it again.\n")


def test_our_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ZeroDivisionError("ours"))
    done = CliRunner().invoke(build_app(), ["split", "c.csv", "--out", "x.csv"])
    assert isinstance(done.exception, ZeroDivisionError)


def test_being_told_to_end_cleans_up_like_ctrl_c() -> None:
    done = run_python(
        "import os, signal, sys, typer, lamella.cli as cli\n"
        "from lamella.cli.options import ColumnOptions\n"
        "ColumnOptions.load = lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.argv = ['lamella', 'split', 'c.csv', '--out', 'x.csv']; cli.main()"
    )
    assert done.returncode == 143
    assert done.stderr.startswith("stopped; ")


def test_an_option_that_does_not_exist_is_exit_2() -> None:
    done = CliRunner().invoke(build_app(), ["split", "c.csv", "--outt", "x.csv"])
    assert done.exit_code == 2
    assert "No such option: --outt" in done.stderr


def test_the_version_is_told() -> None:
    done = CliRunner().invoke(build_app(), ["--version"])
    assert done.stdout == f"lamella {lamella.__version__}\n"


def test_every_verb_explains_itself_in_sentences() -> None:
    runner = CliRunner()
    for verb in lamella.cli._VERBS:
        done = runner.invoke(build_app(), [verb, "--help"])
        assert done.exit_code == 0, done.output
        summary = done.stdout.split("\n\n")[1].strip()
        assert summary.endswith("."), verb
        assert not re.search(r"TODO|FIXME", done.stdout)


def test_verbs_are_listed_in_the_order_of_the_pipeline() -> None:
    commands = CliRunner().invoke(build_app(), ["--help"]).stdout.split("Commands:")[1]
    listed = [line.split()[0] for line in commands.splitlines() if re.match(r"  \w", line)]
    assert listed == list(lamella.cli._VERBS)


def test_option_groups_fill_their_dataclasses() -> None:
    seen: dict[str, object] = {}

    @takes_groups
    def verb(
        word: Annotated[str, typer.Argument()],
        columns: ColumnOptions,
        tiles: TileOptions,
        encoder: EncoderOptions,
        talk: TalkOptions,
    ) -> None:
        """Do."""
        seen.update(locals())

    app = typer.Typer()
    app.command()(verb)
    arguments = "hello --label-col dx --tile-px 224 --stride 112 --mpp 0.25 --tissue otsu --encoder resnet18 -q"
    done = CliRunner().invoke(app, arguments.split())
    assert done.exit_code == 0, done.output
    assert seen["columns"] == ColumnOptions(label_col="dx")
    assert seen["columns"].names().label == "dx"  # type: ignore[attr-defined]
    assert seen["tiles"].spec().folder == "224px_0.25mpp_112px"  # type: ignore[attr-defined]
    assert seen["encoder"] == EncoderOptions(encoder="resnet18")
    assert seen["talk"] == TalkOptions(quiet=True)


def test_an_option_without_a_choice_says_what_the_choices_are() -> None:
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    @takes_groups
    def verb(tiles: TileOptions) -> None:
        """Do."""

    done = CliRunner().invoke(app, ["--tissue", "hsv"])
    assert done.exit_code == 2
    assert "'glass', 'otsu'" in done.stderr
