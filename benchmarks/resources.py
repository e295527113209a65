"""Time and peak memory at the sizes that are promised: 10^5 tiles a bag, 2,000 slides, 10^6 points, 10^5 rows.

    python benchmarks/resources.py                                # every row, about a quarter of an hour
    python benchmarks/resources.py --only GeoJSON                 # rows whose name holds a text
    python benchmarks/resources.py --only large --folder DIR      # 18 GB of bags are made there first, and stay
    python benchmarks/resources.py --write docs/reliability.md    # replaces the section Resources there

Each row runs in a process of its own: inputs are made, then the peak of resident memory is set back and the clock
started. Memory is the peak above what the process held at that moment, with imports and inputs; processes that it
starts do not count. Bags, slides, outlines and tables are synthetic, drawn with fixed seeds. Linux alone has these
counters.
"""

import argparse
import json
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resource_rows import bags, cohorts, large, outlines, slides, tables  # noqa: F401, each registers its rows
from resource_rows.shared import ROWS

BEGIN, END = "<!-- resources: written by benchmarks/resources.py -->", "<!-- end of resources -->"
HEAD = ("| what | by the clock | processor | peak above start | |", "|---|---:|---:|---:|---|")


def read_status(key: str) -> int:
    """Return a counter of /proc/self/status, bytes."""
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def measure_here(name: str, folder: Path) -> None:
    """Make a row's inputs, measure it in this process, and print JSON."""
    work = ROWS[name](folder)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    held, began, busy = read_status("VmRSS"), time.perf_counter(), find_processor_seconds()
    said = work()
    used = {"seconds": time.perf_counter() - began, "busy": find_processor_seconds() - busy}
    print(json.dumps(used | {"bytes": read_status("VmHWM") - held, "said": said or ""}))


def find_processor_seconds() -> float:
    """Return processor time of this process, of all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure_all(names: list[str], folder: Path) -> dict[str, Mapping[str, Any]]:
    """Measure each row in a process of its own, telling of each as it ends."""
    measured: dict[str, Mapping[str, Any]] = {}
    for name in names:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name, "--folder", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{name}: {done.stderr}")
        measured[name] = json.loads(done.stdout.splitlines()[-1])
        print(say_row(name, measured[name]), flush=True)
    return measured


def say_row(name: str, measured: Mapping[str, Any]) -> str:
    """Return a row of the table."""
    spent = f"{measured['seconds']:.1f} s | {measured['busy']:.1f} s | {measured['bytes'] / 2**20:,.0f} MiB"
    return f"| {name} | {spent} | {measured['said']} |"


def write_section(path: Path, measured: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace what stands between the marks in a page; rows that were not measured now stay as they are."""
    from lamella.files import write_text

    before, mark, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    if not mark or END not in rest:
        sys.exit(f"'{path}' has no section between '{BEGIN}' and '{END}'")
    section, _, after = rest.partition(END)
    kept = {line.split(" | ")[0].removeprefix("| "): line for line in section.splitlines() if line.startswith("| ")}
    lines = [say_row(name, measured[name]) if name in measured else kept.get(name, "") for name in ROWS]
    told = f"Measured {time.strftime('%Y-%m-%d')} on {find_processor()}."
    write_text(path, before + "\n".join([BEGIN, "", told, "", *HEAD, *filter(None, lines), "", END]) + after)


def find_processor() -> str:
    """Return the processor's name and cores."""
    import os

    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    """Parse arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="measure rows whose name holds this text")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the section Resources of this page")
    parser.add_argument("--folder", type=Path, help="keep inputs here, to measure again; default: a temporary one")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure_here(args.one, args.folder)
        return
    names = [name for name in ROWS if args.only in name and (args.only or not name.startswith("large"))]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print("\n".join(HEAD))
        measured = measure_all(names, folder)
    if args.write:
        write_section(args.write, measured)


if __name__ == "__main__":
    main()
