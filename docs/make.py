"""Makes again what the docs take from the program: the CLI reference, the table of encoders, the page of errors.

    python docs/make.py                   the texts, as `make docs` does
    python docs/make.py --pictures DEMO   the pictures too, from the demo in that folder; it is run where it is missing

Tests compare the texts with what stands in docs/.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
ENCODERS_BEGIN = "<!-- made by docs/make.py from the cards -->"
ENCODERS_END = "<!-- until here -->"
_PANEL_PX = 560


def write_cli_reference() -> str:
    """Return docs/cli.md: the help of every command, in the order of the pipeline."""
    from lamella.cli import list_commands

    parts = [
        "# Commands\n\nMade from `--help` by `make docs`; a test checks that it is true.\n",
        _section("lamella", ["--help"]),
    ]
    parts += [_section(f"lamella {command}", [*command.split(), "--help"]) for command in list_commands()]
    return "\n".join(parts)


def _section(title: str, arguments: list[str]) -> str:
    """Return one command's help, as a terminal of 100 columns shows it."""
    text = "\n".join(line.rstrip() for line in show_help(arguments).strip().splitlines())
    return f"## {title}\n\n```text\n{text}\n```\n"


def show_help(arguments: list[str]) -> str:
    """Return what `lamella ARGUMENTS` prints. All is asked in this process: sixteen imports would take a minute."""
    from typer.testing import CliRunner

    from lamella.cli import build_app

    shown = CliRunner().invoke(
        build_app(), arguments, prog_name="lamella", env={"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"},
        terminal_width=100, max_content_width=100,
    )  # fmt: skip
    if shown.exit_code:
        raise RuntimeError(f"lamella {' '.join(arguments)} ends with {shown.exit_code}: {shown.output}")
    return str(shown.output)


def write_encoders_page(page: str) -> str:
    """Return docs/encoders.md with its table of encoders made anew."""
    head, _, rest = page.partition(ENCODERS_BEGIN)
    _, _, tail = rest.partition(ENCODERS_END)
    return f"{head}{ENCODERS_BEGIN}\n\n{tabulate_encoders()}\n{ENCODERS_END}{tail}"


def tabulate_encoders() -> str:
    """Return the table of encoders that go by a plain name, from their cards."""
    from lamella.encoders import list_encoders
    from lamella.encoders.catalogue import find_group

    lines = [
        "| name | widths by depth | trained at | weights | ImageNet top-1 | mean / SD | trained on | licence | from |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for card in list_encoders():
        if find_group(card.name) != "convolutional":
            continue
        normalisation = f"{_numbers(card.mean)} / {_numbers(card.std)}"
        origin = f"the package {card.package}" if card.package else f"the hub, {card.hub_id}"
        if card.url:
            origin = f"[its publisher]({card.url})"
        top1 = "" if card.imagenet_top1 is None else f"{card.imagenet_top1:.1f}%"
        cells = [
            f"`{card.name}`", ", ".join(map(str, card.block_dims or ())), f"{card.input_px} px",
            f"{card.network}.{card.weights_tag}", top1, normalisation, ", ".join(card.trained_on), card.licence, origin,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_list_foundation_models()]) + "\n"


def _list_foundation_models() -> list[str]:
    from lamella.encoders import list_encoders
    from lamella.encoders.catalogue import find_group

    lines = [
        "| name | width | pooling | um/px | authors' tiles | input | M weights | GFLOP | trained on | licence | from |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for card in list_encoders():
        if find_group(card.name) == "convolutional":
            continue
        tiles = "" if card.tile_px is None else f"{card.tile_px} px"
        tiles = ", ".join(part for part in (tiles, card.resizing) if part)
        cells = [
            f"`{card.name}`", str(card.embedding_dim), card.pooling, ", ".join(f"{mpp:g}" for mpp in card.trained_mpp),
            tiles, card.sizes, f"{card.n_parameters:g}", f"{card.gflops:g}", ", ".join(card.trained_on), card.licence,
            f"{card.hub_id} ({card.access})",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _numbers(values: tuple[float, float, float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else ", ".join(f"{value:g}" for value in values)


def write_troubleshooting() -> str:
    """Return docs/troubleshooting.md: every error of the gallery, as the program words it today."""
    from tests.gallery import STEPS
    from tests.gallery.page import render_page

    return render_page(STEPS)


def draw_pictures(demo: Path) -> None:
    """Draw the docs' pictures from the first slide with a lesion of a demo, in the order of its table."""
    from lamella.cohort import load_cohort
    from lamella.demo import DEMO_ARM, run_demo
    from lamella.features.plan import CutSettings, find_slide_tissue
    from lamella.reports.draw.heatmap import SlideAttention
    from lamella.reports.draw.overlay import OverlayStyle, draw_overlay
    from lamella.runs.attention import load_attention
    from lamella.samples import DEMO_MPP, DEMO_TILE_PX, TUMOUR
    from lamella.slide import open_slide
    from lamella.tiles import TileSpec
    from lamella.tissue import draw_tissue
    from lamella.tissue.regions import read_drawing

    n_slides = len(list((demo / "slides").glob("*.tiff"))) or None
    run = run_demo(demo, **({} if n_slides is None else {"n_slides": n_slides})).runs[DEMO_ARM]
    cohort = load_cohort(demo / "slides" / "cohort.csv")
    item = next(slide for slide in cohort.slides if slide.label == TUMOUR)
    record = load_attention(run.attention / f"{item.slide_id}.h5")
    with run.predictions.open(encoding="utf-8", newline="") as stream:
        found = next(row for row in csv.DictReader(stream) if row["slide_id"] == item.slide_id)
    with open_slide(item.path) as slide:
        cut = CutSettings(spec=TileSpec(tile_px=DEMO_TILE_PX, mpp=DEMO_MPP))
        tissue, _ = find_slide_tissue(slide, item.slide_id, cut)
        _save_jpeg(draw_tissue(_read_thumbnail(slide), tissue), "tissue.jpg")
        outlined = _draw_outlines(slide, read_drawing(item.path.with_suffix(".geojson")).areas)
    tiles = SlideAttention(
        attention=record.attention.astype("float64"),
        coords_l0=record.coords_l0,
        tile_size_l0=record.tile_l0,
        slide_size=record.slide_size,
        slide_mpp=record.slide_mpp,
    )
    said = f"{TUMOUR} {float(found['prob_' + TUMOUR]):.2f}   (label: {item.label})"
    style = OverlayStyle(panel_px=_PANEL_PX)
    _save_jpeg(draw_overlay(tiles, outlined, title=item.slide_id, subtitle=said, style=style).rgb, "attention.jpg")


def _draw_outlines(slide: Any, lesions: Any) -> Any:
    """Return a thumbnail with the lesions' outlines, `(h, w, 3)` uint8."""
    import cv2
    import numpy as np

    thumbnail = _read_thumbnail(slide)
    scale = np.array(thumbnail.shape[1::-1]) / np.array(slide.size)
    for lesion in lesions:
        ring = np.rint(np.array(lesion.shape.buffer(24).exterior.coords) * scale).astype(np.int32)
        cv2.polylines(thumbnail, [ring], isClosed=True, color=(0, 120, 110), thickness=2, lineType=cv2.LINE_AA)
    return thumbnail


def _read_thumbnail(slide: Any) -> Any:
    """Return the whole slide as wide as a panel, `(h, w, 3)` uint8."""
    return slide.read_thumbnail(max(slide.size) * slide.mpp[0] / _PANEL_PX)


def _save_jpeg(picture: Any, name: str) -> None:
    """Write `(h, w, 3)` uint8 into docs/pictures."""
    from PIL import Image

    Image.fromarray(picture).save(DOCS / "pictures" / name, quality=88)


def main() -> None:
    """Write all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, metavar="DEMO", help="draw the pictures from the demo in that folder")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    (DOCS / "cli.md").write_text(write_cli_reference(), encoding="utf-8")
    encoders = DOCS / "encoders.md"
    encoders.write_text(write_encoders_page(encoders.read_text(encoding="utf-8")), encoding="utf-8")
    (DOCS / "troubleshooting.md").write_text(write_troubleshooting(), encoding="utf-8")
    if options.pictures is not None:
        draw_pictures(options.pictures)


if __name__ == "__main__":
    main()
