"""One page of several folders: their arms side by side, then section by section what each has to say."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lamella import __version__
from lamella.reports.charts.marks import ArmMark
from lamella.reports.page.parts import Block, Chart, Charts, Page, Row, Section, Slides, Table, Text
from lamella.reports.words import Printed, count

_BETWEEN = "--"


def join_pages(pages: Sequence[Page], names: Sequence[str]) -> Page:
    """Return one page of several.

    Args:
        pages: Of runs and studies.
        names: What their folders are called; equal ones are numbered.
    """
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    sections: dict[str, list[Block]] = {}
    titles: dict[str, Section] = {}
    for number, (page, name) in enumerate(zip(pages, unique, strict=True)):
        for section in page.sections:
            titles.setdefault(section.key, section)
            blocks = sections.setdefault(section.key, [])
            blocks.append(Text(f"{name}: {section.title}", "heading"))
            blocks += [_rename(block, number) for block in section.blocks]
    return Page(
        name=f"Lamella: {count(len(pages), 'folder')} side by side",
        title="Runs and studies side by side",
        subtitle=" · ".join(unique),
        version=__version__,
        sections=(
            _compare(pages, unique),
            *(
                Section(key=key, title=titles[key].nav, nav=titles[key].nav, blocks=tuple(blocks))
                for key, blocks in sections.items()
            ),
        ),
    )


def _compare(pages: Sequence[Page], names: Sequence[str]) -> Section:
    """Return every arm of every folder with its AUC."""
    arms = [(name, *arm) for page, name in zip(pages, names, strict=True) for arm in _list_arms(page)]
    rows = tuple(
        Row(cells=(arm, name, auc, interval), kind=row.kind, badges=row.badges)
        for name, arm, row, auc, interval in arms
    )
    marks = tuple(
        ArmMark(
            name=f"{name}: {arm}",
            auc=auc.value,
            low=interval.low,
            high=interval.high,
            emphasised=row.kind in ("recommended", "best"),
        )
        for name, arm, row, auc, interval in arms
        if auc.value is not None
    )
    caption = "AUC of every arm of every folder, with its 95% interval. Dotted: chance."
    said = (
        "Arms of one folder share their patients and folds. Arms of different folders need not: a difference between "
        "folders may be one of cohorts."
    )
    table = Table(
        key="side-by-side",
        title="Every arm of every folder",
        head=("arm", "folder", "AUC", "95% interval"),
        rows=rows,
        empty="No arm of any of these folders has results.",
    )
    charts = (Charts(charts=(Chart(key="side-by-side-forest", drawn="forest", marks=marks, caption=caption),)),)
    blocks: tuple[Block, ...] = (Text(said), *(charts if marks else ()), table)
    return Section(key="together", title="Side by side", nav="Side by side", blocks=blocks)


def _list_arms(page: Page) -> Iterator[tuple[str, Row, Printed, Printed]]:
    """Yield the arms of a page: what it is called, its row, its AUC and interval."""
    for block in page.list_blocks():
        if not (isinstance(block, Table) and block.key == "arms" and {"AUC", "95% interval"} <= set(block.head)):
            continue
        for number, row in enumerate(block.rows):
            cells = dict(zip(block.head, row.cells, strict=True))
            auc, interval = cells["AUC"], cells["95% interval"]
            unit = f", by {cells['of'].removesuffix('s')}" if number and "of" in cells else ""
            if isinstance(auc, Printed) and isinstance(interval, Printed):
                yield f"{row.cells[0]}{unit}", row, auc, interval


def _rename(block: Block, number: int) -> Block:
    """Return a block whose keys and pictures are those of one folder of several."""
    if isinstance(block, Table):
        return replace(block, key=f"{number}{_BETWEEN}{block.key}")
    if isinstance(block, Charts):
        charts = (replace(chart, key=f"{chart.key}{_BETWEEN}{number}") for chart in block.charts)
        return replace(block, charts=tuple(charts))
    return replace(block, source=number) if isinstance(block, Slides) else block
