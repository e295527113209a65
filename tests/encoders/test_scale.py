"""At which scale an encoder sees tissue, and when that is not what it was made for."""

import dataclasses

import pytest
import torch

from lamella.encoders.cards import EncoderCard
from lamella.encoders.network import TileNetwork
from lamella.encoders.registry import find_encoder
from lamella.encoders.scale import find_own_tiles, find_seen, fits, refuse_unfit
from lamella.errors import EncoderError

FIXED, FREE = find_encoder("h-optimus-0"), find_encoder("resnet18")
PATCHES = dataclasses.replace(find_encoder("uni2-h"), tile_px=None)


@pytest.mark.parametrize(
    ("card", "tile_px", "mpp", "seen"),
    [
        (FIXED, 512, 0.5, (224, 0.5 * 512 / 224)),
        (FIXED, 224, 0.25, (224, 0.25)),
        (FREE, 500, 0.5, (500, 0.5)),
        (PATCHES, 512, 0.5, (518, 0.5 * 512 / 518)),
        (PATCHES, 448, 0.5, (448, 0.5)),
        (PATCHES, 3, 0.5, (14, 0.5 * 3 / 14)),
    ],
)
def test_a_tile_is_resized_to_what_the_network_takes(
    card: EncoderCard, tile_px: int, mpp: float, seen: tuple[int, float]
) -> None:
    assert find_seen(card, tile_px, mpp) == pytest.approx(seen)


def test_the_network_does_what_the_card_says() -> None:
    network = TileNetwork.__new__(TileNetwork)
    torch.nn.Module.__init__(network)
    network._find_seen_px = PATCHES.find_seen_px
    network.mean, network.std = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    assert network.normalise(torch.zeros(1, 3, 100, 90)).shape == (1, 3, 98, 84)
    assert network.normalise(torch.zeros(1, 3, 98, 98)).shape == (1, 3, 98, 98)


def test_an_encoder_is_made_for_its_input_at_the_resolution_nearest_to_half_a_micrometre() -> None:
    assert find_own_tiles(find_encoder("virchow2@3")) == (224, 0.5)
    assert find_own_tiles(dataclasses.replace(FIXED, trained_mpp=(0.25, 1.0))) == (224, 0.25)
    assert find_own_tiles(FREE) is None
    assert find_own_tiles(dataclasses.replace(FIXED, input_px=None, tile_px=None)) is None


@pytest.mark.parametrize(
    ("name", "tile_px", "mpp", "fit"),
    [
        ("h-optimus-0", 224, 0.5, True),
        ("h-optimus-0", 224, 0.549, True),
        ("h-optimus-0", 224, 0.56, False),
        ("h-optimus-0", 448, 0.25, True),  # resized, it sees 0.5
        ("h-optimus-0", 512, 0.5, False),
        ("uni", 256, 0.5, True),
        ("uni", 256, 0.25, False),
        ("virchow2", 224, 1.9, True),
        ("virchow2", 224, 1.4, False),
        ("gigapath", 256, 0.5, True),  # as its authors cut them, though they become 0.571
        ("gigapath", 260, 0.5, False),
        ("resnet18", 512, 4.0, True),  # whose card states nothing
    ],
)
def test_what_fits_is_within_a_tenth_of_the_card_or_as_its_authors_cut(
    name: str, tile_px: int, mpp: float, fit: bool
) -> None:
    assert fits(find_encoder(name), tile_px, mpp) == fit


def test_what_does_not_fit_is_refused_with_what_does() -> None:
    with pytest.raises(EncoderError) as error:
        refuse_unfit(FIXED, 512, 0.5)
    assert str(error.value) == (
        "encoder 'h-optimus-0' was trained at 0.5 um/px and would see 1.143 um/px: tiles of 512 px at 0.5 um/px, "
        "resized to 224 px. Pass --tile-px 224 --mpp 0.5, or --off-spec to insist."
    )
    refuse_unfit(FIXED, 224, 0.5)
