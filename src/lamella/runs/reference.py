"""What the slides of training look like, as an export carries it: numbers over all of them, none of a single slide.

reference.npz   mpp (2,): finest and coarsest level 0, um per pixel; NaN where that is not known
                colour.*: mean and SD of red, green and blue over tissue, as a `Likeness`
                embedding.<encoder>.*: mean embedding of a slide, as a `Likeness`, for each encoder
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.unlike import Likeness, find_distance, fit_likeness, is_unlike, is_unlike_mpp
from lamella.errors import ModelError
from lamella.files import replacing
from lamella.machine import refuse_passing
from lamella.mil.batches import Bag
from lamella.mil.prediction import Unlike
from lamella.mil.standardise import find_moments
from lamella.regular import refuse_irregular, refuse_zip_bomb
from lamella.runs.facts import BagFacts


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Reference:
    """What the slides of training look like.

    Attributes:
        mpp: `(finest, coarsest)` level 0, um per pixel; None where the bags did not state it.
        colour: Of tissue; None where the bags did not state it.
        embeddings: Of a slide's mean embedding, by the name of the encoder's file.
    """

    mpp: tuple[float, float] | None
    colour: Likeness | None
    embeddings: Mapping[str, Likeness]

    def judge(self, facts: BagFacts, embeddings: Mapping[str, Bag]) -> Unlike:
        """Say how a slide is unlike those of training.

        Args:
            facts: Of its bag.
            embeddings: `(N, D)` by the name of the encoder's file.
        """
        mpp = None if facts.slide_mpp is None else max(facts.slide_mpp)
        low, high = self.mpp or (0.0, 0.0)
        said = {}
        if mpp is not None and self.mpp is not None and is_unlike_mpp(mpp, low, high):
            known = f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"
            said["mpp"] = f"scanned at {mpp:.3g} um/px, those of training at {known}"
        colour = facts.colours
        if self.colour is not None and colour is not None and is_unlike(self.colour, colour):
            ratio = find_distance(self.colour, colour) / cast("float", self.colour.limit)
            said["colour"] = f"colour of tissue lies {_say_how_far(ratio)}"
        ratios = [
            find_distance(likeness, find_mean_embedding(embeddings[name])) / likeness.limit
            for name, likeness in self.embeddings.items()
            if likeness.limit is not None
        ]
        if ratios and float(np.median(ratios)) > 1:
            ratio = float(np.median(ratios))
            said["embedding"] = f"what the encoder sees lies {_say_how_far(ratio)}"
        return Unlike(**said)


def _say_how_far(ratio: float) -> str:
    """Put a distance over the greatest that a slide of training may have in words; it is above 1."""
    times = f"{ratio:.1f}"
    return f"{times if times != '1.0' else 'just over 1'} times as far off as slides of training may"


def find_mean_embedding(features: Bag) -> NDArray[np.float64]:
    """Return the mean of a bag's rows, `(D,)`, a few thousand of them at a time."""
    return find_moments(features)[0]


def build_reference(
    facts: Mapping[str, BagFacts],
    embeddings: Mapping[str, Mapping[str, NDArray[np.float64]]],
    patients: Mapping[str, str],
) -> Reference:
    """Return what slides look like.

    Args:
        facts: Of each slide's bag.
        embeddings: By the name of the encoder's file, each slide's mean embedding.
        patients: Whose each slide is.
    """
    mpps = [max(bag.slide_mpp) for bag in facts.values() if bag.slide_mpp is not None]
    colours = {i: bag.colours for i, bag in facts.items() if bag.colours is not None}
    return Reference(
        mpp=(min(mpps), max(mpps)) if mpps else None,
        colour=_fit(colours, patients) if len(colours) == len(facts) else None,
        embeddings={name: _fit(values, patients) for name, values in embeddings.items() if values},
    )


def save_reference(reference: Reference, path: Path) -> None:
    """Write it, whole or not at all."""
    arrays: dict[str, NDArray[np.float64]] = {"mpp": np.array(reference.mpp or (np.nan, np.nan))}
    parts = {f"embedding.{name}": likeness for name, likeness in reference.embeddings.items()}
    if reference.colour is not None:
        parts["colour"] = reference.colour
    for name, likeness in parts.items():
        for field in fields(Likeness):
            value = getattr(likeness, field.name)
            arrays[f"{name}.{field.name}"] = np.array(np.nan if value is None else value)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is called `allow_pickle`


def load_reference(path: Path) -> Reference:
    """Load what `save_reference` wrote.

    Raises:
        ModelError: If it is absent or damaged.
    """
    refuse_irregular(path, f"'{path}'", ModelError)
    refuse_zip_bomb(path, f"'{path}'", ModelError)
    try:
        with np.load(path, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
        prefixes = sorted({name.rpartition(".")[0] for name in arrays if name != "mpp"})
        parts = {prefix: _read(arrays, prefix) for prefix in prefixes}
        low, high = arrays["mpp"].tolist()
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        refuse_passing(error, str(path))
        raise ModelError(f"'{path}' cannot be read. Get the folder again from where it came.") from error
    return Reference(
        mpp=None if np.isnan(low) else (low, high),
        colour=parts.pop("colour", None),
        embeddings={name.removeprefix("embedding."): likeness for name, likeness in parts.items()},
    )


def _fit(vectors: Mapping[str, NDArray[np.float64]], patients: Mapping[str, str]) -> Likeness:
    ids: Sequence[str] = sorted(vectors)
    return fit_likeness(np.stack([vectors[i] for i in ids]), [patients[i] for i in ids])


def _read(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Likeness:
    values = {field.name: arrays[f"{prefix}.{field.name}"] for field in fields(Likeness)}
    limit = float(values.pop("limit"))
    rest = float(values.pop("rest"))
    return Likeness(**values, rest=rest, limit=None if np.isnan(limit) else limit)
