"""Contests of arms made up for tests."""

import numpy as np

from lamella.analysis.contest import ArmFacts, Contest


def make_contest(
    shifts: list[float], n: int = 120, *, n_folds: int = 5, seed: int = 0, shared: float = 0.9, n_seeds: int = 1
) -> Contest:
    """Arms of the given distance between classes, correlated, on the same patients."""
    rng = np.random.default_rng(seed)
    targets = (np.arange(n) % 3 == 0).astype(np.int64)
    common = rng.normal(size=n)
    scores = [
        d * targets + np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=(n_seeds, n)) for d in shifts
    ]
    logits = np.stack([np.stack([np.zeros_like(s), s], axis=-1) for s in scores])  # (J, S, n, 2)
    return Contest(
        names=tuple(f"arm{j}" for j in range(len(shifts))),
        logits=logits.mean(axis=1),
        by_seed=logits if n_seeds > 1 else None,
        targets=targets,
        folds=np.arange(n) // 3 % n_folds,
    )


def facts_of(contest: Contest, costs: list[float]) -> ArmFacts:
    names = contest.names
    return ArmFacts(
        costs=dict(zip(names, costs, strict=True)),
        gflops=dict(zip(names, costs, strict=True)),
        imagenet_top1=dict.fromkeys(names),
    )
