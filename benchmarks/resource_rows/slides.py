"""A slide of 200,000 x 150,000 px at 0.25 um, 50 x 37.5 mm: about the largest that glass holds."""

from pathlib import Path
from typing import Any

import numpy as np

from resource_rows.shared import Work, row


def save_large_slide(folder: Path) -> Path:
    """Write a pyramid of 200,000 x 150,000 px; its tiles are few and shared, so that the file is small."""
    import tifffile

    path = folder / "large.tif"
    if path.exists():
        return path
    rng = np.random.default_rng(8)
    glass = np.full((512, 512, 3), 243, np.uint8)
    tissue = (rng.integers(140, 220, (512, 512, 3)) * np.array([1.0, 0.7, 0.9])).astype(np.uint8)

    def list_tiles(width: int, height: int) -> Any:
        for y in range(-(-height // 512)):
            for x in range(-(-width // 512)):
                inside = 0.12 < (x + 0.5) * 512 / width < 0.72 and 0.2 < (y + 0.5) * 512 / height < 0.85
                yield tissue if inside else glass

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(9):
            width, height = 200_000 >> level, 150_000 >> level
            options: dict[str, Any] = {"subifds": 0} if level == 0 else {"subfiletype": 1}
            file.write(
                list_tiles(width, height), shape=(height, width, 3), dtype=np.uint8, tile=(512, 512),
                photometric="rgb", compression="jpeg", compressionargs={"level": 40},
                resolution=(40_000 >> level, 40_000 >> level), resolutionunit="CENTIMETER", metadata=None, **options,
            )  # fmt: skip
    return path


@row("slide of 200,000 x 150,000 px, 50 x 37.5 mm: tissue found and tiles placed")
def plan_large(folder: Path) -> Work:
    """Tiles of 224 px at 0.5 um."""
    from lamella.cohort import CohortSlide
    from lamella.features.plan import CutSettings, plan_slide
    from lamella.tiles import TileSpec

    path = save_large_slide(folder)
    item = CohortSlide(slide_id="S0", path=path, patient_id="P0", label=None)

    def run() -> str:
        made = plan_slide(item, CutSettings(spec=TileSpec(tile_px=224, mpp=0.5, stride_px=224)))
        made.slide.close()
        return f"{len(made.corners_l0):,} tiles"

    return run


@row("slide of 200,000 x 150,000 px, 50 x 37.5 mm: audit")
def audit_large(folder: Path) -> Work:
    """As `lamella audit` does each slide."""
    from lamella.audits import audit_slide
    from lamella.cohort import CohortSlide
    from lamella.features.plan import CutSettings
    from lamella.tiles import TileSpec

    item = CohortSlide(slide_id="S0", path=save_large_slide(folder), patient_id="P0", label=None)
    return lambda: audit_slide(item, CutSettings(spec=TileSpec(tile_px=224, mpp=0.5))) and None
