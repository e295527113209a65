"""What is known of one slide before anything long is started."""

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One slide, looked at from its headers, a thumbnail and a few tiles.

    What could not be found out is None (or "").

    Attributes:
        slide_id: The slide.
        readable: Whether it opens and its pixels can be read.
        format: Format of the file.
        reader: What reads it, with its version.
        width: Of level 0, in pixels.
        height: Of level 0, in pixels.
        n_levels: Number of pyramid levels.
        mpp_x: Resolution of level 0 along x, um per pixel.
        mpp_y: Resolution of level 0 along y, um per pixel.
        mpp_source: Who states it: "file" or "given".
        magnification: Nominal magnification in the file.
        magnification_agrees: Whether 10 / magnification is the resolution, within 30%.
        tissue_mm2: Area of the tissue.
        tissue_share: Share of the slide that is tissue, 0 to 1.
        pen_share: Share of the slide that was taken for pen ink and left out, 0 to 1.
        n_tiles: Tiles to expect.
        blur_um: Blur of the edges in tissue, in um, about a pixel at least: the median over the tiles looked at.
        n_bytes: Size of the file.
        quick_hash: SHA-256 of its size, first and last MiB.
        tile_seconds: Time one thread takes to read a tile.
        notes: How the slide is read, where a user may not expect it.
        problems: Why the slide could not be extracted, or must not be.
        remarks: What to look at, though it stops nothing.
    """

    slide_id: str
    readable: bool = False
    format: str = ""
    reader: str = ""
    width: int | None = None
    height: int | None = None
    n_levels: int | None = None
    mpp_x: float | None = None
    mpp_y: float | None = None
    mpp_source: str = ""
    magnification: float | None = None
    magnification_agrees: bool | None = None
    tissue_mm2: float | None = None
    tissue_share: float | None = None
    pen_share: float | None = None
    n_tiles: int | None = None
    blur_um: float | None = None
    n_bytes: int | None = None
    quick_hash: str = ""
    tile_seconds: float | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def cells(self) -> dict[str, str | float | bool | None]:
        """Return the row as cells of a table; several problems are parted by " | "."""
        cells = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        rounded = {name: float(f"{value:.5g}") for name, value in cells.items() if isinstance(value, float)}
        return cells | rounded | {name: " | ".join(getattr(self, name)) for name in ("notes", "problems", "remarks")}


AUDIT_COLUMNS = tuple(field.name for field in dataclasses.fields(AuditRow))
