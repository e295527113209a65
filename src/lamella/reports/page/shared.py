"""Parts of sections that the pages of runs, studies and comparisons have alike."""

from collections.abc import Iterable

from lamella.reports.page.answers import list_answers, list_cautions, list_facts, say_patients_needed, say_validity
from lamella.reports.page.arms import tabulate_ladder
from lamella.reports.page.cohort import tabulate_calls, tabulate_versions
from lamella.reports.page.evidence import tabulate_localisation
from lamella.reports.page.methods import SOURCES, write_methods
from lamella.reports.page.parts import Block, Facts, Listing, Section, Table, Text
from lamella.reports.page.reasons import list_localisation_notes, say_leak, say_no_localisation
from lamella.reports.record import Record
from lamella.reports.scrub import drop_folders

_MOST_OPEN = 6


def build_section(key: str, title: str, nav: str, blocks: Iterable[Block | None]) -> Section:
    """Return a section of the blocks that are there; a table with neither rows nor words for that is not.

    Args:
        key: Its address.
        title: Its heading.
        nav: Its name in the list of sections.
        blocks: What it holds; None is passed over.
    """
    kept = tuple(
        block
        for block in blocks
        if block is not None and not (isinstance(block, Table) and not (block.rows or block.empty))
    )
    return Section(key=key, title=title, nav=nav, blocks=kept)


def list_notes(record: Record) -> Listing | None:
    """Return the notes of a run or study, unfolded where they are few; None where there are none."""
    notes = tuple(drop_folders(note) for note in record.notes)
    return Listing(items=notes, title=f"Notes ({len(notes)})", is_open=len(notes) <= _MOST_OPEN) if notes else None


def list_calls(record: Record) -> list[Table]:
    """Return labels against predicted classes, where slides with labels were predicted."""
    table = tabulate_calls(record)
    return [table] if table.rows else []


def list_outlines(record: Record) -> list[Block | None]:
    """Return how maps meet outlines, or why that was not measured."""
    reason, notes = say_no_localisation(record), list_localisation_notes(record)
    return [
        Text(reason, "note") if reason else None,
        tabulate_localisation(record),
        Listing(items=tuple(notes)) if notes else None,
    ]


def list_verdict(record: Record) -> list[Block | None]:
    """Return the answer of a study or a comparison, the figures behind it, and what must be known of them."""
    leak = say_leak(record)
    first, *others = list_answers(record)
    needed = say_patients_needed(record)
    facts = list_facts(record)
    return [
        Text(f"Leak: {leak}", "leak") if leak else None,
        Text(first, "lead"),
        *(Text(text, "verdict") for text in others),
        Facts(facts=tuple(facts)) if facts else None,
        Text(needed, "note") if needed else None,
        Text(say_validity(record)),
        *(Text(text, "caution") for text in list_cautions(record)),
        list_notes(record),
        tabulate_ladder(record),
    ]


def list_methods(record: Record) -> list[Block | None]:
    """Return the methods, ready to paste, with their sources and the versions."""
    note = "After TRIPOD+AI (Collins 2024). What Lamella knows is filled in; the rest stands as [state: ...]."
    paragraphs = tuple(f"{heading}.\n{text}" for heading, text in write_methods(record))
    sources = tuple(f"{text} doi:{doi}" if doi else text for text, doi in SOURCES)
    return [
        Text(note, "note"),
        Listing(items=paragraphs, style="paste"),
        Text("Sources", "heading"),
        Listing(items=sources, style="sources"),
        tabulate_versions(record),
    ]
