"""Cells: which nuclei a plan's structures hold, and where."""

import numpy as np

from lamella.samples import nuclei as kinds
from lamella.samples.blobs import Blobs
from lamella.samples.fibres import Fibres
from lamella.samples.ground import STRAND_LEVEL, Ground, Room
from lamella.samples.nuclei import CellKind, Nuclei
from lamella.samples.structures import Glands, Structures


def populate(
    rng: np.random.Generator, ground: Ground, room: Room, structures: Structures, fibres: Fibres
) -> tuple[Nuclei, Nuclei]:
    """Return all nuclei of a slide, and its red cells.

    Args:
        rng: Source of all chance.
        ground: The tissue.
        room: What is taken; glands are marked here.
        structures: What lies in the stroma.
        fibres: Course of the collagen.
    """
    room.take(structures.glands.outlines, 3)
    tables = [
        _part(ground, _fill(rng, structures.lesions, kinds.TUMOUR_CELL, spacing_um=12.5)),
        _fill(rng, structures.aggregates, kinds.LYMPHOCYTE, spacing_um=6.7, fuzzy_um=9),
        _fill(rng, structures.nests, kinds.HYPERPLASIA, spacing_um=8.6),
        _line_glands(rng, structures.glands),
        _line_vessels(rng, structures.vessels),
        _sow_fibroblasts(rng, room, fibres),
        _sow_inflammation(rng, ground, room, structures),
    ]
    return Nuclei.join(tables), _fill(rng, structures.vessels, kinds.RED_CELL, spacing_um=6.5, inset_um=4.5)


def _fill(
    rng: np.random.Generator,
    blobs: Blobs,
    kind: CellKind,
    *,
    spacing_um: float,
    inset_um: float = 2.0,
    fuzzy_um: float = 0.0,
) -> Nuclei:
    """Crowd cells into blobs, `spacing_um` apart, none closer than `inset_um` to an outline fuzzy by `fuzzy_um`."""
    centres = [np.zeros((0, 2))]
    for which in range(len(blobs)):
        reach = float(blobs.reach_um[which])
        steps = np.arange(-reach, reach + spacing_um, spacing_um)
        x, y = np.meshgrid(steps, steps * 0.87)
        x = x + (np.arange(len(steps)) % 2)[:, None] * spacing_um / 2
        points = np.column_stack([x.ravel(), y.ravel()]) + rng.normal(size=(x.size, 2)) * spacing_um * 0.2
        turn = rng.uniform(0, np.pi)
        points = points @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        points += blobs.centres_um[which]
        depth = blobs.depth(which, *points.T.astype(np.float32)) - fuzzy_um * np.abs(rng.normal(size=len(points)))
        # Here and there a cell is missing; nothing in tissue is a lattice.
        centres.append(points[(depth > inset_um) & (rng.random(len(points)) > 0.06)])
    joined = np.concatenate(centres)
    return Nuclei.of_kind(rng, kind, joined, rng.uniform(0, np.pi, len(joined)))


def _part(ground: Ground, nuclei: Nuclei) -> Nuclei:
    """Leave out the nuclei that would lie in the strands of stroma between nests."""
    centres = np.column_stack([nuclei.x_um, nuclei.y_um])
    return nuclei.take(ground.strands.at(centres) > -STRAND_LEVEL + 0.08)


def _line_glands(rng: np.random.Generator, glands: Glands) -> Nuclei:
    """Line each gland with one to two rows of columnar nuclei, long axis across the wall."""
    outlines = glands.outlines
    if len(outlines) == 0:
        return Nuclei.of_kind(rng, kinds.EPITHELIUM, np.zeros((0, 2)), np.zeros(0))
    tables = []
    for depth_um, spacing_um, missing in ((4.6, 6.1, 0.03), (8.6, 7.0, 0.5)):
        n_each = np.maximum(8, (2 * np.pi * (outlines.radii_um - depth_um) / spacing_um).astype(int))
        owner = np.repeat(np.arange(len(outlines)), n_each)
        step = np.arange(len(owner)) - np.repeat(np.cumsum(n_each) - n_each, n_each)
        angle = (step + rng.normal(size=len(owner)) * 0.16) / n_each[owner] * 2 * np.pi
        angle = (angle + rng.uniform(0, 6, len(outlines))[owner]).astype(np.float32)
        radius = outlines.radius_at(owner, angle) - depth_um - rng.normal(size=len(owner)) * 0.9
        kept = rng.random(len(owner)) > missing
        owner, angle, radius = owner[kept], angle[kept], radius[kept]
        centres = outlines.centres_um[owner] + radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        row = Nuclei.of_kind(rng, kinds.EPITHELIUM, centres, angle + rng.normal(size=len(owner)) * 0.25)
        row.stain[:] *= glands.darkness[owner]
        tables.append(row)
    return Nuclei.join(tables)


def _line_vessels(rng: np.random.Generator, vessels: Blobs) -> Nuclei:
    """Lay flat nuclei along the walls of vessels."""
    n_each = np.maximum(3, (vessels.radii_um / 3.5).astype(int))
    owner = np.repeat(np.arange(len(vessels)), n_each)
    angle = rng.uniform(0, 2 * np.pi, len(owner)).astype(np.float32)
    radius = vessels.radius_at(owner, angle) if len(owner) else np.zeros(0, dtype=np.float32)
    centres = vessels.centres_um[owner] + radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    return Nuclei.of_kind(rng, kinds.ENDOTHELIUM, centres, angle + np.pi / 2)


def _sow_fibroblasts(rng: np.random.Generator, room: Room, fibres: Fibres) -> Nuclei:
    """Sow spindle cells over the stroma, along its fibres."""
    per_mm2 = rng.uniform(500, 1100)
    points = room.find_places(rng, 0, int(room.tissue_um2 / 1e6 * per_mm2))
    points = points + rng.uniform(-4, 4, points.shape)
    angle = fibres.directions_at(points) + rng.normal(size=len(points)) * 0.2
    return Nuclei.of_kind(rng, kinds.FIBROBLAST, points, angle)


def _sow_inflammation(rng: np.random.Generator, ground: Ground, room: Room, structures: Structures) -> Nuclei:
    """Sow lymphocytes and plasma cells: everywhere a few, many where the stroma is inflamed and around aggregates."""
    per_mm2 = rng.uniform(1500, 3500)
    points = room.find_places(rng, 0, int(room.tissue_um2 / 1e6 * per_mm2)) + 0.0
    points += rng.uniform(-4, 4, points.shape)
    level = rng.uniform(0.3, 1.5)
    chance = 0.05 + 0.9 / (1 + np.exp(-5 * (ground.inflamed.at(points) - level)))
    points = points[rng.random(len(points)) < chance]
    halo = [np.zeros((0, 2))]
    for centre, reach in zip(structures.aggregates.centres_um, structures.aggregates.radii_um, strict=True):
        angle = rng.uniform(0, 2 * np.pi, int(reach * 1.6))
        radius = reach * (0.95 + np.abs(rng.normal(size=len(angle))) * 0.22)
        halo.append(centre + radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)]))
    around = np.concatenate(halo)
    points = np.concatenate([points, around[room.is_free(around)]])
    is_plasma = rng.random(len(points)) < 0.3
    return Nuclei.join(
        [
            Nuclei.of_kind(rng, kind, part, rng.uniform(0, np.pi, len(part)))
            for kind, part in ((kinds.LYMPHOCYTE, points[~is_plasma]), (kinds.PLASMA, points[is_plasma]))
        ]
    )
