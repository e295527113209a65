"""Whether the study's figures hold what they say, on simulated cohorts whose truth is known; prints every row.

    python benchmarks/statistics.py                            # 1,000 cohorts a row, a few minutes on 2 cores
    python benchmarks/statistics.py --write docs/statistics.md # the rows go between the marks there

Lines a to h are those of docs/statistics.md. A row that misses its bar is marked, and the exit status is 1.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.analysis import simulators as sim  # noqa: E402

BEGIN, END = "<!-- made by benchmarks/statistics.py -->", "<!-- until here -->"


@dataclass(frozen=True)
class Row:
    """One row: which line of the design, what was simulated, what came out, and whether it meets its bar."""

    line: str
    what: str
    figures: str
    holds: bool


def cover_h(n: int, prevalence: float, auc: float, slides: int, n_cohorts: int) -> Row:
    """Line a and b, one test set."""
    second = max(0.5, auc - 0.05)
    found = sim.find_coverage(
        lambda rng: sim.draw_h(rng, n=n, prevalence=prevalence, aucs=[auc, second], rho=0.8, slides=slides),
        n_cohorts,
        seed=n + slides,
    )
    per = f", {slides} slides a patient" if slides > 1 else ""
    return _cover(f"H, n {n}, prevalence {prevalence}, AUC {auc}{per}", found)


def cover_cv(n: int, prevalence: float, auc: float, n_cohorts: int) -> Row:
    """Line a and b, cross-validation with refitted models."""
    found = sim.find_coverage(lambda rng: sim.draw_cv(rng, n=n, prevalence=prevalence, auc=auc), n_cohorts, seed=n)
    return _cover(f"CV, n {n}, prevalence {prevalence}, AUC {auc}", found)


def _cover(what: str, found: dict[str, float]) -> Row:
    shown = [f"{100 * found[key]:.1f}{' c' if found[key] > 0.97 else ''}" for key in ("auc", "difference")]
    shown += [f"{100 * found[key]:.1f}" for key in ("wald", "bootstrap")]
    return Row("a, b", what, " | ".join(shown), min(found["auc"], found["difference"]) >= 0.93)


def wrong(n: int, n_arms: int, best: float, margin: float, n_cohorts: int) -> Row:
    """Line c."""
    share = sim.find_wrong_not_worse(n=n, n_arms=n_arms, best=best, margin=margin, n_cohorts=n_cohorts, seed=n + n_arms)
    return Row("c", f"{n_arms} arms, n {n}, {best - margin:.2f} against {best}", f"{100 * share:.1f}", share <= 0.04)


def signals(n: int, n_arms: int, n_cohorts: int) -> Row:
    """Line c, no signal and equal arms."""
    chance, starred = sim.find_false_signals(n=n, n_arms=n_arms, n_cohorts=n_cohorts, seed=n + n_arms)
    figures = f"{100 * chance:.1f} beats chance, {100 * starred:.1f} starred"
    return Row("c", f"{n_arms} arms, n {n}, CV, no signal; equal arms", figures, max(chance, starred) <= 0.065)


def power(auc: float, rho: float, margin: float, n_cohorts: int) -> Row:
    """Line d."""
    n, accepted = sim.find_power_at_needed(auc=auc, rho=rho, margin=margin, n_cohorts=n_cohorts, seed=5)
    what = f"two equal arms, AUC {auc}, correlation {rho}, margin {margin}: {n} patients"
    return Row("d", what, f"{100 * accepted:.1f} accepted", 0.65 <= accepted <= 0.95)


def picking(n_arms: int, n_cohorts: int) -> Row:
    """Line e."""
    raw, corrected = sim.find_picking_bias(n_arms=n_arms, n=100, n_cohorts=n_cohorts, seed=6)
    figures = f"{raw:+.3f} raw, {corrected:+.4f} corrected"
    return Row("e", f"the highest of {n_arms} equal arms, n 100", figures, abs(corrected) <= 0.01)


def control(kind: str, n_runs: int) -> Row:
    """Line g."""
    aucs = np.array(sim.find_control(kind, n=80, n_runs=n_runs, seed=7))
    error = aucs.std(ddof=1) / np.sqrt(n_runs)
    fires = aucs.mean() > 0.5 + 3 * error
    holds = abs(aucs.mean() - 0.5) <= 3 * error if kind == "honest" else fires
    return Row("g", f"control, {kind}, {n_runs} runs", f"mean {aucs.mean():.3f}", bool(holds))


def calibration() -> Row:
    """Line h."""
    found = np.array([sim.find_calibration_intercept(n=2000, seed=seed) for seed in range(50)])
    undone, left_in = found.mean(axis=0)
    return Row(
        "h", "calibration intercept, weights undone; left in", f"{undone:+.3f}; {left_in:+.3f}", abs(undone) <= 0.1
    )


def planted(n: int, n_cohorts: int) -> Row:
    """The issue's planted embeddings."""
    equal, worse = sim.find_planted(n=n, n_cohorts=n_cohorts, seed=8)
    what = f"12 arms, AUC 0.90, n {n}, margin 0.05: the cheapest is equal; is worse by the margin"
    return Row("planted", what, f"{100 * equal:.1f} recommended; {100 * worse:.1f}", equal >= 0.8 and worse <= 0.04)


def list_jobs(n_cohorts: int) -> list[tuple[Callable[..., Row], tuple[Any, ...]]]:
    """List every row of the grid."""
    jobs: list[tuple[Callable[..., Row], tuple[Any, ...]]] = []
    grid = [(n, p, auc) for n in (40, 100, 300) for p in (0.5, 0.2) for auc in (0.5, 0.7, 0.85, 0.95, 0.98)]
    jobs += [(cover_h, (*one, 1, n_cohorts)) for one in grid]
    jobs += [(cover_h, (n, 0.5, auc, 6, n_cohorts)) for n in (40, 100) for auc in (0.7, 0.9)]
    jobs += [(cover_cv, (*one, n_cohorts)) for one in grid]
    jobs += [
        (wrong, (n, j, best, margin, n_cohorts))
        for best, margin in ((0.90, 0.05), (0.99, 0.02))
        for j in (4, 9, 24)
        for n in (40, 100, 400, 1600)
    ]
    jobs += [(signals, (n, j, n_cohorts)) for n, j in ((40, 4), (100, 4), (100, 9))]
    jobs += [(power, (auc, rho, 0.05, n_cohorts)) for auc in (0.8, 0.9, 0.95) for rho in (0.7, 0.95)]
    jobs += [(picking, (j, n_cohorts)) for j in (9, 24)]
    jobs += [(control, (kind, 200)) for kind in ("honest", "stopping", "standardising", "patient")]
    jobs += [(calibration, ()), (planted, (400, n_cohorts)), (planted, (800, n_cohorts))]
    return jobs


def format_rows(rows: list[Row], n_cohorts: int, seconds: float) -> str:
    """Return the rows as Markdown."""
    head = [
        f"{n_cohorts:,} cohorts a row, {seconds:.0f} s on 2 cores; {sum(r.holds for r in rows)} of {len(rows)} hold.",
        "",
        "Coverage of 95% intervals, in per cent; c: conservative (above 97). Bar: ours at least 93. DeLong-Wald "
        "and the percentile bootstrap, on pooled predictions, are what they replace.",
        "",
        "| cohorts | AUC | difference | pooled DeLong-Wald | pooled bootstrap |",
        "|---|---|---|---|---|",
    ]
    lines = [f"| {r.what} | {r.figures} |{'' if r.holds else ' **missed**'}" for r in rows if r.line == "a, b"]
    rest = ["", "| line | simulated | came out | holds |", "|---|---|---|---|"]
    rest += [f"| {r.line} | {r.what} | {r.figures} | {'yes' if r.holds else 'no'} |" for r in rows if r.line != "a, b"]
    return "\n".join([*head, *lines, *rest]) + "\n"


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=1000)
    parser.add_argument("--write", type=Path, help="page whose marked part is replaced")
    args = parser.parse_args()
    began = time.perf_counter()
    with ProcessPoolExecutor(2) as pool:
        waiting = [pool.submit(job, *values) for job, values in list_jobs(args.cohorts)]
        rows = [future.result() for future in waiting]
    text = format_rows(rows, args.cohorts, time.perf_counter() - began)
    print(text)
    if args.write is not None:
        page = args.write.read_text(encoding="utf-8")
        head, _, rest = page.partition(BEGIN)
        _, _, tail = rest.partition(END)
        args.write.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{tail}", encoding="utf-8")
    sys.exit(0 if all(row.holds for row in rows) else 1)


if __name__ == "__main__":
    main()
