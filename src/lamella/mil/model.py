"""A trained model: what it says about a slide, and what it was made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lamella.cores import using_threads
from lamella.errors import ModelError
from lamella.mil.batches import Bag, check_bag
from lamella.mil.heads import Head
from lamella.mil.prediction import SlidePrediction, average_predictions, make_prediction
from lamella.mil.settings import TrainSettings
from lamella.mil.standardise import Standardisation

_ROWS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """The losses of one epoch: of training (weighted by class) and of validation (corrected probabilities)."""

    epoch: int
    train_loss: float
    val_log_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """How training went.

    Attributes:
        train: Ids of the slides learned from.
        val: Ids of the slides that decided when to stop.
        class_weights: Weight of each class in the loss, in the order of the classes.
        best_epoch: The epoch whose weights were kept, from 1.
        history: Every epoch, in order.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    class_weights: tuple[float, ...]
    best_epoch: int
    history: tuple[EpochRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlideModel:
    """A trained head with all it needs to predict a slide from its embeddings.

    Attributes:
        classes: In the order of the logits.
        settings: How it was trained.
        head: The network, on the CPU, in evaluation mode.
        standardisation: Of the embedding, learned on the training slides.
        training: Splits, class weights, losses.
        positive: The class that is looked for, where there are two.
        threshold: What the caller found on validation, as JSON: value, rule and so on; None before.
        provenance: What the caller knows of the bags, as JSON. `check_bag_fits` reads "encoder", "fingerprint",
            "mpp", "tile_px"; other keys are kept. Nothing else from outside is saved, so no path is unless put here.
        width: How many principal components of an embedding the head reads, by a first layer that was not trained; None
            where it reads embeddings as they are.
    """

    classes: tuple[str, ...]
    settings: TrainSettings
    head: Head
    standardisation: Standardisation
    training: TrainingRecord
    positive: str | None = None
    threshold: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    width: int | None = None

    @property
    def embedding_dim(self) -> int:
        """Width D of the embeddings it reads."""
        return len(self.standardisation.mean)

    def predict(self, features: Bag) -> SlidePrediction:
        """Predict one slide from its embeddings, in pieces, so that memory stays small for a huge bag.

        Args:
            features: `(N, D)` float16 or float32, N at least 1.

        Raises:
            BagError: If the bag is empty or holds NaN.
            ModelError: If it is of another width.
        """
        with using_threads(self.settings.n_threads), torch.inference_mode():
            output = self.head.pool_and_classify(*self._embed(features))
        logits = output.logits[0].double().numpy() - np.log(self.training.class_weights)
        attention = output.attention[0].double().numpy()
        return make_prediction(logits, attention)

    def split_logits(self, features: Bag) -> NDArray[np.float64]:
        """Split the logits of a slide over its tiles, whatever the encoder.

        Args:
            features: `(N, D)` float16 or float32, N at least 1.

        Returns:
            `(N, C)` float64, what each tile adds to each logit; they sum to the `logits` of `predict` over the tiles.
            What the logits hold besides (the classifier's bias, the class weights) goes to the tiles by attention.

        Raises:
            BagError: If the bag is empty or holds NaN.
            ModelError: If it is of another width, or the head lets tiles act on each other (`transmil`).
        """
        with using_threads(self.settings.n_threads), torch.inference_mode():
            tiles, real = self._embed(features)
            of_head = self.head.split_logits(tiles, real)[0].double()  # (N, C)
            attention = self.head.pool(tiles, real)[1][0].double()  # (N,)
        weights = torch.tensor(self.training.class_weights, dtype=torch.float64)
        parts: NDArray[np.float64] = (of_head - attention[:, None] * weights.log()).numpy()
        return parts

    def _embed(self, features: Bag) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tiles `(1, N, E)` inside the head, embedded in pieces, and that all are real, `(1, N)`."""
        check_bag(features)
        self._check_width(features.shape[1])
        pieces = []
        for start in range(0, len(features), _ROWS):
            rows = features[start : start + _ROWS].astype(np.float32)
            rows = (rows - self.standardisation.mean) / self.standardisation.sd
            pieces.append(self.head.embed(torch.from_numpy(rows)))
        tiles = torch.cat(pieces).unsqueeze(0)
        return tiles, torch.ones(tiles.shape[:2], dtype=torch.bool)

    def _check_width(self, width: int) -> None:
        """Refuse embeddings of another width."""
        if width != self.embedding_dim:
            raise ModelError(
                f"the model reads embeddings of {self.embedding_dim} features but the bag has {width}. Extract the "
                f"slide with the model's encoder{_name_encoder(self.provenance.get('encoder'))}."
            )


def predict_ensemble(models: Sequence[SlideModel], features: Bag) -> SlidePrediction:
    """Predict one slide by several models (the folds of one run): the mean of their logits and of their attention.

    Args:
        models: At least one, all of the same classes in the same order.
        features: `(N, D)` float16 or float32.

    Raises:
        BagError: If the bag is empty or holds NaN.
        ModelError: If there is no model, or the models or the bag do not fit each other.
    """
    if not models:
        raise ModelError("there is no model to predict with; at least 1 is needed. Pass the folder of a finished run.")
    for model in models:
        if model.classes != models[0].classes:
            raise ModelError(
                f"one model has classes {', '.join(models[0].classes)} and another {', '.join(model.classes)}. "
                "Pass models of one run."
            )
    return average_predictions([model.predict(features) for model in models])


def check_bag_fits(
    model: SlideModel,
    *,
    fingerprint: str | None,
    mpp: float | None,
    tile_px: int | None,
    embedding_dim: int,
    encoder: str | None = None,
) -> None:
    """Refuse bags that were not made the way the model's bags were.

    What the model does not know of its own bags (foreign files may state little) is not compared.

    Args:
        model: With `provenance` filled in.
        fingerprint: Of the bag's encoder; None when the file does not state one, which is refused where the model
            knows its own.
        mpp: Resolution of the bag's tiles, um per pixel.
        tile_px: Side of the bag's tiles, pixels at `mpp`.
        embedding_dim: Width of the bag.
        encoder: Name of the bag's encoder, for the message; compared only where no fingerprint can be.

    Raises:
        ModelError: Naming what differs, and both values.
    """
    known = model.provenance
    wanted = _name_encoder(known.get("encoder"))
    if known.get("fingerprint") is not None:
        if fingerprint != known["fingerprint"]:
            raise ModelError(
                f"the model was trained on bags of encoder{wanted} (fingerprint {_shorten(known['fingerprint'])}) but "
                f"the bag is of encoder{_name_encoder(encoder)} (fingerprint {_shorten(fingerprint)}). "
                "Extract the slide with the model's encoder and weights."
            )
    elif None not in (known.get("encoder"), encoder) and encoder != known["encoder"]:
        raise ModelError(
            f"the model was trained on bags of encoder{wanted} but the bag is of encoder{_name_encoder(encoder)}. "
            "Extract the slide with the model's encoder."
        )
    _check_number("mpp", "um/px", known.get("mpp"), mpp)
    _check_number("tile size", "px", known.get("tile_px"), tile_px)
    model._check_width(embedding_dim)


def _check_number(name: str, unit: str, wanted: float | None, given: float | None) -> None:
    """Refuse another tile size or resolution."""
    if wanted is None:
        return
    # An mpp may come from a file as text or as a magnification: half a per cent is rounding, not another resolution.
    if given is None or abs(given - wanted) > 0.005 * wanted:
        stated = "does not state its own" if given is None else f"has {given:g} {unit}"
        option = "--mpp" if unit == "um/px" else "--tile-px"
        raise ModelError(
            f"the model was trained on tiles of {name} {wanted:g} {unit} but the bag {stated}. "
            f"Extract the slide with {option} {wanted:g}."
        )


def _name_encoder(name: str | None) -> str:
    """Return ` 'NAME'`, or nothing when the name is not known."""
    return f" '{name}'" if name else ""


def _shorten(fingerprint: str | None) -> str:
    """Return the first digits of a fingerprint, enough to tell two apart."""
    return fingerprint[:12] if fingerprint else "not stated"
