"""Temporary files: told from one another by whose they are, and gone when nobody's."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lamella import temporaries
from lamella.files import write_text
from lamella.temporaries import drop_temporary, make_temporary, sweep_temporaries, temporary_folder


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def name_left(host: str, pid: int) -> str:
    return f".bag.{host}-{pid}.0a1b2c3d.tmp.h5"


def test_the_next_file_written_into_a_folder_clears_it_of_what_a_killed_process_left(tmp_path: Path) -> None:
    left = tmp_path / name_left(temporaries._HOST, dead_pid())
    left.write_text("half")
    folder = tmp_path / name_left(temporaries._HOST, dead_pid())[:-3]
    (folder / "deep").mkdir(parents=True)
    write_text(tmp_path / "whole.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["whole.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="no process can be asked for there")
def test_what_an_earlier_process_of_our_own_number_left_is_swept_and_ours_is_not(tmp_path: Path) -> None:
    """In a container each run has the same number."""
    left = tmp_path / name_left(temporaries._HOST, os.getpid())
    left.touch()
    own = make_temporary(tmp_path / "bag.h5")
    living = tmp_path / name_left(temporaries._HOST, os.getppid())
    living.touch()
    assert sweep_temporaries(tmp_path) == 0, "the left one went when the first file was made there"
    assert sorted(tmp_path.iterdir()) == sorted([own, living])
    drop_temporary(own)
    assert list(tmp_path.iterdir()) == [living]


def test_what_another_machine_left_is_swept_after_a_day_and_not_before(tmp_path: Path) -> None:
    fresh, stale = tmp_path / name_left("0123abcd", 1), tmp_path / name_left("0123abcd", 2)
    fresh.touch()
    stale.touch()
    two_days_ago = time.time() - 2 * 86_400
    os.utime(stale, (two_days_ago, two_days_ago))
    assert sweep_temporaries(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [fresh]


def test_a_users_own_hidden_file_is_never_swept(tmp_path: Path) -> None:
    for name in (".hidden", ".a.tmp.h5", "bag.tmp.h5", f"bag.{temporaries._HOST}-1.x.tmp.h5"):
        (tmp_path / name).touch()
    assert sweep_temporaries(tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == 4


def test_a_temporary_folder_goes_with_all_in_it_whatever_ends_its_block(tmp_path: Path) -> None:
    def fail() -> None:
        with temporary_folder(tmp_path / "network") as folder:
            (folder / "a").mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_many_bytes_still_has_a_temporary(tmp_path: Path) -> None:
    path = tmp_path / ("切片" * 38 + ".h5")
    write_text(path, "whole")
    assert path.read_text() == "whole"
