"""Structures: what lies in the stroma, and where there was room for it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamella.errors import SettingsError
from lamella.samples.blobs import Blobs
from lamella.samples.ground import Room

Floats = NDArray[np.float32]

_LEAST_LESION_UM = 9.0


@dataclass(frozen=True, slots=True, eq=False)
class Glands:
    """Glands: outlines, and of each the wall's thickness, how dark its nuclei are, how much its lumen holds."""

    outlines: Blobs
    wall_um: Floats
    darkness: Floats
    secretion: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Structures:
    """The things that lie in the stroma.

    Attributes:
        lesions: Nests of tumour: crowded, large, dark nuclei.
        aggregates: Lymphoid aggregates: crowded, small, dark nuclei. A decoy.
        nests: Solid benign epithelium: crowded, dark nuclei of ordinary size. A decoy.
        stains: Patches that took more stain. A decoy.
        vessels: Small vessels.
        glands: Glands.
    """

    lesions: Blobs
    aggregates: Blobs
    nests: Blobs
    stains: Blobs
    vessels: Blobs
    glands: Glands


def place_lesions(rng: np.random.Generator, room: Room, share: float) -> Blobs:
    """Place one or two lesions that cover `share` of the tissue between them."""
    if share == 0 or room.tissue_um2 == 0:
        return _no_blobs()
    area_um2 = share * room.tissue_um2
    parts = np.array([1.0]) if area_um2 < 30_000 or rng.random() < 0.7 else np.array([0.62, 0.38])
    placed = [_place_blob(rng, room, part * area_um2, 0.16, least_um=_LEAST_LESION_UM) for part in parts]
    lesions = _join_blobs([blob for blob in placed if blob is not None])
    if len(lesions) == 0:
        raise SettingsError(
            f"a lesion over {share:.1%} of {room.tissue_um2 / 1e6:.3f} mm2 of tissue holds no cell or has no room. "
            "Ask for a larger slide."
        )
    return lesions


def _place_blob(
    rng: np.random.Generator, room: Room, area_um2: float, wobble: float, *, least_um: float = 20
) -> Blobs | None:
    """Place one blob of about `area_um2`, or less where there is no room; none below a radius of `least_um`."""
    shape = Blobs.scatter(rng, np.zeros((1, 2)), np.ones(1), wobble)
    radius = float(np.sqrt(area_um2 / shape.areas_um2()[0]))
    reach = float(shape.reach_um[0])
    places = room.find_places(rng, radius * reach + 12, 1)
    if len(places) == 0:
        places, clearance = room.find_widest()
        radius = min(radius, (clearance - 12) / reach)
    if radius < least_um:
        return None
    blob = Blobs(places.astype(np.float32), np.array([radius], dtype=np.float32), shape.amplitudes, shape.phases)
    room.take(blob, 14)
    return blob


def place_structures(rng: np.random.Generator, room: Room, lesions: Blobs) -> Structures:
    """Place decoys, vessels and glands into what room the lesions left."""
    mm2 = room.tissue_um2 / 1e6
    aggregates = _place_many(rng, room, 0.6 + 2.2 * mm2, (7_000, 55_000), 0.2)
    nests = _place_many(rng, room, 0.3 + 1.9 * mm2, (6_000, 45_000), 0.2)
    # Over-stained patches lie on top of whatever there is, lesion or not.
    n_stains = int(rng.poisson(0.3 + 0.8 * mm2))
    stain_centres = room.find_places(rng, 0, n_stains)
    stains = Blobs.scatter(rng, stain_centres, rng.uniform(60, 170, len(stain_centres)), 0.2)
    n_vessels = int(rng.poisson(10 * mm2))
    vessels = _pack(rng, room, rng.uniform(9, 24, n_vessels), np.zeros(n_vessels) + 6, 0.12)
    room.take(vessels, 4)
    return Structures(lesions, aggregates, nests, stains, vessels, _place_glands(rng, room))


def _place_many(
    rng: np.random.Generator, room: Room, mean: float, areas_um2: tuple[float, float], wobble: float
) -> Blobs:
    """Place a random number of blobs, `mean` of them on average."""
    # Slides differ more than chance alone makes them: some are full of such things, some have none.
    mean *= float(rng.gamma(1.5, 1 / 1.5))
    areas = np.exp(rng.uniform(np.log(areas_um2[0]), np.log(areas_um2[1]), int(rng.poisson(mean))))
    placed = [_place_blob(rng, room, float(area), wobble) for area in areas]
    return _join_blobs([blob for blob in placed if blob is not None])


def _place_glands(rng: np.random.Generator, room: Room) -> Glands:
    """Place glands in lobules: crowds of glands with stroma between the crowds."""
    mm2 = room.tissue_um2 / 1e6
    lobules = room.find_places(rng, 40, 1 + int(rng.poisson(rng.uniform(3, 26) * mm2)))
    n_lobules = len(lobules)
    spread_um, crowd = rng.uniform(40, 120, n_lobules), rng.integers(8, 60, n_lobules)
    owner = np.repeat(np.arange(n_lobules), crowd)
    centres = lobules[owner] + rng.normal(size=(len(owner), 2)) * spread_um[owner, None]
    radius = rng.uniform(19, 38, n_lobules)[owner] * np.exp(rng.normal(size=len(owner)) * 0.25)
    kept = _thin(room, centres, radius * 1.12, gap_um=4)
    outlines = Blobs.scatter(rng, centres[kept], radius[kept], 0.13)
    owner = owner[kept]
    return Glands(
        outlines,
        (rng.uniform(10, 17, n_lobules)[owner] + rng.normal(size=len(kept))).astype(np.float32),
        np.exp(rng.normal(size=n_lobules) * 0.2)[owner].astype(np.float32),
        (rng.random(len(kept)) * (rng.random(len(kept)) < 0.35)).astype(np.float32),
    )


def _pack(
    rng: np.random.Generator, room: Room, radii_um: NDArray[np.float64], gaps_um: NDArray[np.float64], wobble: float
) -> Blobs:
    """Place blobs of given radii wherever they do not touch."""
    centres = room.find_places(rng, 20, len(radii_um))
    radii_um = radii_um[: len(centres)]
    kept = _thin(room, centres, radii_um, gap_um=float(gaps_um.mean()) if len(gaps_um) else 0)
    return Blobs.scatter(rng, centres[kept], radii_um[kept], wobble)


def _thin(
    room: Room, centres_um: NDArray[np.float64], radii_um: NDArray[np.float64], *, gap_um: float
) -> NDArray[np.intp]:
    """List, first come first served, the discs that lie on free ground and touch none listed before."""
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    spokes = np.concatenate([ring, ring / 3, 2 / 3 * ring])
    rims = centres_um[:, None] + radii_um[:, None, None] * spokes
    free = room.is_free(rims.reshape(-1, 2)).reshape(rims.shape[:2]).all(axis=1) & room.is_free(centres_um)
    kept: list[int] = []
    for candidate in np.flatnonzero(free):
        distance = np.hypot(*(centres_um[kept] - centres_um[candidate]).T)
        if (distance > radii_um[kept] + radii_um[candidate] + gap_um).all():
            kept.append(int(candidate))
    return np.array(kept, dtype=np.intp)


def _no_blobs() -> Blobs:
    """Return a table without rows."""
    return Blobs.scatter(np.random.default_rng(0), np.zeros((0, 2)), np.zeros(0), 0.1)


def _join_blobs(tables: list[Blobs]) -> Blobs:
    """Return all rows of all tables."""
    tables = [_no_blobs(), *tables]
    return Blobs(
        np.concatenate([table.centres_um for table in tables]),
        np.concatenate([table.radii_um for table in tables]),
        np.concatenate([table.amplitudes for table in tables]),
        np.concatenate([table.phases for table in tables]),
    )
