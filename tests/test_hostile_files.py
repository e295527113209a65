"""Files that are none, and files that claim what they do not hold: refused at once, in one line, before decoding."""

import io
import os
import re
import signal
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from typer.testing import CliRunner

import lamella
from lamella.cli.echo import echo
from lamella.cohort.rows import read_rows
from lamella.encoders.formats import load_state
from lamella.encoders.trust import refuse_untrusted
from lamella.errors import BagError, CohortError, LamellaError, OutputError, SlideError, show_controls
from lamella.explain.lesion_masks import load_mask
from lamella.features.tissue import save_tiles, save_tissue
from lamella.files import read_json, refuse_links, write_text
from lamella.reports.draw.pictures import load_body
from lamella.runs.reference import load_reference
from lamella.slide.claims import find_claimed_size
from tests.tiny import draw_tissue, save_slide

SOURCE = Path(lamella.__file__).parent
SPEC = lamella.TileSpec(tile_px=64, mpp=0.5)


@contextmanager
def at_once(seconds: int = 10) -> Iterator[None]:
    """End what takes longer: a pipe is waited for without end."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


READERS: dict[str, Callable[[Path], object]] = {
    "svs tif png jpg dcm mrxs vms czi ndpi": lamella.open_slide,
    "h5 pt npz zarr": lamella.load_bag,
    "csv tsv parquet": lamella.load_cohort,
    "geojson xml": lamella.load_regions,
    "yaml": lamella.load_design,
    "json": lambda path: read_json(path, made_by="lamella run"),
    "pth safetensors keras": load_state,
    "png tiff jp2 bmp": lambda path: load_mask(path, (100, 80)),
    "npz": load_reference,
}
CASES = [(suffix, read) for suffixes, read in READERS.items() for suffix in suffixes.split()]
MAKE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path.name),
    "broken link": lambda path: path.symlink_to("gone"),
}


@pytest.mark.skipif(os.name == "nt", reason="no pipes among files")
@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize(("suffix", "read"), CASES, ids=[suffix for suffix, _ in CASES])
def test_what_is_no_regular_file_is_one_line_at_once(
    tmp_path: Path, suffix: str, read: Callable[[Path], object], kind: str
) -> None:
    path = tmp_path / f"thing.{suffix}"
    MAKE[kind](path)
    with at_once(), pytest.raises(LamellaError) as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="no pipes among files")
def test_a_pipe_in_a_folder_that_is_opened_or_written_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with at_once(), pytest.raises(OutputError, match=r"'run\.json' in '.*' is a pipe"):
        lamella.open_run(tmp_path)
    with pytest.raises(OutputError, match="is a pipe"):
        refuse_links(tmp_path)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def jpeg(width: int, height: int, **options: bool) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 48)).save(stream, "JPEG", **options)
    content = bytearray(stream.getvalue())
    at = content.find(b"\xff\xc2" if options else b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def tiff(tags: dict[int, int], data: bytes = b"\xff" * 64) -> bytes:
    usual = {258: 8, 259: 1, 262: 1, 277: 1} | tags
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(usual.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(usual)) + entries + bytes(4)


TILED = {322: 512, 323: 400, 324: 8}
CLAIMS: dict[str, tuple[str, bytes]] = {
    "png": ("a.png", png(100_000, 100_000)),
    "png of few bytes": ("a.png", png(30_000, 20_000)),
    "png of 31 bits": ("a.png", png(2**31 - 1, 2**31 - 1)),
    "jpeg": ("a.jpg", jpeg(65_500, 65_500)),
    "jpeg of few bytes": ("a.jpg", jpeg(30_000, 20_000)),
    "progressive": ("a.jpg", jpeg(65_500, 65_500, progressive=True)),
    "tiff width": ("a.tif", tiff({256: 2**31 - 1, 257: 2**31 - 1, 273: 8, 278: 2**31 - 1, 279: 64})),
    "tiff canvas": ("a.tif", tiff({256: 4_000_000, 257: 3_000_000, 322: 512, 323: 512, 324: 8, 325: 64})),
    "tiff sparse": ("a.tif", tiff({256: 400_000, 257: 300_000, 322: 512, 323: 512, 324: 8, 325: 64})),
    "tiff tile": ("a.tif", tiff({256: 1000, 257: 800, 322: 2**30, 323: 2**30, 324: 8, 325: 64})),
    "tiff samples": ("a.tif", tiff({256: 1000, 257: 800, 273: 8, 278: 800, 279: 64, 277: 65_535})),
    "tiff of a jpeg": (
        "a.tif",
        tiff(
            {256: 500, 257: 400, 259: 7, 262: 6, 277: 3, **TILED, 325: len(jpeg(65_500, 65_500))}, jpeg(65_500, 65_500)
        ),
    ),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a_header_that_claims_too_much_is_refused_before_decoding(tmp_path: Path, case: str) -> None:
    name, content = CLAIMS[case]
    (tmp_path / name).write_bytes(content)
    began = time.monotonic()
    with at_once(), pytest.raises(SlideError) as caught, lamella.open_slide(tmp_path / name) as slide:
        slide.read_region((0, 0), 0, (8, 8))
    assert time.monotonic() - began < 5
    assert re.search(r"claims|stores its pixels in pieces|its own header says", str(caught.value))


def test_sizes_are_found_in_headers() -> None:
    assert find_claimed_size(io.BytesIO(png(300, 200))) == (300, 200)
    assert find_claimed_size(io.BytesIO(jpeg(300, 200))) == (300, 200)
    assert find_claimed_size(io.BytesIO(b"\xff\xd8" + bytes(99))) is None
    siz = b"\xff\x4f\xff\x51\0\x2f\0\0" + struct.pack(">IIII", 310, 220, 10, 20)
    assert find_claimed_size(io.BytesIO(siz)) == (300, 200)


@pytest.mark.parametrize("head", [b"II*\0\x08\0\0\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b""])
def test_a_huge_file_of_nothing_is_refused_at_once(tmp_path: Path, head: bytes) -> None:
    for suffix in ("tif", "svs", "png", "jpg"):
        path = tmp_path / f"sparse.{suffix}"
        with path.open("wb") as stream:
            stream.write(head)
            stream.truncate(1 << 40)
        with at_once(), pytest.raises(SlideError):
            lamella.open_slide(path)
    for suffix, read in (
        ("csv", lamella.load_cohort),
        ("geojson", lamella.load_regions),
        ("xml", lamella.load_regions),
    ):
        os.link(tmp_path / "sparse.tif", tmp_path / f"big.{suffix}")
        with at_once(), pytest.raises(LamellaError, match=r"larger than|at most"):
            read(tmp_path / f"big.{suffix}")


LAUGHS = "<!DOCTYPE l [<!ENTITY a 'xxxxxxxxxxxxxxxxxxxx'>" + "".join(
    f"<!ENTITY {new} '{f'&{old};' * 20}'>" for old, new in zip("abcdef", "bcdefg", strict=True)
)
BODY = '<OME><Image Name="{}"><Pixels SizeX="96" SizeY="64" SizeC="{}" SizeZ="{}" SizeT="1" {}/></Image></OME>'
OME = {
    "counts": BODY.format("x", 10**9, 10**9, ""),
    "digits": BODY.format("x", "9" * 5000, 1, ""),
    "laughs": LAUGHS + "]>" + BODY.format("&g;", 1, 1, ""),
    "outside": "<!DOCTYPE l [<!ENTITY a SYSTEM 'file:///etc/hostname'>]>"
    + BODY.format("x", 1, 1, "").replace("/>", ">&a;</Pixels>", 1),
    "deep": "<OME>" + "<a>" * 100_000,
}


@pytest.mark.parametrize("case", OME)
def test_ome_xml_that_claims_or_unfolds_without_end_is_read_or_refused_at_once(tmp_path: Path, case: str) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        pixels = np.full((64, 96, 3), 200, np.uint8)
        writer.write(pixels, description=OME[case].encode(), metadata=None, photometric="rgb", compression="deflate")
    with at_once(), lamella.open_slide(path) as slide:
        assert slide.size == (96, 64)
        assert not any("root" in note for note in slide.notes)


@pytest.mark.parametrize("inner", ["<!ENTITY g SYSTEM 'file:///etc/hostname'>]>", LAUGHS.partition("[")[2] + "]>"])
def test_outlines_with_entities_are_refused(tmp_path: Path, inner: str) -> None:
    (tmp_path / "a.xml").write_text(f"<!DOCTYPE l [{inner}<Annotations><Annotation Name='&g;'/></Annotations>")
    with at_once(), pytest.raises(LamellaError, match="have a DOCTYPE"):
        lamella.load_regions(tmp_path / "a.xml")


def test_archives_and_tensors_that_unfold_are_refused(tmp_path: Path) -> None:
    readers = {"a.pt": lamella.load_bag, "a.pth": load_state, "a.keras": load_state, "a.npz": load_reference}
    for name, read in readers.items():
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x/data/0", bytes(100 << 20))
        with at_once(), pytest.raises(LamellaError, match="unpacks from"):
            read(tmp_path / name)
    torch.save(torch.zeros(1, 1).expand(10**6, 10**6), tmp_path / "wide.pt")
    nowhere = torch.zeros(2, 0, dtype=torch.long)
    thin = torch.sparse_coo_tensor(nowhere, [], (10**6, 10**6), check_invariants=True)
    torch.save(thin, tmp_path / "thin.pt")
    for name in ("wide.pt", "thin.pt"):
        with at_once(), pytest.raises(BagError, match=r"repeats some without storing them|GiB of memory"):
            lamella.load_bag(tmp_path / name)


def test_a_parquet_table_that_claims_a_billion_rows_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(6_000_000, np.int8)), pa.array(["a"]))
    pq.write_table(pa.table({"slide": column, "label": column}), tmp_path / "cohort.parquet")
    with at_once(), pytest.raises(LamellaError, match="claims 12,000,000 cells"):
        read_rows(tmp_path / "cohort.parquet")


def test_a_picture_of_a_run_starts_no_other_program(tmp_path: Path) -> None:
    (tmp_path / "attention.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(OSError, match="cannot identify"):  # Pillow would have Ghostscript draw it
        load_body(tmp_path / "attention.png")


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/secret.jpg", "a/../../secret.jpg"])
def test_the_index_of_a_slide_names_files_beside_it_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.vms").write_text(f"[Virtual Microscope Specimen]\nNoJpegColumns=1\nNoJpegRows=1\nImageFile={name}\n")
    with pytest.raises(SlideError, match="does not lie beside it"):
        lamella.open_slide(tmp_path / "a.vms")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take UTF-8 names only")
@pytest.mark.parametrize(("name", "said"), [(b"sc\xe8ne/S-1.tif", "Rename that folder"), (b"S-\xe8.tif", "Rename it")])
def test_a_slide_or_folder_whose_name_is_not_utf8_is_to_be_renamed(tmp_path: Path, name: bytes, said: str) -> None:
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    save_slide(tmp_path / "drawn.tif", draw_tissue(1)).rename(path)
    with pytest.raises((SlideError, CohortError), match=said):
        lamella.open_slide(lamella.gather_slides([path]).slides[0].path)


def test_slides_may_be_links_and_a_link_at_an_output_is_replaced_and_never_followed(tmp_path: Path) -> None:
    save_slide(tmp_path / "archive" / "S-1.tif", draw_tissue(1))
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("S-1.png", "S-1.geojson", "ledger.csv", "failures.csv", "S-1_patches.h5"):
        write_text(kept / name, "mine")
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "S-1.tif").symlink_to(tmp_path / "archive" / "S-1.tif")
    slides = lamella.gather_slides([tmp_path / "slides" / "S-1.tif"]).slides
    cut = lamella.CutSettings(spec=SPEC)
    out = tmp_path / "out"
    out.mkdir()
    for name in ("S-1.png", "S-1.geojson", "ledger.csv", "failures.csv"):
        (out / name).symlink_to(kept / name)
    rows, failures = save_tissue(slides, cut, out)
    assert (bool(rows), failures, (out / "S-1.png").is_symlink()) == (True, (), False)
    placed = tmp_path / "placed"
    (placed / SPEC.folder).mkdir(parents=True)
    (placed / SPEC.folder / "patches").symlink_to(kept)
    with pytest.raises(OutputError, match="is a link to somewhere else"):
        save_tiles(slides, cut, placed)
    extract = lamella.ExtractSettings(cut=cut, encoders=(lamella.EncoderSpec("resnet18@1", "random"),))
    with pytest.raises(OutputError, match="is a link to somewhere else"):
        lamella.extract_cohort(slides, extract, placed)
    assert {path.read_text() for path in kept.iterdir()} == {"mine"}
    assert len(list(kept.iterdir())) == 5


@pytest.mark.parametrize("nasty", ["\x1b[2J\x1b]0;owned\x07", "\x9b31m", "\u202egnp.exe", "a\rb\x08", "\x00"])
def test_what_a_terminal_would_obey_is_shown(nasty: str, capsys: pytest.CaptureFixture[str]) -> None:
    obeyed = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
    assert not obeyed.search(str(SlideError(f"slide '{nasty}' is gone")))
    echo(f"{nasty} of\ntwo lines")
    printed = capsys.readouterr().out
    assert not obeyed.search(printed)
    assert len(printed.splitlines()) == 2
    assert show_controls("Gr\u00f6\u00dfe \u00b5m\t1") == "Gr\u00f6\u00dfe \u00b5m\t1"


def test_a_command_that_is_printed_can_be_pasted_whatever_a_name_holds() -> None:
    with pytest.raises(LamellaError) as caught:
        refuse_untrusted("/tmp/my $(touch owned).py:build")
    assert "--trust 'PATH/my $(touch owned).py'" in str(caught.value)


def list_calls(pattern: str) -> set[str]:
    """List the files of the package that have a pattern in their code."""
    return {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if re.search(pattern, path.read_text("utf-8"), re.MULTILINE)
    }


def test_nothing_is_read_in_a_way_that_runs_it() -> None:
    for path in SOURCE.rglob("*.py"):
        text = path.read_text("utf-8")
        assert all("allow_pickle=False" in call for call in re.findall(r"np\.load\(.*", text)), path
        assert all("formats=" in call for call in re.findall(r"Image\.open\(.*", text)), path
        loads = [call for call in re.findall(r"torch\.load\(.*", text) if "weights_only=True" not in call]
        assert all("pickle_module=_InertPickle" in call for call in loads), path
    assert (
        list_calls(r"pickle\.loads?\(|joblib|yaml\.(unsafe_)?load\(|[^.\w]eval\(|[^.\w]exec\(|os\.system|shell=True")
        == set()
    )
    assert list_calls(r"spec_from_file_location") == {"encoders/own.py"}  # asks `encoders.trust` first
    assert list_calls(r"typer\.echo\(|^\s+print\(") == {"cli/echo.py"}  # the one that shows what terminals obey
    assert list_calls(r"csv\.(Dict)?[wW]riter\(|\.to_csv\(") == {"files.py"}  # the one that escapes formulas
    templates = [path.read_text("utf-8") for path in SOURCE.rglob("*.j2")] + [
        p.read_text("utf-8") for p in SOURCE.rglob("*.js")
    ]
    assert not any(
        re.search(r"\|\s*safe|innerHTML|insertAdjacentHTML|document\.write|\beval\(", text) for text in templates
    )


def test_measuring_a_hostile_table_prints_no_escapes(tmp_path: Path) -> None:
    from lamella.cli import build_app

    rows = "".join(f"S-{i},{'a' if i % 2 else chr(27) + '[31mb'},0.{i},0.{9 - i}\n" for i in range(1, 9))
    (tmp_path / "p.csv").write_text("slide_id,label,prob_a,prob_\x1b[31mb\n" + rows, encoding="utf-8")
    done = CliRunner().invoke(build_app(), ["measure", str(tmp_path / "p.csv")])
    assert "\x1b" not in done.output
