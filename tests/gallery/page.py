"""docs/troubleshooting.md, made from the steps, and read back."""

import re
from collections.abc import Sequence
from pathlib import Path

from tests.gallery.case import Case, Step, show_case


def render_page(steps: Sequence[Step]) -> str:
    """Return docs/troubleshooting.md: each case with what the program says today."""
    parts = [
        "# Troubleshooting\n\nEvery refusal is one line: which thing, what it has and what is needed, what to do. "
        "This page is made from the program: each command below was run, and each message is what it said. Search it "
        "for a few words of yours; your names and numbers stand where these do.\n\n"
        "The command ends with exit code 1. Anything with a traceback is our bug: tell us, with the traceback.\n"
    ]
    for step in steps:
        parts.append(f"## {step.title}\n" + (f"\n{step.introduction}\n" if step.introduction else ""))
        parts += [render_case(case, show_case(case).message) for case in step.cases]
    return "\n".join(parts)


def render_case(case: Case, message: str) -> str:
    """Return one case as it stands on the page."""
    return f"### {case.heading}\n\n```console\n$ lamella {case.command}\n{message}\n```\n\n{case.why}\n"


def read_page(page: Path) -> dict[str, str]:
    """Return what docs/troubleshooting.md has under each heading: heading -> message."""
    text = page.read_text(encoding="utf-8")
    messages = re.findall(r"^### (.+)\n\n```console\n\$ .+\n(.*)\n```$", text, flags=re.MULTILINE)
    return dict(messages)
