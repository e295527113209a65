"""Options of tissue and tiles."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamella.cli.options import ImageOption, read_mpp, read_own_mpp, read_px
from lamella.defaults import MAX_UPSAMPLE, MIN_TISSUE, MPP, TILE_PX, TISSUE, TissueName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.encoders import EncoderSpec
    from lamella.features.plan import CutSettings
    from lamella.tiles import TileSpec

_option = partial(typer.Option, rich_help_panel="Tissue and tiles")


@dataclass(frozen=True, slots=True, kw_only=True)
class TileOptions:
    """Where tiles are cut, and how large."""

    tile_px: Annotated[
        Any,
        _option(
            "--tile-px",
            parser=read_px,
            metavar="INT",
            help="Side of a tile, in pixels at --mpp; auto is what the encoder was made for.",
            show_default=f"auto, else {TILE_PX}",
        ),
    ] = "auto"
    stride: Annotated[
        int | None,
        _option(
            "--stride", help="Distance between neighbouring tiles, in pixels at --mpp.", show_default="the tile's side"
        ),
    ] = None
    mpp: Annotated[
        Any,
        _option(
            "--mpp",
            parser=read_own_mpp,
            metavar="FLOAT",
            help="Resolution of tiles, um per pixel; auto is what the encoder was made for.",
            show_default=f"auto, else {MPP}",
        ),
    ] = "auto"
    min_tissue: Annotated[
        float, _option("--min-tissue", help="A tile is kept when more than this share is tissue.")
    ] = MIN_TISSUE
    max_upsample: Annotated[
        float,
        _option("--max-upsample", help="By how much a slide coarser than --mpp may be enlarged; beyond it is refused."),
    ] = MAX_UPSAMPLE
    slide_mpp: Annotated[
        float | None,
        _option(
            "--slide-mpp",
            parser=read_mpp,
            metavar="FLOAT",
            help="Resolution of level 0, um per pixel, for slides whose row gives none, whatever their files state.",
            show_default="what the file states",
        ),
    ] = None
    image: ImageOption = None
    tissue: Annotated[
        TissueName,
        _option(
            "--tissue",
            help="glass: what does not look like the scanner's empty glass. otsu: plain Otsu, which drops pale tissue.",
        ),
    ] = TISSUE
    include: Annotated[
        Path | None,
        _option(
            "--include",
            metavar="PATH",
            help="Keep only these regions: GeoJSON (QuPath) or XML (ASAP, ImageScope), a file or a folder of "
            "<slide_id>.geojson.",
            show_default=False,
        ),
    ] = None
    exclude: Annotated[
        Path | None,
        _option(
            "--exclude",
            metavar="PATH",
            help="Leave these regions out: GeoJSON (QuPath) or XML (ASAP, ImageScope), a file or a folder of "
            "<slide_id>.geojson.",
            show_default=False,
        ),
    ] = None
    include_class: Annotated[
        list[str] | None,
        _option(
            "--include-class",
            metavar="NAME",
            help="Class of the regions to keep, where they have several (repeatable).",
            show_default=False,
        ),
    ] = None
    exclude_class: Annotated[
        list[str] | None,
        _option(
            "--exclude-class",
            metavar="NAME",
            help="Class of the regions to leave out, where they have several (repeatable).",
            show_default=False,
        ),
    ] = None

    def spec(self, encoders: "Sequence[EncoderSpec]" = ()) -> "TileSpec":
        """Return size, resolution, stride and tissue threshold, for encoders that will see the tiles."""
        from lamella.features.own_tiles import choose_tiles
        from lamella.tiles import TileSpec

        tile_px = None if self.tile_px == "auto" else self.tile_px
        tile_px, mpp = choose_tiles(encoders, tile_px=tile_px, mpp=None if self.mpp == "auto" else self.mpp)
        return TileSpec(tile_px=tile_px, mpp=mpp, stride_px=self.stride, min_tissue=self.min_tissue)

    def cut(self, encoders: "Sequence[EncoderSpec]" = ()) -> "CutSettings":
        """Return how slides are cut into tiles, for encoders that will see them."""
        from lamella.features.plan import CutSettings

        return CutSettings(
            spec=self.spec(encoders),
            tissue=self.tissue,
            max_upsample=self.max_upsample,
            include=self.include,
            exclude=self.exclude,
            include_class=tuple(self.include_class or ()),
            exclude_class=tuple(self.exclude_class or ()),
        )
