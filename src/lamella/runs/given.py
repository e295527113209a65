"""A run on bags that were there before it: what is known of them, and what cannot be done without more."""

from collections.abc import Sequence
from pathlib import Path

from lamella.errors import ModelError
from lamella.runs.facts import BagFacts
from lamella.runs.record import MADE_BY, SettingsRecord, Value
from lamella.runs.settings import TrainingSettings, describe_training
from lamella.words import name_some

GIVEN = "bags"
"""What stands for the encoder in an export of heads alone."""

_SAME = 0.005  # as tiles of bags are compared with a model's
_SCALE = {"mpp": "um/px", "tile_px": "px", "tile_magnification": "x"}


def describe_bags(
    settings: TrainingSettings, facts: Sequence[BagFacts], *, width: int
) -> tuple[SettingsRecord, list[str]]:
    """Return the settings of a run on bags, None for what their files do not state, and what must be said of them.

    Args:
        settings: How heads were trained.
        facts: Of each bag; at least one.
        width: D of an embedding.
    """
    stated = {name: _find_common([getattr(bag, name) for bag in facts]) for name in MADE_BY}
    bags = {
        "tools": sorted({bag.tool for bag in facts if bag.tool is not None}),
        "fingerprint": _find_common([bag.fingerprint for bag in facts]),
        "width": width,
        "magnification": _find_common([bag.tile_magnification for bag in facts]),
    }
    most = _find_common([bag.tiles_per_slide for bag in facts])
    told = {**stated, "tiles_per_slide": most, "bags": bags, **describe_training(settings)}
    record = SettingsRecord.model_validate(told)
    return record, [note for name, unit in _SCALE.items() if (note := _say_scales(facts, name, unit))]


def refuse_slides(settings: SettingsRecord, folder: Path) -> ModelError:
    """Return the refusal to encode slides for a model that was trained on bags that were there."""
    unknown = f", which do not state {name_some(settings.unknown, 3)}" if settings.unknown else ""
    return ModelError(
        f"'{folder}' was trained on bags that were there{unknown}, so slides cannot be encoded as those were. Give "
        f"bags that were made alike: lamella predict {folder} --features DIR"
    )


def refuse_given(settings: SettingsRecord, folder: Path, *, what: str) -> None:
    """Refuse what needs the slides and the encoder of a run, where it was made from bags that were there.

    Args:
        settings: Of the run.
        folder: Of the run.
        what: What needs them, in the plural.

    Raises:
        ModelError: Saying from what to start instead.
    """
    if settings.bags is not None:
        raise ModelError(
            f"'{folder}' was made from bags that were there, and {what} need the run's own encoder. Run it from the "
            "slides: lamella run COHORT --encoder NAME"
        )


def _say_scales(facts: Sequence[BagFacts], name: str, unit: str) -> str:
    """Say that bags are of several scales; nothing where they are of one, or do not state it."""
    values = sorted({float(value) for bag in facts if (value := getattr(bag, name)) is not None})
    if not values or values[-1] - values[0] <= _SAME * values[0]:
        return ""
    return f"the bags are of several scales, {name} {values[0]:g} to {values[-1]:g} {unit}: the model learned from all."


def _find_common(values: Sequence[Value]) -> Value:
    """Return the value that all have; None where one lacks it, or they differ by more than rounding."""
    first = values[0]
    for value in values:
        if isinstance(value, int | float) and isinstance(first, int | float):
            alike = abs(value - first) <= _SAME * abs(first)
        else:
            alike = value == first
        if value is None or not alike:
            return None
    return first
