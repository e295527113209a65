"""A model's folder: `model.safetensors` (numbers) and `model.json` (all else).

    model.safetensors   head.*; standardisation.mean, standardisation.sd (D,) float32
    model.json          format, format_version, lamella_version, tensors_sha256, classes, positive, embedding_dim,
                        width (where embeddings are narrowed), settings, training, threshold, provenance

The JSON is written last and holds the SHA-256 of the tensors: a folder whose two files do not belong together is
refused.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lamella import __version__
from lamella.errors import ModelError, SettingsError
from lamella.files import find_sha256, parse_json_file, replacing, write_record
from lamella.machine import refuse_passing
from lamella.mil.heads import HEADS
from lamella.mil.model import EpochRecord, SlideModel, TrainingRecord
from lamella.mil.settings import TrainSettings
from lamella.mil.standardise import Standardisation
from lamella.mil.width import put_layer_before

FORMAT = "lamella-model"
FORMAT_VERSION = 1
TENSORS_NAME = "model.safetensors"
JSON_NAME = "model.json"


def save_model(model: SlideModel, folder: Path) -> None:
    """Save a model, each file whole or not at all.

    Args:
        model: What to save. Its `provenance` and `threshold` must be what JSON can hold; the ids in `training` are
            saved as they are (replace them first where ids are private).
        folder: Made if it is not there.

    Raises:
        OutputError: If the folder cannot be written.
    """
    folder = Path(folder)
    tensors = {f"head.{name}": tensor.contiguous() for name, tensor in model.head.state_dict().items()}
    tensors["standardisation.mean"] = torch.from_numpy(model.standardisation.mean)
    tensors["standardisation.sd"] = torch.from_numpy(model.standardisation.sd)
    path = folder / TENSORS_NAME
    with replacing(path) as temporary:
        save_file(tensors, temporary)
    write_record(
        folder / JSON_NAME,
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "lamella_version": __version__,
            "tensors_sha256": find_sha256(path),
            "classes": list(model.classes),
            "positive": model.positive,
            "embedding_dim": model.embedding_dim,
            **({} if model.width is None else {"width": model.width}),
            "settings": dataclasses.asdict(model.settings),
            "training": dataclasses.asdict(model.training),
            "threshold": None if model.threshold is None else dict(model.threshold),
            "provenance": dict(model.provenance),
        },
    )


def load_model(folder: Path) -> SlideModel:
    """Load a model that `save_model` wrote.

    Args:
        folder: Holds `model.safetensors` and `model.json`.

    Raises:
        ModelError: If a file is absent, damaged, foreign, of a newer version, or the two do not belong together.
    """
    folder = Path(folder)
    content = _load_json(folder / JSON_NAME)
    tensors = _load_tensors(folder / TENSORS_NAME, content.get("tensors_sha256"))
    try:
        if not isinstance(content["provenance"], dict) or not isinstance(content["threshold"], dict | None):
            raise TypeError("provenance or threshold is no object")
        settings = TrainSettings(**content["settings"])
        standardisation = Standardisation(
            tensors.pop("standardisation.mean").numpy(), tensors.pop("standardisation.sd").numpy()
        )
        classes = tuple(content["classes"])
        # Its first weights are overwritten at once: the caller's random state must not move for them.
        with torch.random.fork_rng(devices=[]):
            dim, width = len(standardisation.mean), content.get("width")
            head = HEADS[settings.head](dim if width is None else width, len(classes), settings.dropout)
            head = head if width is None else put_layer_before(head, dim, width)
        head.load_state_dict({name.removeprefix("head."): tensor for name, tensor in tensors.items()})
        return SlideModel(
            classes=classes,
            settings=settings,
            head=head.eval().requires_grad_(False),  # noqa: FBT003 - torch's own signature
            standardisation=standardisation,
            training=_read_training(content["training"], len(classes)),
            positive=content["positive"],
            threshold=content["threshold"],
            provenance=content["provenance"],
            width=width,
        )
    except (KeyError, TypeError, ValueError, RuntimeError, SettingsError) as error:
        raise ModelError(
            f"'{folder / JSON_NAME}' does not describe a model this version can read ({error}). "
            "Train it again, or fetch the folder again from where it came."
        ) from error


def _load_json(path: Path) -> dict[str, Any]:
    """Read `model.json` and check that it is ours."""
    try:
        content = parse_json_file(path)
    except OSError as error:
        refuse_passing(error, str(path))
        raise ModelError(
            f"there is no model in '{path.parent}' ('{path.name}' cannot be read: {error.strerror}). "
            "Pass a folder such as RUN/models/fold0."
        ) from error
    except ValueError as error:
        raise ModelError(f"'{path}' is damaged: {error}. Train it again, or get the folder again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelError(f"'{path}' is not a model of this package (no format '{FORMAT}'). Pass RUN/models/fold0.")
    if content.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"'{path}' has format version {content.get('format_version')} and this version of lamella reads "
            f"{FORMAT_VERSION}. Install lamella {content.get('lamella_version')}."
        )
    return content


def _load_tensors(path: Path, sha256: object) -> dict[str, Tensor]:
    """Read `model.safetensors` and check that it is the file the JSON speaks of."""
    try:
        if find_sha256(path) != sha256:
            raise ModelError(
                f"'{path}' is not the file that '{JSON_NAME}' beside it speaks of (its SHA-256 differs): one of the "
                "two is damaged or from another training. Train it again, or fetch the folder again."
            )
        return dict(load_file(path))
    except OSError as error:
        refuse_passing(error, str(path))
        raise ModelError(
            f"'{path}' cannot be read ({error.strerror or error}). Train it again, or fetch the folder again."
        ) from error
    except SafetensorError as error:
        raise ModelError(f"'{path}' is damaged ({error}). Train it again, or fetch the folder again.") from error


def _read_training(content: Mapping[str, Any], n_classes: int) -> TrainingRecord:
    """Rebuild the record of training."""
    weights = tuple(float(weight) for weight in content["class_weights"])
    if len(weights) != n_classes or not np.all(np.asarray(weights) > 0):
        raise ValueError(f"class weights are {weights} for {n_classes} classes")
    return TrainingRecord(
        train=tuple(content["train"]),
        val=tuple(content["val"]),
        class_weights=weights,
        best_epoch=int(content["best_epoch"]),
        history=tuple(EpochRecord(**epoch) for epoch in content["history"]),
    )
