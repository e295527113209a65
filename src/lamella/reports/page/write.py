"""The page of a folder written, and the pages of several made one."""

from collections.abc import Sequence
from pathlib import Path

from lamella.errors import SettingsError
from lamella.files import refuse_links, remove, write_text
from lamella.reports.damage import refusing_damage
from lamella.reports.loading import load_record
from lamella.reports.page.compare_page import build_compare_page
from lamella.reports.page.data import DATA, load_data, save_data
from lamella.reports.page.joined import join_pages
from lamella.reports.page.parts import Page
from lamella.reports.page.render import PageSettings, render_page
from lamella.reports.page.run_page import build_run_page
from lamella.reports.page.study_page import build_study_page

PAGE = "report.html"
_EARLIER = "index.html"  # the page of a run, up to version 0.1.0
_REMEDY = "Run `lamella run` or `lamella study` again: it makes what is missing."


def write_page(folder: Path, *, settings: PageSettings | None = None) -> Path:
    """Write `report.html` and its numbers, `report.parquet`, into the folder of a run or of a study.

    A page of an earlier version, `index.html`, is removed.

    Args:
        folder: Of a run, of predictions by one, or of a study, finished or not.
        settings: How much is shown.

    Returns:
        Path of the page.

    Raises:
        ModelError: If the folder is neither, or a record of it is damaged.
        OutputError: If the page cannot be written.
    """
    folder = Path(folder)
    refuse_links(folder)
    with refusing_damage(folder, _REMEDY):
        page = build_page(folder, settings=settings)
        text = render_page(page, [folder], settings=settings)
    save_data(page, folder / DATA)
    write_text(folder / PAGE, text)
    _remove_earlier(folder)
    return folder / PAGE


def rewrite_page(folder: Path) -> None:
    """Write the page of a folder again, where it has one, of this version or of an earlier one."""
    if (Path(folder) / PAGE).exists() or (Path(folder) / _EARLIER).exists():
        write_page(folder)


def build_page(folder: Path, *, settings: PageSettings | None = None) -> Page:
    """Return the page of a folder, from its records.

    Args:
        folder: Of a run, of predictions by one, or of a study.
        settings: How much is shown.

    Raises:
        ModelError: If the folder is neither, or a record of it is damaged.
    """
    record = load_record(folder)
    build = build_run_page if record.study is None else build_study_page
    if record.study is not None and record.study.given is not None:
        build = build_compare_page
    return build(record, max_rows=(settings or PageSettings()).max_rows)


def write_report(folders: Sequence[Path], out: Path | None = None, *, settings: PageSettings | None = None) -> Path:
    """Write the page of a folder again from its `report.parquet`, or one page of several folders.

    A folder without `report.parquet`, of an earlier version say, is read from its records.

    Args:
        folders: Runs and studies.
        out: The page; None writes that of a single folder into it, as `report.html`. Its numbers are written beside
            it, under its name with `.parquet`.
        settings: How much is shown.

    Returns:
        Path of the page.

    Raises:
        ModelError: If a folder is neither a run nor a study, or damaged.
        OutputError: If the page cannot be written.
        SettingsError: If there is no folder, or several and no `out`.
    """
    folders = [Path(folder) for folder in folders]
    if not folders:
        raise SettingsError("there is no folder to report. Name the --out folders of runs or studies.")
    if out is None and len(folders) > 1:
        raise SettingsError("one page of several folders needs a name. Pass --out report.html")
    out = folders[0] / PAGE if out is None else Path(out)
    if out.suffix != ".html":
        raise SettingsError(f"the page '{out}' must end in .html. Pass --out {out}.html")
    pages = []
    for folder in folders:
        refuse_links(folder)
        with refusing_damage(folder, _REMEDY):
            pages.append(load_data(folder / DATA) or build_page(folder, settings=settings))
    page = pages[0] if len(pages) == 1 else join_pages(pages, [folder.resolve().name for folder in folders])
    with refusing_damage(folders[0], _REMEDY):
        text = render_page(page, folders, settings=settings)
    save_data(page, out.with_suffix(".parquet"))
    write_text(out, text)
    if len(folders) == 1 and out.parent == folders[0]:
        _remove_earlier(folders[0])
    return out


def _remove_earlier(folder: Path) -> None:
    """Remove the page of an earlier version, which would be out of date; a file that is no page of ours stays."""
    path = folder / _EARLIER
    try:
        with path.open("rb") as stream:
            is_ours = b"<title>Lamella" in stream.read(4096)
    except OSError:
        return
    if is_ours:
        remove(path)
