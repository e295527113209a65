"""Tables, outlines, and files that are cut short."""

from collections.abc import Sequence
from pathlib import Path

from lamella.files import write_json


def write_table(path: str, *lines: str) -> None:
    """Write a table line by line."""
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_cohort(path: str, *, n_slides: int, batches: Sequence[str] = ()) -> None:
    """Write a labelled table of slides that need not be there: S-0412, S-0413, ..."""
    rows = [f"S-{412 + i:04d}.svs,{'malignant' if i % 2 else 'benign'}" for i in range(n_slides)]
    if batches:
        rows = [f"{row},{batches[i // 2 % len(batches)]}" for i, row in enumerate(rows)]
    write_table(path, "slide,label" + (",batch" if batches else ""), *rows)


def write_shared_patient(path: str) -> None:
    """Write a table of three batches in which one patient has slides in two."""
    rows = [f"S-{412 + i:04d}.svs,P-{17 + i},{('benign', 'malignant')[i % 2]},{'abc'[i // 4]}" for i in range(12)]
    write_table(path, "slide,patient_id,label,batch", *rows[:-1], "S-0423.svs,P-17,malignant,c")


def write_predictions(*rows: str) -> None:
    """Write a table of predictions of two classes."""
    write_table("predictions.csv", "slide_id,label,prob_benign,prob_malignant", *rows)


def write_folds(path: str, folds: Sequence[int]) -> None:
    """Write a labelled table of slides with their folds."""
    rows = [f"S-{412 + i:04d}.svs,{('benign', 'malignant')[i % 2]},{fold}" for i, fold in enumerate(folds)]
    write_table(path, "slide,label,fold", *rows)


def cut_short(path: str, n_bytes: int) -> None:
    """Keep only the first bytes of a file."""
    content = Path(path).read_bytes()
    assert len(content) > n_bytes
    Path(path).write_bytes(content[:n_bytes])


def write_region(path: str, *, corner: tuple[int, int], classes: tuple[str, ...] = ()) -> None:
    """Write a square outline as QuPath exports it, or one of each class."""
    x, y = corner
    ring = [[x, y], [x + 80, y], [x + 80, y + 60], [x, y + 60], [x, y]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    features = [{"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}
                for name in classes] or [{"type": "Feature", "geometry": geometry}]  # fmt: skip
    write_json(Path(path), {"type": "FeatureCollection", "features": features})
