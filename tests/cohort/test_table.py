"""Reading and writing cohort tables, and every way in which one can be wrong."""

from pathlib import Path

import pytest

from lamella.cohort import Cohort, CohortColumns, CohortSlide, find_missing, load_cohort, save_cohort
from lamella.errors import CohortError, LeakageError, SettingsError

GOOD = "slide,label\nsub/S-1.svs,benign\nS-2.svs,malignant\nS-3.svs,benign\n"


def write(folder: Path, text: str, name: str = "cohort.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_are_relative_to_the_table_and_ids_are_file_stems(tmp_path: Path) -> None:
    cohort = load_cohort(write(tmp_path, GOOD))
    first = cohort.slides[0]
    assert first.path == (tmp_path / "sub" / "S-1.svs").resolve()
    assert (first.slide_id, first.patient_id, first.label) == ("S-1", "S-1", "benign")
    assert cohort.classes == ("benign", "malignant")
    assert cohort.positive == "malignant"


def test_assumptions_are_said_aloud(tmp_path: Path) -> None:
    notes = load_cohort(write(tmp_path, GOOD)).notes
    assert "each slide counts as its own patient" in notes[0]
    assert "'malignant'" in notes[1]
    named = load_cohort(write(tmp_path, "slide,label,patient_id\na.svs,x,P1\nb.svs,y,P1\n"), positive="x")
    assert named.notes == ("1 patient has slides that differ in label: 'P1'.",)


def test_labels_stay_text(tmp_path: Path) -> None:
    path = write(tmp_path, "slide,label\na.svs,00\nb.svs,01\nc.svs,01\n")
    assert load_cohort(path).classes == ("00", "01")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_and_a_byte_order_mark_are_read(tmp_path: Path, separator: str) -> None:
    path = write(tmp_path, "\ufeff" + GOOD.replace(",", separator))
    assert [slide.label for slide in load_cohort(path).slides] == ["benign", "malignant", "benign"]


def test_parquet_reads_like_csv(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "slide": ["a.svs", "b.svs", "c.svs"],
            "label": [0, 1, 0],
            "fold": [0.0, 1.0, 2.0],
            "slide_mpp": [0.25, None, 1.0],
        }
    )
    frame.to_parquet(tmp_path / "cohort.parquet")
    cohort = load_cohort(tmp_path / "cohort.parquet")
    assert cohort.classes == ("0", "1")
    assert [slide.fold for slide in cohort.slides] == [0, 1, 2]
    assert [slide.slide_mpp for slide in cohort.slides] == [0.25, None, 1.0]


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = write(tmp_path, "file,diagnosis,case,scanner\na.svs,x,P1,A\nb.svs,y,P2,B\n")
    columns = CohortColumns(slide="file", label="diagnosis", patient_id="case", batch="scanner")
    slide = load_cohort(path, columns=columns).slides[1]
    assert (slide.slide_id, slide.label, slide.patient_id, slide.batch) == ("b", "y", "P2", "B")


def test_slides_to_predict_need_no_labels(tmp_path: Path) -> None:
    cohort = load_cohort(write(tmp_path, "slide\na.svs\n"), labelled=False)
    assert cohort.slides[0].label is None
    assert cohort.positive is None
    part = load_cohort(write(tmp_path, "slide,label\na.svs,x\nb.svs,\n"), labelled=False, positive="y")
    assert [slide.label for slide in part.slides] == ["x", None]
    assert part.positive == "y"


def test_missing_slides_are_listed_not_refused(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    (tmp_path / "S-2.svs").touch()
    assert [slide.slide_id for slide in find_missing(load_cohort(path))] == ["S-1", "S-3"]


def test_save_then_load_gives_the_same_cohort_wherever_the_table_lies(tmp_path: Path) -> None:
    cohort = load_cohort(write(tmp_path, "slide,label,batch,slide_mpp\nd/a.svs,x,B1,0.25\nb.svs,y,,\n"))
    target = tmp_path / "splits" / "deep" / "new.csv"
    save_cohort(cohort, target)
    assert "../../d/a.svs" in target.read_text()
    assert load_cohort(target) == cohort
    assert "patient_id" not in target.read_text(), "an assumption must not turn into data"


def test_an_empty_row_is_no_slide(tmp_path: Path) -> None:
    assert len(load_cohort(write(tmp_path, GOOD + ",\n\n")).slides) == 3


def test_slides_on_another_root_keep_their_whole_path(tmp_path: Path) -> None:
    far = Path("/nowhere-else/S-9.svs")
    save_cohort(Cohort(slides=(CohortSlide(slide_id="S-9", path=far, patient_id="P"),)), tmp_path / "c.csv")
    assert load_cohort(tmp_path / "c.csv", labelled=False).slides[0].path == far


WRONG = {
    "no column label; suggests one": (
        "file,diagnosis\na.svs,x\n",
        {"columns": CohortColumns(slide="file")},
        "cohort 'cohort.csv' has no column 'label'; it has 'file', 'diagnosis'. Pass --label-col diagnosis.",
    ),
    "no column slide": (
        "Slide,label\na.svs,x\n",
        {},
        "cohort 'cohort.csv' has no column 'slide'; it has 'Slide', 'label'. Pass --slide-col Slide.",
    ),
    "a named column that is not there": (
        "slide,label,site\na.svs,x,1\n",
        {"columns": CohortColumns(batch="sites")},
        "cohort 'cohort.csv' has no column 'sites'; it has 'slide', 'label', 'site'. Pass --batch-col site.",
    ),
    "header only": ("slide,label\n", {}, "cohort 'cohort.csv' has a header and no rows. Add one row a slide."),
    "nothing at all": (
        "",
        {},
        "cohort 'cohort.csv' is empty. Write a header with slide and label, and one row a slide.",
    ),
    "one class": (
        "slide,label\na.svs,x\nb.svs,x\n",
        {},
        "cohort 'cohort.csv' has one class, 'x', in all its 2 slides and two or more are needed. "
        "Add slides of another class, or name the right column with --label-col.",
    ),
    "ids twice": (
        "slide,label\n1/a.svs,x\n2/a.svs,y\n",
        {},
        "cohort 'cohort.csv' uses a slide id 2 times: 'a' (row 2) and 'a' (row 3); their results would overwrite "
        "each other. Give each its own id in a column slide_id.",
    ),
    "ids that differ in case only": (
        "slide,slide_id,label\na.svs,S1,x\nb.svs,s1,y\n",
        {},
        "cohort 'cohort.csv' uses a slide id 2 times: 'S1' (row 2) and 's1' (row 3); their results would overwrite "
        "each other. Give each slide its own id.",
    ),
    "an id with a separator": (
        "slide,slide_id,label\na.svs,../S1,x\nb.svs,S2,y\n",
        {},
        "cohort 'cohort.csv': column 'slide_id' makes the slide id '../S1', which cannot be a file's name, in row 2. "
        'Give ids of at most 150 characters without / \\ : * ? " < > | and not beginning with a dot, '
        "in a column slide_id.",
    ),
    "no label": (
        "slide,label\na.svs,x\nb.svs,\nc.svs,NaN\nd.svs,y\n",
        {},
        "cohort 'cohort.csv': column 'label' has no label ('') in rows 3, 4. Fill it in, or delete the row.",
    ),
    "no patient in a row": (
        "slide,label,patient_id\na.svs,x,P1\nb.svs,y,\n",
        {},
        "cohort 'cohort.csv': column 'patient_id' is empty in row 3. Fill it in, or delete the row.",
    ),
    "a split of another name": (
        "slide,label,split\na.svs,x,train\nb.svs,y,validation\n",
        {},
        "cohort 'cohort.csv': column 'split' says 'validation' in row 3. Write train, val or test.",
    ),
    "folds from 1": (
        "slide,label,fold\na.svs,x,1\nb.svs,y,3\n",
        {},
        "cohort 'cohort.csv' has folds up to 3 but no slide in fold 0, 2. Number the folds from 0 without a gap.",
    ),
    "a fold that is no number": (
        "slide,label,fold\na.svs,x,0\nb.svs,y,one\n",
        {},
        "cohort 'cohort.csv': column 'fold' says 'one' in row 3. "
        "Write the round in which the slide is tested, 0, 1, 2 and so on.",
    ),
    "splits and folds": (
        "slide,label,split,fold\na.svs,x,train,0\nb.svs,y,val,1\n",
        {},
        "cohort 'cohort.csv' has both a column of splits and one of folds, and only one can be followed. "
        "Delete one of the two columns.",
    ),
    "an unquoted comma": (
        "slide,label\na, left.svs,x\nb.svs,y\n",
        {},
        "cohort 'cohort.csv' has 3 cells in row 2 and 2 columns. Put a cell that contains the separator in \"quotes\".",
    ),
    "a column twice": (
        "slide,label,label\na.svs,x,y\n",
        {},
        "cohort 'cohort.csv' has 2 columns 'label'. Rename all but one.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_table_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    text, options, message = WRONG[case]
    with pytest.raises(CohortError) as error:
        load_cohort(write(tmp_path, text), **options)  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.parametrize("mpp", ["0", "-0.25", "nan", "1000", "inf", "0,25", "fine"])
def test_an_absurd_resolution_in_the_column_is_refused(tmp_path: Path, mpp: str) -> None:
    path = write(tmp_path, f'slide,label,slide_mpp\na.svs,x,0.25\nb.svs,y,"{mpp}"\n')
    with pytest.raises(CohortError) as error:
        load_cohort(path)
    assert str(error.value) == (
        f"cohort 'cohort.csv': column 'slide_mpp' says '{mpp}' in row 3. Write um per pixel, 0.05 to 20, as in 0.25, "
        "or leave it empty where the slide states it."
    )


def test_one_file_under_two_ids_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LeakageError, match=r"slides 'A' and 'B' of cohort 'cohort.csv' are the same file 'a.svs'"):
        load_cohort(write(tmp_path, "slide,slide_id,label\na.svs,A,x\n./a.svs,B,y\n"))


def test_a_positive_label_that_no_slide_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the labels are 'benign', 'malignant'\. Pass --positive malignant\."):
        load_cohort(write(tmp_path, GOOD), positive="malign")


def test_tables_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"there is no cohort table '.*absent.csv'\. Give the path of a CSV"):
        load_cohort(tmp_path / "absent.csv")
    with pytest.raises(CohortError, match="is a folder and a cohort is a table"):
        load_cohort(tmp_path)
    with pytest.raises(CohortError, match=r"is an Excel workbook and is read as .csv"):
        load_cohort(write(tmp_path, GOOD, "cohort.xlsx"))
    (tmp_path / "latin.csv").write_bytes("slide,label\nä.svs,x\n".encode("latin-1"))
    with pytest.raises(CohortError, match="is not UTF-8 text"):
        load_cohort(tmp_path / "latin.csv")
    with pytest.raises(CohortError, match="is not a Parquet file that can be read"):
        load_cohort(write(tmp_path, GOOD, "cohort.parquet"))


def test_the_real_cohort_reads(shared_data: Path) -> None:
    cohort = load_cohort(shared_data / "ucsb-breast" / "cohort.csv")
    assert len(cohort.slides) == 40
    assert not find_missing(cohort)
    assert {slide.slide_mpp for slide in cohort.slides} == {0.25}


def test_patients_that_were_given_are_kept_also_where_each_has_one_slide(tmp_path: Path) -> None:
    text = "slide,label,patient_id\nS-1.svs,x,S-1\nS-2.svs,y,S-2\n"
    save_cohort(load_cohort(write(tmp_path, text)), tmp_path / "again.csv")
    again = load_cohort(tmp_path / "again.csv")
    assert again.patients_given
    assert not any("patient" in note for note in again.notes)
    save_cohort(load_cohort(write(tmp_path, GOOD)), tmp_path / "assumed.csv")
    assert not load_cohort(tmp_path / "assumed.csv").patients_given


@pytest.mark.parametrize("column", ["Split", "Fold", "Patient_ID", "patient id", "Slide-MPP", "BATCH"])
def test_a_column_of_ours_in_another_spelling_is_not_passed_over(tmp_path: Path, column: str) -> None:
    path = write(tmp_path, f"slide,label,{column}\na.svs,x,0\nb.svs,y,1\n")
    with pytest.raises(CohortError, match=f"a column '{column}', which would be passed over. Pass --"):
        load_cohort(path)


def test_slides_that_are_not_divided_may_bring_any_split(tmp_path: Path) -> None:
    path = write(tmp_path, "slide,Split\na.svs,x\n")
    assert load_cohort(path, labelled=False).slides[0].split is None
