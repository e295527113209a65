"""Full disks, Ctrl-C, kill -9 and bad slides: one line each, nothing half-written, and the next run goes on."""

import contextlib
import csv
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dying import Death, Ended, run_command
from tests.tiny import draw_cohort, draw_tissue, save_slide

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, and sends signals that Windows has not")

RUN = ["run", "slides/cohort.csv", "--tile-px", "64", "--seeds", "1", "--epochs", "2", "--folds", "3"]
RUN += ["--heatmaps", "2", "--encoder", "mine.py:build", "--quiet"]
EXTRACT = ["extract", "slides/cohort.csv", "--tile-px", "64", "--encoder", "mine.py:build", "--quiet"]
ENCODER = """\
import torch


class Colours(torch.nn.Module):
    def forward(self, tiles):
        parts = tiles[:, :, ::{step}, ::{step}].flatten(1)
        return torch.cat([parts, tiles.std((2, 3))], 1)


def build():
    return Colours()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `slides/cohort.csv`, twelve tiny slides and an encoder that needs no weights."""
    folder = tmp_path_factory.mktemp("faults")
    draw_cohort(folder / "slides", 12)
    (folder / "mine.py").write_text(ENCODER.format(step=20), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMELLA_HOME", str(folder / "store"))
        yield folder


def list_hidden(folder: Path) -> list[Path]:
    """List the temporary files under a folder."""
    return sorted(path for path in folder.rglob("*") if path.name.startswith("."))


def find_times(folder: Path) -> dict[str, int]:
    """Map every finished file that is costly to make to its time of change, ns."""
    bags = [path for path in (folder / "features").rglob("*.h5") if not path.name.startswith(".")]
    # A model and a slide's pictures are finished with the file that is written last.
    whole = [*(folder / "models").rglob("model.json"), *(folder / "heatmaps").rglob("drawn.json")]
    finished = bags + [path for last in whole for path in last.parent.iterdir()]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in finished}


def assert_is_one_line(ended: Ended, exit_code: int) -> str:
    assert ended.exit_code == exit_code, ended.stderr
    assert "Traceback" not in ended.stderr
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    return lines[0]


def test_a_run_that_is_killed_in_every_stage_goes_on_and_ends_as_if_undisturbed(place: Path) -> None:
    undisturbed = run_command([*RUN, "--out", "whole"], place)
    assert (undisturbed.exit_code, undisturbed.stderr) == (0, "")

    times: dict[str, int] = {}
    for stage, death in {
        "tiles": Death(r"/patches/.+_patches\.h5$", n=3),
        "extraction": Death(r"/features_[^/]+/S-\d+\.h5$", n=5),
        "training": Death(r"/models/fold1/seed0/model\.json$"),
        "attention": Death(r"/attention/S-\d+\.h5$", n=4),
        "heatmaps": Death(r"/heatmaps/[^/]+/attention\.tiff$", n=2),
        "page": Death(r"/report\.html$"),
    }.items():
        ended = run_command([*RUN, "--out", "killed"], place, death=death)
        assert ended.exit_code == -signal.SIGKILL, (stage, ended.stderr)
        left = list_hidden(place / "killed")
        assert left, f"{stage}: the file that was about to be named lies there under a temporary name"
        found = find_times(place / "killed")
        assert {name: found[name] for name in times} == times, f"{stage}: what was finished is not made again"
        times = found

    finished = run_command([*RUN, "--out", "killed"], place)
    assert (finished.exit_code, finished.stderr) == (0, "")
    found = find_times(place / "killed")
    assert {name: found[name] for name in times} == times
    assert list_hidden(place / "killed") == []
    for name in ("predictions.csv", "metrics.json", "cohort.csv", "ledger.csv"):
        assert (place / "killed" / name).read_bytes() == (place / "whole" / name).read_bytes(), name
    assert set(find_times(place / "killed")) == set(find_times(place / "whole"))


SCIENCE = ["run", "slides/cohort.csv", "--tile-px", "64", "--seeds", "1", "--epochs", "2", "--folds", "3", "--quiet"]
SCIENCE += ["--encoder", "resnet18@1", "--weights", "random", "--finetune", "tuned", "--finetune-epochs", "2"]
SCIENCE += ["--top-k", "4", "--cka", "--cam", "--heatmaps", "3"]


def test_fine_tuning_cka_and_maps_that_are_killed_go_on_to_the_same_result(
    place: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("science")
    draw_cohort(home / "slides", 24)
    undisturbed = run_command([*SCIENCE, "--out", "whole"], home)
    assert undisturbed.exit_code == 0, undisturbed.stderr
    for stage, death in {
        "fine-tuning": Death(r"/finetuned/fold1/seed0/tuned/epoch-[^/]+\.pt$", n=2),
        "cka": Death(r"/finetuned/fold0/seed0/cka/activations/[^/]+/[^/]+\.npy$", n=3),
        "cam": Death(r"/cam/[^/]+/cam\.tiff$", n=2),
        "sums": Death(r"/cam/[^/]+/cam\.json$", n=2),
    }.items():
        ended = run_command([*SCIENCE, "--out", "killed"], home, death=death)
        assert ended.exit_code == -signal.SIGKILL, (stage, ended.stderr)
    finished = run_command([*SCIENCE, "--out", "killed"], home)
    assert finished.exit_code == 0, finished.stderr
    assert list_hidden(home / "killed") == []
    same = ["predictions.csv", "metrics.json", "finetuned/arms.json", "finetuned/predictions.csv"]
    same += [str(path.relative_to(home / "whole")) for path in (home / "whole").rglob("cka.json")]
    same += [str(path.relative_to(home / "whole")) for path in (home / "whole").glob("cam/*/cam.*")]
    assert len(same) == 5 + 3 + 3 * 4
    for name in same:
        assert (home / "killed" / name).read_bytes() == (home / "whole" / name).read_bytes(), name


def test_ctrl_c_in_mid_extraction_is_one_line_and_leaves_nothing_half_written(place: Path) -> None:
    death = Death(r"/features_[^/]+/S-\d+\.h5$", n=4, by=signal.SIGINT)
    ended = run_command([*EXTRACT, "--out", "stopped"], place, death=death)
    line = assert_is_one_line(ended, 130)
    assert line == "stopped; nothing is half-written, run the same command again to go on"
    assert list_hidden(place / "stopped") == []
    bags = sorted((place / "stopped").rglob("features_*/*.h5"))
    assert 3 <= len(bags) < 12
    times = {bag: bag.stat().st_mtime_ns for bag in bags}
    again = run_command([*EXTRACT, "--out", "stopped"], place)
    assert (again.exit_code, again.stderr) == (0, "")
    assert len(list((place / "stopped").rglob("features_*/*.h5"))) == 12
    assert {bag: bag.stat().st_mtime_ns for bag in bags} == times


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """Mount memory as a disk; skip where this user may not."""
    place.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux may mount a small disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_one_line_with_nothing_half_written_and_elsewhere_it_goes_on(place: Path) -> None:
    (place / "wide").mkdir()
    (place / "wide" / "mine.py").write_text(ENCODER.format(step=2), encoding="utf-8")
    (place / "wide" / "slides").symlink_to(place / "slides", target_is_directory=True)
    with mounted(place / "wide" / "small", "size=1m"):
        ended = run_command([*EXTRACT, "--out", "small/bags"], place / "wide")
        line = assert_is_one_line(ended, 1)
        assert re.fullmatch(
            r"'small/bags/.+' cannot be written: the disk is full\. Free some space and run the same command "
            r"again; what is finished is kept\.",
            line,
        )
        assert list_hidden(place / "wide" / "small") == []
        again = run_command(["inspect", *map(str, sorted((place / "wide" / "small").rglob("S-*.h5"))[:1])], place)
        assert again.exit_code == 0, again.stderr
    elsewhere = run_command([*EXTRACT, "--out", "bags"], place / "wide")
    assert (elsewhere.exit_code, elsewhere.stderr) == (0, "")
    assert len(list((place / "wide" / "bags").rglob("features_*/*.h5"))) == 12


def test_a_disk_mounted_read_only_is_one_line(place: Path) -> None:
    with mounted(place / "sealed", "size=1m,ro"):
        for command in (EXTRACT, RUN, ["tissue", "slides/S-00.tif", "--tile-px", "64", "--quiet"]):
            line = assert_is_one_line(run_command([*command, "--out", "sealed/out"], place), 1)
            assert re.fullmatch(
                r"'sealed/out/.+' cannot be written \(Read-only file system\)\. Choose another --out, or make that "
                r"folder writable\.",
                line,
            )


def test_one_bad_slide_never_stops_the_rest(place: Path) -> None:
    bad = place / "bad"
    draw_cohort(bad, 12)
    whole = save_slide(bad / "S-12.tif", draw_tissue(12), compression="none").read_bytes()
    (bad / "S-12.tif").write_bytes(whole[: len(whole) // 2])
    (bad / "S-13.svs").write_text("see the other folder\n", encoding="utf-8")
    with (bad / "cohort.csv").open("a", encoding="utf-8") as table:
        table.write("S-12.tif,P-12,benign\nS-13.svs,P-13,malignant\nS-14.tif,P-14,benign\n")
    ended = run_command([*RUN[:1], "bad/cohort.csv", *RUN[2:], "--out", "some"], place)
    assert ended.exit_code == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1] == "3 not done; see 'some/failures.csv'."
    with (place / "some" / "failures.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [list(row) for row in rows] == [["slide_id", "stage", "reason"]] * 3
    reasons = {row["slide_id"]: (row["stage"], row["reason"]) for row in rows}
    assert sorted(reasons) == ["S-12", "S-13", "S-14"]
    assert {stage for stage, _ in reasons.values()} == {"open"}
    assert "is cut short" in reasons["S-12"][1]
    assert "is of no format" in reasons["S-13"][1]
    assert "is not there" in reasons["S-14"][1]
    with (place / "some" / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 12
    assert (place / "some" / "report.html").exists()
