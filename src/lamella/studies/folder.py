"""The study folder: the one place that knows where a study keeps what.

DIR/report.html            the page
DIR/report.parquet         every number of it, from which `lamella report` makes it again
DIR/study.json             the design, arms and their states, versions, notes
DIR/results.csv            a row an arm, fold and seed
DIR/predictions.parquet    a row an arm, slide, seed and side (test, val)
DIR/costs.json             measured seconds a tile of every encoder and depth
DIR/verdict.json           intervals, comparisons, the recommendation
DIR/controls.json          permuted labels, baselines, batches
DIR/metrics.json           all metrics of every arm
DIR/cka.json               fine-tuned encoders against frozen ones, block by block
DIR/localisation.json      attention and maps against outlines
DIR/cohort.csv             ids, labels, folds; no paths
DIR/ledger.csv             tissue kept and removed by each step
DIR/failures.csv           slides that could not be done, with the reason
DIR/slides/<slide_id>/     pictures for the page
DIR/arms/<arm>/            a frozen arm as a run of its own, such as arms/resnet18@3/; finetuned/ in it is what went on
DIR/features/              bags, shared by all arms
DIR/local/                 what holds paths: not to be passed on; work/ in it marks what is finished
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from lamella.errors import ModelError
from lamella.records import load_content
from lamella.runs.folder import Inside
from lamella.studies.arms import Arm

_C = TypeVar("_C", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """Names inside a study folder.

    Attributes:
        path: The folder.
    """

    path: Path

    page = Inside("report.html")
    record = Inside("study.json")
    results = Inside("results.csv")
    predictions = Inside("predictions.parquet")
    costs = Inside("costs.json")
    verdict = Inside("verdict.json")
    controls = Inside("controls.json")
    metrics = Inside("metrics.json")
    cka = Inside("cka.json")
    localisation = Inside("localisation.json")
    slides = Inside("slides")
    features = Inside("features")
    local = Inside("local")
    work = Inside("local/work")

    def features_of(self, weights: str) -> Path:
        """Return where bags of some kind of weights lie: names in files do not tell random weights from others."""
        if weights == "auto":
            return self.features
        return self.features / f"weights-{Path(weights).stem}"

    def models(self, arm: Arm, *, key: str | None = None) -> Path:
        """Return the run folder of a frozen arm; one that version 0.1.0 named by its key is found.

        Args:
            arm: Which arm.
            key: As its record states it; None is the arm's own. A record does not hold the folder of a file of weights.
        """
        arms = self.path / "arms"
        old = arms / (key or arm.key)
        return old if old.is_dir() else arms / arm.folder


def load_if_whole(path: Path, kind: type[_C]) -> _C | None:
    """Return what a file of a study holds; None where it is not there, or damaged."""
    try:
        return load_content(path, kind, made_by="lamella study")
    except ModelError:
        return None
