"""The files that are mutated: each of the true form, made by the tools that write it, small."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Original:
    """An input that is mutated.

    Attributes:
        name: What it is.
        target: What opens it, a key of `tests.fuzz.targets.TARGETS`.
        path: The file or folder.
        files: Of a folder, the files of which one is mutated, relative to it.
        share: How many mutants it gets, relative to the others.
        opened: Of a folder, the file in it that is opened; empty where it is the folder.
    """

    name: str
    target: str
    path: Path
    files: tuple[str, ...] = ()
    share: float = 1.0
    opened: str = ""


def make_originals(folder: Path, *, with_folders: bool = True, shared: Path | None = None) -> list[Original]:
    """Make every original below a folder; `with_folders` also runs, exports and studies, which takes a minute."""
    from tests.fuzz.folders import make_folders
    from tests.fuzz.inputs import make_bags, make_regions, make_tables, make_weights
    from tests.fuzz.slides import make_slides

    folder.mkdir(parents=True, exist_ok=True)
    originals = [
        *make_slides(folder / "slides", shared),
        *make_bags(folder / "bags"),
        *make_weights(folder / "weights"),
        *make_tables(folder / "tables"),
        *make_regions(folder / "regions"),
    ]
    return originals + (make_folders(folder / "folders") if with_folders else [])


def list_files(folder: Path, pattern: str = "**/*", *, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """List the files of a folder that are not pages or pictures, nor in one of the folders `without`."""
    skipped = {".html", ".png", ".jpg", ".md"}
    files = (path for path in sorted(folder.glob(pattern)) if path.is_file() and path.suffix not in skipped)
    names = (path.relative_to(folder).as_posix() for path in files if path.stat().st_size < 4_000_000)
    return tuple(name for name in names if not name.startswith(tuple(f"{one}/" for one in without)))
