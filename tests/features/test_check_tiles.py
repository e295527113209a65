"""Real tiles for the check of a precision: of the slides that can be read, however many come first that cannot."""

from concurrent.futures import Future

import pytest

from lamella.cohort import gather_slides
from lamella.errors import SlideError
from lamella.features.check_tiles import gather_check_tiles
from lamella.features.plan import CutSettings, TilePlan, plan_slide
from lamella.tiles import TileSpec
from tests.tiny import draw_tissue, save_slide

CUT = CutSettings(spec=TileSpec(tile_px=64, mpp=0.5))


def fail() -> Future[TilePlan]:
    plan: Future[TilePlan] = Future()
    plan.set_exception(SlideError("slide 'S-1.tif' is damaged"))
    return plan


def test_where_no_slide_can_be_read_the_first_says_why() -> None:
    with pytest.raises(SlideError, match=r"S-1.tif"):
        gather_check_tiles([fail()], CUT, n_slides=1)


def test_a_slide_that_can_be_read_is_found_behind_many_that_cannot(tmp_path) -> None:
    slide = gather_slides([save_slide(tmp_path / "S-2.tif", draw_tissue(1))]).slides[0]
    plan: Future[TilePlan] = Future()
    plan.set_result(plan_slide(slide, CUT))
    tiles = gather_check_tiles([*(fail() for _ in range(20)), plan], CUT, n_slides=21)
    assert tiles.shape == (96, 64, 64, 3)
    assert tiles.std() > 1
    plan.result().slide.close()
