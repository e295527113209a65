"""Cards held against reality, and the four kinds of names."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from lamella.encoders import EncoderCard, EncoderSpec, find_encoder, fingerprint_encoder, list_encoders
from lamella.encoders.foundation import FOUNDATION
from lamella.encoders.network import build_network
from lamella.encoders.store import load_stored_card, save_entry
from lamella.encoders.timm_trunk import create_trunk
from lamella.encoders.trust import trusting
from lamella.errors import EncoderError, WeightsError
from tests.encoders.reduced import shrink

CARDS = list_encoders()
PATHOLOGY = {card.name for card in FOUNDATION}
OWN = """
import torch

class Net(torch.nn.Module):
    mean = (0.1, 0.2, 0.3)
    std = (0.4, 0.5, 0.6)

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 5, 3, stride=2)

    def forward(self, x):
        return self.conv(x)

def build():
    return Net()

def build_number():
    return 3

def build_tokens():
    return torch.nn.Flatten(2)

def build_flat_std():
    net = Net()
    net.std = (1, 0, 1)
    return net
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    with trusting(path):
        yield f"{path}:build"


def _mark_large(card: EncoderCard) -> Any:
    """Mark what takes a second and more to build, even without memory."""
    return pytest.param(card, marks=[pytest.mark.slow] if (card.n_parameters or 0) > 50 else [], id=card.name)


@pytest.mark.parametrize("card", [_mark_large(card) for card in CARDS])
def test_a_card_declares_the_width_and_the_costs_that_its_network_has(card: EncoderCard) -> None:
    trunk = create_trunk(card.network, card.model_args, device="meta")
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        embedding = trunk(torch.zeros(1, 3, card.input_px, card.input_px, device="meta"))
    assert embedding.shape == (1, card.embedding_dim)
    assert card.n_parameters == pytest.approx(sum(p.numel() for p in trunk.parameters()) / 1e6, abs=0.006)
    assert card.gflops == pytest.approx(counter.get_total_flops() / 1e9, abs=0.006)


@pytest.mark.parametrize(
    "card", [c for c in CARDS if (c.hub_id or "lite" in c.name) and not c.pooling], ids=lambda card: card.name
)
def test_a_card_agrees_with_timms_own_declaration(card: EncoderCard) -> None:
    declared = timm.get_pretrained_cfg(f"{card.network}.{card.weights_tag}")
    assert (card.mean, card.std, card.licence) == (declared.mean, declared.std, declared.license)
    assert card.input_px == declared.input_size[-1]
    assert not declared.fixed_input_size
    if card.hub_id is not None:
        assert card.hub_id == declared.hf_hub_id


def test_names_are_unique_and_only_weights_trained_on_histology_claim_it() -> None:
    assert len({card.name for card in CARDS}) == len(CARDS)
    claim = {c.name for c in CARDS if re.search("patholog|histolog", " ".join((c.name, c.source, *c.trained_on)))}
    assert claim - PATHOLOGY == {"resnet18-ciga", "resnet50-mormont", "densenet121-mormont"}
    assert all("CAMELYON16" in " ".join(card.trained_on) for card in CARDS if card.name in claim - PATHOLOGY)


def test_a_foundation_model_states_what_one_must_know_to_use_it() -> None:
    for card in (find_encoder(name) for name in PATHOLOGY):
        assert card.trained_on, card.name
        assert card.citation, card.name
        assert card.declared_by, card.name
        assert card.pooling, card.name
        assert card.access in ("open", "gated"), card.name
        assert card.licence != "unknown", card.name
        assert card.hub_id, card.name
    assert {name for name in PATHOLOGY if find_encoder(name).is_permissive} == {
        "virchow",
        "h-optimus-0",
        "hibou-b",
        "hibou-l",
        "midnight-12k",
    }
    assert not any(card.is_permissive and card.commercial_use is not True for card in CARDS)
    assert all("gated" in card.declared_by for card in CARDS if card.access == "gated")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("uni", "multiples of 16 px"), ("gigapath", "224 px"), ("resnet18", "any"), ("kaiko-l14", "multiples of 14 px")],
)
def test_a_card_says_which_sizes_its_network_takes_and_the_network_does(name: str, sizes: str) -> None:
    card = find_encoder(name)
    assert card.sizes == sizes
    if card.pooling:
        small = shrink(card)
        trunk = create_trunk(small.network, small.model_args)
        other = torch.zeros(1, 3, 280 if "14" in sizes else 256, 280 if "14" in sizes else 256)
        if card.fixed_input:
            with pytest.raises(AssertionError):
                trunk(other)
        else:
            assert trunk(other).shape == (1, small.embedding_dim)


def test_each_card_says_where_its_weights_can_be_had() -> None:
    assert all(card.package or card.hub_id or card.url for card in CARDS)


def test_the_cards_state_the_top_1_of_the_papers_table() -> None:
    paper = {"resnet18": 69.8, "resnet34": 73.3, "resnet50": 76.1, "densenet121": 74.4, "densenet169": 75.6}
    paper |= {f"efficientnet-b{d}-pytorch": top1 for d, top1 in enumerate((76.3, 78.8, 79.8, 81.1))}
    assert {card.name: card.imagenet_top1 for card in CARDS if card.name in paper} == paper


def test_lite_weights_are_normalised_by_a_half_and_not_by_imagenets_values() -> None:
    assert {(card.mean, card.std) for card in CARDS if "lite" in card.name} == {((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "resnet51",
            "no encoder is called 'resnet51'. The nearest is 'resnet50'; `lamella encoders` lists all.",
        ),
        ("qqq", "no encoder is called 'qqq'. `lamella encoders` lists all."),
        (
            "timm:resnet51",
            "no encoder is called 'timm:resnet51'. The nearest is 'timm:resnet51q'; "
            "`timm.list_models()` lists all of timm's.",
        ),
        ("resnet51@3", "no encoder is called 'resnet51'. The nearest is 'resnet50'; `lamella encoders` lists all."),
        ("timm:", "encoder 'timm:' lacks the name after the colon. `lamella encoders` shows how to ask."),
    ],
)
def test_a_name_that_nothing_has_is_an_error_with_the_nearest(name: str, sentence: str) -> None:
    with pytest.raises(EncoderError) as caught:
        find_encoder(name)
    assert str(caught.value) == sentence


def test_depth_four_is_the_whole_network() -> None:
    assert find_encoder("resnet18@4") == find_encoder("resnet18")
    random = [fingerprint_encoder(EncoderSpec(name, "random")) for name in ("resnet18", "resnet18@4", "resnet34")]
    assert random[0] == random[1] != random[2]


def test_timms_networks_are_found_with_and_without_a_tag() -> None:
    card = find_encoder("timm:vit_tiny_patch16_224")
    assert (card.embedding_dim, card.input_px, card.fixed_input) == (192, 224, True)
    assert find_encoder("timm:resnet18.tv_in1k").weights_tag == "tv_in1k"
    with pytest.raises(EncoderError, match="has no weights tagged 'nope'"):
        find_encoder("timm:resnet18.nope")


def test_a_network_of_one_input_size_resizes_inside() -> None:
    with warnings.catch_warnings():
        network = build_network(EncoderSpec("timm:vit_tiny_patch16_224", "random"))
        assert network(torch.rand(1, 3, 96, 96) * 255).shape == (1, 192)


def test_a_hub_model_that_was_not_fetched_names_the_command() -> None:
    with pytest.raises(WeightsError, match="Run: lamella weights fetch hf-hub:owner/name"):
        find_encoder("hf-hub:owner/name")


def test_a_card_survives_the_store() -> None:
    card = find_encoder("efficientnet-b3")
    save_entry(card, "weights.pth", "0" * 64)
    assert load_stored_card("efficientnet-b3") == card


def test_ones_own_function_becomes_an_encoder(own: str) -> None:
    card = find_encoder(own)
    assert (card.embedding_dim, card.mean, card.std) == (5, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    network = build_network(EncoderSpec(own))
    pixels = torch.rand(2, 3, 30, 40) * 255
    mean, std = torch.tensor(card.mean).view(1, 3, 1, 1), torch.tensor(card.std).view(1, 3, 1, 1)
    assert torch.equal(network(pixels), network.blocks.trunk((pixels / 255 - mean) / std).mean((2, 3)))


def test_ones_own_fingerprint_follows_the_source_and_stays_otherwise(own: str) -> None:
    before = fingerprint_encoder(EncoderSpec(own))
    assert fingerprint_encoder(EncoderSpec(own)) == before
    path = Path(own.rpartition(":")[0])
    path.write_text(path.read_text().replace("stride=2", "stride=1"))
    assert fingerprint_encoder(EncoderSpec(own)) != before


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("absent", "has no function 'absent'"),
        ("build_number", "returns a int and must return a torch.nn.Module"),
        ("build_tokens", r"gives \(2, 3, 50176\) for two tiles: tokens.*'pooling'"),
        ("build_flat_std", "needs three numbers above 0"),
    ],
)
def test_ones_own_function_that_breaks_the_rules_is_told_which(own: str, function: str, reason: str) -> None:
    with pytest.raises(EncoderError, match=reason):
        find_encoder(own.replace(":build", f":{function}"))


def test_ones_own_file_that_is_not_there_or_does_not_run_is_an_error(tmp_path: Path) -> None:
    with trusting(tmp_path / "none.py"), pytest.raises(EncoderError, match="which is not there"):
        find_encoder(f"{tmp_path / 'none.py'}:build")
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    with trusting(tmp_path / "broken.py"), pytest.raises(EncoderError, match="does not run"):
        find_encoder(f"{tmp_path / 'broken.py'}:build")
