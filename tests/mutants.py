"""Plants faults one at a time, each of a kind that this field has shipped, and sees that a test turns red.

Run by `make mutants`. A fault is planted in a copy of the source, never in the source itself. Exits 1 when a fault
goes unnoticed, or when its place in the source is no longer found.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutant:
    """A fault: in which file, what stands there, what is put there instead, and the tests that must notice."""

    fault: str
    file: str
    before: str
    after: str
    tests: str


MUTANTS = (
    Mutant(
        "cells laid on an even grid instead of their receptive fields",
        "maps/stitch.py",
        "between = first + stride * (np.arange(1, cells) - 0.5)",
        "between = stride * np.arange(1, cells)",
        "tests/maps tests/explain/test_cam.py",
    ),
    Mutant(
        "x and y swapped in the map",
        "maps/stitch.py",
        "self._sum[region] += down.T @ cells.astype(np.float64) @ across",
        "self._sum[region] += down.T @ cells.astype(np.float64).T @ across",
        "tests/maps",
    ),
    Mutant(
        "the class's logit taken for its contrast",
        "analysis/cam.py",
        "return rows[target] - rows[others].mean(dim=0)",
        "return rows[target]",
        "tests/analysis/test_cam.py",
    ),
    Mutant(
        "maps by models that have learned from the slide",
        "explain/cam_parts.py",
        "for slide_id in round_.test}",
        "for slide_id in round_.train}",
        "tests/explain/test_cam.py",
    ),
    Mutant(
        "neighbours of a tile counted as detections",
        "analysis/localise.py",
        "APART = 1.5",
        "APART = 0.9",
        "tests/explain/test_localise.py",
    ),
    Mutant(
        "classes that QuPath ignores counted",
        "tissue/areas.py",
        'return not self.is_hole and not self.class_name.split(":")[-1].strip().endswith("*")',
        "return not self.is_hole",
        "tests/tissue/test_regions.py",
    ),
    Mutant(
        "another choice of classes taken for the same tiles",
        "tissue/region_files.py",
        "self.kind.encode(), chosen.encode(), file.read_bytes()])",
        "self.kind.encode(), file.read_bytes()])",
        "tests/tissue/test_region_files.py",
    ),
    Mutant(
        "small lesions counted as misses",
        "analysis/localise.py",
        "numbers = np.flatnonzero(lesions.counted) + 1",
        "numbers = np.arange(len(lesions.counted)) + 1",
        "tests/analysis/test_localise.py",
    ),
    Mutant(
        "x and y swapped in the grid",
        "tiles.py",
        "np.stack([x * stride_l0[0], y * stride_l0[1]], axis=1)",
        "np.stack([y * stride_l0[1], x * stride_l0[0]], axis=1)",
        "tests/test_tiles.py tests/test_laws.py",
    ),
    Mutant(
        "the tissue mask ignored",
        "tiles.py",
        "corners[shares > spec.min_tissue]",
        "corners[shares > -1]",
        "tests/test_tiles.py tests/test_laws.py",
    ),
    Mutant(
        "half tissue taken for more than half",
        "tiles.py",
        "corners[shares > spec.min_tissue]",
        "corners[shares >= spec.min_tissue]",
        "tests/test_tiles.py",
    ),
    Mutant(
        "level off by one",
        "slide/slide.py",
        "pixels = self._reader.read((left, top), level, (right - left, bottom - top))",
        "pixels = self._reader.read((left, top), max(0, level - 1), (right - left, bottom - top))",
        "tests/slide/test_slide.py",
    ),
    Mutant(
        "nearest pixel instead of a filter",
        "slide/resampling.py",
        "Image.Resampling.LANCZOS, box=window",
        "Image.Resampling.NEAREST, box=window",
        "tests/slide/test_slide.py",
    ),
    Mutant(
        "BatchNorm in train mode",
        "encoders/network.py",
        "return TileNetwork(blocks, card, depths).eval()",
        "return TileNetwork(blocks, card, depths).train()",
        "tests/encoders",
    ),
    Mutant(
        "ImageNet's normalisation dropped",
        "encoders/network.py",
        "images = (tiles / 255 - self.mean) / self.std",
        "images = tiles / 255 - self.mean",
        "tests/encoders",
    ),
    Mutant(
        "folds by slide instead of patient",
        "cohort/splits.py",
        "fold=folds[slide.patient_id]) for slide in cohort.slides)",
        "fold=place % n_folds) for place, slide in enumerate(cohort.slides))",
        "tests/cohort tests/test_laws.py",
    ),
    Mutant(
        "the tested fold validates too",
        "cohort/rounds.py",
        "(fold + 1) % n_folds\n",
        "fold\n",
        "tests/cohort tests/test_laws.py",
    ),
    Mutant(
        "attention not normalised",
        "mil/pools.py",
        "attention = scores.masked_fill(~real, -torch.inf).softmax(dim=1)",
        "attention = scores.masked_fill(~real, -torch.inf).exp()",
        "tests/test_laws.py",
    ),
    Mutant(
        "padding attended to",
        "mil/pools.py",
        "attention = scores.masked_fill(~real, -torch.inf).softmax(dim=1)",
        "attention = scores.softmax(dim=1)",
        "tests/test_laws.py",
    ),
    Mutant(
        "class weights not undone",
        "mil/model.py",
        "output.logits[0].double().numpy() - np.log(self.training.class_weights)",
        "output.logits[0].double().numpy()",
        "tests/mil",
    ),
    Mutant(
        "no floor under the SD",
        "mil/standardise.py",
        "sd = np.maximum(sd, floor * typical)",
        "sd = np.maximum(sd, 1e-9)",
        "tests/mil/test_standardise.py tests/test_laws.py",
    ),
    Mutant(
        "AUC over pairs of different folds",
        "analysis/auc.py",
        "fold_numbers = np.unique(folds, return_inverse=True)[1].reshape(-1)",
        "fold_numbers = np.zeros(n, dtype=np.int64)",
        "tests/analysis/test_auc.py tests/test_laws.py",
    ),
    Mutant(
        "overlapping tiles summed instead of averaged",
        "maps/tiles.py",
        "np.clip(total[covered] / cover[covered], value.min(), value.max())",
        "total[covered]",
        "tests/maps tests/reports/draw/test_heatmap.py",
    ),
    Mutant(
        "x and y swapped for QuPath",
        "reports/draw/geojson.py",
        "ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]",
        "ring = [[y, x], [y, right], [bottom, right], [bottom, x], [y, x]]",
        "tests/reports/draw/test_exports.py",
    ),
    Mutant(
        "a bag of another encoder kept",
        "features/bag.py",
        'FEATURE_KEYS = (*PATCH_KEYS, "encoder", "fingerprint", "dtype")',
        'FEATURE_KEYS = (*PATCH_KEYS, "encoder", "dtype")',
        "tests/features/test_bag.py",
    ),
    Mutant(
        "a bag written straight to its final name",
        "features/bag.py",
        "self._writer = H5Writer(temporary)",
        "self._writer = H5Writer(path)",
        "tests/features/test_bag.py tests/test_laws.py",
    ),
    Mutant(
        "an encoder cut one block too late",
        "encoders/blocks.py",
        "return ChainBlocks(trunk, plan[:depth])",
        "return ChainBlocks(trunk, plan[: depth + 1])",
        "tests/encoders/test_blocks.py::test_resnet18_loses_three_quarters_of_its_weights_with_each_block",
    ),
    Mutant(
        "the gradient of all chunks but the first lost",
        "finetune/gradients.py",
        "zip(parts, torch.split(embeddings.grad, chunk), strict=True)",
        "zip(parts[:1], torch.split(embeddings.grad, chunk), strict=False)",
        "tests/finetune/test_gradients.py",
    ),
    Mutant(
        "HSIC biased by each tile's likeness to itself",
        "analysis/cka.py",
        "np.fill_diagonal(gram, 0)",
        "np.fill_diagonal(gram, gram.diagonal())",
        "tests/analysis/test_cka.py",
    ),
    Mutant(
        "an encoder tested on its training patients",
        "features/leaks.py",
        "if seen.knows(item.patient_id,",
        "if seen.knows('',",
        "tests/runs/test_stage_two.py",
    ),
    Mutant(
        "an exported model used though a file of it was changed",
        "exports/open.py",
        "        if actual != sha256:",
        "        if False:",
        "tests/exports/test_open.py",
    ),
    Mutant(
        "patients of training looked for by name where their hashes are kept",
        "runs/predictor.py",
        "return self.find_spelling(patient_id) is not None",
        "return patient_id in self.patients",
        "tests/exports/test_write.py",
    ),
    Mutant(
        "the spread over folds taken over all models",
        "runs/predictor.py",
        "    if len(folds) > 1:",
        "    if len(folds) > 99:",
        "tests/exports/test_write.py",
    ),
    Mutant(
        "slides held against a model of themselves",
        "analysis/unlike.py",
        "others, held_out = vectors[folds != fold], vectors[folds == fold]",
        "others, held_out = vectors, vectors[folds == fold]",
        "tests/analysis/test_unlike.py",
    ),
    Mutant(
        "models of an earlier run's folds left for predict to read",
        "runs/rounds.py",
        "    remove_models(folder, protocol.name, but=paths)\n",
        "",
        "tests/runs/test_stage_two.py",
    ),
    Mutant(
        "a column of patients passed over for its capitals",
        "cohort/table.py",
        "    check_spelling(path, rows, columns, labelled=labelled)\n",
        "",
        "tests/cohort",
    ),
    Mutant(
        "a bag that was changed after it was sealed read as it is",
        "features/h5_seal.py",
        "    if seal != _hash_file(file, hashes):",
        "    if False:",
        "tests/features/test_h5_seal.py",
    ),
    Mutant(
        "a record that was changed after it was sealed read as it is",
        "files.py",
        "content.pop(_SEAL) != _hash_content(content):",
        "content.pop(_SEAL) is None:",
        "tests/test_files.py",
    ),
    Mutant(
        "links out of a folder followed",
        "files.py",
        "if path.is_symlink() and not path.resolve().is_relative_to(home):",
        "if False:",
        "tests/test_hostile.py",
    ),
    Mutant(
        "a signal leaves temporary files behind",
        "stopping.py",
        "    for clean in _cleaners:",
        "    for clean in ():",
        "tests/test_stopping.py",
    ),
    Mutant(
        "a slide of which every tile is damaged waited for without end",
        "features/check_tiles.py",
        "        raise failures[0]",
        "        return np.zeros((64, 64, 64, 3), np.uint8)",
        "tests/features/test_check_tiles.py",
    ),
    Mutant(
        "depths confirmed after one that was not",
        "analysis/external.py",
        "is_open = is_open and answers[name] == CONFIRMED",
        "is_open = True",
        "tests/analysis/test_external.py",
    ),
    Mutant(
        "an arm at chance confirmed for agreeing with others",
        "analysis/external.py",
        "arm.arm in contest.noninferior and beats_chance:",
        "arm.arm in contest.noninferior:",
        "tests/analysis/test_external.py",
    ),
    Mutant(
        "the arm of each fold chosen on all folds",
        "studies/choice.py",
        "losses = {outcome.arm: outcome.val_losses[fold] for outcome",
        "losses = {outcome.arm: sum(outcome.val_losses.values()) for outcome",
        "tests/studies/test_choice.py",
    ),
)


def plant(mutant: Mutant, folder: Path) -> bool:
    """Copy the source to `folder` with one fault in it; say whether its place was found exactly once."""
    shutil.copytree(ROOT / "src" / "lamella", folder / "lamella")
    path = folder / "lamella" / mutant.file
    source = path.read_text(encoding="utf-8")
    path.write_text(source.replace(mutant.before, mutant.after), encoding="utf-8")
    return source.count(mutant.before) == 1


def is_noticed(mutant: Mutant) -> str:
    """Return how the tests took a fault: `red`, `green` (unnoticed) or `lost` (its place is gone)."""
    with tempfile.TemporaryDirectory() as name:
        if not plant(mutant, Path(name)):
            return "lost"
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-o", f"pythonpath={name}"]
        paths = os.environ | {"PYTHONPATH": os.pathsep.join([name, str(ROOT)])}  # of the processes that tests start
        finished = subprocess.run(
            [*command, *mutant.tests.split()], cwd=ROOT, env=paths, capture_output=True, text=True
        )
        # 1 is a failed test; anything else above 0 is a run that broke, which proves nothing.
        if finished.returncode not in (0, 1):
            sys.exit(f"{mutant.fault}: pytest ended with {finished.returncode}\n{finished.stdout}{finished.stderr}")
        return "red" if finished.returncode == 1 else "green"


def main() -> None:
    """Plant every fault in turn, or those whose number is given."""
    wanted = [int(number) for number in sys.argv[1:]] or range(len(MUTANTS))
    unnoticed = 0
    for number in wanted:
        began = time.perf_counter()
        outcome = is_noticed(MUTANTS[number])
        unnoticed += outcome != "red"
        print(f"{number:2d}  {outcome:5s}  {MUTANTS[number].fault}  ({time.perf_counter() - began:.0f} s)", flush=True)
    print(f"{len(wanted) - unnoticed} of {len(wanted)} faults turn a test red")
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
