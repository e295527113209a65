"""Ids and labels that a person would take for one are refused; what no reader can see is taken away."""

from pathlib import Path

import pytest

from lamella.cohort import Cohort, CohortSlide, list_rounds, load_cohort
from lamella.cohort.outcomes import is_ordered
from lamella.errors import CohortError

ALIKE = {
    "capitals": ("P7", "p7", "capitals"),
    "leading zeros": ("007", "7", "how the number is written"),
    "a float of Excel": ("7.0", "7", "how the number is written"),
    "leading zeros after letters": ("P-07", "P-7", "leading zeros"),
    "full-width letters": ("\uff30\uff17", "P7", "spelling"),
    "doubled blanks": ("P  7", "P 7", "blanks"),
    "a hyphen for a blank": ("P-7", "P 7", "blanks, hyphens or underscores"),
    "a Cyrillic letter": ("\u0420-7", "P-7", "spelling"),
    "a boolean": ("True", "TRUE", "capitals"),
    "a decimal comma": ("1,0", "1", "how the number is written"),
    "sharp s": ("Stra\u00dfe", "Strasse", "capitals"),
}
SAME = {
    "composed and decomposed": ("M\u00fcller", "Mu\u0308ller"),
    "a no-break space": ("P 7", "P\u00a07"),
    "a zero-width space": ("P7", "P7\u200b"),
    "blanks around": ("P7", "  P7 "),
    "a narrow no-break space": ("P 7", "P\u202f7"),
}
DIFFERENT = [("HER2+", "HER2-"), ("P1", "P11"), ("1-11", "11-1"), ("0", "1"), ("1.5", "1.05"), ("T1", "T10")]


def write(folder: Path, column: str, values: tuple[str, str]) -> Path:
    path = folder / "cohort.csv"
    label = "" if column == "label" else "label,"
    rows = [f'{i}.svs,{"xy"[i] + "," if label else ""}"{value}"' for i, value in enumerate(values)]
    rows += [f"9.svs,{'x,' if label else ''}other"]
    path.write_text(f"slide,{label}{column}\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("column", ["label", "patient_id", "slide_id", "batch"])
@pytest.mark.parametrize("case", ALIKE)
def test_look_alikes_are_refused_with_both_spellings(tmp_path: Path, case: str, column: str) -> None:
    one, other, difference = ALIKE[case]
    with pytest.raises(CohortError) as error:
        load_cohort(write(tmp_path, column, (one, other)))
    message = str(error.value)
    assert f"'{one}' (row 2)" in message
    assert f"'{other}' (row 3)" in message
    if not (column == "slide_id" and difference == "capitals"):
        assert f"which differ in {difference} only" in message


@pytest.mark.parametrize("case", SAME)
def test_what_no_reader_sees_makes_no_second_patient_or_class(tmp_path: Path, case: str) -> None:
    slides = load_cohort(write(tmp_path, "patient_id", SAME[case])).slides
    assert slides[0].patient_id == slides[1].patient_id == SAME[case][0]
    assert load_cohort(write(tmp_path, "label", SAME[case])).classes == tuple(sorted((SAME[case][0], "other")))


@pytest.mark.parametrize("pair", DIFFERENT)
def test_what_differs_stays_apart(tmp_path: Path, pair: tuple[str, str]) -> None:
    assert [s.patient_id for s in load_cohort(write(tmp_path, "patient_id", pair)).slides] == [*pair, "other"]


@pytest.mark.parametrize("word", ["#N/A", "None", "nan", "NA", "NULL", "<NA>", "#REF!", "N/A", "NaT", "?"])
@pytest.mark.parametrize("column", ["label", "patient_id", "slide_id", "batch"])
def test_words_for_nothing_are_no_ids_and_no_labels(tmp_path: Path, word: str, column: str) -> None:
    with pytest.raises(CohortError, match="in row 3"):
        load_cohort(write(tmp_path, column, ("a", word)))


def test_a_cohort_made_by_hand_is_held_to_the_same_rule() -> None:
    slides = tuple(
        CohortSlide(slide_id=f"s{i}", path=Path(f"{i}"), patient_id=name, label="ab"[i % 2], fold=i // 2)
        for i, name in enumerate(["P1", "P2", "P3", "p1", "P5", "P6"])
    )
    with pytest.raises(CohortError, match="'P1' and 'p1', which differ in capitals only"):
        list_rounds(Cohort(slides=slides, classes=("a", "b"), positive="b"))


def test_two_columns_of_one_name_must_agree(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("slide,label,Label\na.svs,x,x\nb.svs,y,z\n")
    with pytest.raises(CohortError, match=r"columns 'label' and 'Label', .* disagree in row 3"):
        load_cohort(path)
    path.write_text("slide,label,Label\na.svs,x,x\nb.svs,y,y\n")
    assert load_cohort(path).classes == ("x", "y")


@pytest.mark.parametrize("head", ["sep=;\n", "SEP=;\r\n", "\ufeffsep=;\n", '"sep=;"\n'])
def test_the_first_line_of_excel_names_the_separator(tmp_path: Path, head: str) -> None:
    path = tmp_path / "c.csv"
    path.write_text(f"{head}slide;label\na.svs;x\nb.svs;\n", encoding="utf-8", newline="")
    assert load_cohort(path, labelled=False).slides[0].label == "x"
    with pytest.raises(CohortError, match="in row 4"):
        load_cohort(path)


def test_utf_16_is_read_and_json_is_not(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes("slide\tlabel\na.svs\tL\u00fcck\nb.svs\ty\n".encode("utf-16"))
    assert load_cohort(path).classes == ("L\u00fcck", "y")
    path.write_text('[{"slide": "a.svs"}]')
    with pytest.raises(CohortError, match="holds JSON"):
        load_cohort(path)
    path.write_bytes(b"PK\x03\x04rest")
    with pytest.raises(CohortError, match="Excel workbook"):
        load_cohort(path)


def test_a_file_of_decomposed_name_is_the_slide_of_a_composed_table(tmp_path: Path) -> None:
    (tmp_path / "Mu\u0308ller.svs").touch()
    (tmp_path / "c.csv").write_text("slide,label\nM\u00fcller.svs,x\nb.svs,y\n", encoding="utf-8")
    slide = load_cohort(tmp_path / "c.csv").slides[0]
    assert slide.path.exists()
    assert slide.slide_id == "M\u00fcller"


@pytest.mark.parametrize(
    ("column", "kind"), [("ki67", "measurements"), ("os_months", "survival times"), ("time", "survival times")]
)
def test_numbers_of_many_values_are_no_classes(tmp_path: Path, column: str, kind: str) -> None:
    from lamella.cohort import CohortColumns

    path = tmp_path / "c.csv"
    path.write_text(f"slide,{column}\n" + "".join(f"{i}.svs,{i * 1.37 + 0.1:.2f}\n" for i in range(12)))
    with pytest.raises(CohortError, match=f"12 different numbers in 12 slides, so it holds {kind}"):
        load_cohort(path, columns=CohortColumns(label=column))
    path.write_text(f"slide,{column}\n" + "".join(f"{i}.svs,{i % 5}\n" for i in range(12)))
    assert len(load_cohort(path, columns=CohortColumns(label=column)).classes) == 5


@pytest.mark.parametrize(
    "classes", [("0", "1+", "2+", "3+"), ("I", "II", "III"), ("low", "medium", "high"), ("ISUP 1", "ISUP 2", "ISUP 5")]
)
def test_an_order_is_said_not_to_be_used_and_no_class_is_positive(tmp_path: Path, classes: tuple[str, ...]) -> None:
    path = tmp_path / "c.csv"
    path.write_text("slide,label,patient_id\n" + "".join(f"{i}.svs,{c},P{i}\n" for i, c in enumerate(classes)))
    notes = load_cohort(path).notes
    assert any("their order is not used" in note for note in notes)
    assert not any("positive" in note for note in notes)
    assert not is_ordered(("lung", "colon", "breast"))
