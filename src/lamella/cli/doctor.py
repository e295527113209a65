"""lamella doctor."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from lamella.cli.echo import echo
from lamella.cli.options import JsonOption
from lamella.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from lamella.doctor import Finding


def doctor(
    with_access: Annotated[
        bool,
        typer.Option(
            "--check-access",
            help="Ask the hub which gated encoders this account may download. Uses the network.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what this machine can do.

    Readers, runtimes, devices, weights, and the command that gets what is not here.

    Nothing is written, and no network is used but with --check-access.
    """
    from lamella.doctor import check_access, examine_machine

    findings = check_access() if with_access else examine_machine()
    rows = [dataclasses.asdict(finding) for finding in findings]
    if as_json:
        print_json(rows)
        return
    if not rows:
        echo("No encoder by name is gated, and no model of the hub was fetched: there is no access to check.")
        return
    print_table(["topic", "name", "here", "detail"], rows)
    for line in dict.fromkeys(_tell_remedy(finding) for finding in findings if not finding.here):
        echo(line)


def _tell_remedy(finding: "Finding") -> str:
    """Return what is missing and what gets it, in one line."""
    if finding.topic == "weights":
        return "Weights that are not here: lamella weights fetch NAME, or lamella weights add NAME FILE."
    if finding.topic == "access":
        return f"{finding.name}: {finding.remedy}"
    missing = "is not installed" if "not installed" in finding.detail else f"is not usable ({finding.detail})"
    return f"{finding.name} {missing}: {finding.remedy}"
