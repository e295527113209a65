"""The record of a campaign: how many mutants ended how, and why those that read differently could not be told."""

import datetime
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FAULTS = ("traceback", "memory", "crash", "hang", "unnoticed", "harness")
BEGIN, END = "<!-- mutants: begin -->", "<!-- mutants: end -->"
# Of each target whose mutants may read differently: why nothing in the file could tell. Others have a checksum of
# ours, and a mutant of theirs that reads differently is a fault, `unnoticed`.
REASONS = {
    "slide": "TIFF, JPEG, MIRAX and DICOM hold no checksum, nor does zarr unless its codec does: a changed value of a "
    "tag or of pixels is as good as another. Those of PNG, deflate and LZMA are checked.",
    "bag": "TRIDENT, CLAM and STAMP write no checksum; a changed number or attribute is a legal one.",
    "weights": "safetensors and torch's pickles hold no checksum of their numbers; a changed weight is a number. Where "
    "a card states a SHA-256, `lamella weights` holds the file to it.",
    "keras": "HDF5 without a filter holds no checksum; the archive's own CRC is checked.",
    "hub": "a published `config.json` has no checksum, and another value of it describes another network.",
    "cohort": "a table is written by people: another label, patient or fold is a legal one.",
    "predictions": "a table from anywhere: another number is a legal prediction.",
    "regions": "outlines are drawn by people: another point or class is a legal one.",
    "mask": "TIFF holds no checksum; PNG's is checked.",
    "design": "a study is declared by people: another number of folds or epochs is a legal one.",
}


def make_record(endings: Sequence[Mapping[str, Any]], expected: Mapping[str, str]) -> dict[str, Any]:
    """Return what is kept of a campaign, JSON-ready."""
    counts: dict[str, Counter[str]] = {}
    for ending in endings:
        counts.setdefault(ending["name"], Counter())[ending["kind"]] += 1
    differing = Counter((one["target"], _name(one["mutation"])) for one in endings if one["kind"] == "differs")
    by_target: dict[str, dict[str, int]] = {}
    for (target, mutation), n in sorted(differing.items(), key=lambda item: (item[0][0], -item[1])):
        by_target.setdefault(target, {})[mutation] = n
    return {
        "n": len(endings),
        "date": datetime.date.today().isoformat(),
        "processor": find_processor(),
        "total": dict(Counter(ending["kind"] for ending in endings)),
        "unread": sorted(name for name, read in expected.items() if read.startswith("refused")),
        "counts": {name: dict(sorted(kinds.items())) for name, kinds in counts.items()},
        "mutations": dict(Counter(_name(ending["mutation"]) for ending in endings).most_common()),
        "differs by target": by_target,
        "faults": [ending for ending in endings if ending["kind"] in FAULTS],
        "at the bound": [ending for ending in endings if ending["is_bound"]],
        "slowest": sorted(endings, key=lambda ending: -ending["seconds"])[:20],
        "largest": sorted(endings, key=lambda ending: -ending["extra_bytes"])[:20],
        "differs": [ending for ending in endings if ending["kind"] == "differs"],
    }


def _name(mutation: str) -> str:
    """Return a mutation's name without the file's."""
    return mutation.rpartition(": ")[2]


def find_processor() -> str:
    """Return the processor's name as the system gives it."""
    try:
        named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        named = []
    return named[0].partition(":")[2].strip() if named else platform.processor() or platform.machine()


def write_docs(record: Mapping[str, Any], page: Path) -> None:
    """Write the summary of a record between its marks in a page."""
    text = page.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{summarise(record)}\n{END}{after}", encoding="utf-8")


def summarise(record: Mapping[str, Any]) -> str:
    """Return the summary of a record as Markdown."""
    total, n = record["total"], record["n"]
    n_faults = sum(total.get(kind, 0) for kind in FAULTS)
    slow, large = record["slowest"][0], record["largest"][0]
    last = record["first_seed"] + max(sum(kinds.values()) for kinds in record["counts"].values()) - 1
    lines = [
        f"Recorded run of {record['date']}: {n:,} mutants of {len(record['counts'])} kinds of input, seeds "
        f"{record['first_seed']:,} to {last:,}, {record['workers']} processes on {record['processor']}, "
        f"{record['seconds'] / 60:.0f} minutes. {total.get('refused', 0):,} were refused in one line, "
        f"{total.get('same', 0):,} gave the same result as the original, {total.get('differs', 0):,} another one; "
        f"{n_faults:,} were faults ({', '.join(f'{kind} {total.get(kind, 0)}' for kind in FAULTS)}). The slowest took "
        f"{slow['seconds']:.1f} s ({slow['name']}), the largest held {large['extra_bytes'] / 2**20:,.0f} MiB above its "
        f"start ({large['name']}).",
        "",
        "| input | mutants | refused | same result | another result | faults |",
        "|---|---|---|---|---|---|",
    ]
    for name, kinds in record["counts"].items():
        faults = sum(kinds.get(kind, 0) for kind in FAULTS)
        counted = (sum(kinds.values()), kinds.get("refused", 0), kinds.get("same", 0), kinds.get("differs", 0), faults)
        lines.append(f"| {name} | {' | '.join(map(str, counted))} |")
    lines += [
        "",
        "Those with another result, by what opened them, and why nothing in the file could tell:",
        "",
        "| opened as | another result | most frequent mutations | reason |",
        "|---|---|---|---|",
    ]
    for target, mutations in record["differs by target"].items():
        most = ", ".join(f"{name} {count}" for name, count in list(mutations.items())[:5])
        lines.append(f"| {target} | {sum(mutations.values())} | {most} | {REASONS[target]} |")
    return "\n".join(lines)
