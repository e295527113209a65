"""Whether the study's figures hold what they say, on simulated cohorts whose truth is known; prints every row.

    python benchmarks/study_statistics.py                            # 1,000 cohorts a row or more, 10 minutes
    python benchmarks/study_statistics.py --write docs/statistics.md # the rows go between the marks there

Lines a to j are those of docs/statistics.md. A row that misses its bar is marked, and the exit status is 1.
"""

import argparse
import os
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.analysis import simulators as sim  # noqa: E402
from tests.analysis import trials  # noqa: E402

RHO = 0.8
BEGIN, END = "<!-- made by benchmarks/study_statistics.py -->", "<!-- until here -->"


@dataclass(frozen=True)
class Row:
    """One row: line of the design, what was simulated, what came out, whether it meets its bar, and version 0.1.0."""

    line: str
    what: str
    figures: str
    holds: bool
    before: str = ""


_CLOSE = (10, 300)  # folds and patients whose ratio is so near to the bar that 1,000 cohorts cannot tell


def cover_h(n: int, prevalence: float, auc: float, rho: float, n_cohorts: int) -> Row:
    """Lines a, b and i, one test set."""
    aucs = [auc, max(0.5, auc - 0.05)]
    return _cover(
        f"H, n {n}, prevalence {prevalence}, AUC {auc}{'' if rho == RHO else f', correlation {rho}'}",
        partial(sim.draw_h, n=n, prevalence=prevalence, aucs=aucs, rho=rho),
        n_cohorts,
        sharp=n >= 100 and prevalence == 0.5 and auc <= 0.95 and rho == RHO,
    )


def cover_slides(n: int, auc: float, n_folds: int, n_cohorts: int) -> Row:
    """Lines a and b, several slides a patient, all of one label."""
    what = f"{'H' if n_folds == 1 else f'CV, K {n_folds}'}, n {n}, prevalence 0.5, AUC {auc}, 6 slides a patient"
    if n_folds == 1:
        draw = partial(sim.draw_h, n=n, prevalence=0.5, aucs=[auc, auc - 0.05], rho=RHO, slides=6)
    else:
        draw = partial(sim.draw_cv, n=n, prevalence=0.5, aucs=[auc] * 2, n_folds=n_folds, slides=6)
    return _cover(what, draw, n_cohorts)


def cover_mixed(n: int, auc: float, n_cohorts: int) -> Row:
    """Lines a and b, slides of a patient that differ in label."""
    draw = partial(sim.draw_mixed, n=n, aucs=[auc, auc - 0.05], rho=RHO)
    return _cover(f"H, n {n}, AUC {auc}, 3 slides a patient that differ in label", draw, n_cohorts)


def cover_cv(n: int, prevalence: float, auc: float, n_folds: int, n_cohorts: int) -> Row:
    """Lines a, b and i, cross-validation with refitted models."""
    draw = partial(sim.draw_cv, n=n, prevalence=prevalence, aucs=[auc] * 2, n_folds=n_folds)
    what = f"CV, K {n_folds}, n {n}, prevalence {prevalence}, AUC {auc}"
    if (n_folds, n) == _CLOSE:
        n_cohorts *= 4
        what += f" ({n_cohorts:,} cohorts)"
    return _cover(what, draw, n_cohorts, sharp=n >= 100 and prevalence == 0.5 and auc <= 0.95)


def cover_unlike(n: int, auc: float, other: float, n_folds: int, n_cohorts: int) -> Row:
    """Lines a, b and i, cross-validation of arms that differ much."""
    draw = partial(sim.draw_cv, n=n, prevalence=0.5, aucs=[auc, other], n_folds=n_folds)
    return _cover(f"CV, K {n_folds}, n {n}, prevalence 0.5, AUC {auc} against {other}", draw, n_cohorts)


def _cover(what: str, draw: Callable[[np.random.Generator], sim.Cohort], n_cohorts: int, *, sharp: bool = False) -> Row:
    """Return a row; `sharp` holds it to the bar of line i too."""
    found = sim.find_coverage(draw, n_cohorts, seed=_seed(what))
    shown = [f"{100 * share:.1f}{' c' if share > 0.97 else ''}" for share in (found.auc, found.difference)]
    shown += [f"{100 * found.difference_before:.1f}", f"{found.ratio:.2f}", f"{found.ratio_before:.2f}"]
    shown += [f"{100 * share:.1f}" for share in (found.wald, found.bootstrap)]
    holds = min(found.auc, found.difference) >= 0.93 and (not sharp or found.ratio <= 1.25)
    return Row("a, b, i", what, " | ".join(shown), bool(holds))


def fail(what: str, draw: Callable[[np.random.Generator], sim.Cohort], n_cohorts: int) -> Row:
    """Line b: what intervals replace fails here, or a simulator could not tell right from wrong."""
    found = sim.find_coverage(draw, n_cohorts, seed=_seed(what))
    figures = f"pooled DeLong-Wald {100 * found.wald:.1f}, bootstrap {100 * found.bootstrap:.1f} covered"
    return Row("b", f"{what}: both below 90", figures, max(found.wald, found.bootstrap) < 0.9)


def wrong(n: int, n_arms: tuple[int, ...], best: float, margin: float, rho: float | None, n_cohorts: int) -> list[Row]:
    """Line c, the contest of each number of arms; without a correlation, under cross-validation."""
    what = f"contest, {_name(rho)}, n {n}, {best - margin:.2f} against {best}"
    found = trials.find_wrong(
        _draw(rho), n=n, n_arms=n_arms, best=best, margin=margin, n_cohorts=n_cohorts, seed=_seed(what)
    )
    return [_say_wrong(f"{what}, {j} arms", now, n_cohorts, before) for j, (now, before) in found.items()]


def wrong_cut(n: int, best: float, margin: float, rho: float | None, n_cohorts: int) -> Row:
    """Line c, the reference question."""
    what = f"reference, {_name(rho)}, 3 depths, n {n}, {best - margin:.2f} against {best}"
    share = trials.find_wrong_cut(_draw(rho), n=n, best=best, margin=margin, n_cohorts=n_cohorts, seed=_seed(what))
    return _say_wrong(what, share, n_cohorts)


def _say_wrong(what: str, share: float, n_cohorts: int, before: float | None = None) -> Row:
    error = np.sqrt(share * (1 - share) / n_cohorts)
    holds = share - 2 * error <= 0.025 and (share <= 0.032 or n_cohorts < 4000)
    beside = "not asked" if before is None else f"{100 * before:.2f} wrong"
    return Row("c", what, f"{100 * share:.2f} wrong ({n_cohorts:,} cohorts)", bool(holds), beside)


def signals(n: int, n_arms: int, rho: float | None, n_cohorts: int) -> Row:
    """Line c, no signal and equal arms; line i, that rows of equal arms are starred at all."""
    what = f"{_name(rho)}, {n_arms} arms, n {n}, no signal; equal arms"
    found = trials.find_false_signals(_draw(rho), n=n, n_arms=n_arms, n_cohorts=n_cohorts, seed=_seed(what))
    *now, before = (100 * share for share in found)
    figures = "{:.1f} beats chance, {:.1f} starred, {:.1f} shown worse".format(*now)
    return Row("c, i", what, figures, max(now) <= 6.5 and (now[1] >= 1 or n < 100), f"{before:.1f} starred")


def needed(aucs: list[float], rho: float | None, n_pilot: int, n_cohorts: int) -> Row:
    """Line d: at the median number that pilots state, fresh cohorts accept the arm."""
    poor = sum(auc < max(aucs) for auc in aucs)
    what = f"{_name(rho)}, {len(aucs)} arms{f', {poor} of them poor' if poor else ''}, AUC {max(aucs)}"
    what += f", pilots of {n_pilot}"
    n, arm = trials.state_patients(_draw(rho), n_pilot=n_pilot, aucs=aucs, seed=_seed(what), n_pilots=60)
    accepted = trials.find_accepted(_draw(rho), n=n, aucs=aucs, arm=arm, n_cohorts=n_cohorts, seed=_seed(what) + 1)
    figures = f"{n:,} patients stated, with which {100 * accepted:.0f} accept arm {arm + 1}"
    return Row("d", what, figures + (" c" if accepted > 0.95 else ""), accepted >= 0.65)


def power(n: int, n_declared: int, bar: float, n_cohorts: int) -> Row:
    """Line i: 3 encoders of 4 equal depths, one test set."""
    what = f"H, correlation 0.92, 3 encoders of 4 equal depths, AUC 0.9, n {n}, {n_declared} declared"
    cut, contest, before = trials.find_power(
        trials.on_test_set(0.92), n=n, aucs=[0.9] * 12, good=3, n_declared=n_declared, n_cohorts=n_cohorts,
        seed=_seed(what),
    )  # fmt: skip
    figures = f"reference finds the cheapest depth in {100 * cut:.0f}; contest accepts any in {100 * contest:.0f}"
    return Row("i", f"{what}: at least {100 * bar:.0f}", figures, cut >= bar, f"any in {100 * before:.0f}")


def power_cv(n_cohorts: int) -> Row:
    """Line i: 12 arms under cross-validation, depths 2 and 1 bad."""
    what = "CV, 3 encoders, depths 0.9, 0.9, 0.7, 0.65, n 250: reference at least 40, contest at least 25"
    cut, contest, before = trials.find_power(
        trials.cross_validated(), n=250, aucs=[0.9, 0.9, 0.7, 0.65] * 3, good=1, n_declared=1, n_cohorts=n_cohorts,
        seed=_seed(what),
    )  # fmt: skip
    figures = f"reference finds the cheapest good depth in {100 * cut:.0f}; contest accepts any in {100 * contest:.0f}"
    return Row("i", what, figures, cut >= 0.4 and contest >= 0.25, f"any in {100 * before:.0f}")


def readers(n_cohorts: int) -> Row:
    """Line j, batches."""
    reader, tissue = trials.find_batch_readers(n=400, n_cohorts=n_cohorts, seed=1, within=True)
    before, _ = trials.find_batch_readers(n=400, n_cohorts=n_cohorts, seed=1, within=False)
    figures = f"reader recommended in {100 * reader:.1f}, tissue arm in {100 * tissue:.1f}; reader without the rule"
    figures += f" {100 * before:.1f}"
    return Row("j", "batch and label 80:20, n 400, K 5", figures, reader <= 0.02 and tissue >= 0.9)


def blind(n: int, other: float, rho: float | None, n_cohorts: int) -> Row:
    """Line j, an arm at chance."""
    what = f"{_name(rho)}, n {n}, an arm at 0.5 beside one at {other}"
    share = trials.find_blind(_draw(rho), n=n, other=other, n_cohorts=n_cohorts, seed=_seed(what))
    return Row("j", what, f"{100 * share:.1f} recommend it", share <= 0.02)


def picking(n_arms: int, n_cohorts: int) -> Row:
    """Line e."""
    raw, corrected = trials.find_picking_bias(n_arms=n_arms, n=100, n_cohorts=n_cohorts, seed=_seed(n_arms))
    figures = f"{raw:+.3f} raw, {corrected:+.4f} corrected"
    return Row("e", f"the highest of {n_arms} equal arms, n 100", figures, abs(corrected) <= 0.01)


def control(kind: str, n_runs: int) -> Row:
    """Line g."""
    aucs = np.array(trials.find_control(kind, n=80, n_runs=n_runs, seed=_seed(kind)))
    error = aucs.std(ddof=1) / np.sqrt(n_runs)
    fires = aucs.mean() > 0.5 + 3 * error
    holds = abs(aucs.mean() - 0.5) <= 3 * error if kind == "honest" else fires
    return Row("g", f"control, {kind}, {n_runs} runs", f"mean {aucs.mean():.3f}, SE {error:.3f}", bool(holds))


def calibration() -> Row:
    """Line h."""
    found = np.array([trials.find_calibration_intercept(n=2000, seed=seed) for seed in range(50)])
    undone, left_in = found.mean(axis=0)
    what = "calibration intercept, n 2,000, prevalence 0.2, mean of 50 cohorts; class weights undone; left in"
    return Row("h", what, f"{undone:+.3f}; {left_in:+.3f}", bool(abs(undone) <= 0.1))


def predictive(n: int, prevalence: float, n_cohorts: int) -> Row:
    """Coverage of PPV and NPV at a stated prevalence; not asked for by the design."""
    ppv, npv = trials.find_predictive_coverage(n=n, prevalence=prevalence, n_cohorts=n_cohorts, seed=_seed((n, "ppv")))
    what = f"coverage of PPV and NPV at prevalence {prevalence}, n {n}"
    return Row("more", what, f"{100 * ppv:.1f}; {100 * npv:.1f}", min(ppv, npv) >= 0.93)


def list_jobs(n_cohorts: int) -> list[tuple[Callable[..., Row | list[Row]], tuple[Any, ...]]]:
    """List every row of the grid, the longest first, so that two processes end together."""
    many = 4 * n_cohorts
    ends = ((0.90, 0.05), (0.99, 0.02))
    jobs: list[tuple[Callable[..., Row | list[Row]], tuple[Any, ...]]] = []
    jobs += [(wrong, (1600, (4, 9, 24), 0.90, 0.05, RHO, many)), (wrong, (1600, (4, 9), 0.99, 0.02, RHO, many))]
    jobs += [(wrong, (n, (4, 9, 24), *one, RHO, many)) for n in (400, 100, 40) for one in ends]
    jobs += [(wrong, (400, (4, 9), 0.90, 0.05, rho, many)) for rho in (0.7, 0.95)]
    jobs += [(wrong, (n, (4, 9), 0.90, 0.05, None, many)) for n in (400, 100)]
    jobs += [(wrong_cut, (n, *one, RHO, many)) for n in (100, 400) for one in ends]
    jobs += [(wrong_cut, (n, 0.90, 0.05, None, many)) for n in (100, 400)]
    jobs += [(signals, (n, j, rho, n_cohorts)) for rho in (RHO, None) for n, j in ((40, 4), (100, 4), (100, 9))]
    jobs += [
        (needed, (aucs, rho, n, n_cohorts // 2))
        for rho in (RHO, None)
        for aucs in ([0.9] * 2, [0.9] * 6, [0.6, 0.7, 0.9, 0.9, 0.9, 0.9])
        for n in (40, 100, 150)
    ]
    bars = {(100, 1): 0.35, (150, 1): 0.78, (300, 1): 0.99, (100, 3): 0.15, (150, 3): 0.55, (300, 3): 0.95}
    jobs += [(power, (*one, bar, n_cohorts)) for one, bar in bars.items()]
    jobs += [(power_cv, (n_cohorts,)), (readers, (n_cohorts,))]
    jobs += [(blind, (n, other, rho, n_cohorts)) for rho in (RHO, None) for n in (100, 400) for other in (0.5, 0.6)]
    edge = partial(sim.draw_h, n=40, prevalence=0.5, aucs=[0.98, 0.95], rho=RHO)
    product = partial(sim.draw_cv, n=40, prevalence=0.2, aucs=[0.7, 0.7])
    others = partial(sim.draw_cv, n=100, prevalence=0.5, aucs=[0.5, 0.5], all_but_k=True)
    jobs += [(fail, ("H, n 40, AUC 0.98", edge, n_cohorts)), (fail, ("CV, K 5, n 40, prevalence 0.2, AUC 0.7", product,
             n_cohorts)), (fail, ("CV, K 5, all folds but k train, n 100, AUC 0.5", others, n_cohorts))]  # fmt: skip
    grid = [(n, p, auc) for n in (40, 100, 300) for p in (0.5, 0.2) for auc in (0.5, 0.7, 0.85, 0.95, 0.98)]
    jobs += [(cover_h, (*one, RHO, n_cohorts)) for one in grid]
    jobs += [(cover_h, (100, 0.5, auc, rho, n_cohorts)) for rho in (0.7, 0.95) for auc in (0.7, 0.95)]
    jobs += [(cover_slides, (n, auc, k, n_cohorts)) for k in (1, 5) for n in (40, 100) for auc in (0.7, 0.9)]
    jobs += [(cover_mixed, (n, auc, n_cohorts)) for n in (40, 100) for auc in (0.7, 0.9)]
    jobs += [(cover_cv, (*one, 5, n_cohorts)) for one in grid]
    jobs += [
        (cover_cv, (n, 0.5, auc, k, n_cohorts)) for k in (3, 10) for n in (40, 100, 300) for auc in (0.5, 0.7, 0.9)
    ]
    unlike = ((0.98, 0.7), (0.9, 0.6), (0.95, 0.8))
    jobs += [(cover_unlike, (n, *one, k, n_cohorts)) for k in (5, 10) for n in (40, 100) for one in unlike]
    jobs += [(picking, (j, n_cohorts)) for j in (9, 24)]
    jobs += [(control, (kind, 200)) for kind in ("honest", "stopping", "standardising", "patient")]
    jobs += [(calibration, ())]
    jobs += [(predictive, (n, 0.1, n_cohorts)) for n in (40, 200)]
    return jobs


def _list(found: Row | list[Row]) -> list[Row]:
    return found if isinstance(found, list) else [found]


def _draw(rho: float | None) -> trials.Draw:
    return trials.cross_validated() if rho is None else trials.on_test_set(rho)


def _name(rho: float | None) -> str:
    return "CV" if rho is None else f"H, correlation {rho}"


def _seed(what: object) -> int:
    """Return a seed of a row's own, so that no two rows share their luck."""
    return zlib.crc32(repr(what).encode())


def format_rows(rows: list[Row], n_cohorts: int) -> str:
    """Return the rows as Markdown."""
    head = [
        f"{n_cohorts:,} cohorts a row where no other number stands; {_find_processor_time():.0f} s of processor time, "
        f"shared by 2 cores; {sum(r.holds for r in rows)} of {len(rows)} hold.",
        "",
        "Coverage of 95% intervals, in per cent; c: conservative (above 97). SE/SD: standard error of a difference "
        "over its real SD. Bars: new intervals at least 93; new SE/SD at most 1.25 from n 100, at prevalence 0.5 and "
        "AUCs up to 0.95. '0.1.0' are the differences of that version; DeLong-Wald and the percentile bootstrap, on "
        "pooled predictions, are what the interval of an AUC replaces.",
        "",
        "| cohorts | AUC | difference | difference, 0.1.0 | SE/SD | SE/SD, 0.1.0 | DeLong-Wald | bootstrap |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines = [f"| {r.what} | {r.figures} |{'' if r.holds else ' **missed**'}" for r in rows if r.line == "a, b, i"]
    rest = ["", "| line | simulated | came out | holds | 0.1.0 |", "|---|---|---|---|---|"]
    rest += [
        f"| {r.line} | {r.what} | {r.figures} | {'yes' if r.holds else 'no'} | {r.before} |"
        for r in rows
        if r.line != "a, b, i"
    ]
    return "\n".join([*head, *lines, *rest]) + "\n"


def _find_processor_time() -> float:
    """Return the processor time of this process and of those that it waited for, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=1000)
    parser.add_argument("--write", type=Path, help="page whose marked part is replaced")
    args = parser.parse_args()
    with ProcessPoolExecutor(2) as pool:
        waiting = [pool.submit(job, *values) for job, values in list_jobs(args.cohorts)]
        for future in as_completed(waiting):
            for row in _list(future.result()):
                print(f"{row.line} | {row.what} | {row.figures} | {'yes' if row.holds else 'MISSED'}", flush=True)
        rows = [row for future in waiting for row in _list(future.result())]
    text = format_rows(rows, args.cohorts)
    print(text)
    if args.write is not None:
        page = args.write.read_text(encoding="utf-8")
        head, _, rest = page.partition(BEGIN)
        _, _, tail = rest.partition(END)
        args.write.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{tail}", encoding="utf-8")
    sys.exit(0 if all(row.holds for row in rows) else 1)


if __name__ == "__main__":
    main()
