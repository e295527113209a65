"""Makes again what the docs take from the program: the CLI reference, the page of errors, and the pictures.

Run by `make docs`; tests compare the texts with what stands in docs/.
"""

import os
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))


def write_cli_reference() -> str:
    """Return docs/cli.md: the help of every command, in the order of the pipeline."""
    from lamella.cli import list_commands

    parts = [
        "# Commands\n\nMade from `--help` by `make docs`; a test checks that it is true.\n",
        _section("lamella", ["--help"]),
    ]
    parts += [_section(f"lamella {command}", [*command.split(), "--help"]) for command in list_commands()]
    return "\n".join(parts)


def _section(title: str, arguments: list[str]) -> str:
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    shown = subprocess.run(
        [sys.executable, "-m", "lamella.cli", *arguments], capture_output=True, text=True, check=True, env=environment
    ).stdout
    text = "\n".join(line.rstrip() for line in shown.strip().splitlines()).replace("python -m lamella.cli", "lamella")
    return f"## {title}\n\n```text\n{text}\n```\n"


def write_troubleshooting() -> str:
    """Return docs/troubleshooting.md: every error of the gallery, as the program words it today."""
    from tests.gallery import render_gallery

    return render_gallery()


def main() -> None:
    """Write all of it."""
    (DOCS / "cli.md").write_text(write_cli_reference(), encoding="utf-8")
    (DOCS / "troubleshooting.md").write_text(write_troubleshooting(), encoding="utf-8")


if __name__ == "__main__":
    main()
