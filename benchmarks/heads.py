"""Heads trained together against a plain torch loop, a bag a step; prints ratios and what the paper's preset takes.

    python benchmarks/heads.py                                     # 400 slides of 500 tiles, width 1280
    python benchmarks/heads.py --slides 100 --tiles 200 --repeats 1
    python benchmarks/heads.py --auc                               # AUCs instead of times: 400 slides of 100 tiles

Bags are planted: a few tiles of each slide are moved, those of malignant ones further, with overlap. The plain loop is
what one would write: standardised float32 bags in memory, `nn.Sequential`, AdamW, a slide a step, one head after
another, with the better of one and all threads; it is timed on one head and one epoch and multiplied. Ours is timed
whole, once with one epoch and once with more, interleaved with the loop: the difference is what an epoch costs, the
rest is what a call costs. Time grows with the width as the first layer's operations do, or slower. Where other programs
want the cores, wall time says little: processor time, shared by the cores, is given beside it.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from lamella.mil import SlideModel, fit_model
from lamella.mil.settings import TrainSettings
from lamella.mil.together import FitJob, count_threads, fit_together, has_bf16

PAPER_WIDTHS = (512, 512, 2048, 1024, 1664, 1280, 1280, 1408, 1536)
PAPER_SLIDES, PAPER_TILES, PAPER_EPOCHS, N_FOLDS, N_SEEDS = 400, 500, 20, 5, 3
CLASSES = ("benign", "malignant")
Bags = dict[str, NDArray[Any]]


def make_bags(n: int, tiles: int, width: int, rng: np.random.Generator) -> tuple[Bags, dict[str, str]]:
    """Return planted bags, float16, and labels.

    A slide has a severity, on average two SD higher where it is malignant; one tile in 25 is moved along one direction
    by three times as much. No head can have an AUC above 0.92.
    """
    direction = rng.normal(size=width).astype(np.float32)
    direction /= np.linalg.norm(direction)
    bags, labels = {}, {}
    for i in range(n):
        bag = np.maximum(rng.normal(size=(tiles, width)).astype(np.float32) + 0.3, 0)
        severity = rng.normal() + 2 * (i % 2)
        bag[: max(1, tiles // 25)] += 3 * severity * direction
        bags[f"S{i}"], labels[f"S{i}"] = bag.astype(np.float16), CLASSES[i % 2]
    return bags, labels


def list_jobs(labels: Mapping[str, str], epochs: int, patience: int | None = None) -> list[FitJob]:
    """Return folds x seeds, fold k + 1 validating."""
    ids = list(labels)
    fold = [i // 2 % N_FOLDS for i in range(len(ids))]
    jobs = []
    for k in range(N_FOLDS):
        val = tuple(s for s, f in zip(ids, fold, strict=True) if f == (k + 1) % N_FOLDS)
        train = tuple(s for s, f in zip(ids, fold, strict=True) if f not in (k, (k + 1) % N_FOLDS))
        for seed in range(N_SEEDS):
            settings = TrainSettings(epochs=epochs, patience=patience or epochs, seed=seed)
            jobs.append(FitJob(train=train, val=val, settings=settings, labels=labels))
    return jobs


def find_auc(models: list[SlideModel], jobs: list[FitJob], bags: Mapping[str, Any], labels: Mapping[str, str]) -> float:
    """Return the AUC within folds of the seeds' mean logit."""
    scores: dict[tuple[str, ...], dict[str, float]] = {}
    for model, job in zip(models, jobs, strict=True):
        own = scores.setdefault(job.train, {})
        for slide in bags.keys() - {*job.train, *job.val}:
            own[slide] = own.get(slide, 0.0) + float(np.diff(model.predict(bags[slide]).logits)[0])
    hits = pairs = 0.0
    for own in scores.values():
        up = np.array([labels[s] == "malignant" for s in own])
        m, q = up.sum(), (~up).sum()
        hits += rankdata(list(own.values()))[up].sum() - m * (m + 1) / 2
        pairs += m * q
    return float(hits / pairs)


class PlainLoop:
    """What one would write."""

    def __init__(self, bags: Bags, job: FitJob) -> None:
        rows = np.concatenate([bags[i] for i in job.train]).astype(np.float32)
        mean, sd = rows.mean(axis=0), rows.std(axis=0)
        self.ready = {i: torch.from_numpy((bags[i].astype(np.float32) - mean) / sd) for i in (*job.train, *job.val)}
        self.target = {i: torch.tensor(CLASSES.index(job.labels[i])) for i in self.ready}
        self.job = job

    def run(self, threads: int) -> None:
        """Train a head for one epoch and validate it."""
        torch.set_num_threads(threads)
        nn = torch.nn
        width = next(iter(self.ready.values())).shape[1]
        embed = nn.Sequential(nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU())
        attend = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 1))
        classify = nn.Linear(64, 2)
        model = nn.ModuleList([embed, attend, classify])
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)

        def find_loss(slide: str) -> torch.Tensor:
            hidden = embed(self.ready[slide])
            pooled = (attend(hidden).softmax(dim=0) * hidden).sum(dim=0)
            return nn.functional.cross_entropy(classify(pooled), self.target[slide])

        for place in np.random.default_rng(0).permutation(len(self.job.train)):
            optimiser.zero_grad()
            find_loss(self.job.train[place]).backward()
            optimiser.step()
        with torch.no_grad():
            for slide in self.job.val:
                find_loss(slide)


def take_time(what: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds."""
    began, busy = time.perf_counter(), time.process_time()
    what()
    return time.perf_counter() - began, time.process_time() - busy


def measure_times(args: argparse.Namespace, n_cores: int) -> None:
    """Time, compare, project."""
    bags, labels = make_bags(args.slides, args.tiles, args.width, np.random.default_rng(0))
    one, more = list_jobs(labels, 1), list_jobs(labels, 1 + args.epochs)
    plain = PlainLoop(bags, one[0])
    arms: dict[str, Callable[[], object]] = {
        f"plain, {threads} threads": lambda threads=threads: plain.run(threads) for threads in {1, n_cores}
    }
    arms["fit_model"] = lambda: fit_model(
        bags, labels, train=one[0].train, val=one[0].val, classes=CLASSES, settings=one[0].settings
    )
    precisions = ("bf16", "fp32") if has_bf16() else ("fp32",)
    for precision in precisions:
        for name, jobs in (("one", one), ("more", more)):
            arms[f"{precision}, {name}"] = lambda jobs=jobs, precision=precision: fit_together(
                bags, jobs, CLASSES, precision=precision, n_threads=n_cores
            )
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for turn in range(-1, args.repeats):  # the first turn makes kernels, and does not count
        for name, run in arms.items():
            wall, busy = take_time(run)
            if turn >= 0:
                found[name].append((wall, busy))
            load = os.getloadavg()[0]
            print(
                f"turn {turn} {name}: {wall:.2f} s, processor {busy:.2f} s, load {load:.1f}",
                file=sys.stderr,
                flush=True,
            )
    medians = {name: np.median(np.array(times), axis=0) for name, times in found.items()}
    scale = PAPER_SLIDES * PAPER_TILES / (args.slides * args.tiles) * sum(PAPER_WIDTHS) / args.width / 60
    print(
        f"{args.slides} slides of {args.tiles} tiles, width {args.width}, {len(one)} heads; medians of {args.repeats}"
    )
    print(f"{'':18} {'an epoch of all heads, s':>28} {'a call, s':>18} {'the preset, min':>22}")
    print(f"{'':18} {'wall':>13} {'processor':>14} {'wall':>18} {'wall':>11} {'processor':>10}")
    for name in arms:
        if "," not in name or name.startswith("plain"):
            wall, busy = medians[name] * len(one)
            whole = wall * PAPER_EPOCHS * scale, busy * PAPER_EPOCHS * scale
            print(f"{name:18} {wall:13.2f} {busy:14.2f} {'':18} {whole[0]:11.1f} {whole[1]:10.1f}")
    best = min((name for name in arms if name.startswith("plain")), key=lambda name: medians[name][0])
    for precision in precisions:
        first, last = medians[f"{precision}, one"], medians[f"{precision}, more"]
        epoch = (last - first) / args.epochs
        call = np.maximum(first - epoch, 0.0)
        whole = (epoch * PAPER_EPOCHS + call) * scale
        print(
            f"{'together, ' + precision:18} {epoch[0]:13.2f} {epoch[1]:14.2f} {call[0]:18.2f} {whole[0]:11.1f} "
            f"{whole[1] / n_cores:10.1f}   {medians[best][0] * len(one) / epoch[0]:.2f} times as fast as {best}"
        )


def measure_aucs(args: argparse.Namespace, n_cores: int) -> None:
    """Train one by one and together, on several cohorts, and compare AUCs."""
    rows = []
    for seed in range(args.repeats):
        bags, labels = make_bags(400, 100, 512, np.random.default_rng(seed))
        jobs = list_jobs(labels, PAPER_EPOCHS, patience=10)
        alone = [fit_model(bags, labels, train=j.train, val=j.val, classes=CLASSES, settings=j.settings) for j in jobs]
        rows.append([find_auc(alone, jobs, bags, labels)])
        for precision in ("fp32", "bf16"):
            models = fit_together(bags, jobs, CLASSES, precision=precision, n_threads=n_cores)
            rows[-1].append(find_auc(models, jobs, bags, labels))
        one, fp32, bf16 = rows[-1]
        print(
            f"cohort {seed}: one by one {one:.4f}; together fp32 {fp32 - one:+.4f}, bf16 {bf16 - one:+.4f}", flush=True
        )
    found = np.array(rows)
    for place, name in ((1, "fp32"), (2, "bf16")):
        off = found[:, place] - found[:, 0]
        print(f"{name}: mean difference {off.mean():+.4f}, largest {np.abs(off).max():.4f}")


def main() -> None:
    """Measure times or AUCs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=400)
    parser.add_argument("--tiles", type=int, default=500)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--epochs", type=int, default=2, help="epochs beyond the first")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--auc", action="store_true")
    args = parser.parse_args()
    n_cores = count_threads()
    (measure_aucs if args.auc else measure_times)(args, n_cores)
    cpu = next(
        (line.partition(":")[2].strip() for line in _read_cpuinfo() if line.startswith("model name")),
        "processor unknown",
    )
    print(f"{n_cores} cores, {cpu}, bf16 {'yes' if has_bf16() else 'no'}, load {os.getloadavg()[0]:.1f}")


def _read_cpuinfo() -> list[str]:
    """Return the lines of /proc/cpuinfo, none where there is none."""
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
