"""What opens each kind of input, and a digest of what it reads: equal digests are an equal reading."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def read_slide(path: Path) -> str:
    """Open a slide and read all of it that tissue and tiles would."""
    from lamella.slide import open_slide

    with open_slide(path, slide_mpp=0.5) as slide:
        parts: list[Any] = [slide.size, slide.level_dimensions, slide.stated_mpp, slide.magnification, slide.format]
        parts.append(slide.read_overview((96, 64)))
        parts.append(slide.read_box((17.0, 9.0), (128, 96), 0.5))
        for level, (width, height) in enumerate(slide.level_dimensions):
            parts.append(slide.read_region((width // 3, height // 4), level, (min(64, width), min(48, height))))
    return digest(parts)


def read_bag(path: Path) -> str:
    """Load a bag of any tool's layout."""
    from lamella.features.layouts import load_bag

    bag = load_bag(path, slide_mpp=0.5)
    return digest([getattr(bag, field.name) for field in dataclasses.fields(bag)])


def read_attention(path: Path) -> str:
    """Load attention as numbers."""
    from lamella.study.attention import load_attention

    record = load_attention(path)
    return digest([getattr(record, field.name) for field in dataclasses.fields(record)])


def read_weights(path: Path) -> str:
    """Load a weights file and fit it to its network."""
    import torch

    from lamella.encoders import find_encoder
    from lamella.encoders.formats import fit_state, load_state
    from lamella.encoders.timm_trunk import create_trunk

    card = find_encoder("timm:test_resnet.r160_in1k")
    state = fit_state(load_state(path), create_trunk(card.network, dict(card.model_args)), card, path)
    return digest([(key, torch.as_tensor(state[key]).float().numpy()) for key in sorted(state)])


def read_cohort(path: Path) -> str:
    """Load a cohort's table."""
    from lamella.cohort import load_cohort

    return digest([dataclasses.astuple(row) for row in load_cohort(path).slides])


def read_predictions(path: Path) -> str:
    """Measure a table of predictions."""
    from lamella.study.measure import measure_table

    return digest([repr(measure_table(path))])


def read_regions(path: Path) -> str:
    """Rasterise regions or outlines of lesions."""
    from lamella.study.truth import load_truth

    return digest([load_truth(path, (1600, 1200))((60, 80))])


def read_design(path: Path) -> str:
    """Load a declared study."""
    from lamella.study.design import load_design

    return digest([repr(load_design(path))])


def read_run(path: Path) -> str:
    """Open a finished run and write its page."""
    from lamella.report.page import write_page
    from lamella.study.predict import open_run

    run = open_run(path)
    page = write_page(path)
    return digest([run.classes, run.positive, repr(run.settings), len(run.models), page.read_bytes()])


def read_study(path: Path) -> str:
    """Open a study's folder and write its page."""
    from lamella.report.study.page import write_study_page

    return digest([write_study_page(path).read_bytes()])


def read_export(path: Path) -> str:
    """Open an exported model."""
    from lamella.study.exported import open_export

    predictor = open_export(path)
    return digest([predictor.classes, predictor.positive, repr(predictor.settings), len(predictor.members)])


TARGETS: dict[str, Callable[[Path], str]] = {
    "slide": read_slide,
    "bag": read_bag,
    "attention": read_attention,
    "weights": read_weights,
    "cohort": read_cohort,
    "predictions": read_predictions,
    "regions": read_regions,
    "design": read_design,
    "run": read_run,
    "study": read_study,
    "export": read_export,
}


def digest(parts: list[Any]) -> str:
    """Return a hash of values and arrays."""
    sha = hashlib.sha256()
    for part in parts:
        for piece in part if isinstance(part, tuple) else (part,):
            content = (str(piece.dtype), piece.shape, piece.tobytes()) if isinstance(piece, np.ndarray) else piece
            sha.update(repr(content).encode("utf-8", "backslashreplace"))
    return sha.hexdigest()
