"""Sentences that may quote files and slides are made fit to pass on."""

import pytest

from lamella.reports.scrub import drop_folders


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("slide '/data/ward 7/S-1.svs' is empty.", "slide 'S-1.svs' is empty."),
        ("read from /home/me/slides/S-1.svs, twice", "read from S-1.svs, twice"),
        (r"'C:\Users\Jane Doe\S-1.svs' is locked", "'S-1.svs' is locked"),
        (r"see \\server\share\S-1.svs now", "see S-1.svs now"),
        ("in slides/2024/S-1.svs", "in S-1.svs"),
        ("the slide's 0.25 um/px is finer, and/or it's odd", "the slide's 0.25 um/px is finer, and/or it's odd"),
        ("30 tiles/s with ~/x/weights.pth", "30 tiles/s with weights.pth"),
    ],
)
def test_folders_go_and_units_stay(text, cleaned):
    assert drop_folders(text) == cleaned
