"""The text index of a slide of several files, with numbers that no slide has."""

import re

import numpy as np
import pytest

from lamella.errors import SlideError
from lamella.slide import open_slide
from lamella.slide.index_claims import refuse_index_claims
from tests.slide.mirax import write_mirax


@pytest.fixture
def slide(tmp_path):
    scan = np.random.default_rng(0).integers(0, 255, (256, 512, 3), dtype=np.uint8)
    write_mirax(tmp_path / "S-1.mrxs", scan, (4, 8), (16, 20))
    return tmp_path / "S-1.mrxs"


@pytest.mark.parametrize(
    ("key", "value"),
    [("OVERLAP_Y", "NaN"), ("OVERLAP_X", "inf"), ("FILE_COUNT", "2147483647"), ("HIER_0_COUNT", "99999999"),
     ("CameraImageDivisionsPerSide", "2147483647"), ("MICROMETER_PER_PIXEL_X", "-Infinity")],
)  # fmt: skip
def test_a_number_that_no_slide_has_is_one_line(slide, key, value):
    index = slide.with_suffix("") / "Slidedat.ini"
    changed = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", index.read_text())
    assert changed != index.read_text()
    index.write_text(changed)
    with pytest.raises(SlideError, match=re.escape(f"states {key} = {value} in 'Slidedat.ini'")):
        open_slide(slide)


def test_a_slide_called_nan_is_opened(slide):
    index = slide.with_suffix("") / "Slidedat.ini"
    index.write_text(index.read_text().replace("[GENERAL]", "[GENERAL]\nSLIDE_NAME = Nan", 1))
    with open_slide(slide) as opened:
        assert opened.size[0] >= 512


def test_a_vms_index_that_counts_beyond_reason_is_refused(tmp_path):
    entries = ["[Virtual Microscope Specimen]", "NoLayers=1", "PhysicalMacroWidth=75840000", "NoJpegColumns=99999999"]
    path = tmp_path / "S-1.vms"
    path.write_text("\r\n".join(entries))
    with pytest.raises(SlideError, match="NoJpegColumns = 99999999"):
        refuse_index_claims(path)
