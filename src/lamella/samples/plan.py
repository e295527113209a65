"""Plan: what lies where on one slide, in um, before a pixel is drawn.

A plan is small (tables of outlines and cells), so any part of a slide can be painted from it on its own.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lamella.samples.cells import populate
from lamella.samples.fibres import Fibres
from lamella.samples.ground import Ground, Room
from lamella.samples.nuclei import Nuclei
from lamella.samples.recipe import SlideRecipe
from lamella.samples.structures import Structures, place_lesions, place_structures

_FAT_CELL_UM = 58.0


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Everything that is painted on a slide.

    Attributes:
        ground: The tissue's outline and smooth properties.
        structures: Glands, vessels, lesions and decoys.
        nuclei: All nuclei.
        red_cells: Red blood cells.
        fat_cells: Tree of the adipocytes' centres `(x, y)`, um.
        fat_members: `(n,)` whether each of these is really fat.
        fibres: Course of the collagen.
        extra_stain: How much more the `stains` took, relative.
        tissue_um2: Area of the tissue, fat left out.
    """

    ground: Ground
    structures: Structures
    nuclei: Nuclei
    red_cells: Nuclei
    fat_cells: cKDTree
    fat_members: NDArray[np.bool_]
    fibres: Fibres
    extra_stain: float
    tissue_um2: float


def plan_slide(recipe: SlideRecipe) -> Plan:
    """Return the plan of a slide; it depends on nothing but the recipe."""
    # Each part has a generator of its own, so that tissue and fibres are the same with and without a lesion.
    outline_rng, lesion_rng, structure_rng, fibre_rng, cell_rng = (
        np.random.default_rng([101, recipe.seed, part]) for part in range(5)
    )
    size_um = (recipe.size[0] * recipe.mpp, recipe.size[1] * recipe.mpp)
    ground = Ground.draw(outline_rng, size_um)
    room = Room(ground)
    lesions = place_lesions(lesion_rng, room, recipe.lesion_share)
    structures = place_structures(structure_rng, room, lesions)
    fibres = Fibres.draw(fibre_rng, size_um)
    nuclei, red_cells = populate(cell_rng, ground, room, structures, fibres)
    centres, members = _place_fat_cells(outline_rng, ground)
    fat_cells = cKDTree(centres)
    nuclei = _clear_fat(nuclei, fat_cells, members)
    return Plan(
        ground,
        structures,
        nuclei,
        red_cells,
        fat_cells,
        members,
        fibres,
        float(structure_rng.uniform(0.2, 0.45)),
        room.tissue_um2,
    )


def _place_fat_cells(rng: np.random.Generator, ground: Ground) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Place adipocytes over the whole slide, on a jittered hexagonal lattice; say which really are fat."""
    width, height = ground.size_um
    columns, rows = np.meshgrid(
        np.arange(-1, width / _FAT_CELL_UM + 2), np.arange(-1, height / (_FAT_CELL_UM * 0.87) + 2)
    )
    centres = np.column_stack(
        [((columns + 0.5 * (rows % 2)) * _FAT_CELL_UM).ravel(), (rows * _FAT_CELL_UM * 0.87).ravel()]
    )
    centres += rng.normal(size=centres.shape) * _FAT_CELL_UM * 0.16
    members = ground.fat.at(centres) > ground.fat_level
    return centres, members


def _clear_fat(nuclei: Nuclei, fat_cells: cKDTree, members: NDArray[np.bool_]) -> Nuclei:
    """Leave out the nuclei that would lie within adipocytes."""
    distance, owner = fat_cells.query(np.column_stack([nuclei.x_um, nuclei.y_um]), k=2)
    return nuclei.take(~(members[owner[:, 0]] & (distance[:, 1] - distance[:, 0] > 2.5)))
