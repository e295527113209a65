"""Samples: synthetic slides and cohorts with known lesions, drawn from a seed.

They look like haematoxylin and eosin, not like any organ: enough to try every step of the pipeline and to know what
the right answer is. Nothing learned on them says anything about tissue.
"""

from lamella.samples.cohort import draw_cohort, plan_cohort
from lamella.samples.draw import draw_slide
from lamella.samples.outlines import save_outlines
from lamella.samples.recipe import (
    BENIGN,
    DEMO_MPP,
    DEMO_SIZE,
    DEMO_SLIDES,
    DEMO_STRIDE_PX,
    DEMO_TILE_PX,
    MAX_LESION_SHARE,
    TUMOUR,
    SampleSlide,
    SlideRecipe,
)

__all__ = [
    "BENIGN",
    "DEMO_MPP",
    "DEMO_SIZE",
    "DEMO_SLIDES",
    "DEMO_STRIDE_PX",
    "DEMO_TILE_PX",
    "MAX_LESION_SHARE",
    "TUMOUR",
    "SampleSlide",
    "SlideRecipe",
    "draw_cohort",
    "draw_slide",
    "plan_cohort",
    "save_outlines",
]
