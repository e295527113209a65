"""Folders as an earlier commit made them: its source is taken from git's history and run on a tiny cohort.

    python -m tests.old_folders.build FOLDER

FOLDER/slides/             24 slides, a patient each, and 20 new ones under new/, labelled, each with its cohort.csv
FOLDER/run/                a run of stage 1 and 2 with class activation maps
FOLDER/export/             the run, exported
FOLDER/study/              a finished study of three arms
FOLDER/unfinished/         the same study, killed when its first arm was done
FOLDER/predicted-run/      what that commit's own `predict` says of the new slides, by the run
FOLDER/predicted-export/   and by the export
"""

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tests.tiny import draw_cohort, draw_tissue, save_cohort_table, save_slide

COMMIT = "3eae5f4"
_ROOT = Path(__file__).resolve().parents[2]
_RANDOM = ["--encoder", "resnet18@1", "--weights", "random", "--tile-px", "64", "--mpp", "0.5", "--device", "cpu"]
_STUDY = """
tiles: {default: {tile_px: 64, mpp: 0.5}}
arms:
  - {encoders: [resnet18], depths: [4, 1], weights: [random]}
  - {encoders: [resnet18], depths: [1], weights: [random], finetuned: [tuned]}
comparisons:
  - {name: IV, title: Truncated, rule: depth against 4}
seeds: 2
folds: 3
train: {epochs: 2}
finetune: {k: 4, epochs: 1, train_blocks: 1}
permutations: 2
"""
# Run by the earlier source: each command in a fork of a process that has imported what is heavy.
_DRIVER = """
import json, os, sys, traceback
import torch, lamella
from lamella.cli import build_app
assert lamella.__file__.startswith(sys.argv[2]), lamella.__file__
torch.set_num_threads(1)
for step in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if step["dies"]:
                from lamella.study import execute
                finish = execute._Study._finish
                def die(self, *args):
                    finish(self, *args)
                    os._exit(9)
                execute._Study._finish = die
            try:
                build_app()(step["arguments"], standalone_mode=False)
                code = 0
            except SystemExit as error:
                code = error.code or 0
            except BaseException:
                traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended != (9 if step["dies"] else 0):
        sys.exit(f"{step['arguments']} ended with {ended}")
"""


@dataclass(frozen=True, slots=True)
class OldFolders:
    """Where the folders of the earlier commit lie; what is where stands above."""

    path: Path

    def __getattr__(self, name: str) -> Path:
        """Return one of them: `run`, `export`, `study`, `unfinished`, `slides`, `predicted_run`."""
        return self.path / name.replace("_", "-")


def find_absence() -> str | None:
    """Return why the earlier source cannot be had here; None where it can."""
    asked = ["git", "-C", str(_ROOT), "cat-file", "-e", f"{COMMIT}^{{commit}}"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
    except OSError:
        return "git is not on this machine, so the source of an earlier commit cannot be had"
    if found.returncode != 0:
        return f"commit {COMMIT} is not in this clone's history (a shallow clone, or no clone): git fetch --unshallow"
    return None


def build(folder: Path) -> OldFolders:
    """Make everything in `folder`, which is made for it; takes about a minute.

    Raises:
        RuntimeError: If a command of the earlier source does not end as it should, with what it said.
    """
    source = folder / "source"
    archived = ["git", "-C", str(_ROOT), "archive", "--format=tar", COMMIT, "src"]
    with tarfile.open(fileobj=BytesIO(subprocess.run(archived, capture_output=True, check=True).stdout)) as tar:
        tar.extractall(source, filter="data")
    table = draw_cohort(folder / "slides", 24)
    new = _draw_new(folder / "slides" / "new")
    (folder / "study.yaml").write_text(_STUDY)
    run, export, study = (str(folder / name) for name in ("run", "export", "study"))
    declared = ["study", str(folder / "study.yaml"), "--cohort", str(table), "--device", "cpu", "--out"]
    training = ["--folds", "3", "--seeds", "2", "--epochs", "2", "--heatmaps", "1"]
    stage_two = ["--finetune", "tuned", "--top-k", "4", "--finetune-epochs", "1", "--train-blocks", "1"]
    steps = [
        (["run", str(table), *_RANDOM, *training, *stage_two, "--cam", "--out", run], False),
        (["export", run, "--out", export], False),
        (["predict", run, str(new), "--out", str(folder / "predicted-run")], False),
        (["predict", export, str(new), "--out", str(folder / "predicted-export")], False),
        ([*declared, study], False),
        ([*declared, str(folder / "unfinished")], True),
    ]
    said = json.dumps([{"arguments": arguments, "dies": dies} for arguments, dies in steps])
    ended = subprocess.run(
        [sys.executable, "-c", _DRIVER, said, str(source)],
        env={**os.environ, "PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise RuntimeError(f"commit {COMMIT} did not make its folders: {ended.stderr[-3000:]}{ended.stdout[-1000:]}")
    return OldFolders(folder)


def _draw_new(folder: Path) -> Path:
    """Draw labelled slides of patients that no model has seen; return their table."""
    rows = []
    for number in range(20):
        malignant = number % 2 == 1
        save_slide(folder / f"N-{number:02d}.tif", draw_tissue(100 + number, malignant=malignant))
        label = "malignant" if malignant else "benign"
        rows.append({"slide": f"N-{number:02d}.tif", "patient_id": f"Q-{number:02d}", "label": label})
    return save_cohort_table(folder / "cohort.csv", rows)


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
