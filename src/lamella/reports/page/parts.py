"""What a page is made of: sections of texts, facts, tables, charts and slides, as data and not as markup.

A page is built from a folder's record, written down as numbers (`report.parquet`) and drawn as HTML; each of the three
knows only these classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Discriminator

from lamella.reports.charts.marks import Mark

Style = Literal["", "lead", "verdict", "note", "caution", "leak", "heading"]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph.

    Attributes:
        text: What is said.
        style: How it is set.
    """

    text: str
    style: Style = ""
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list of sentences.

    Attributes:
        items: One a line; the text before a first line break is set bold.
        title: Where given, the list is folded under it.
        style: `bullets`, `key` (numbered, in columns), `sources` (numbered) or `paste` (paragraphs, copied at once).
        is_open: Whether a folded list begins unfolded.
    """

    items: tuple[str, ...]
    title: str = ""
    style: Literal["bullets", "key", "sources", "paste"] = "bullets"
    is_open: bool = False
    kind: Literal["listing"] = "listing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A figure beside the answer.

    Attributes:
        name: What it is.
        value: The figure.
        beside: Its interval, or what must be known of it.
    """

    name: str
    value: str
    beside: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The figures beside the answer."""

    facts: tuple[Fact, ...]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a table.

    Attributes:
        cells: Its texts, the first being its name; numbers are `Printed`s.
        kind: `recommended`, `best`, `starred`, `absent` (it did not run), or nothing.
        badges: Words beside the name, which are not part of it.
    """

    cells: tuple[str, ...]
    kind: str = ""
    badges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table, which readers sort, filter and save.

    Attributes:
        key: Name of its download, unique on its page.
        title: Its heading.
        head: Names of the columns.
        rows: The rows.
        note: What must be said below it.
        empty: What is said in its place when it has no row.
        titled: Whether its title stands above it.
        folded: Whether it begins folded under its title.
    """

    key: str
    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    empty: str = ""
    titled: bool = True
    folded: bool = False
    kind: Literal["table"] = "table"

    @property
    def badged(self) -> bool:
        """Whether any row bears a badge; a download then has a column for them."""
        return any(row.badges for row in self.rows)

    def without_empty_columns(self) -> "Table":
        """Return the table without the columns that hold nothing but dashes."""
        kept = [n for n in range(len(self.head)) if any(row.cells[n] not in ("", "-") for row in self.rows)]
        if not self.rows:
            return self
        rows = tuple(replace(row, cells=tuple(row.cells[n] for n in kept)) for row in self.rows)
        return replace(self, head=tuple(self.head[n] for n in kept), rows=rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart, as the numbers that it is drawn from.

    Attributes:
        key: Unique on its page.
        drawn: How it is drawn: a name in `lamella.reports.page.drawings.DRAWN`.
        marks: What is drawn.
        caption: What it shows, and what must be known of its intervals.
        title: A line above it.
        guides: Thresholds of a chart of scores; of a ROC curve the point in use.
        labels: Names of what it compares, where the marks do not say them.
    """

    key: str
    drawn: str
    marks: tuple[Mark, ...]
    caption: str
    title: str = ""
    guides: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Charts:
    """Charts beside each other where there is room.

    Attributes:
        charts: The charts.
        shape: `full` (over the whole page), `square` or `broad`.
    """

    charts: tuple[Chart, ...]
    shape: Literal["full", "square", "broad"] = "full"
    kind: Literal["charts"] = "charts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture of a slide, in the folder.

    Attributes:
        name: What it shows.
        path: Where it lies, from the page's folder.
        folded: Whether it begins folded under its name.
        is_view: Whether it shows the frame that other views show, to be laid over them.
    """

    name: str
    path: str
    folded: bool = False
    is_view: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A slide with its pictures.

    Attributes:
        name: Which slide.
        tags: What is known of it: (what, which).
        is_wrong: Whether it is misclassified.
        pictures: Its pictures.
    """

    name: str
    tags: tuple[tuple[str, str], ...]
    is_wrong: bool
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slides:
    """Slides with their pictures, in the order in which they are left out last.

    Attributes:
        cards: The slides.
        positive: The class that a class activation map speaks for.
        empty: What is said where there is none.
        source: In which of the page's folders the pictures lie.
    """

    cards: tuple[Card, ...]
    positive: str
    empty: str
    source: int = 0
    kind: Literal["slides"] = "slides"


Block = Annotated[Text | Listing | Facts | Table | Charts | Slides, Discriminator("kind")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of a page.

    Attributes:
        key: Its address.
        title: Its heading.
        nav: Its name in the list of sections.
        blocks: What it holds, from top to bottom.
    """

    key: str
    title: str
    nav: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page.

    Attributes:
        name: What is said in a browser's list of tabs.
        title: Its heading.
        subtitle: The line below it.
        version: Of lamella, that made the results.
        sections: From top to bottom.
    """

    name: str
    title: str
    subtitle: str
    version: str
    sections: tuple[Section, ...] = ()

    def map_blocks(self, change: Callable[[Block], Block]) -> "Page":
        """Return the page with every block changed."""
        sections = (replace(part, blocks=tuple(change(block) for block in part.blocks)) for part in self.sections)
        return replace(self, sections=tuple(sections))

    def list_blocks(self) -> Iterator[Block]:
        """Yield every block, from top to bottom."""
        for section in self.sections:
            yield from section.blocks
