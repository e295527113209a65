"""What verbs print: ids, labels and reasons may be anyone's, so what a terminal would obey is written out."""

import typer

from lamella.errors import show_controls


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text on standard output, or on standard error; the only way in which a verb prints."""
    typer.echo(show_controls(text), err=err, nl=nl)
