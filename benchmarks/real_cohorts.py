"""Line k of docs/statistics.md: whether errors and verdicts hold on real features and attention heads.

    python benchmarks/real_cohorts.py CACHE [--write docs/statistics.md]

Needs `../shared`: its mosaic tool joins labelled fields into a population of 400 slides, whose bags (EfficientNet-Lite0
at depths 4, 3, 2 and 1) are kept in CACHE. From it 60 cohorts of 100 slides are drawn without replacement, each trained
as a study trains: five folds, fold k tests, k + 1 validates, one attention head a round and depth. The truth is the
mean AUC of those very models on the 300 slides that are not in the cohort. What is finished in CACHE is kept.
"""

import argparse
import subprocess
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.analysis import simulators as sim  # noqa: E402
from tests.analysis import trials  # noqa: E402
from tests.analysis.before import find_errors_before, find_noninferior_before  # noqa: E402

from lamella.analysis.auc import estimate_auc, find_auc_interval  # noqa: E402
from lamella.analysis.chains import Chain, judge_chains  # noqa: E402
from lamella.analysis.differences import contrast  # noqa: E402
from lamella.analysis.noninferior import find_noninferior  # noqa: E402
from lamella.cohort import Cohort, list_rounds, load_cohort, split_folds  # noqa: E402
from lamella.encoders import EncoderSpec  # noqa: E402
from lamella.features.bag import BagFolder  # noqa: E402
from lamella.features.extract import extract_cohort  # noqa: E402
from lamella.features.plan import CutSettings  # noqa: E402
from lamella.features.settings import ExtractSettings  # noqa: E402
from lamella.files import replacing, write_text  # noqa: E402
from lamella.mil import SlideModel  # noqa: E402
from lamella.mil.settings import TrainSettings  # noqa: E402
from lamella.mil.standardise import Standardisation  # noqa: E402
from lamella.mil.together import FitJob, fit_together  # noqa: E402
from lamella.runs.bags import load_bags  # noqa: E402
from lamella.tiles import TileSpec  # noqa: E402

MOSAIC = ROOT.parent / "shared" / "tools" / "mosaic.py"
ENCODER = "efficientnet-lite0"
DEPTHS = (4, 3, 2, 1)
N_SLIDES, N_DRAWN, N_FOLDS = 400, 100, 5
MARGIN = 0.05
BEGIN, END = "<!-- made by benchmarks/real_cohorts.py -->", "<!-- until here, line k -->"
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RealCohort:
    """What was trained on one drawn cohort.

    Attributes:
        scores: `(J, n)` out of fold, of the positive class.
        targets: `(n,)` 0 or 1.
        folds: `(n,)`.
        rest_scores: `(J, K, n')` of every model, on the slides that were not drawn.
        rest_targets: `(n',)`.
    """

    scores: Floats
    targets: NDArray[np.int64]
    folds: NDArray[np.int64]
    rest_scores: Floats
    rest_targets: NDArray[np.int64]

    def find_truth(self) -> tuple[Floats, Floats]:
        """Return the AUC of each arm on the other slides, `(J,)`, and the variance of their differences, `(J, J)`."""
        n_arms, n_rounds, n = self.rest_scores.shape
        ups = np.array([(self.targets[self.folds == k] == 1).sum() for k in range(n_rounds)])
        weights = ups * (np.bincount(self.folds, minlength=n_rounds) - ups)
        weights = weights / weights.sum()
        auc, influence = np.zeros(n_arms), np.zeros((n, n_arms))
        for k in range(n_rounds):
            scores = self.rest_scores[:, k]
            logits = np.stack([np.zeros_like(scores), scores], axis=-1)
            found = estimate_auc(logits, self.rest_targets, folds=np.zeros(n, np.int64))
            assert found is not None
            auc += weights[k] * found.auc
            influence += weights[k] * found.influence
        return auc, contrast(influence.T @ influence)


def make_population(cache: Path, lesion_px: int) -> Cohort:
    """Return the population, its slides drawn and its bags extracted."""
    slides = cache / "slides"
    if not (slides / "cohort.csv").exists():
        options = ["--slides", str(N_SLIDES), "--fields", "3", "--lesion", str(lesion_px)]
        subprocess.run([sys.executable, str(MOSAIC), str(slides), *options], check=True)
    cohort = load_cohort(slides / "cohort.csv")
    specs = tuple(EncoderSpec(ENCODER if depth == DEPTHS[0] else f"{ENCODER}@{depth}") for depth in DEPTHS)
    cut = CutSettings(spec=TileSpec(tile_px=224, mpp=0.25))
    report = extract_cohort(cohort.slides, ExtractSettings(cut=cut, encoders=specs), cache / "features")
    if report.failures:
        raise SystemExit(f"{len(report.failures)} slides could not be encoded; see {cache}/features/failures.csv")
    return replace(cohort, slides=tuple(replace(slide, split=None) for slide in cohort.slides))


def list_folders(cache: Path) -> list[BagFolder]:
    """Return where the bags of each depth lie."""
    cut = CutSettings(spec=TileSpec(tile_px=224, mpp=0.25))
    specs = tuple(EncoderSpec(ENCODER if depth == DEPTHS[0] else f"{ENCODER}@{depth}") for depth in DEPTHS)
    settings = ExtractSettings(cut=cut, encoders=specs)
    return [settings.folder(cache / "features", spec) for spec in specs]


_BAGS: list[dict[str, NDArray[np.floating]]] = []  # of each depth, of this process


def _load(folders: list[BagFolder], slide_ids: list[str]) -> None:
    torch.set_num_threads(1)
    _BAGS.extend(load_bags(folder, slide_ids).features for folder in folders)


def train_cohort(population: Cohort, number: int, path: Path) -> None:
    """Draw a cohort, train all its arms and rounds, predict, and keep it all in a file."""
    rng = np.random.default_rng(zlib.crc32(f"real cohort {number}".encode()))
    drawn = set(rng.permutation(len(population.slides))[:N_DRAWN].tolist())
    cohort = replace(population, slides=tuple(population.slides[i] for i in sorted(drawn)))
    cohort = split_folds(cohort, n_folds=N_FOLDS, seed=number)
    rest = [slide for i, slide in enumerate(population.slides) if i not in drawn]
    labels = {slide.slide_id: str(slide.label) for slide in population.slides}
    positive = population.classes.index("malignant")
    places = {slide.slide_id: i for i, slide in enumerate(cohort.slides)}
    rounds = list_rounds(cohort)
    scores = np.empty((len(DEPTHS), N_DRAWN))
    rest_scores = np.empty((len(DEPTHS), N_FOLDS, len(rest)))
    jobs = [FitJob(train=r.train, val=r.val, settings=TrainSettings(), labels=labels) for r in rounds]
    for j, bags in enumerate(_BAGS):
        models = fit_together(bags, jobs, population.classes, n_threads=1)
        for round_, model in zip(rounds, models, strict=True):
            scores[j, [places[i] for i in round_.test]] = predict(model, [bags[i] for i in round_.test], positive)
            rest_scores[j, round_.fold] = predict(model, [bags[slide.slide_id] for slide in rest], positive)
            first = round_.test[0]
            alone = model.predict(bags[first]).logits
            assert np.isclose(alone[positive] - alone[1 - positive], scores[j, places[first]], atol=1e-4)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            scores=scores,
            targets=[int(slide.label == "malignant") for slide in cohort.slides],
            folds=[int(slide.fold or 0) for slide in cohort.slides],
            rest_scores=rest_scores,
            rest_targets=[int(slide.label == "malignant") for slide in rest],
        )


def predict(model: SlideModel, bags: list[NDArray[np.floating]], positive: int) -> Floats:
    """Return the log-odds of the positive class, `(n,)`: as `SlideModel.predict` has them, all slides at once."""
    longest = max(len(bag) for bag in bags)
    real = torch.zeros(len(bags), longest, dtype=torch.bool)
    for place, bag in enumerate(bags):
        real[place, : len(bag)] = True
    with torch.inference_mode():
        embedded = model.head.embed(torch.from_numpy(_standardise(np.concatenate(bags), model.standardisation)))
        tiles = embedded.new_zeros(len(bags), longest, embedded.shape[-1])
        tiles[real] = embedded
        logits = model.head.pool_and_classify(tiles, real).logits.double().numpy()
    logits = logits - np.log(model.training.class_weights)
    return np.asarray(logits[:, positive] - logits[:, 1 - positive])


def _standardise(rows: NDArray[np.floating], standardisation: Standardisation) -> NDArray[np.float32]:
    return np.asarray((rows.astype(np.float32) - standardisation.mean) / standardisation.sd)


def load_trained(path: Path) -> RealCohort:
    """Load what was trained on one cohort."""
    with np.load(path) as held:
        return RealCohort(**{name: held[name] for name in held.files})


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFound:
    """What the difference of two arms did over all cohorts; `before` is version 0.1.0.

    Attributes:
        arms: Places of the two.
        real: Mean true difference.
        ratio: SE over the SD of what was missed.
        ratio_before: The same.
        ratio_alone: The same, what the truth itself errs by (it is of few slides) taken off the SD.
        covered: Share of intervals that hold the truth.
        covered_before: The same.
    """

    arms: tuple[int, int]
    real: float
    ratio: float
    ratio_before: float
    ratio_alone: float
    covered: float
    covered_before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What errors and verdicts did over all cohorts.

    Attributes:
        auc: Mean true AUC of each arm.
        auc_covered: Share of the arms' intervals that hold the truth.
        pairs: Of arms.
        wrong: Cohorts in which the reference question, the contest, and that of version 0.1.0 accept an arm that truly
            lies the margin or more below the whole network (the best).
        accepted: In which they accept any.
        possible: In which there is such an arm.
    """

    auc: tuple[float, ...]
    auc_covered: float
    pairs: tuple[PairFound, ...]
    wrong: tuple[int, ...]
    accepted: tuple[int, ...]
    possible: tuple[int, ...]


def judge_cohorts(cohorts: list[RealCohort]) -> Found:
    """Return how errors and verdicts did."""
    n_arms, chain = len(DEPTHS), Chain(whole=0, cuts=tuple(range(1, len(DEPTHS))))
    truths, misses, errors, before, noise = [], [], [], [], []
    hits, wrong, accepted, possible = 0, np.zeros(3, int), np.zeros(3, int), np.zeros(3, int)
    for real in cohorts:
        truth, truth_variance = real.find_truth()
        cohort = sim.Cohort(real.scores, real.targets, real.folds, None, truth)
        estimate, differences = cohort.estimate(), trials.compare(cohort)
        truths.append(truth)
        noise.append(truth_variance)
        misses.append(differences.values - (truth - truth[:, None]))
        errors.append(differences.errors)
        before.append(find_errors_before(estimate))
        intervals = [find_auc_interval(estimate, arm=j) for j in range(n_arms)]
        hits += sum(low <= truth[j] <= high for j, (low, high) in enumerate(intervals))
        bad, bad_cut = truth.max() - truth >= MARGIN, truth[0] - truth >= MARGIN
        (cuts,) = judge_chains(differences, [chain], MARGIN)
        chosen = [np.isin(np.arange(n_arms), cuts), find_noninferior(differences, MARGIN)]
        chosen.append(find_noninferior_before(estimate, MARGIN))
        for place, (arms, worse) in enumerate(zip(chosen, (bad_cut, bad, bad), strict=True)):
            wrong[place] += bool((arms & worse).any())
            accepted[place] += bool(arms.any())
            possible[place] += bool(worse.any())
    stacks = [np.array(values) for values in (misses, errors, before, noise)]
    return Found(
        auc=tuple(np.mean(truths, axis=0).tolist()),
        auc_covered=hits / (n_arms * len(cohorts)),
        pairs=tuple(
            _judge_pair(a, b, np.array(truths), *(stack[:, b, a] for stack in stacks))
            for a in range(n_arms)
            for b in range(a + 1, n_arms)
        ),
        wrong=tuple(wrong.tolist()),
        accepted=tuple(accepted.tolist()),
        possible=tuple(possible.tolist()),
    )


def _judge_pair(a: int, b: int, truths: Floats, miss: Floats, now: Floats, before: Floats, noise: Floats) -> PairFound:
    """Return what one difference did; all arguments but the first are `(cohorts, ...)`."""
    sd = float(miss.std(ddof=1))
    alone = float(np.sqrt(max(sd**2 - noise.mean(), 1e-12)))
    spread, spread_before = float(np.sqrt((now**2).mean())), float(np.sqrt((before**2).mean()))
    return PairFound(
        arms=(a, b),
        real=float((truths[:, a] - truths[:, b]).mean()),
        ratio=spread / sd,
        ratio_before=spread_before / sd,
        ratio_alone=spread / alone,
        covered=float((np.abs(miss) <= sim.Z * now).mean()),
        covered_before=float((np.abs(miss) <= sim.Z * before).mean()),
    )


def format_found(found: Found, n_cohorts: int) -> str:
    """Return what came out as Markdown."""
    names = [f"depth {depth}" for depth in DEPTHS]
    aucs = ", ".join(f"{auc:.3f}" for auc in found.auc)
    ratio = [
        float(np.mean([getattr(p, name) for p in found.pairs])) for name in ("ratio", "ratio_before", "ratio_alone")
    ]
    holds = 0.9 <= ratio[0] <= 1.35 and max(found.wrong[:2]) <= 0.05 * n_cohorts
    lines = [
        f"{n_cohorts} cohorts of {N_DRAWN} slides. Mean true AUC at depths 4, 3, 2 and 1: {aucs}; "
        f"{100 * found.auc_covered:.1f}% of their intervals hold the truth. Mean over pairs of SE/SD: {ratio[0]:.2f} "
        f"({ratio[1]:.2f} in version 0.1.0; {ratio[2]:.2f} where what the truth errs by, being of "
        f"{N_SLIDES - N_DRAWN} slides, is taken off the SD). The bars (0.9 to 1.35; at most 5% wrong) "
        f"{'hold' if holds else 'are missed'}.",
        "",
        "| difference | true, mean | SE/SD | SE/SD, 0.1.0 | SE/SD, truth's own error off | covered | covered, 0.1.0 |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {names[p.arms[0]]} less {names[p.arms[1]]} | {p.real:+.3f} | {p.ratio:.2f} | {p.ratio_before:.2f} | "
        f"{p.ratio_alone:.2f} | {100 * p.covered:.1f} | {100 * p.covered_before:.1f} |"
        for p in found.pairs
    ]
    lines += [
        "",
        f"| question (margin {MARGIN}) | cohorts that accept an arm | accept a wrong one | have a wrong one |",
        "|---|---|---|---|",
    ]
    questions = ("reference: depths against the whole network", "contest", "contest, 0.1.0")
    lines += [
        f"| {question} | {accepted} | {wrong} ({100 * wrong / n_cohorts:.1f}%) | {possible} |"
        for question, accepted, wrong, possible in zip(
            questions, found.accepted, found.wrong, found.possible, strict=True
        )
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Extract, train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="folder of slides, bags and scores; outside the repository")
    parser.add_argument("--cohorts", type=int, default=60)
    parser.add_argument("--lesion", type=int, default=320, metavar="PX", help="side of a lesion: smaller is harder")
    parser.add_argument("--write", type=Path, help="page whose marked part is replaced")
    args = parser.parse_args()
    population = make_population(args.cache, args.lesion)
    paths = [args.cache / "trained" / f"cohort{number:02d}.npz" for number in range(args.cohorts)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    slide_ids = [slide.slide_id for slide in population.slides]
    with ProcessPoolExecutor(2, initializer=_load, initargs=(list_folders(args.cache), slide_ids)) as pool:
        waiting = {pool.submit(train_cohort, population, number, paths[number]): number for number in missing}
        for future in as_completed(waiting):
            future.result()
            print(f"cohort {waiting[future]} trained", flush=True)
    text = format_found(judge_cohorts([load_trained(path) for path in paths]), args.cohorts)
    print(text)
    if args.write is not None:
        page = args.write.read_text(encoding="utf-8")
        head, _, rest = page.partition(BEGIN)
        write_text(args.write, f"{head}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
