"""Files are whole or absent, whatever happens while they are written."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lamella.errors import CohortError, MachineError, OutputError
from lamella.files import (
    find_sha256,
    parse_json_file,
    read_json,
    remove,
    replacing,
    write_bytes,
    write_json,
    write_record,
    write_table,
    write_text,
)
from lamella.temporaries import sweep_temporaries
from lamella.watching import watching_folders


def _write_and_stop(path: Path) -> None:
    path.write_text('{"new": ')
    raise KeyboardInterrupt


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        _write_and_stop(temporary)
    assert json.loads(path.read_text()) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_a_killed_write_leaves_no_half_file_and_its_rest_is_swept(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from lamella.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "bag.h5"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    assert sweep_temporaries(tmp_path) == 1
    assert not list(tmp_path.iterdir())


def test_what_a_living_process_writes_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()
    with replacing(tmp_path / "page.html") as temporary:
        temporary.write_text("whole")
        assert sweep_temporaries(tmp_path) == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".hidden", "page.html"]


def test_the_temporary_name_keeps_the_suffix_and_the_result_is_readable_by_others(tmp_path: Path) -> None:
    with replacing(tmp_path / "picture.ome.tiff") as temporary:
        assert temporary.suffix == ".tiff"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"II")
    assert (tmp_path / "picture.ome.tiff").stat().st_mode & 0o400


def test_a_table_has_a_header_and_empty_cells_for_what_is_missing(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ["slide_id", "note"], [{"slide_id": "S-1"}, {"slide_id": "S-2", "note": 'a, "b"'}])
    with (tmp_path / "t.csv").open(newline="") as stream:
        assert list(csv.reader(stream)) == [["slide_id", "note"], ["S-1", ""], ["S-2", 'a, "b"']]


def test_text_and_bytes_come_back_as_written(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "t.txt", "Ångström\n")
    assert (tmp_path / "a" / "b" / "t.txt").read_bytes() == "Ångström\n".encode()
    write_bytes(tmp_path / "t.bin", b"\x00\xff")
    assert (tmp_path / "t.bin").read_bytes() == b"\x00\xff"


def test_json_without_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "m.json", {"auc": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_hash_is_of_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert find_sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea")


def test_a_folder_that_is_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match=r"cannot be written \(.*\)\. Choose another --out"):
        write_text(tmp_path / "taken" / "t.txt", "x")


def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the disk is full. Free some space and run the same"):  # noqa: SIM117
        with replacing(tmp_path / "t.csv"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_other_errors_pass_through_unchanged(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="as it was"), replacing(tmp_path / "t.csv"):
        raise CohortError("as it was")
    with pytest.raises(OSError, match="of a library") as error, replacing(tmp_path / "t.csv"):
        raise OSError("of a library")
    assert not isinstance(error.value, OutputError)


def test_what_a_library_says_of_a_full_disk_in_its_own_error_is_said_as_such(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the disk is full"), replacing(tmp_path / "m.safetensors"):
        raise ValueError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fails_and_a_limit_are_said_in_one_line_and_leave_nothing(tmp_path: Path) -> None:
    for number, said in ((errno.EIO, "Input/output error"), (errno.EMFILE, "Too many open files")):
        with pytest.raises(OutputError, match=rf"t.csv' cannot be written \({said}"), replacing(tmp_path / "t.csv"):  # noqa: PT012
            (tmp_path / "begun").touch()
            raise OSError(number, said)
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


def test_a_folder_that_is_taken_away_is_noticed_within_a_command_only(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with watching_folders():
        write_text(folder / "deep" / "one.txt", "1")
        shutil.rmtree(folder)
        with pytest.raises(OutputError, match="removed or replaced while results"):
            write_text(folder / "two.txt", "2")
    with watching_folders():
        write_text(folder / "one.txt", "1")
        remove(folder)
        write_text(folder / "two.txt", "2")
    write_text(folder / "three.txt", "3")
    shutil.rmtree(folder)
    write_text(folder / "four.txt", "4")
    assert [path.name for path in folder.iterdir()] == ["four.txt"]


def test_a_record_that_was_changed_is_told_and_one_without_a_hash_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_record(path, {"classes": ("a", "b"), "threshold": 0.25})
    assert parse_json_file(path) == {"classes": ["a", "b"], "threshold": 0.25}
    path.write_text(path.read_text().replace("0.25", "0.75"))
    with pytest.raises(ValueError, match="changed after it was written"):
        parse_json_file(path)
    path.write_text('{"classes": ["a", "b"]}')
    assert parse_json_file(path) == {"classes": ["a", "b"]}


def test_a_file_that_a_passing_fault_keeps_from_being_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"classes": []})
    for number, said in ((errno.EIO, "Input/output error"), (errno.EMFILE, "ulimit -n")):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda _, number=number: _raise(OSError(number, os.strerror(number))))
            with pytest.raises(MachineError, match=rf"run.json' cannot be read.*{said}.*same command again"):
                read_json(path, made_by="lamella run")
    assert read_json(path, made_by="lamella run") == {"classes": []}


def _raise(error: OSError) -> bytes:
    raise error


def test_a_folder_that_goes_while_a_file_is_written_is_named_and_not_the_temporary_file(tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def write() -> None:
        with replacing(folder / "a.csv") as temporary:
            folder.rename(tmp_path / "gone")
            temporary.write_text("whole")

    with pytest.raises(OutputError, match=r"out' was removed or replaced"):
        write()
