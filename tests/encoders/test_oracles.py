"""Each foundation model, from its weights as published, gives what an independent implementation gives: to 1e-5.

The oracles that are not installed are skipped: `pip install 'lamella[oracles]'` brings them.
"""

from pathlib import Path

import pytest
import torch

from lamella.encoders import EncoderSpec, catalogue, registry
from lamella.encoders.cards import EncoderCard
from lamella.encoders.fetching import add_weights
from lamella.encoders.network import build_network
from tests.encoders.oracles import Oracle, make_oracle, name_oracle
from tests.encoders.reduced import CARDS, save_snapshot, shrink

SMALL = [card for card in CARDS.values() if card.n_parameters and card.n_parameters < 100]


def measure_difference(card: EncoderCard, folder: Path, *, batch: int = 2) -> float:
    """Return the largest difference of the embeddings of noise, ours from the snapshot's weights to the oracle's."""
    oracle: Oracle = make_oracle(card, folder)
    add_weights(card.name, save_snapshot(oracle.weights, card, folder / "snapshot"))
    network = build_network(EncoderSpec(card.name))
    side = card.input_px or 224
    tiles = torch.randint(0, 256, (batch, 3, side, side), generator=torch.Generator().manual_seed(3)).float()
    with torch.inference_mode():
        ours, theirs = network(tiles), oracle.encode(network.normalise(tiles))
    assert ours.shape == theirs.shape == (batch, card.embedding_dim)
    assert ours.std() > 0.05  # else nothing is shown
    assert (ours[0] - ours[1]).abs().max() > 0.01
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("name", CARDS)
def test_it_equals_an_independent_implementation(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = shrink(CARDS[name])
    monkeypatch.setattr(registry, "CATALOGUE", (card,))
    monkeypatch.setattr(catalogue, "CATALOGUE", (card,))
    assert measure_difference(card, tmp_path) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("card", SMALL, ids=lambda card: card.name)
def test_it_equals_an_independent_implementation_at_full_size(card: EncoderCard, tmp_path: Path) -> None:
    assert measure_difference(card, tmp_path, batch=2) <= 1e-5


def test_the_docs_name_the_oracle_of_each_model() -> None:
    page = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text(encoding="utf-8")
    assert [name for name in CARDS if f"| `{name}` | {name_oracle(name)} | " not in page] == []
