"""What a class activation map says, as kept beside it; read without torch."""

from pathlib import Path

from pydantic import ConfigDict, computed_field

from lamella.errors import ModelError, OutputError
from lamella.records import Record


class CamRecord(Record):
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

    model_config = ConfigDict(extra="ignore")

    slide_id: str
    target: str
    others: str
    method: str
    contrast: float
    cells: float
    tile_bias: float
    constant: float
    cell_px: int | float
    slide_um: tuple[float, float]
    key: str
    frame: str = "canvas"

    @computed_field  # type: ignore[prop-decorator]
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
        return CamRecord.load(folder / "cam.json", made_by="lamella cam")
    except ModelError as error:
        raise OutputError(f"'{folder.name}' holds no class activation map. Run `lamella cam` to make it.") from error
