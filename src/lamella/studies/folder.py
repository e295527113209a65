"""The study folder: the one place that knows where a study keeps what.

DIR/report.html            the page
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

from lamella.studies.arms import Arm


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """Names inside a study folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def page(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def record(self) -> Path:
        """The design, arms and their states."""
        return self.path / "study.json"

    @property
    def results(self) -> Path:
        """A row an arm, fold and seed."""
        return self.path / "results.csv"

    @property
    def predictions(self) -> Path:
        """A row an arm, slide, seed and side."""
        return self.path / "predictions.parquet"

    @property
    def costs(self) -> Path:
        """Measured seconds a tile."""
        return self.path / "costs.json"

    @property
    def verdict(self) -> Path:
        """Intervals, comparisons, the recommendation."""
        return self.path / "verdict.json"

    @property
    def controls(self) -> Path:
        """Permuted labels, baselines, batches."""
        return self.path / "controls.json"

    @property
    def metrics(self) -> Path:
        """All metrics of every arm."""
        return self.path / "metrics.json"

    @property
    def cka(self) -> Path:
        """Fine-tuned encoders against frozen ones."""
        return self.path / "cka.json"

    @property
    def localisation(self) -> Path:
        """Attention and maps against outlines."""
        return self.path / "localisation.json"

    @property
    def slides(self) -> Path:
        """Pictures for the page, a folder a slide."""
        return self.path / "slides"

    @property
    def features(self) -> Path:
        """Bags, shared by all arms."""
        return self.path / "features"

    def features_of(self, weights: str) -> Path:
        """Return where bags of some kind of weights lie: names in files do not tell random weights from others."""
        if weights == "auto":
            return self.features
        return self.features / f"weights-{Path(weights).stem}"

    @property
    def local(self) -> Path:
        """What is not to be passed on."""
        return self.path / "local"

    @property
    def work(self) -> Path:
        """Marks of finished work."""
        return self.local / "work"

    def models(self, arm: Arm, *, key: str | None = None) -> Path:
        """Return the run folder of a frozen arm; one that version 0.1.0 named by its key is found.

        Args:
            arm: Which arm.
            key: As its record states it; None is the arm's own. A record does not hold the folder of a file of weights.
        """
        arms = self.path / "arms"
        old = arms / (key or arm.key)
        return old if old.is_dir() else arms / arm.folder
