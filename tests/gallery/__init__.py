"""Every error a user can meet: each is provoked with the real command, and docs/troubleshooting.md shows what it says.

A file for each step of the pipeline; `case` says what a case is and runs it, `scenes` draws what the commands find.
"""

from tests.gallery import (
    bags,
    comparisons,
    encoders,
    explanation,
    export,
    heatmaps,
    prediction,
    resolution,
    slides,
    splits,
    studies,
    table,
    tiles,
    training,
    writing,
)

STEPS = (
    table.STEP,
    splits.STEP,
    slides.STEP,
    resolution.STEP,
    tiles.STEP,
    encoders.STEP,
    bags.STEP,
    training.STEP,
    prediction.STEP,
    export.STEP,
    heatmaps.STEP,
    explanation.STEP,
    studies.STEP,
    comparisons.STEP,
    writing.STEP,
)
CASES = tuple(case for step in STEPS for case in step.cases)
