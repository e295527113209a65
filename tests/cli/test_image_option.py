"""Of a file that holds several images, --image or the column slide_image says which is read."""

import json

import cv2
import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.features.bag import load_patches
from tests.tiny import draw_tissue


@pytest.fixture
def two_scans(tmp_path):
    """A TIFF of two scans: the first of 620 x 500 px, the second smaller, 400 x 300."""
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "deflate", "metadata": None}
    options |= {"resolution": (20000, 20000), "resolutionunit": 3}
    with tifffile.TiffWriter(tmp_path / "S.tif") as file:
        file.write(draw_tissue(1), **options)
        file.write(draw_tissue(2, width=400, height=300), **options)
    return tmp_path


def place(folder, out, *more):
    arguments = ["--tile-px", "64", "--mpp", "0.5", "--out", str(folder / out), *more]
    done = CliRunner().invoke(build_app(), ["tiles", str(folder / "S.tif"), *arguments])
    path = next((folder / out).rglob("S_patches.h5"), None)
    return done, None if path is None else load_patches(path)[1]


@pytest.mark.parametrize(("more", "width"), [((), 620), (("--image", "1"), 620), (("--image", "2"), 400)])
def test_the_image_that_is_named_is_read(two_scans, more, width):
    done, stated = place(two_scans, "out", *more)
    assert done.exit_code == 0, done.output
    assert stated["slide_width"] == width
    assert ("--image chooses another" in done.output) == (not more)


def test_the_column_rules_over_the_option(two_scans):
    (two_scans / "cohort.csv").write_text("slide,slide_id,slide_image\nS.tif,S,2\n")
    arguments = ["tiles", str(two_scans / "cohort.csv"), "--tile-px", "64", "--mpp", "0.5", "--image", "1"]
    done = CliRunner().invoke(build_app(), [*arguments, "--out", str(two_scans / "out")])
    assert done.exit_code == 0, done.output
    path = next((two_scans / "out").rglob("S_patches.h5"))
    assert load_patches(path)[1]["slide_width"] == 400


def test_tiles_of_another_image_are_not_taken_for_these(two_scans):
    assert place(two_scans, "out", "--image", "2")[0].exit_code == 0
    done, _ = place(two_scans, "out")
    assert done.exit_code == 1
    assert "slide_image" in done.output


def test_an_image_that_is_not_there_is_refused_with_those_that_are(two_scans):
    done, _ = place(two_scans, "out", "--image", "3")
    assert done.exit_code == 1
    assert "no such image: it holds 1 (620 x 500); 2 (400 x 300)" in done.output


def test_audit_names_all_images_and_looks_at_the_one_that_is_named(two_scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where audit.csv goes
    asked = ["audit", str(two_scans), "--unlabelled", "--tile-px", "64", "--mpp", "0.5", "--json"]
    done = CliRunner().invoke(build_app(), [*asked, "--image", "2"])
    (row,) = json.loads(done.stdout)["slides"]
    assert (row["width"], row["height"]) == (400, 300)
    done = CliRunner().invoke(build_app(), asked)
    assert "1 (620 x 500); 2 (400 x 300)" in done.stdout


def test_a_file_of_one_image_has_no_second(tmp_path):
    cv2.imwrite(str(tmp_path / "S.tif"), np.full((300, 400, 3), 240, np.uint8))
    done = CliRunner().invoke(
        build_app(), ["tiles", str(tmp_path / "S.tif"), "--image", "2", "--out", str(tmp_path / "o")]
    )
    assert done.exit_code == 1
    assert "no such image" in done.output
