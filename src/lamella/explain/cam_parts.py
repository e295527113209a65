"""What a class activation map is computed by: encoders, the models that read them, and the bags that they made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamella.cohort import Cohort, list_rounds
from lamella.encoders import EncoderSpec
from lamella.errors import ModelError
from lamella.features.bag import FeatureBag
from lamella.features.layouts import open_own_bag
from lamella.mil import SlideModel, load_model, predict_ensemble
from lamella.runs.folder import RunFolder
from lamella.runs.predict import FinishedRun, find_run_encoder
from lamella.runs.settings import CamSettings, restore_extract_settings


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CamPart:
    """One encoder, the models that read it, and the bags it made.

    Attributes:
        encoder: The encoder.
        models: Of one fold: one a seed for a frozen encoder, a single one for a fine-tuned encoder.
        bags: Folder of the bags.
    """

    encoder: EncoderSpec
    models: tuple[SlideModel, ...]
    bags: Path

    def open_bag(self, slide_id: str) -> FeatureBag:
        """Return the bag of a slide; its features are read when they are asked for.

        Raises:
            BagError: If it is absent or damaged.
        """
        return open_own_bag(self.bags / f"{slide_id}.h5")


class PartFinder:
    """Finds the encoders and models by which a slide is mapped: those of the fold that tested it."""

    def __init__(self, run: FinishedRun, settings: CamSettings, cohort: Cohort, predicted: Path | None) -> None:
        if run.settings.unit == "patient":
            raise ModelError(
                "the run predicts patients, whose bags are of several slides, and a map is of one slide's bag. Run "
                "again with --unit slide, or look at the run's attention."
            )
        self._run, self._settings = run, settings
        self._extract = restore_extract_settings(run.settings, find_run_encoder(run))
        self._predicted = predicted
        self._home = run.folder if predicted is None else RunFolder(predicted)
        tuned = settings.finetuned == "tuned"
        self._tuned = run.list_finetuned("tuned") if tuned and predicted is None else []
        if tuned and not self._tuned:
            raise ModelError("the run has no fine-tuned encoders for these slides. Pass --arm frozen.")
        rounds = [] if predicted is not None else list_rounds(cohort)
        self._fold = {slide_id: round_.fold for round_ in rounds for slide_id in round_.test}
        self._parts: dict[int, tuple[CamPart, ...]] = {}

    def is_tested(self, slide_id: str) -> bool:
        """Say whether there are models that did not learn from a slide."""
        return self._predicted is not None or slide_id in self._fold

    def find_fold(self, slide_id: str) -> int:
        """Return the fold that tested a slide; -1 where all models map it."""
        return self._fold.get(slide_id, -1)

    def has_bag(self, slide_id: str) -> bool:
        """Say whether the run has encoded a slide; those that could not be read stand in its failures.csv."""
        return self._extract.folder(self._home.features).features_path(slide_id).exists()

    def find(self, slide_id: str) -> tuple[CamPart, ...]:
        """Return the parts that did not learn from a slide.

        Raises:
            ModelError: If the run has no such arm.
        """
        fold = self.find_fold(slide_id)
        if fold not in self._parts:
            self._parts[fold] = (
                self._find_tuned(fold) if self._settings.finetuned == "tuned" else (self._find_frozen(fold),)
            )
        return self._parts[fold]

    def _find_frozen(self, fold: int) -> CamPart:
        models = self._run.models
        if self._predicted is None:
            models = tuple(load_model(path) for path in sorted(self._home.models.glob(f"fold{fold}/seed*")))
        if not models:
            raise ModelError(f"the run has no model of fold {fold}. Run `lamella run` again: it makes what is missing.")
        bags = self._extract.folder(self._home.features).features
        return CamPart(encoder=self._extract.encoder, models=models, bags=bags)

    def _find_tuned(self, fold: int) -> tuple[CamPart, ...]:
        parts = []
        for tuned in self._tuned:
            if tuned.fold != fold:
                continue
            bags = self._extract.folder(tuned.home / "features", tuned.encoder).features
            if not bags.is_dir():
                raise ModelError(
                    "the fine-tuned encoder has read only the most attended tiles of its test slides. Run it again "
                    "with --evaluate all."
                )
            parts.append(CamPart(encoder=tuned.encoder, models=(tuned.model,), bags=bags))
        if not parts:
            raise ModelError(
                f"fold {fold} has no fine-tuned encoder. Run `lamella run` again: it makes what is missing."
            )
        return tuple(parts)


def predict_parts(parts: Sequence[CamPart], bags: Sequence[FeatureBag]) -> tuple[NDArray[np.float64], float]:
    """Return the attention `(N,)` that the models pay to the tiles of a slide, and the positive class's probability.

    The positive class is the models' own, or the last.

    Args:
        parts: The encoders with their models.
        bags: The bag that each made of the slide.
    """
    predictions = [predict_ensemble(part.models, bag.features) for part, bag in zip(parts, bags, strict=True)]
    model = parts[0].models[0]
    positive = model.classes.index(model.positive) if model.positive in model.classes else -1
    attention = np.mean([prediction.attention for prediction in predictions], axis=0).astype(np.float64)
    return attention, float(np.mean([prediction.probabilities[positive] for prediction in predictions]))
