"""What extraction, training and fine-tuning take: arithmetic over what was measured or expected.

Times are for the most epochs; early stopping makes them shorter.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lamella.studies.arms import Arm
from lamella.studies.design import StudyDesign
from lamella.studies.design_parts import FinetuneDesign

READ_SECONDS_PER_TILE = 0.005  # decoding, beside which encoding goes on
_HEAD_GFLOPS_PER_SECOND = 30.0  # that training of heads reaches
_HIDDEN = 256  # width of the head's first layer, which holds nearly all its arithmetic
_STEP_S = 0.001  # what a step of training takes beside the first layer
_BYTES_BESIDE = 16  # of a tile in a bag: its corner
# Torch, with gradients or all blocks' activations, beside the fastest runtime; seen on the UCSB fields: 3 to 5.
_TORCH_SLOWER = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFacts:
    """What is known of an encoder at one depth, on one tile spec.

    Attributes:
        gflops: Billions of operations a tile.
        gflops_below: The same of each shallower depth, from 1; empty where it cannot be cut.
        dim: Width of its embedding.
        seconds_per_tile: Alone on this machine; 0 where it was not timed.
        command: What gets its weights; None where they are here.
    """

    gflops: float
    dim: int
    seconds_per_tile: float
    gflops_below: tuple[float, ...] = ()
    command: str | None = None


def price_extraction(n_tiles: float, networks: Iterable[float], bags: Iterable[tuple[float, int]]) -> tuple[float, int]:
    """Return seconds and bytes of an extraction: tiles are decoded while they are encoded by one network after another.

    That the deepest depth pays for the others was measured: four depths in one pass took 1.01 to 1.02 of depth 4.

    Args:
        n_tiles: How many.
        networks: Seconds a tile of each network at its deepest.
        bags: Of each encoder and depth, how many tiles are kept, and the width of their embeddings.
    """
    seconds = n_tiles * max(READ_SECONDS_PER_TILE, sum(networks))
    return seconds, round(sum(n_kept * (2 * dim + _BYTES_BESIDE) for n_kept, dim in bags))


def price_training(design: StudyDesign, dim: int, n_slides: int, n_tiles: float, n_rounds: int) -> float:
    """Return what training heads takes in all rounds: forward and the weights' gradient of the first layer."""
    train, val, _ = share_sides(n_rounds)
    tiles = n_tiles * (2 * train + val)
    an_epoch = tiles * dim * _HIDDEN * 2e-9 / _HEAD_GFLOPS_PER_SECOND + n_slides * train * _STEP_S
    return design.train.epochs * design.seeds * n_rounds * an_epoch


def price_finetuning(
    how: FinetuneDesign, arm: Arm, encoder: EncoderFacts, *, n_slides: int, n_rounds: int, tiles_a_slide: float
) -> float:
    """Return what one fold takes: training on the top tiles of all seeds, then the test slides encoded anew."""
    train, val, test = (n_slides * share for share in share_sides(n_rounds))
    if arm.finetuned == "head":
        return how.n_seeds * how.epochs * train * _STEP_S
    top = min(how.k, tiles_a_slide)
    cut = 0 if how.train_blocks is None else arm.depth - how.train_blocks
    below = encoder.gflops_below[cut - 1] if 0 < cut <= len(encoder.gflops_below) else 0.0
    cached = not how.flips and how.stain_jitter == 0
    gflop = how.epochs * top * (3 * train + val) * (encoder.gflops - below)
    gflop += (1 if cached else how.epochs) * top * (train + val) * below
    gflop += test * (tiles_a_slide if how.evaluate == "all" else top) * encoder.gflops
    return how.n_seeds * gflop * _TORCH_SLOWER * encoder.seconds_per_tile / encoder.gflops if encoder.gflops else 0.0


def share_sides(n_rounds: int) -> tuple[float, float, float]:
    """Return the shares of slides that train, validate and test in a round."""
    return (0.65, 0.15, 0.20) if n_rounds < 3 else ((n_rounds - 2) / n_rounds, 1 / n_rounds, 1 / n_rounds)
