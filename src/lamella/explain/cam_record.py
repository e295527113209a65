"""What a class activation map says, as kept beside it; read without torch."""

from dataclasses import dataclass
from pathlib import Path

from lamella.errors import OutputError
from lamella.files import parse_json_file


@dataclass(frozen=True, slots=True, kw_only=True)
class CamRecord:
    """What one map says.

    Attributes:
        slide_id: Which slide.
        target: The class.
        others: The classes it is set against, in words.
        method: `exact` or `grad`.
        contrast: The logit of the class less the mean of the others', by the models.
        cells: Sum of all cells, before overlaps are averaged.
        tile_bias: Sum of what tiles add wherever one looks in them.
        constant: What is there without any tile.
        cell_px: Side of a cell, tile pixels.
        slide_um: `(width, height)` of the scan, um.
        key: What the map was computed from.
        frame: What the map covers: `scan`, or, by earlier versions, `canvas`, which is larger for some formats.
    """

    slide_id: str
    target: str
    others: str
    method: str
    contrast: float
    cells: float
    tile_bias: float
    constant: float
    cell_px: float
    slide_um: tuple[float, float]
    key: str
    frame: str = "canvas"

    @property
    def residual(self) -> float | None:
        """By how much the parts miss the contrast (float16 bags leave a little); None in Grad-CAM."""
        if self.method != "exact":
            return None
        return self.cells + self.tile_bias + self.constant - self.contrast


def load_cam_record(folder: Path) -> CamRecord:
    """Load the record of a map.

    Raises:
        OutputError: If it is absent or damaged.
    """
    try:
        content = parse_json_file(folder / "cam.json")
        content.pop("residual", None)
        return CamRecord(**content | {"slide_um": tuple(content["slide_um"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputError(f"'{folder.name}' holds no class activation map. Run `lamella cam` to make it.") from error
