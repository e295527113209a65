"""Writing where models looked, slide by slide, whatever was predicted: slides, or patients of several."""

import dataclasses
from collections.abc import Sequence

from lamella.files import remove
from lamella.mil import SlidePrediction
from lamella.runs.attention import load_attention, locate_attention, save_attention
from lamella.runs.bags import hash_json
from lamella.runs.folder import RunFolder
from lamella.runs.units import Units
from lamella.words import name_some


def save_run_attention(predictions: Sequence[SlidePrediction], units: Units, folder: RunFolder) -> list[str]:
    """Write attention, slide by slide, where the bags say where their tiles lie; return a note of where they do not."""
    tested = {slide_id for prediction in predictions for slide_id in units.slides[prediction.slide_id]}
    for path in sorted(folder.attention.glob("*.h5")):
        if path.stem not in tested:
            remove(path)  # an earlier run's
    unlocated = [slide_id for prediction in predictions for slide_id in save_unit_attention(prediction, units, folder)]
    if not unlocated:
        return []
    return [
        f"no attention for {len(unlocated)} of {len(tested)} slides ({name_some(unlocated, 3)}): their bags do not "
        "state "
        "where tiles lie in level-0 pixels and how large they are (coords with patch_size and patch_size_level0)"
    ]


def save_unit_attention(prediction: SlidePrediction, units: Units, folder: RunFolder) -> list[str]:
    """Write the attention on the slides of a unit; return the slides whose bags do not say where their tiles lie."""
    unlocated: list[str] = []
    for slide_id, attention in units.split_attention(prediction).items():
        facts = units.parts.facts[slide_id]
        if facts.tile_l0 is None:
            unlocated.append(slide_id)
            continue
        key = hash_json([attention.tobytes().hex(), prediction.logits.tolist(), units.parts.key(slide_id)])
        path = folder.attention / f"{slide_id}.h5"
        if path.exists() and load_attention(path).key == key:
            continue
        record = locate_attention(attention, units.parts.corners_l0[slide_id][:], facts, key=key)
        save_attention(dataclasses.replace(record, n_bag=len(prediction.attention)), path)
    return unlocated
