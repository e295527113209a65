"""A cohort under pseudonyms: renamed at the door, so that nothing after it knows a name.

OUT/local/ keeps what leads back and everything that holds paths; it is not to be passed on:

salt.txt          what ids are hashed with, so that a second run uses the same
pseudonyms.csv    pseudonym and id of each slide and patient
outlines/KIND/    regions and outlines of lesions, under the new names
"""

import dataclasses
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from lamella.cohort import Cohort, CohortSlide
from lamella.errors import SettingsError
from lamella.features.failures import Failure, save_failures
from lamella.files import remove, write_bytes, write_table, write_text
from lamella.reports.pseudonyms import Pseudonyms
from lamella.reports.scrub import drop_folders
from lamella.runs.folder import RunFolder
from lamella.tissue.region_files import AREA_SUFFIXES, find_slide_file, say_no_match


def rename_cohort(cohort: Cohort, out: Path) -> Cohort:
    """Return the cohort under pseudonyms; salt and key are kept under `local/`, so that a second run uses the same.

    Args:
        cohort: Whose slides and patients go by their ids.
        out: The run or study folder.

    Raises:
        OutputError: If the folder cannot be written.
    """
    folder = RunFolder(out)
    salt_path = folder.local / "salt.txt"
    if not salt_path.exists():
        write_text(salt_path, secrets.token_hex(16) + "\n")
    names = Pseudonyms(salt_path.read_text(encoding="utf-8").strip())
    slides = tuple(
        dataclasses.replace(s, slide_id=names.slide(s.slide_id), patient_id=names.patient(s.patient_id))
        for s in cohort.slides
    )
    key = [
        {"pseudonym": new.slide_id, "slide_id": old.slide_id, "patient": new.patient_id, "patient_id": old.patient_id}
        for old, new in zip(cohort.slides, slides, strict=True)
    ]
    write_table(folder.local / "pseudonyms.csv", ["pseudonym", "slide_id", "patient", "patient_id"], key)
    return dataclasses.replace(cohort, slides=slides, notes=_hide_in_notes(cohort, slides))


def _hide_in_notes(cohort: Cohort, slides: Sequence[CohortSlide]) -> tuple[str, ...]:
    """Return the cohort's notes with ids and file names replaced."""
    notes = []
    for note in cohort.notes:
        for old, new in zip(cohort.slides, slides, strict=True):
            for name in (str(old.path), old.path.name, old.slide_id, old.patient_id):
                note = note.replace(f"'{name}'", f"'{new.slide_id}'")
        notes.append(note)
    return tuple(notes)


def rename_outlines(
    folder: Path | None,
    cohort: Cohort,
    renamed: Cohort,
    out: Path,
    *,
    kind: str,
    suffixes: Sequence[str] = AREA_SUFFIXES,
) -> Path | None:
    """Copy a folder of files called after slides to `local/` under the pseudonyms; return the copy.

    Args:
        folder: Where outlines lie; a file that holds for all slides, or None, is returned as it is.
        cohort: Under the ids.
        renamed: The same, under pseudonyms.
        out: The run or study folder.
        kind: What they are, `include` for one: the name of the copy.
        suffixes: Of the files that count, in lower case.

    Raises:
        SettingsError: If no file of the folder is of a slide.
        TissueError: If several are of one slide.
        OutputError: If the copy cannot be written.
    """
    if folder is None or not folder.is_dir():
        return folder
    renamed_folder = RunFolder(out).local / "outlines" / kind
    renamed_folder.mkdir(parents=True, exist_ok=True)
    n_copied = 0
    for old, new in zip(cohort.slides, renamed.slides, strict=True):
        source = find_slide_file(folder, old.slide_id, suffixes, besides=old.path)
        for suffix in suffixes:
            remove(renamed_folder / f"{new.slide_id}{suffix}")
        if source is not None:
            write_bytes(renamed_folder / f"{new.slide_id}{source.suffix.lower()}", source.read_bytes())
            n_copied += 1
    if not n_copied:
        raise SettingsError(f"{kind}: {say_no_match(folder, [s.slide_id for s in cohort.slides], suffixes)}")
    return renamed_folder


def hide_names(failures: Sequence[Failure], cohort: Cohort) -> tuple[Failure, ...]:
    """Return failures with the files' names replaced by the slides' pseudonyms.

    Args:
        failures: Of slides of the cohort.
        cohort: Under pseudonyms.
    """
    paths = {slide.slide_id: slide.path for slide in cohort.slides}
    hidden = []
    for failure in failures:
        path, reason = paths[failure.slide_id], failure.reason
        for name in (str(path), str(path.parent), path.name, path.stem):
            reason = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", failure.slide_id, reason)
        hidden.append(dataclasses.replace(failure, reason=reason))
    return tuple(hidden)


def save_public_failures(failures: Sequence[Failure], cohort: Cohort, path: Path) -> None:
    """Write `failures.csv` without the folders of the slides: it lies beside what is passed on.

    Args:
        failures: Of slides of the cohort.
        cohort: Whose slides they are.
        path: Where to write.

    Raises:
        OutputError: If it cannot be written.
    """
    folders = {slide.slide_id: f"{slide.path.parent}{os.sep}" for slide in cohort.slides}
    save_failures(
        [
            dataclasses.replace(failure, reason=drop_folders(failure.reason.replace(folders[failure.slide_id], "")))
            for failure in failures
        ],
        path,
    )
