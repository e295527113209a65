"""Options that messages name exist, and none is given twice with two values."""

import ast
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import lamella
from lamella.cli import build_app

SOURCE = Path(lamella.__file__).parent
OF_OTHER_PROGRAMS = {"--no-deps", "--force-reinstall", "--tile", "--pyramid", "--compression", "--bigtiff",
                     "--local-dir"}  # pip, vips, hf  # fmt: skip


def list_options(command: object) -> set[str]:
    options = {name for p in getattr(command, "params", ()) for name in (*p.opts, *p.secondary_opts)}
    for below in getattr(command, "commands", {}).values():
        options |= list_options(below)
    return options


def list_strings(path: Path) -> list[str]:
    return [
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_every_option_that_a_text_names_exists() -> None:
    known = list_options(typer.main.get_command(build_app())) | OF_OTHER_PROGRAMS | {"--help"}
    named = {
        (path.name, option)
        for path in SOURCE.rglob("*.py")
        for text in list_strings(path)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text)
    }
    assert len(named) > 50
    assert sorted(pair for pair in named if pair[1] not in known) == []


def test_options_are_named_whole() -> None:
    """A name put together from parts, as `--{kind}`, is not found by the test above; regions have two of a kind."""
    composed = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else []
            texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            if any(re.search(r"(?:^|\s)--$", text) for text in texts):
                composed.add(path.name)
    assert composed == {"region_files.py"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["split", "c.csv", "--out", "a", "--label-col", "x", "--label-col", "y"],
            "--label-col is given twice, as 'x'",
        ),
        (["split", "c.csv", "-o", "a", "--out", "b"], "--out is given twice, as 'a' and as 'b'. Give it once."),
        (["measure", "p.csv", "--positive", "x", "--positive=y"], "--positive is given twice, as 'x' and as 'y'"),
        (["split", "c.csv", "--out", "a", "--seed", "1", "--seed", "2"], "--seed is given twice"),
    ],
)
def test_an_option_with_two_values_is_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(build_app(), arguments)
    assert (done.exit_code, message in done.stderr) == (1, True), done.output


def test_an_option_given_twice_alike_and_one_that_takes_several_go_on() -> None:
    done = CliRunner().invoke(build_app(), ["split", "c.csv", "--out", "a", "--out", "a"])
    assert "no cohort table" in done.stderr
    done = CliRunner().invoke(
        build_app(), ["study", "c.csv", "--preset", "quick", "--out", "a", "--caution", "x", "--caution", "y"]
    )
    assert "given twice" not in done.output
