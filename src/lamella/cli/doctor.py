"""lamella doctor."""

import dataclasses
from typing import TYPE_CHECKING

from lamella.cli.echo import echo
from lamella.cli.options import JsonOption
from lamella.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from lamella.doctor import Finding


def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine can do.

    Readers, runtimes, devices, weights, and the command that gets what is not here.

    Nothing is written and no network is used.
    """
    from lamella.doctor import examine_machine

    findings = examine_machine()
    rows = [dataclasses.asdict(finding) for finding in findings]
    if as_json:
        print_json(rows)
        return
    print_table(["topic", "name", "here", "detail"], rows)
    for line in dict.fromkeys(_tell_remedy(finding) for finding in findings if not finding.here):
        echo(line)


def _tell_remedy(finding: "Finding") -> str:
    """Return what is missing and what gets it, in one line."""
    if finding.topic == "weights":
        return "Weights that are not here: lamella weights fetch NAME, or lamella weights add NAME FILE."
    missing = "is not installed" if "not installed" in finding.detail else f"is not usable ({finding.detail})"
    return f"{finding.name} {missing}: {finding.remedy}"
