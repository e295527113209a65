"""lamella encoders."""

import typer

from lamella.cli.options import JsonOption
from lamella.cli.tables import print_json, print_table


def encoders(as_json: JsonOption = False) -> None:
    """List the encoders by name.

    With width, what they were trained on, licence, and whether their weights are here.
    """
    from lamella.encoders import list_encoders, list_weights

    here = {one.name: one.path is not None for one in list_weights()}
    rows = [
        {
            "encoder": card.name,
            "width": card.embedding_dim,
            "weights": card.weights_tag,
            "trained on": ", ".join(card.trained_on),
            "licence": card.licence,
            "here": here.get(card.name, False),
        }
        for card in list_encoders()
    ]
    if as_json:
        print_json(rows)
        return
    print_table(["encoder", "width", "weights", "trained on", "licence", "here"], rows)
    typer.echo(
        "\nAlso: timm:NAME, hf-hub:OWNER/NAME, FILE.py:build. Weights that are not here: lamella weights fetch NAME."
    )
