"""A planted cohort of 60 + 60 patients that ends conclusively: drawn features, real heads, rules of today and of 0.1.0.

    python benchmarks/planted_cohort.py [--seeds 5]

Four depths of one encoder. Depths 4, 3 and 2 see the lesion equally well in three tiles of 24, each with noise of its
own; depth 1 hardly sees it. Each trains as a study trains: five folds, fold k tests, k + 1 validates, the attention
head. The depths may be cut to 2 and not to 1; a verdict that says so is right.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.analysis.before import find_noninferior_before  # noqa: E402

from lamella.analysis.auc import estimate_auc  # noqa: E402
from lamella.analysis.frames import judge_arms  # noqa: E402
from lamella.cohort import Cohort, CohortSlide, list_rounds, split_folds  # noqa: E402
from lamella.mil.settings import TrainSettings  # noqa: E402
from lamella.mil.together import FitJob, fit_together  # noqa: E402

N_EACH, N_TILES, N_LESION, WIDTH = 60, 24, 3, 32
SEEN = {"encoder@4": 1.0, "encoder@3": 1.0, "encoder@2": 1.0, "encoder@1": 0.3}
CLASSES = ("benign", "malignant")
MARGIN = 0.05


def draw_cohort(seed: int) -> tuple[Cohort, dict[str, dict[str, NDArray[np.float32]]]]:
    """Return 60 + 60 slides, one a patient, and the bags of each arm."""
    rng = np.random.default_rng(seed)
    slides, bags = [], {arm: {} for arm in SEEN}
    direction = rng.normal(size=WIDTH)
    direction *= 3.2 / np.linalg.norm(direction)
    for i in range(2 * N_EACH):
        name = f"P{i:03d}"
        slides.append(CohortSlide(slide_id=name, patient_id=name, path=Path(f"{name}.tiff"), label=CLASSES[i % 2]))
        tissue = rng.normal(size=(N_TILES, WIDTH))
        lesion = np.zeros((N_TILES, 1))
        lesion[:N_LESION] = i % 2
        for arm, seen in SEEN.items():
            own = 0.15 * rng.normal(size=tissue.shape)
            bags[arm][name] = (tissue + seen * lesion * direction + own).astype(np.float32)
    cohort = Cohort(slides=tuple(slides), classes=CLASSES, positive=CLASSES[1])
    return split_folds(cohort, n_folds=5, seed=seed), bags


def train(cohort: Cohort, bags: dict[str, dict[str, NDArray[np.float32]]]) -> pd.DataFrame:
    """Return the out-of-fold predictions of all arms, as `judge_arms` takes them."""
    labels = {slide.slide_id: str(slide.label) for slide in cohort.slides}
    rounds = list_rounds(cohort)
    jobs = [FitJob(train=r.train, val=r.val, settings=TrainSettings(), labels=labels) for r in rounds]
    rows = []
    for arm, own in bags.items():
        for round_, model in zip(rounds, fit_together(own, jobs, CLASSES), strict=True):
            for name in round_.test:
                logits = model.predict(own[name]).logits
                rows.append({"arm": arm, "patient_id": name, "label": labels[name], "fold": round_.fold}
                            | {f"logit_{c}": float(v) for c, v in zip(CLASSES, logits, strict=True)})  # fmt: skip
    return pd.DataFrame(rows)


def judge_before(predictions: pd.DataFrame) -> str:
    """Return the cheapest arm that was "not worse" by version 0.1.0."""
    arms = list(SEEN)
    frames = [predictions[predictions["arm"] == arm].sort_values("patient_id") for arm in arms]
    logits = np.stack([frame[[f"logit_{c}" for c in CLASSES]].to_numpy() for frame in frames])
    targets = (frames[0]["label"] == CLASSES[1]).to_numpy().astype(np.int64)
    estimate = estimate_auc(logits, targets, folds=frames[0]["fold"].to_numpy())
    assert estimate is not None
    accepted = [arm for arm, fine in zip(arms, find_noninferior_before(estimate, MARGIN), strict=True) if fine]
    return f"{accepted[-1]} is enough or the only one" if accepted else "one can't tell"


def main() -> None:
    """Draw, train, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    for seed in range(args.seeds):
        predictions = train(*draw_cohort(seed))
        costs = {arm: 4.0 - place for place, arm in enumerate(SEEN)}
        found = judge_arms(predictions, margin=MARGIN, costs=costs, chains=[list(SEEN)], positive=CLASSES[1])
        aucs = ", ".join(f"{row['arm']} {row['auc']:.3f}" for row in found["arms"])
        print(
            f"seed {seed}: {aucs}\n  now: {found['verdict']['use']}\n  0.1.0: {judge_before(predictions)}", flush=True
        )


if __name__ == "__main__":
    main()
