"""lamella doctor."""

import dataclasses

import typer

from lamella.cli.options import JsonOption
from lamella.cli.tables import print_json, print_table


def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine can do: readers, runtimes, devices, weights, cores, memory, and what gets what is missing.

    Nothing is written and no network is used.
    """
    from lamella.doctor import examine_machine

    findings = [dataclasses.asdict(finding) for finding in examine_machine()]
    if as_json:
        print_json(findings)
        return
    print_table(["topic", "name", "here", "detail"], findings)
    remedies = {finding["remedy"] for finding in findings if finding["remedy"]}
    if remedies:
        typer.echo("\nTo get what is missing:")
        for finding in findings:
            if finding["remedy"]:
                typer.echo(f"  {finding['name']}: {finding['remedy']}")
