"""Painter: any rectangle of a slide from its plan, seamless with its neighbours.

Smooth things (outlines, directions) are computed on nodes four pixels apart and enlarged; fibres, nuclei and grain at
every pixel. Amounts of haematoxylin and eosin are painted, and turned into colour at the end.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lamella.samples.marks import Marks
from lamella.samples.nuclei import stamp
from lamella.samples.plan import Plan
from lamella.samples.stain import StainStyle, develop
from lamella.samples.textures import (
    FIBRE_TEXEL_UM,
    crop_texture,
    fibre_texture,
    grain_texture,
    look_up,
    smoothstep,
)

Floats = NDArray[np.float32]

STEP = 4  # pixels between nodes
_HALO = 8  # pixels painted around a rectangle, so that blur and nuclei cross its edge


@dataclass(slots=True, eq=False)
class _Canvas:
    """A rectangle being painted: its place, and the two stains so far.

    Attributes:
        corner_px: `(x, y)` of the first pixel, halo included, level 0.
        mpp: Resolution, in um per pixel.
        x_um: Columns of the nodes, one more around than the rectangle needs.
        y_um: Rows of the nodes.
        haematoxylin: `(h, w)` float32.
        eosin: `(h, w)` float32.
    """

    corner_px: tuple[int, int]
    mpp: float
    x_um: Floats
    y_um: Floats
    haematoxylin: Floats
    eosin: Floats

    @classmethod
    def open(cls, corner_px: tuple[int, int], size: tuple[int, int], mpp: float) -> "_Canvas":
        """Return an empty canvas over a rectangle and its halo; `corner_px` is a multiple of `STEP`."""
        left, top = corner_px[0] - _HALO, corner_px[1] - _HALO
        n_columns, n_rows = (-(-(extent + 2 * _HALO) // STEP) + 2 for extent in size)
        x_um = ((left + (np.arange(n_columns) - 1) * STEP + STEP / 2) * mpp).astype(np.float32)
        y_um = ((top + (np.arange(n_rows) - 1) * STEP + STEP / 2) * mpp).astype(np.float32)
        empty = np.zeros((size[1] + 2 * _HALO, size[0] + 2 * _HALO), dtype=np.float32)
        return cls((left, top), mpp, x_um, y_um, empty, empty.copy())

    def enlarge(self, nodes: Floats) -> Floats:
        """Return values on nodes at every pixel, `(h, w)` float32."""
        height, width = self.eosin.shape
        size = (nodes.shape[1] * STEP, nodes.shape[0] * STEP)
        full = cv2.resize(np.ascontiguousarray(nodes, dtype=np.float32), size, interpolation=cv2.INTER_LINEAR)
        return np.asarray(full, dtype=np.float32)[STEP : STEP + height, STEP : STEP + width]

    def grain(self, seed: int, sigma_um: float) -> Floats:
        """Return fine isotropic noise of unit variance at every pixel."""
        height, width = self.eosin.shape
        texture = grain_texture(seed, round(sigma_um / self.mpp, 3))
        return crop_texture(texture, self.corner_px, (width, height))

    def lay(self, cover: Floats, haematoxylin: Floats | float, eosin: Floats | float) -> None:
        """Replace what is there by other amounts, as far as `cover` (0 to 1) goes."""
        self.haematoxylin += (haematoxylin - self.haematoxylin) * cover
        self.eosin += (eosin - self.eosin) * cover


def paint(
    plan: Plan, style: StainStyle, marks: Marks, corner_px: tuple[int, int], size: tuple[int, int], mpp: float
) -> NDArray[np.uint8]:
    """Return a rectangle of the slide.

    Args:
        plan: What lies where.
        style: Stain and scanner.
        marks: Pen and dust on the glass.
        corner_px: `(x, y)` of its first pixel, level 0; multiples of four.
        size: `(width, height)` in level-0 pixels.
        mpp: Resolution of level 0, in um per pixel.

    Returns:
        `(h, w, 3)` uint8 RGB.
    """
    canvas = _Canvas.open(corner_px, size, mpp)
    tissue = plan.ground.tissue_depth(canvas.x_um, canvas.y_um)
    if tissue.max() > -15:
        _paint_tissue(canvas, plan, tissue)
        sigma = max(style.blur_um / mpp, 0.3)
        for layer in (canvas.haematoxylin, canvas.eosin):
            cv2.GaussianBlur(layer, (0, 0), sigma, dst=layer)
    inner = slice(_HALO, -_HALO), slice(_HALO, -_HALO)
    haematoxylin = np.ascontiguousarray(canvas.haematoxylin[inner])
    eosin = np.ascontiguousarray(canvas.eosin[inner])
    return develop(haematoxylin, eosin, marks.paint(corner_px, size, mpp), style, corner_px)


def _paint_tissue(canvas: _Canvas, plan: Plan, tissue: Floats) -> None:
    """Paint everything that is tissue, from the ground up."""
    fibres, bundles = _comb_fibres(canvas, plan)
    _paint_stroma(canvas, plan, fibres, bundles)
    _paint_fat(canvas, plan)
    _paint_masses(canvas, plan, fibres)
    _paint_glands(canvas, plan)
    _paint_vessels(canvas, plan)
    nuclei = np.zeros_like(canvas.eosin)
    height, width = nuclei.shape
    left, top = canvas.corner_px[0] * canvas.mpp, canvas.corner_px[1] * canvas.mpp
    box = (left, top, left + width * canvas.mpp, top + height * canvas.mpp)
    stamp(nuclei, plan.nuclei.within(*box), corner_px=canvas.corner_px, mpp=canvas.mpp)
    canvas.eosin *= 1 - 0.45 * nuclei.clip(0, 1)
    canvas.haematoxylin += 2.6 * np.tanh(nuclei / 2.6)
    # Thickness, over-staining and the tissue's ragged edge act on both stains.
    cover = smoothstep(canvas.enlarge(tissue.clip(-60, 60)) + 1.6 * fibres + 0.8 * canvas.grain(8, 4.0), -1.6, 1.6)
    cover *= canvas.enlarge(_find_thickness(canvas, plan))
    canvas.haematoxylin *= cover
    canvas.eosin *= cover


def _find_thickness(canvas: _Canvas, plan: Plan) -> Floats:
    """Return, over the nodes, by how much the section's thickness and stain multiply both dyes."""
    stains, _ = plan.structures.stains.paint_depth(canvas.x_um, canvas.y_um, 50)
    thickness = 1 + 0.10 * plan.ground.thick.on_grid(canvas.x_um, canvas.y_um).clip(-2, 2)
    more: Floats = thickness * (1 + plan.extra_stain * smoothstep(stains, -35, 35))
    return more


def _comb_fibres(canvas: _Canvas, plan: Plan) -> tuple[Floats, Floats]:
    """Return the texture of fine fibres and of their bundles, each of about unit variance."""
    share = canvas.enlarge(plan.fibres.first_share(canvas.x_um, canvas.y_um))
    fibres, bundles = np.zeros_like(share), np.zeros_like(share)
    for system, weight in enumerate((share, 1 - share)):
        if weight.max() == 0:
            continue
        along, across = plan.fibres.coordinates(system, canvas.x_um, canvas.y_um)
        # The second system looks up another part of the texture.
        along = canvas.enlarge(along / FIBRE_TEXEL_UM + 777 * system)
        across = canvas.enlarge(across / FIBRE_TEXEL_UM + 777 * system)
        bundles += weight * look_up(fibre_texture(1), along * np.float32(0.37), across * np.float32(0.31))
        fibres += weight * look_up(fibre_texture(0), along, across)
    return fibres, bundles


def _paint_stroma(canvas: _Canvas, plan: Plan, fibres: Floats, bundles: Floats) -> None:
    """Paint collagen: bundles of fibres, pale between them, with clefts where the stroma is loose."""
    loose = canvas.enlarge(plan.ground.looseness(canvas.x_um, canvas.y_um))
    wavy = plan.fibres.fineness * fibres + (1.1 - plan.fibres.fineness) * bundles
    eosin = (0.66 - 0.26 * loose) * (1 + 0.34 * wavy + 0.08 * canvas.grain(5, 0.5))
    cleft = smoothstep(wavy - 0.75 * loose, -1.75, -1.2)  # 0 within a cleft
    canvas.eosin[:] = eosin.clip(0.05, 1.5) * (0.12 + 0.88 * cleft)
    canvas.haematoxylin[:] = (0.085 + 0.05 * loose + 0.03 * fibres).clip(0.01, None) * (0.2 + 0.8 * cleft)


def _paint_fat(canvas: _Canvas, plan: Plan) -> None:
    """Paint adipocytes: empty cells with thin pink walls."""
    near = plan.ground.fat_depth(canvas.x_um, canvas.y_um) > -90
    if not near.any():
        return
    rows, columns = np.nonzero(near)
    points = np.column_stack([canvas.x_um[columns], canvas.y_um[rows]])
    distance, owner = plan.fat_cells.query(points, k=2)
    wall = np.full(near.shape, -5, dtype=np.float32)
    member = plan.fat_members[owner]
    depth = (distance[:, 1] - distance[:, 0]) / 2
    wall[rows, columns] = np.where(member[:, 0], depth, -np.where(member[:, 1], depth, 5))
    inside = canvas.enlarge(wall)
    near_fat = smoothstep(inside, -2.6, -0.6)
    canvas.lay(near_fat, 0.06, 0.42)
    canvas.lay(smoothstep(inside, 0.7, 2.0), 0.0, 0.015)


def _paint_masses(canvas: _Canvas, plan: Plan, fibres: Floats) -> None:
    """Paint the ground between the cells of aggregates, solid nests and lesions."""
    structures = plan.structures
    masses = (
        (structures.aggregates, 10.0, 0.26, 0.24),
        (structures.nests, 2.5, 0.26, 0.40),
        (structures.lesions, 2.5, 0.27, 0.40),
    )
    for blobs, softness_um, haematoxylin, eosin in masses:
        depth, _ = blobs.paint_depth(canvas.x_um, canvas.y_um, 2 * softness_um)
        if depth.max() > -2 * softness_um:
            if blobs is structures.lesions:
                depth = np.minimum(depth, plan.ground.nest_depth(canvas.x_um, canvas.y_um))
            cover = smoothstep(canvas.enlarge(depth.clip(-60, 60)) + fibres, -softness_um, softness_um)
            grain = canvas.grain(6, 0.9)
            canvas.lay(cover, haematoxylin * (1 + 0.18 * grain), eosin * (1 + 0.16 * grain))


def _paint_glands(canvas: _Canvas, plan: Plan) -> None:
    """Paint glands: basement membrane, epithelial cytoplasm, pale lumen with some secretion."""
    glands = plan.structures.glands
    depth, owner = glands.outlines.paint_depth(canvas.x_um, canvas.y_um, 12)
    if depth.max() < -12:
        return
    wall = np.concatenate([glands.wall_um, [12]])[owner]
    secretion = canvas.enlarge(np.concatenate([glands.secretion, [0]])[owner].astype(np.float32))
    inside = canvas.enlarge(depth.clip(-40, 60))
    lumen = canvas.enlarge((depth - wall).clip(-60, 60))
    grain = canvas.grain(6, 0.9)
    halo = np.exp(-(((inside + 3.5) / 3.0) ** 2))
    canvas.lay(0.55 * halo, 0.07, 0.62)
    canvas.lay(smoothstep(inside, -1.0, 1.0), 0.20 * (1 + 0.2 * grain), 0.40 * (1 + 0.16 * grain))
    rough = lumen + 0.9 * grain
    canvas.lay(smoothstep(rough, -1.0, 1.0), 0.0, 0.02)
    held = smoothstep(lumen + 3 * canvas.grain(8, 5.0), 3.0, 9.0) * secretion
    canvas.lay(held, 0.04, 0.36 * (1 + 0.2 * grain))


def _paint_vessels(canvas: _Canvas, plan: Plan) -> None:
    """Paint small vessels: a pink wall, a lumen, red cells in it."""
    depth, _ = plan.structures.vessels.paint_depth(canvas.x_um, canvas.y_um, 8)
    if depth.max() < -8:
        return
    inside = canvas.enlarge(depth.clip(-40, 60))
    canvas.lay(0.8 * np.exp(-((inside / 2.4) ** 2)), 0.12, 0.72)
    canvas.lay(smoothstep(inside, 2.0, 4.0), 0.0, 0.03)
    height, width = canvas.eosin.shape
    left, top = canvas.corner_px[0] * canvas.mpp, canvas.corner_px[1] * canvas.mpp
    box = (left, top, left + width * canvas.mpp, top + height * canvas.mpp)
    stamp(canvas.eosin, plan.red_cells.within(*box), corner_px=canvas.corner_px, mpp=canvas.mpp)
