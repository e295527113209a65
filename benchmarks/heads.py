"""Training heads together against a plain torch loop, a bag a step; prints ratios and what the paper's preset takes.

    python benchmarks/heads.py                                  # 400 slides of 500 tiles, width 1280, 2 epochs
    python benchmarks/heads.py --slides 100 --epochs 6 --tiles 200

Bags are planted: a few tiles of each positive slide are shifted. The plain loop is what one would write: standardised
bags in memory, `nn.Sequential`, Adam, one slide a step, one head after another; it is timed on one head and multiplied.
The AUC of both is compared on the test folds.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from lamella.mil import SlideModel, fit_model
from lamella.mil.settings import TrainSettings
from lamella.mil.together import FitJob, fit_together, has_bf16

PAPER_WIDTHS = (512, 512, 2048, 1024, 1664, 1280, 1280, 1408, 1536)
PAPER = {"slides": 400, "tiles": 500, "epochs": 20, "folds": 5, "seeds": 3}


def make_bags(
    n: int, tiles: int, width: int, rng: np.random.Generator
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return planted bags, float16, and labels."""
    direction = rng.normal(size=width).astype(np.float32) / np.sqrt(width)
    bags, labels = {}, {}
    for i in range(n):
        bag = np.maximum(rng.normal(size=(tiles, width), scale=1.0).astype(np.float32) + 0.3, 0)
        if i % 2:
            bag[: max(1, tiles // 25)] += 5.5 * direction
        bags[f"S{i}"], labels[f"S{i}"] = bag.astype(np.float16), ("benign", "malignant")[i % 2]
    return bags, labels


def list_jobs(labels: Mapping[str, str], epochs: int, n_folds: int, n_seeds: int) -> list[FitJob]:
    """Return folds x seeds, fold k+1 validating."""
    ids = list(labels)
    fold = [i // 2 % n_folds for i in range(len(ids))]
    jobs = []
    for k in range(n_folds):
        val = tuple(s for s, f in zip(ids, fold, strict=True) if f == (k + 1) % n_folds)
        train = tuple(s for s, f in zip(ids, fold, strict=True) if f not in (k, (k + 1) % n_folds))
        for seed in range(n_seeds):
            settings = TrainSettings(epochs=epochs, patience=epochs, seed=seed, weight_decay=0.0)
            jobs.append(FitJob(train=train, val=val, settings=settings, labels=labels))
    return jobs


def find_auc(models: list[SlideModel], jobs: list[FitJob], bags: Mapping[str, Any], labels: Mapping[str, str]) -> float:
    """Return the AUC within folds of the seeds' mean logit."""
    scores: dict[tuple[str, ...], dict[str, float]] = {}
    for model, job in zip(models, jobs, strict=True):
        own = scores.setdefault(job.train, {})
        for slide in bags:
            if slide not in job.train and slide not in job.val:
                own[slide] = own.get(slide, 0.0) + float(np.diff(model.predict(bags[slide]).logits)[0])
    hits = pairs = 0.0
    for own in scores.values():
        up = np.array([labels[s] == "malignant" for s in own])
        ranks = rankdata(list(own.values()))
        m, q = up.sum(), (~up).sum()
        hits += ranks[up].sum() - m * (m + 1) / 2
        pairs += m * q
    return float(hits / pairs)


def time_plain(bags: Mapping[str, NDArray[Any]], job: FitJob, threads: int, epochs: int) -> float:
    """Return seconds of the plain loop for one head."""
    torch.set_num_threads(threads)
    mean = np.mean([bags[i].astype(np.float32).mean(axis=0) for i in job.train], axis=0)
    sd = np.mean([bags[i].astype(np.float32).std(axis=0) for i in job.train], axis=0)
    ready = {i: torch.from_numpy((bags[i].astype(np.float32) - mean) / sd) for i in (*job.train, *job.val)}
    width = len(mean)
    embed = torch.nn.Sequential(torch.nn.Linear(width, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64), torch.nn.ReLU())
    attend = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    classify = torch.nn.Linear(64, 2)
    parameters = [*embed.parameters(), *attend.parameters(), *classify.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-3)

    def forward(bag: torch.Tensor) -> torch.Tensor:
        hidden = embed(bag)
        return classify((attend(hidden).softmax(dim=0) * hidden).sum(dim=0))

    began = time.perf_counter()
    for _ in range(epochs):
        for i in np.random.default_rng(0).permutation(len(job.train)):
            slide = job.train[i]
            optimiser.zero_grad()
            target = torch.tensor(int(job.labels[slide] == "malignant"))
            torch.nn.functional.cross_entropy(forward(ready[slide]), target).backward()
            optimiser.step()
        with torch.no_grad():
            for slide in job.val:
                forward(ready[slide])
    return time.perf_counter() - began


def main() -> None:
    """Make bags, time, compare, project."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=400)
    parser.add_argument("--tiles", type=int, default=500)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--compare", action="store_true", help="train one by one in fp32 too, and compare AUCs")
    args = parser.parse_args()
    n_cores = torch.get_num_threads()
    bags, labels = make_bags(args.slides, args.tiles, args.width, np.random.default_rng(0))
    jobs = list_jobs(labels, args.epochs, PAPER["folds"], PAPER["seeds"])
    plain = {threads: time_plain(bags, jobs[0], threads, 1) * args.epochs for threads in (1, n_cores)}
    threads = min(plain, key=lambda t: plain[t])
    torch.set_num_threads(n_cores)
    print(
        f"plain loop: {plain[threads]:.1f} s a head with {threads} threads, {plain[threads] * len(jobs):.0f} s for all"
    )
    found = {}
    for precision in ("bf16", "fp32") if has_bf16() else ("fp32",):
        began = time.perf_counter()
        models = fit_together(bags, jobs, ("benign", "malignant"), precision=precision, n_threads=n_cores)
        seconds = time.perf_counter() - began
        found[precision] = find_auc(models, jobs, bags, labels)
        scale = PAPER["slides"] * PAPER["tiles"] * PAPER["epochs"] / (args.slides * args.tiles * args.epochs)
        whole = seconds * scale * sum(PAPER_WIDTHS) / args.width / 60
        print(
            f"together, {precision}: {seconds:.1f} s for {len(jobs)} heads, {plain[threads] * len(jobs) / seconds:.2f} "
            f"times as fast; the paper's preset {whole:.0f} min; AUC {found[precision]:.4f}"
        )
    if args.compare:
        models = [
            fit_model(bags, labels, train=j.train, val=j.val, classes=("benign", "malignant"), settings=j.settings)
            for j in jobs
        ]
        alone = find_auc(models, jobs, bags, labels)
        for precision, auc in found.items():
            print(f"one by one in fp32: AUC {alone:.4f}; together in {precision} {auc - alone:+.4f}")
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "?",
    )
    print(f"{n_cores} threads, {cpu}, bf16 {'yes' if has_bf16() else 'no'}")


if __name__ == "__main__":
    sys.exit(main())
