"""The same image has the same hash under any name."""

import hashlib
import shutil

import pytest

from lamella.errors import SlideError
from lamella.slide import hash_fully, hash_quickly, list_slide_files


def test_a_renamed_copy_has_the_same_hash(jpeg_pyramid, pyramid, tmp_path):
    copy = tmp_path / "other-name.tif"
    shutil.copy(jpeg_pyramid, copy)
    assert hash_quickly(copy) == hash_quickly(jpeg_pyramid) != hash_quickly(pyramid)
    assert hash_fully(copy) == hashlib.sha256(copy.read_bytes()).hexdigest()


def test_size_and_both_ends_count(tmp_path):
    path, hashes = tmp_path / "slide.svs", set()
    whole = bytes(range(256)) * 12_288  # 3 MiB
    for content in (whole, whole + b"\0", b"\1" + whole[1:], whole[:-1] + b"\1"):
        path.write_bytes(content)
        hashes.add(hash_quickly(path))
    assert len(hashes) == 4
    path.write_bytes(whole[:1_500_000] + b"\1" + whole[1_500_001:])
    assert hash_quickly(path) in hashes  # the middle does not count
    full = hash_fully(path)
    path.write_bytes(whole)
    assert hash_fully(path) != full


def test_a_mirax_slide_is_hashed_with_its_folder(tmp_path):
    index, folder = tmp_path / "S-1.mrxs", tmp_path / "S-1"
    folder.mkdir()
    index.write_bytes(b"the same small picture")
    (folder / "Data0000.dat").write_bytes(b"pixels")
    (folder / "Slidedat.ini").write_bytes(b"[GENERAL]")
    before = hash_quickly(index), hash_fully(index)
    assert list_slide_files(index) == (index, folder / "Data0000.dat", folder / "Slidedat.ini")
    (folder / "Data0000.dat").write_bytes(b"others")
    assert hash_quickly(index) != before[0]
    assert hash_fully(index) != before[1]


def test_a_vms_slide_is_hashed_with_the_files_it_names(tmp_path):
    index = tmp_path / "S-2.vms"
    index.write_text("[Virtual Microscope Specimen]\nImageFile=S-2.jpg\nImageFile(1,0)=S-2_1.jpg\nNoLayers=1\n")
    for name in ("S-2.jpg", "S-2_1.jpg", "stranger.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    assert list_slide_files(index) == (index, tmp_path / "S-2.jpg", tmp_path / "S-2_1.jpg")


def test_any_file_of_a_dicom_series_stands_for_the_slide(shared_data, tmp_path):
    for name in ("openslide-boxes_0.dcm", "openslide-boxes_1.dcm"):
        shutil.copy(shared_data / "slides" / name, tmp_path)
    first, second = tmp_path / "openslide-boxes_0.dcm", tmp_path / "openslide-boxes_1.dcm"
    assert len(list_slide_files(first)) == 2
    assert hash_quickly(first) == hash_quickly(second)
    assert hash_fully(first) == hash_fully(second)


def test_a_missing_file_is_said(tmp_path):
    for hash_slide in (hash_quickly, hash_fully):
        with pytest.raises(SlideError, match=r"slide 'gone\.svs' is not there"):
            hash_slide(tmp_path / "gone.svs")
