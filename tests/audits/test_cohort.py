"""The audit: what would go wrong with each slide, before anything long is started."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lamella.audits import (
    AUDIT_COLUMNS,
    Audit,
    AuditRow,
    audit_cohort,
    audit_slide,
    estimate_cost,
    measure_blur,
    save_audit,
)
from lamella.cohort import Cohort, CohortSlide, load_cohort, split_folds
from lamella.tiles import TileSpec
from lamella.tissue import RegionChoice

SPEC = TileSpec(tile_px=128, mpp=0.5, stride_px=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How slides are cut, without the rest of the pipeline."""

    spec: TileSpec = SPEC
    tissue: str = "glass"
    max_upsample: float = 1.10
    include: Path | None = None

    @property
    def regions(self) -> tuple[RegionChoice, ...]:
        return (RegionChoice(kind="include", path=self.include),)


def draw_tissue_picture(seed: int = 0, *, width: int = 1600, height: int = 1100) -> NDArray[np.uint8]:
    """Glass with a purple, textured block off the centre: `(height, width, 3)` RGB."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 244, np.uint8)
    block = cv2.GaussianBlur(rng.integers(0, 255, (600, 800)).astype(np.uint8), (0, 0), 1.0)
    picture[100:700, 150:950] = np.stack([170 + block // 6, 90 + block // 3, 160 + block // 8], axis=2)
    return picture


def save_picture(path: Path, picture: NDArray[np.uint8]) -> Path:
    cv2.imwrite(str(path), picture[:, :, ::-1])
    return path


def slide(path: Path, **values: object) -> CohortSlide:
    given = {"slide_id": path.stem, "patient_id": path.stem, "path": path, "label": "x", "slide_mpp": 0.5}
    return CohortSlide(**(given | values))  # type: ignore[arg-type]


def test_a_good_slide_has_no_problem_and_all_its_figures(tmp_path: Path) -> None:
    row = audit_slide(slide(save_picture(tmp_path / "S-1.png", draw_tissue_picture())), Cut())
    assert row.problems == ()
    assert row.readable
    assert (row.width, row.height, row.n_levels) == (1600, 1100, 1)
    assert (row.mpp_x, row.mpp_y, row.mpp_source) == (0.5, 0.5, "given")
    assert row.tissue_share == pytest.approx(800 * 600 / (1600 * 1100), rel=0.1)
    assert row.tissue_mm2 == pytest.approx(0.4 * 0.3, rel=0.1)
    assert row.n_tiles is not None
    assert 60 < row.n_tiles < 130
    assert row.blur_um is not None
    assert 0.2 < row.blur_um < 1.0
    assert len(row.quick_hash) == 64
    assert row.n_bytes == (tmp_path / "S-1.png").stat().st_size
    assert row.tile_seconds is not None
    assert row.pen_share == 0


def test_what_the_audit_expects_is_what_the_grid_places(tmp_path: Path) -> None:
    from lamella.slide import open_slide
    from lamella.tiles import place_tiles
    from lamella.tissue import find_tissue, thumbnail_mpp

    path = save_picture(tmp_path / "S-1.png", draw_tissue_picture())
    cut = Cut()
    with open_slide(path, slide_mpp=0.5) as opened:
        thumbnail = opened.read_thumbnail(thumbnail_mpp(128, 0.5))
        tissue = find_tissue(thumbnail, slide_size=opened.size, slide_mpp=opened.mpp)
        tiles = place_tiles(tissue.mask, cut.spec, slide_size=opened.size, slide_mpp=opened.mpp)
    assert audit_slide(slide(path), cut).n_tiles == len(tiles)


def problem(path: Path, cut: Cut | None = None, **values: object) -> str:
    row = audit_slide(slide(path, **values), cut or Cut())
    assert len(row.problems) == 1, row.problems
    return row.problems[0]


def test_each_thing_that_would_go_wrong_is_a_problem_with_a_remedy(tmp_path: Path) -> None:
    good = save_picture(tmp_path / "S-1.png", draw_tissue_picture())
    assert "there is no file" in problem(tmp_path / "S-9.svs")
    (tmp_path / "S-2.svs").touch()
    assert "S-2.svs" in problem(tmp_path / "S-2.svs")
    (tmp_path / "S-3.svs").write_text("not a slide at all\n" * 50)
    assert "S-3.svs" in problem(tmp_path / "S-3.svs")
    assert "--slide-mpp" in problem(good, slide_mpp=None)
    assert "coarser" in problem(good, Cut(spec=TileSpec(tile_px=128, mpp=0.25)))
    assert "Pass --tile-px" in problem(good, Cut(spec=TileSpec(tile_px=4096, mpp=0.5)))
    blank = save_picture(tmp_path / "S-4.png", np.full((700, 900, 3), 243, np.uint8))
    assert "holds no tissue" in problem(blank)
    small = draw_tissue_picture()
    small[:, 250:] = 244
    thin = save_picture(tmp_path / "S-5.png", small)
    assert "but no tile with more than 50% of it" in problem(thin, Cut(spec=TileSpec(tile_px=512, mpp=0.5)))


def test_a_truncated_slide_is_a_problem(tmp_path: Path, shared_data: Path) -> None:
    whole = (shared_data / "slides" / "CMU-1-Small-Region.svs").read_bytes()
    (tmp_path / "cut.svs").write_bytes(whole[: len(whole) // 2])
    row = audit_slide(slide(tmp_path / "cut.svs", slide_mpp=None), Cut())
    assert row.problems
    assert not row.readable


def test_a_slide_without_resolution_still_tells_what_it_has(tmp_path: Path) -> None:
    row = audit_slide(slide(save_picture(tmp_path / "S-1.png", draw_tissue_picture()), slide_mpp=None), Cut())
    assert (row.width, row.height, row.readable) == (1600, 1100, True)
    assert row.mpp_x is None


def test_a_magnification_that_does_not_fit_the_resolution_is_a_remark(shared_data: Path) -> None:
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    honest = audit_slide(slide(path, slide_mpp=None), Cut())
    assert honest.magnification == 20
    assert honest.magnification_agrees
    assert honest.problems == ()
    wrong = audit_slide(slide(path, slide_mpp=0.25), Cut())
    assert wrong.magnification_agrees is False
    assert "20x would be about 0.5 um/px but the resolution is 0.25 (given)" in wrong.remarks[-1]
    assert wrong.problems == ()


def test_a_resolution_that_is_not_the_files_is_a_remark(shared_data: Path) -> None:
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    remarks = " ".join(audit_slide(slide(path, slide_mpp=1.0), Cut()).remarks)
    assert "the file states 0.499 um/px and 1 is given" in remarks
    assert "the file states" not in " ".join(audit_slide(slide(path, slide_mpp=0.5), Cut()).remarks)


def test_a_blurred_slide_is_a_remark(tmp_path: Path) -> None:
    picture = cv2.GaussianBlur(draw_tissue_picture(), (0, 0), 8)
    row = audit_slide(slide(save_picture(tmp_path / "S-1.png", np.asarray(picture, np.uint8))), Cut())
    assert row.blur_um is not None
    assert row.blur_um > 1.3
    assert "out of focus" in row.remarks[-1]


@pytest.mark.parametrize("mpp", [0.25, 1.0])
def test_blur_is_told_in_um_whatever_the_contrast(mpp: float) -> None:
    edge = np.zeros((90, 160, 3), np.uint8)
    edge[:, 70:] = 220
    for sigma in (3.0, 5.0):
        blurred = np.asarray(cv2.GaussianBlur(edge, (0, 0), sigma), np.uint8)
        blur = measure_blur(blurred, mpp)
        assert blur == pytest.approx(mpp * (sigma**2 + 1) ** 0.5, rel=0.03)
        assert measure_blur(blurred // 4, mpp) == pytest.approx(blur, rel=0.1)
    assert measure_blur(np.full((90, 160, 3), 200, np.uint8), mpp) is None
    assert measure_blur(edge[:12, :12], mpp) is None


def test_one_bad_slide_never_stops_the_rest_and_the_order_is_kept(tmp_path: Path) -> None:
    paths = [save_picture(tmp_path / f"S-{n}.png", draw_tissue_picture(n)) for n in range(3)]
    paths.insert(1, tmp_path / "S-gone.png")
    audit = audit_cohort(Cohort(slides=tuple(slide(path) for path in paths)), Cut(), n_threads=3)
    assert [row.slide_id for row in audit.rows] == ["S-0", "S-gone", "S-1", "S-2"]
    assert [bool(row.problems) for row in audit.rows] == [False, True, False, False]
    assert not audit.ok


def test_the_same_image_under_two_ids_is_a_problem_of_both(tmp_path: Path) -> None:
    paths = [save_picture(tmp_path / f"S-{n}.png", draw_tissue_picture(n % 2)) for n in range(3)]
    audit = audit_cohort(Cohort(slides=tuple(slide(path) for path in paths)), Cut())
    assert [row.problems for row in audit.rows] == [
        ("slide 'S-0' is the same image as 'S-2' (the same bytes, or files of one slide). Keep one of them.",),
        (),
        ("slide 'S-2' is the same image as 'S-0' (the same bytes, or files of one slide). Keep one of them.",),
    ]


def test_a_patient_in_two_folds_is_a_problem_of_the_cohort(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "S-0.png", draw_tissue_picture())
    slides = tuple(slide(path, slide_id=f"S-{n}", patient_id="P", fold=n, label="xy"[n % 2]) for n in range(3))
    audit = audit_cohort(Cohort(slides=slides, classes=("x", "y")), Cut())
    assert audit.problems[0].startswith("patient 'P' is in both fold 0 and fold 1")


def test_regions_change_what_is_expected(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "S-1.png", draw_tissue_picture())
    outline = '{"type": "Polygon", "coordinates": [[[150, 100], [500, 100], [500, 700], [150, 700], [150, 100]]]}'
    (tmp_path / "regions").mkdir()
    (tmp_path / "regions" / "S-1.geojson").write_text(outline)
    whole = audit_slide(slide(path), Cut())
    part = audit_slide(slide(path), Cut(include=tmp_path / "regions"))
    assert whole.n_tiles is not None
    assert part.n_tiles is not None
    assert 0 < part.n_tiles < whole.n_tiles / 2
    other = audit_slide(slide(path, slide_id="S-other"), Cut(include=tmp_path / "regions"))
    assert other.n_tiles == whole.n_tiles


def test_the_table_has_a_row_a_slide_and_all_columns(tmp_path: Path) -> None:
    rows = (
        AuditRow(slide_id="S-1", mpp_x=0.252512345, n_tiles=12, problems=("one", "two, too")),
        AuditRow(slide_id="S-2"),
    )
    save_audit(Audit(rows=rows, problems=(), tile_px=224, n_threads=2), tmp_path / "audit.csv")
    with (tmp_path / "audit.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert tuple(table[0]) == AUDIT_COLUMNS
    assert (table[0]["mpp_x"], table[0]["problems"]) == ("0.25251", "one | two, too")
    assert (table[1]["n_tiles"], table[1]["readable"]) == ("", "False")


def test_slides_with_problems_cost_nothing() -> None:
    row = AuditRow(slide_id="S-1", n_tiles=500, tile_seconds=0.1)
    rows = (row, replace(row, slide_id="S-2", problems=("no",)), AuditRow(slide_id="S-3"))
    cost = estimate_cost(Audit(rows=rows, problems=(), tile_px=448, n_threads=4), embedding_dim=512)
    assert cost.n_tiles == 500
    assert cost.reading_seconds == pytest.approx(500 * 0.1 / 4)
    assert cost.encoding_seconds == pytest.approx(500 * 4 / (21 * 4))
    assert cost.seconds == max(cost.reading_seconds, cost.encoding_seconds)
    assert cost.n_bytes == 500 * (1024 + 32) + 2 * 65536


def test_the_real_cohort_is_ready(shared_data: Path) -> None:
    cohort = load_cohort(shared_data / "ucsb-breast" / "cohort.csv")
    cohort = replace(cohort, slides=cohort.slides[::2])
    audit = audit_cohort(split_folds(cohort), Cut(spec=TileSpec(tile_px=224, mpp=0.25, stride_px=112)))
    assert audit.ok, [row.problems for row in audit.rows if row.problems]
    assert all((row.width, row.height) == (896, 768) for row in audit.rows)
    kept = [(row.n_tiles or 0) / 35 for row in audit.rows]
    assert np.mean(kept) >= 0.75
    assert min(kept) >= 0.25


def test_both_broken_files_are_problems_and_the_others_are_told(shared_data: Path) -> None:
    paths = sorted(path for path in (shared_data / "slides").iterdir() if path.suffix != ".md")
    slides = tuple(slide(path, slide_mpp=None) for path in paths)
    audit = audit_cohort(Cohort(slides=slides), Cut(spec=TileSpec(tile_px=64, mpp=1.0)))
    rows = {row.slide_id: row for row in audit.rows}
    assert rows["CMU-1-Small-Region"].problems == ()
    assert "no tissue" in rows["test3-DAPI-2-387"].problems[0]
    assert rows["test3-DAPI-2-387"].n_levels == 7
    assert "--slide-mpp" in rows["prostate-slide"].problems[0]
    for name in ("openslide-unopenable", "openslide-unreadable"):
        assert rows[name].problems
        assert not rows[name].readable
