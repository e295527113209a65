"""Localisation: does a map light up where the lesion is? Arrays in, numbers out.

Free-response scores follow the rules of the CAMELYON16 challenge (Ehteshami Bejnordi et al., JAMA 2017): outlines grown
by half of 75 um so that what lies within 75 um is one lesion, holes filled, lesions under 275 um neither hit nor false.
A tile is one detection, at its centre, and so is a plateau of a map: what is large must not count several times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree
from sklearn.metrics import average_precision_score, roc_auc_score

from lamella.defaults import SMALLEST_UM
from lamella.records import Record

JOIN_UM = 75.0
FALSE_POSITIVES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
APART = 1.5  # least distance of two detections in sides of a tile: the eight neighbours of a tile lie nearer


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well values tell lesion from the rest on one slide: AUC, and average precision with its chance level."""

    auc: float
    precision: float
    share: float


def rank_values(values: NDArray[np.floating], inside: NDArray[np.bool_]) -> Ranking | None:
    """Return how well values rank what is inside a lesion above what is not; None where only one of both is there.

    Args:
        values: `(N,)` float, one a tile or a pixel.
        inside: `(N,)` bool.

    Example:
        >>> rank_values(np.array([0.1, 0.9, 0.8, 0.2]), np.array([False, True, False, False]))
        Ranking(auc=1.0, precision=1.0, share=0.25)
    """
    if inside.all() or not inside.any():
        return None
    return Ranking(
        auc=float(roc_auc_score(inside, values)),
        precision=float(average_precision_score(inside, values)),
        share=float(inside.mean()),
    )


def find_top_precision(values: NDArray[np.floating], inside: NDArray[np.bool_], k: int) -> float:
    """Return the share of the k tiles of highest value that lie in a lesion; of ties, as many as their share.

    Example:
        >>> find_top_precision(np.array([3.0, 1.0, 1.0, 0.0]), np.array([True, True, False, False]), 2)
        0.75
    """
    k = min(k, len(values))
    edge = np.sort(values)[-k]
    above, tied = values > edge, values == edge
    return float((inside[above].sum() + inside[tied].mean() * (k - above.sum())) / k)


def points_inside(values: NDArray[np.floating], inside: NDArray[np.bool_]) -> float:
    """Return 1 where the highest value lies in a lesion, 0 where it does not; of ties, the share that does.

    The pointing game of Zhang et al. (IJCV 2018), without tolerance.
    """
    highest = values == values.max()
    return float(inside[highest].mean())


@dataclass(frozen=True, slots=True, eq=False)
class Lesions:
    """The lesions of one slide as CAMELYON16 counts them.

    Attributes:
        labels: `(h, w)` int32, 0 where there is none, else the number of the lesion from 1.
        counted: `(n,)` bool, whether lesion i + 1 is large enough to be hit.
    """

    labels: NDArray[np.int32]
    counted: NDArray[np.bool_]


def number_lesions(
    mask: NDArray[np.bool_], um_per_px: float, *, join_um: float = JOIN_UM, smallest_um: float = SMALLEST_UM
) -> Lesions:
    """Grow, join, fill and number the lesions of a slide.

    Args:
        mask: `(h, w)` bool, inside an outline.
        um_per_px: um that a pixel spans.
        join_um: What lies nearer to each other than this is one lesion.
        smallest_um: Lesions whose longer axis, grown, is shorter are neither hit nor false.
    """
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    grown = (distance < join_um / (2 * um_per_px)) if mask.any() else mask
    filled = ndimage.binary_fill_holes(grown | mask)
    n, labels = cv2.connectedComponents(filled.astype(np.uint8), connectivity=8)
    axes = [_find_longer_axis(labels == number) * um_per_px for number in range(1, n)]
    return Lesions(labels=labels.astype(np.int32), counted=np.array([axis >= smallest_um for axis in axes], dtype=bool))


def _find_longer_axis(mask: NDArray[np.bool_]) -> float:
    """Return the longer axis of the ellipse that has the mask's second moments, in pixels."""
    points = np.stack(np.nonzero(mask)).astype(np.float64)
    spread = np.cov(points, bias=True) + np.eye(2) / 12 if points.shape[1] > 1 else np.eye(2) / 12
    return float(4 * np.sqrt(np.linalg.eigvalsh(spread)[-1]))


def choose_tiles(values: NDArray[np.floating], centres_um: NDArray[np.floating], radius_um: float) -> NDArray[np.int64]:
    """Choose the tiles that are detections: highest first, none nearer than `radius_um` to one chosen before.

    Of tiles with equal values the earlier is taken first.

    Args:
        values: `(N,)` float.
        centres_um: `(N, 2)` float, `(x, y)` of each tile's centre, in um on the slide.
        radius_um: Least distance of the centres of two detections, in um.

    Returns:
        `(n,)` int64 numbers of tiles.

    Example:
        >>> centres_um = np.array([[0, 0], [100, 0], [200, 0], [300, 0]])
        >>> choose_tiles(np.array([1.0, 3.0, 2.0, 2.0]), centres_um, 150.0).tolist()
        [1, 3]
    """
    tree = KDTree(centres_um)
    free = np.ones(len(values), dtype=bool)
    chosen = []
    for number in np.argsort(-np.asarray(values, dtype=np.float64), kind="stable"):
        if free[number]:
            chosen.append(number)
            # At just that distance is not nearer; rounding must not decide.
            free[tree.query_ball_point(centres_um[number], radius_um * (1 - 1e-9))] = False
    return np.array(chosen, dtype=np.int64)


def find_maxima(values: NDArray[np.floating], radius_px: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find local maxima, highest first, none within `radius_px` of a higher one.

    A plateau, pixels of one value that touch, is one maximum: its pixel that is nearest to its centre.

    Args:
        values: `(h, w)` float, NaN where nothing is known.
        radius_px: In pixels.

    Returns:
        `(n, 2)` int64 `(row, column)`, and `(n,)` float64 values.

    Example:
        >>> find_maxima(np.array([[3.0, 3.0, 3.0, 0.0, 0.0, 2.5]]), 2.0)[0].tolist()
        [[0, 1], [0, 5]]
    """
    reach = max(1, int(np.floor(radius_px)))
    offsets = np.arange(-reach, reach + 1)
    disc = (offsets[:, None] ** 2 + offsets**2 <= radius_px**2).astype(np.uint8)
    known = np.where(np.isfinite(values), values, -np.inf).astype(np.float32)
    peaks = (cv2.dilate(known, disc, borderType=cv2.BORDER_REPLICATE) == known) & np.isfinite(values)
    places = _find_plateau_centres(known, np.argwhere(peaks))
    order = np.argsort(-known[tuple(places.T)], kind="stable")
    free = np.ones(values.shape, dtype=bool)
    kept: list[NDArray[np.int64]] = []
    for row, column in places[order]:
        if not free[row, column]:
            continue
        kept.append(np.array([row, column]))
        rows = slice(max(0, row - reach), row + reach + 1)
        columns = slice(max(0, column - reach), column + reach + 1)
        window_disc = disc[rows.start - row + reach :, columns.start - column + reach :].astype(bool)
        window = free[rows, columns]
        window &= ~window_disc[: window.shape[0], : window.shape[1]]
    maxima = np.array(kept, dtype=np.int64).reshape(-1, 2)
    return maxima, known[tuple(maxima.T)].astype(np.float64)


def _find_plateau_centres(known: NDArray[np.float32], peaks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the centre of each plateau that one of the peaks lies on, `(n, 2)` int64, in the order of the peaks."""
    seen = np.zeros((known.shape[0] + 2, known.shape[1] + 2), dtype=np.uint8)  # cv2 asks for a margin of a pixel
    flags = 8 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (2 << 8)
    centres = []
    for row, column in peaks.tolist():
        if seen[row + 1, column + 1]:
            continue
        _, _, _, (left, top, width, height) = cv2.floodFill(known, seen, (column, row), 0, 0, 0, flags)
        window = seen[top + 1 : top + 1 + height, left + 1 : left + 1 + width]
        pixels = np.argwhere(window == 2)
        window[window == 2] = 1
        nearest = np.argmin(((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1))
        centres.append(pixels[nearest] + (top, left))
    return np.array(centres, dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What the detections of one slide hit.

    Attributes:
        hits: `(n,)` float64, the highest value that fell on each lesion that counts; -inf where none did.
        false: `(m,)` float64, values that fell on no lesion.
    """

    hits: NDArray[np.float64]
    false: NDArray[np.float64]


def judge_detections(places: NDArray[np.int64], values: NDArray[np.float64], lesions: Lesions) -> Detections:
    """Tell hits from false positives; what falls on a lesion too small to count is neither."""
    lesion_labels = lesions.labels[tuple(places.T)] if len(places) else np.zeros(0, dtype=np.int32)
    numbers = np.flatnonzero(lesions.counted) + 1
    hits = np.array([values[lesion_labels == number].max(initial=-np.inf) for number in numbers])
    return Detections(hits=hits, false=values[lesion_labels == 0])


class Froc(Record):
    """A free-response curve at CAMELYON16's operating points.

    Attributes:
        sensitivities: Share of lesions hit at 1/4, 1/2, 1, 2, 4 and 8 false positives a slide.
        score: Their mean.
        n_lesions: Lesions that count.
        n_slides: Slides.
    """

    sensitivities: tuple[float, ...]
    score: float
    n_lesions: int
    n_slides: int


def score_froc(slides: Sequence[Detections]) -> Froc | None:
    """Return the free-response score over slides, with and without lesions; None where no lesion counts.

    The curve is a step curve: an operating point takes the sensitivity of the lowest threshold that does not go past
    its false positives.
    """
    hits = np.concatenate([slide.hits for slide in slides]) if slides else np.zeros(0)
    if not hits.size:
        return None
    false = np.sort(np.concatenate([slide.false for slide in slides]))[::-1]
    sensitivities = []
    for allowed in FALSE_POSITIVES:
        n_allowed = int(np.floor(allowed * len(slides) + 1e-9))
        # At a threshold just above the first false positive too many; a lesion level with it is not told from it.
        threshold = false[n_allowed] if n_allowed < false.size else -np.inf
        sensitivities.append(float((hits > threshold).mean()))
    return Froc(
        sensitivities=tuple(sensitivities),
        score=float(np.mean(sensitivities)),
        n_lesions=int(hits.size),
        n_slides=len(slides),
    )
