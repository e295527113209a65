"""Which slides a folder holds: what bears a slide's name and cannot be read is somebody's lost slide, and is named."""

import os

import pytest

from lamella.cohort import gather_slides
from lamella.errors import CohortError
from lamella.slide import list_slides


def test_dead_links_and_pipes_of_a_slides_name_are_listed_and_folders_are_not(tmp_path):
    (tmp_path / "whole.tiff").write_bytes(b"II*\0")
    (tmp_path / "away.tiff").symlink_to(tmp_path / "unmounted" / "S-1.tiff")
    (tmp_path / "round.tiff").symlink_to(tmp_path / "round.tiff")
    os.mkfifo(tmp_path / "pipe.tiff")
    (tmp_path / "folder.tiff").mkdir()
    (tmp_path / "notes.txt").write_text("no slide")
    assert [path.name for path in list_slides([tmp_path])] == ["away.tiff", "pipe.tiff", "round.tiff", "whole.tiff"]


def test_all_names_that_cannot_be_ids_are_said_at_once(tmp_path):
    paths = [tmp_path / name for name in ("S-1.tif", "-dash.tif", "=sum.tif", "CON.tif")]
    with pytest.raises(CohortError, match="slides '-dash', '=sum', 'CON' give their name"):
        gather_slides(paths)
