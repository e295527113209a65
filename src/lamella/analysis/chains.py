"""The reference question: how much of a network may be cut? Depths of one encoder, tested in order against the whole.

A chain is the whole network and its declared depths, the dearest first. Each is tested one-sided against the whole
network, and the first that is not shown to be non-inferior ends the chain, so no depth needs adjusting for the others.
Several chains share the level, and one that is done hands its share on (Bretz et al. 2009). docs/statistics.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from lamella.analysis.differences import Differences
from lamella.analysis.maxt import ALPHA, find_critical, find_upper

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The depths of one encoder, in the order in which they are tested.

    Attributes:
        whole: Place of the whole network among the arms.
        cuts: Places of its declared depths, the dearest first.
    """

    whole: int
    cuts: tuple[int, ...]


def judge_chains(differences: Differences, chains: Sequence[Chain], margin: float) -> list[tuple[int, ...]]:
    """Return for each chain the depths that are shown to be non-inferior to the whole network, in their order.

    Args:
        differences: Of all arms.
        chains: The declared ones.
        margin: How much AUC may be given up, above 0.
    """
    n_accepted = [0] * len(chains)
    levels = [ALPHA / max(1, len(chains))] * len(chains)
    going = [e for e, chain in enumerate(chains) if chain.cuts]
    while True:
        passed = [e for e in going if _passes(differences, chains[e], n_accepted[e], levels[e], margin)]
        if not passed:
            return [chain.cuts[:n] for chain, n in zip(chains, n_accepted, strict=True)]
        e = passed[0]
        n_accepted[e] += 1
        if n_accepted[e] == len(chains[e].cuts):
            going.remove(e)
            for other in going:
                levels[other] += levels[e] / len(going)


def find_chain_margins(differences: Differences, chain: Chain) -> Floats:
    """Return the smallest margin at which each depth is non-inferior to the whole network, `(cuts,)`.

    By max-t over the depths, so that they hold together and may be read at any margin, also after the fact.
    """
    if not chain.cuts:
        return np.zeros(0)
    family = np.array(chain.cuts)
    d = find_critical(differences, chain.whole, family, level=ALPHA)
    return np.asarray(np.clip(find_upper(differences, d)[family, chain.whole], 0.0, 1.0))


def _passes(differences: Differences, chain: Chain, index: int, level: float, margin: float) -> bool:
    return bool(find_upper(differences, float(ndtri(1 - level)))[chain.cuts[index], chain.whole] < margin)
