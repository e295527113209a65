"""Pseudonyms: stable within a salt, unlike without it."""

import pytest

from lamella.errors import SettingsError
from lamella.reports.pseudonyms import Pseudonyms, make_salt


def test_a_pseudonym_is_stable_within_a_salt_and_tells_nothing():
    names = Pseudonyms("salt of the house")
    assert names.slide("S-0412") == Pseudonyms("salt of the house").slide("S-0412")
    assert names.slide("S-0412") != Pseudonyms("salt of the mouse").slide("S-0412")
    assert "0412" not in names.slide("S-0412").removeprefix("slide-")
    assert names.slide("P-1").split("-")[1] != names.patient("P-1").split("-")[1]


def test_the_salt_is_not_shown_in_a_repr():
    assert "house" not in repr(Pseudonyms("salt of the house"))


def test_pseudonyms_are_safe_as_file_names_and_in_html():
    name = Pseudonyms("salt of the house").slide("<script>/../x")
    assert all(letter.isalnum() or letter == "-" for letter in name)


def test_a_short_salt_is_refused_with_a_better_one():
    with pytest.raises(SettingsError, match="must have at least 8"):
        Pseudonyms("abc")
    assert len(make_salt()) == 32
