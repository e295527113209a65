"""What to draw: the recipe of one slide, and what came of it."""

from dataclasses import dataclass
from pathlib import Path

from shapely import Polygon

from lamella.defaults import DEMO_SLIDES as DEMO_SLIDES
from lamella.errors import SettingsError

BENIGN = "benign"
TUMOUR = "tumour"

# The demo: with these a cohort is drawn, tiled, encoded, trained and reported in a few minutes on two cores.
DEMO_TILE_PX = 160
DEMO_MPP = 0.5
DEMO_STRIDE_PX = 160
DEMO_SIZE = (2560, 2176)

MAX_LESION_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideRecipe:
    """Everything that decides how a slide looks; the same recipe draws the same bytes.

    Attributes:
        seed: Seed of the tissue: outline, glands, cells, lesions.
        size: `(width, height)` of level 0, in pixels.
        mpp: Resolution of level 0, in um per pixel.
        lesion_share: Share of the tissue (fat left out) that is lesion, 0 for a benign slide, at most 0.05.
        batch: Number of the laboratory batch; slides of one batch share stain and scanner, up to a small difference.
        pen: Whether somebody marked the glass with a pen.

    Raises:
        SettingsError: If a value cannot be drawn.
    """

    seed: int
    size: tuple[int, int] = DEMO_SIZE
    mpp: float = DEMO_MPP
    lesion_share: float = 0.0
    batch: int = 0
    pen: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not 0.1 <= self.mpp <= 4:
            raise SettingsError(
                f"a sample slide is asked for at {self.mpp} um/px and cells are drawn from 0.1 to 4. Ask for mpp=0.5."
            )
        extent_um = min(self.size) * self.mpp
        if extent_um < 200:
            raise SettingsError(
                f"a sample slide of {self.size[0]} x {self.size[1]} px at {self.mpp:g} um/px is {extent_um:.0f} um "
                f"across and needs 200. Ask for at least {-(-200 // self.mpp):.0f} px."
            )
        if not 0 <= self.lesion_share <= MAX_LESION_SHARE:
            raise SettingsError(
                f"the lesion is asked to cover {self.lesion_share} of the tissue and may cover from 0 to "
                f"{MAX_LESION_SHARE}. Ask for lesion_share=0.04, or 0 for a benign slide."
            )
        if self.seed < 0 or self.batch < 0:
            raise SettingsError(
                f"seed is {self.seed} and batch {self.batch}; both count from 0. Pass numbers that are not negative."
            )

    @property
    def label(self) -> str:
        """The slide's label: "tumour" where a lesion is asked for, "benign" otherwise."""
        return TUMOUR if self.lesion_share > 0 else BENIGN


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSlide:
    """A drawn slide and the truth about it.

    Attributes:
        path: The pyramidal TIFF.
        recipe: What it was drawn from.
        lesions: Outlines of the lesions, in level-0 pixels; empty on a benign slide.
        tissue_px: Area of the tissue, fat left out, in level-0 pixels.
    """

    path: Path
    recipe: SlideRecipe
    lesions: tuple[Polygon, ...]
    tissue_px: float

    @property
    def mpp(self) -> float:
        """Resolution of level 0, in um per pixel."""
        return self.recipe.mpp

    @property
    def label(self) -> str:
        """The slide's label."""
        return self.recipe.label

    @property
    def lesion_share(self) -> float:
        """Share of the tissue that the outlines really cover, 0 to 1."""
        return sum(lesion.area for lesion in self.lesions) / self.tissue_px
