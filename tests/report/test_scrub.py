"""Sentences that may quote files and slides are made fit to pass on."""

import pytest

from lamella.report.pseudonyms import PlainNames, Pseudonyms
from lamella.report.scrub import make_scrubber

NAMES = Pseudonyms("salt of the house")


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
    assert make_scrubber(PlainNames(), ["S-1"], ["P-1"])(text) == cleaned


def test_pseudonyms_replace_ids_longest_first():
    scrub = make_scrubber(NAMES, ["S-1", "S-12"], ["P-9"])
    text = scrub("patient 'P-9' has slides 'S-12' and 'S-1.svs'; S-123 is another")
    assert text == (
        f"patient '{NAMES.patient('P-9')}' has slides '{NAMES.slide('S-12')}' and '{NAMES.slide('S-1')}.svs'; "
        "S-123 is another"
    )


def test_pseudonyms_hide_files_that_bear_other_names():
    assert make_scrubber(NAMES, ["S-1"], [])("slide '/ward/Jane Doe.svs' is empty") == "slide [a file] is empty"


def test_ids_that_are_mere_numbers_leave_other_numbers_alone():
    scrub = make_scrubber(NAMES, ["7"], ["P-9"])
    assert scrub("slide '7' of 7 stops at 7 um/px") == f"slide '{NAMES.slide('7')}' of 7 stops at 7 um/px"
