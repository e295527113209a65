"""Cohorts larger than memory: a bag of 10^6 tiles, and 2,000 bags of 10^4; 18 GB of files, so only where asked for."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from resource_rows.shared import CLASSES, SIDE_L0, Work, describe_bag, row

WIDTH, N_SLIDES, N_TILES, N_HUGE = 384, 2_000, 10_000, 1_000_000
_ROWS = 100_000


def save_large_bag(path: Path, n_tiles: int, *, label: int, seed: int) -> None:
    """Write a bag of ours of some tiles, a fiftieth of them planted where the label is 1; one that is there stays."""
    from lamella.features.bag import BagWriter

    if path.exists():
        return
    y, x = np.divmod(np.arange(n_tiles), 1_000)
    writer = BagWriter(path, np.stack([x, y], axis=1) * SIDE_L0, dim=WIDTH, dtype="float16")
    rng = np.random.default_rng(seed)
    for start in range(0, n_tiles, _ROWS):
        rows = rng.standard_normal((min(_ROWS, n_tiles - start), WIDTH), dtype=np.float32)
        rows[: len(rows) // 50, :8] += 1.5 * label
        writer.append(rows)
    size = {"slide_width": 1_000 * SIDE_L0, "slide_height": (n_tiles // 1_000 + 1) * SIDE_L0}
    writer.finish(describe_bag(path.stem) | size | {"embedding_dim": WIDTH})


def save_large_cohort(folder: Path, sizes: list[int]) -> tuple[Path, Path]:
    """Write a bag of each size and the table of the slides: 60% train, 20% val, 20% test; return both."""
    lines = ["slide,slide_id,patient_id,label,split"]
    for i, n_tiles in enumerate(sizes):
        label, side = i % 2, ("train", "train", "train", "val", "test")[i // 2 % 5]
        lines.append(f"slides/S{i:04d}.tif,S{i:04d},P{i:04d},{CLASSES[label]},{side}")
        save_large_bag(folder / "bags" / f"S{i:04d}.h5", n_tiles, label=label, seed=i)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder / "cohort.csv", folder / "bags"


def bound_cache(n_bytes: int | None) -> None:
    """Hold no more than so many bytes of bags; None leaves it at a quarter of free memory."""
    from lamella.features.rows import CACHE

    if n_bytes is not None:
        CACHE._budget = n_bytes


def add_large_rows(called: str, name: str, sizes: list[int], budget: int | None) -> None:
    """Register what is done with a cohort of such bags."""

    @row(f"{called}: opened, all of it checked")
    def open_all(folder: Path) -> Work:
        from lamella.runs.bags import load_bag_folder

        _, bags = save_large_cohort(folder / name, sizes)
        bound_cache(budget)
        return lambda: load_bag_folder(bags, [f"S{i:04d}" for i in range(len(sizes))]) and None

    @row(f"{called}: a split trained, 1 seed, 1 epoch, predicted, attention written, measured")
    def train(folder: Path) -> Work:
        from lamella.cohort import load_cohort
        from lamella.mil.settings import TrainSettings
        from lamella.runs.execute import train_on_bags
        from lamella.runs.settings import TrainingSettings

        table, bags = save_large_cohort(folder / name, sizes)
        bound_cache(budget)
        shutil.rmtree(folder / name / "run", ignore_errors=True)
        cohort = load_cohort(table)
        settings = TrainingSettings(train=TrainSettings(epochs=1), n_seeds=1, by_batch=False)

        def run() -> str:
            trained = train_on_bags(cohort, bags, settings, folder / name / "run")
            auc = trained.metrics.scores.model.patients.auc.value
            return f"AUC {auc:.2f}" if auc is not None else "no AUC"

        return run

    @row(f"{called}: all predicted by that model, attention written")
    def predict(folder: Path) -> Work:
        from lamella.pipeline.predict import predict_bags

        save_large_cohort(folder / name, sizes)
        bound_cache(budget)
        out = folder / name / "predicted"
        shutil.rmtree(out, ignore_errors=True)
        return lambda: f"{len(predict_bags(folder / name / 'run', folder / name / 'bags', out)[0])} slides"


def list_sizes() -> Iterator[tuple[str, str, list[int], int | None]]:
    """Yield what a cohort is called, in a table and in a folder, how many tiles its bags have, and the cache."""
    huge = [N_HUGE if i in (0, 8) else 500 for i in range(20)]  # one of train, one of test
    yield "large: 20 bags, two of 10^6 x 384 tiles, fp16", "huge", huge, None
    few = "large: 300 bags of 10^4 x 384 tiles, fp16, 2.3 GB, and 512 MiB of cache"
    yield few, "some", [N_TILES] * 300, 512 << 20
    yield "large: 2,000 bags of 10^4 x 384 tiles, fp16, 15 GB", "many", [N_TILES] * N_SLIDES, None


for _called, _name, _sizes, _budget in list_sizes():
    add_large_rows(_called, _name, _sizes, _budget)
