"""Damaged files are refused in one clear line, and never take the process with them."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lamella.errors import SlideError
from lamella.slide import open_slide
from lamella.slide.guard import find_scan
from lamella.slide.tiff import load_tiff_pages


def read_all(path):
    """Open a slide and read all of level 0."""
    with open_slide(path) as slide:
        return slide.read_region((0, 0), 0, slide.size)


def refusal(path) -> str:
    """The message a file is refused with, checked to be one line that names the file."""
    with pytest.raises(SlideError) as caught:
        read_all(path)
    message = str(caught.value)
    assert "\n" not in message
    assert f"'{path.name}'" in message
    assert not set(message) & set("!")
    return message


def test_a_slide_cut_in_half_is_refused(shared_data, tmp_path):
    content = (shared_data / "slides" / "CMU-1-Small-Region.svs").read_bytes()
    path = tmp_path / "half.svs"
    path.write_bytes(content[: len(content) // 2])
    assert "cut short" in refusal(path)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.9, 0.999])
def test_a_pyramid_cut_anywhere_is_refused(jpeg_pyramid, tmp_path, share):
    content = jpeg_pyramid.read_bytes()
    path = tmp_path / "cut.tiff"
    path.write_bytes(content[: int(len(content) * share)])
    refusal(path)


@pytest.mark.parametrize("name", ["openslide-unreadable.svs", "openslide-unopenable.tiff"])
def test_slides_broken_on_purpose_are_refused(shared_data, name):
    refusal(shared_data / "slides" / name)


def test_a_broken_tile_header_does_not_end_the_process(shared_data):
    code = (
        "import sys; from lamella.slide import open_slide\ntry: open_slide(sys.argv[1])\nexcept OSError as e: print(e)"
    )
    path = shared_data / "slides" / "openslide-unreadable.svs"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "Bogus marker length" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(("n_tile", "what"), [(20, "header"), (20, "marker"), (20, "zeros"), (20, "end")])
def test_damage_inside_one_tile_is_found_and_the_others_still_read(jpeg_pyramid, scene, tmp_path, n_tile, what):
    page = load_tiff_pages(jpeg_pyramid)[0]
    start, n_bytes = int(page.offsets[n_tile]), int(page.n_bytes[n_tile])
    content = bytearray(jpeg_pyramid.read_bytes())
    half = start + n_bytes // 2
    if what == "header":
        content[start : start + 2] = b"\0\0"
    elif what == "marker":
        content[half : half + 4] = b"\xff\xc4\xff\xff"
    elif what == "zeros":
        content[half : start + n_bytes] = bytes(start + n_bytes - half)
    else:
        content[half : half + 2] = b"\xff\xd9"
    path = tmp_path / f"{what}.tiff"
    path.write_bytes(content)
    refusal(path)
    with open_slide(path) as slide:
        corner = 8 * 128, 0  # the tile's row is the third
        assert np.abs(slide.read_region(corner, 0, (60, 50)).astype(int) - scene[:50, 1024:1084]).mean() < 10


def test_random_damage_never_does_worse_than_an_error(jpeg_pyramid, tmp_path):
    page = load_tiff_pages(jpeg_pyramid)[0]
    good, rng = jpeg_pyramid.read_bytes(), np.random.default_rng(3)
    n_refused = 0
    for _ in range(25):
        content, tile = bytearray(good), int(rng.integers(page.offsets.size))
        at = int(page.offsets[tile] + rng.integers(page.n_bytes[tile] - 60))
        content[at : at + 60] = rng.integers(0, 256, 60, dtype=np.uint8).tobytes()
        path = tmp_path / "noise.tiff"
        path.write_bytes(content)
        try:
            read_all(path)
        except SlideError:
            n_refused += 1
    assert n_refused >= 5  # noise that decodes without a warning cannot be told from an image


def test_deflate_tiles_are_checked_by_their_reader(pyramid, tmp_path):
    page = load_tiff_pages(pyramid)[0]
    content = bytearray(pyramid.read_bytes())
    at = int(page.offsets[5] + page.n_bytes[5] // 2)
    content[at : at + 50] = bytes(range(50))
    path = tmp_path / "deflate.tiff"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_plain_image_cut_short_is_refused(scene, tmp_path, suffix):
    Image.fromarray(scene).save(tmp_path / f"whole{suffix}")
    content = (tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content[: len(content) * 2 // 3])
    refusal(path)


def test_what_is_no_slide_is_refused(tmp_path):
    empty, text, folder = tmp_path / "zero.svs", tmp_path / "text.svs", tmp_path / "folder.svs"
    empty.touch()
    text.write_text("patient,label\n")
    folder.mkdir()
    assert "empty (0 bytes)" in refusal(empty)
    assert "no format" in refusal(text)
    assert "is a folder" in refusal(folder)
    assert "is not there" in refusal(tmp_path / "missing.svs")


def test_a_mirax_index_without_its_folder_is_refused(scene, tmp_path):
    Image.fromarray(scene).save(tmp_path / "S-1.jpg")
    path = (tmp_path / "S-1.jpg").rename(tmp_path / "S-1.mrxs")
    assert "the folder 'S-1' that holds its pixels is not beside it" in refusal(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user who can be refused")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = tmp_path / "locked.svs"
    path.write_bytes(b"II*\0")
    path.chmod(0)
    assert "permissions" in refusal(path)


def test_nothing_is_printed_for_a_broken_file(tmp_path, capfd):
    path = tmp_path / "text.svs"
    path.write_text("II*\0 no TIFF")
    refusal(path)
    assert capfd.readouterr() == ("", "")


def test_headers_of_other_jpegs_are_not_vouched_for(scene, tmp_path):
    for name, options in (("baseline", {}), ("progressive", {"progressive": True})):
        Image.fromarray(scene).save(tmp_path / f"{name}.jpg", **options)
    assert find_scan((tmp_path / "baseline.jpg").read_bytes()) is not None
    assert find_scan((tmp_path / "progressive.jpg").read_bytes()) is None
    assert find_scan(b"\xff\xd8\xff\xe0\x00") is None
    assert find_scan(b"") is None
