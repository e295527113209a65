"""What comes of each case of the format matrix, and the table of it in docs/formats.md."""

import sys
from pathlib import Path

import numpy as np

from lamella.errors import SlideError
from lamella.slide import open_slide
from tests.slide.format_matrix import Case, list_cases

BEGIN, END = "<!-- formats: begin -->", "<!-- formats: end -->"


def try_case(case: Case, path: Path) -> str:
    """Write and open a file: the reader that reads it right, "refused", or "WRONG: ..." as none may be."""
    case.write(path)
    try:
        with open_slide(path) as slide:
            seen = slide.read_region((0, 0), 0, slide.size)
            reader = slide.reader.split()[0]
    except SlideError as error:
        return "refused" if case.expected is None else f"WRONG: refused ({error})"
    if case.expected is None:
        return f"WRONG: read by {reader}, must be refused"
    if seen.shape != case.expected.shape:
        return f"WRONG: {seen.shape} by {reader}"
    error = np.abs(seen.astype(int) - case.expected).mean()
    return reader if error <= case.tolerance else f"WRONG: {error:.2f} grey levels off by {reader}"


def format_table(outcomes: dict[str, list[str]]) -> str:
    """Write the table: a row a kind of file, how many were tried, and what came of them."""
    n_files = sum(map(len, outcomes.values()))
    lines = [
        f"{n_files} files were made and opened. Every one is read right (pixels compared with those that were put in:",
        "equal where the codec is lossless) or refused.",
        "",
        "| stored as | files | outcome | reader |",
        "|---|---|---|---|",
    ]
    for row, seen in outcomes.items():
        is_refused = set(seen) == {"refused"}
        readers = "" if is_refused else ", ".join(sorted(set(seen)))
        lines.append(f"| {row} | {len(seen)} | {'refused' if is_refused else 'read right'} | {readers} |")
    return "\n".join(lines)


def try_all(folder: Path) -> dict[str, list[str]]:
    """Try every file, in a folder that is there; what came of each, by row of the table."""
    outcomes: dict[str, list[str]] = {}
    for number, case in enumerate(list_cases()):
        suffix = (
            Path(case.name).suffix if case.name.endswith((".png", ".jpg", ".bmp", ".gif", ".webp", ".jp2")) else ".tiff"
        )
        outcome = try_case(case, folder / f"{number}{suffix}")
        outcomes.setdefault(case.row, []).append(outcome if "WRONG" not in outcome else f"{case.name} {outcome}")
    return outcomes


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        table = format_table(try_all(Path(name)))
    page = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
    text = page.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
    sys.stdout.write(table + "\n")
