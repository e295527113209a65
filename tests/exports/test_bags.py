"""A bag passed on as AnnData is what scanpy reads: a row a tile, its corner, its attention."""

import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.errors import BagError
from lamella.exports.bags import export_bag_as_anndata
from lamella.features.anndata import to_anndata
from lamella.features.layouts import load_bag
from lamella.runs.attention import AttentionRecord, save_attention
from tests.features.foreign import COORDS, FEATURES, SLIDE_SIZE, write_atlaspatch, write_trident_slide

ATTENTION = np.array([0.5, 0.2, 0.1, 0.15, 0.05], np.float32)


def write_bag(folder: Path) -> Path:
    return write_atlaspatch(folder / "S-1.h5", {"uni_v1": FEATURES})


def write_attention(path: Path, coords_l0: np.ndarray) -> Path:
    record = AttentionRecord(
        slide_id="S-1", attention=ATTENTION, coords_l0=coords_l0, tile_l0=(512, 512), tile_px=256, mpp=0.5,
        slide_size=SLIDE_SIZE, slide_mpp=(0.25, 0.25), key="k",
    )  # fmt: skip
    save_attention(record, path)
    return path


@pytest.mark.filterwarnings("ignore")  # of anndata
def test_a_bag_is_read_back_by_anndata(tmp_path: Path):
    anndata = pytest.importorskip("anndata", reason="anndata is not installed")
    attention = write_attention(tmp_path / "attention.h5", COORDS)
    shape = export_bag_as_anndata(write_bag(tmp_path), tmp_path / "S-1.h5ad", attention=attention, fold=3)
    table = anndata.read_h5ad(tmp_path / "S-1.h5ad")
    assert shape == table.shape == (5, 8)
    assert (table.X == FEATURES).all()
    assert (table.obsm["spatial"] == COORDS).all()
    np.testing.assert_allclose(table.obs["attention"], ATTENTION)
    assert list(table.obs["fold"]) == [3] * 5
    assert list(table.obs_names) == [f"S-1:{row}" for row in range(5)]
    stated = table.uns["lamella"]
    assert (stated["encoder"], stated["slide_width"], stated["slide_height"]) == ("uni_v1", 4000, 3000)
    assert (stated["mpp"], stated["slide_mpp_x"], stated["tile_width_l0"]) == (0.5, 0.25, 512)
    assert "fingerprint" not in stated  # the file states none


@pytest.mark.filterwarnings("ignore")
def test_a_slide_embedding_has_no_corners(tmp_path: Path):
    pytest.importorskip("anndata", reason="anndata is not installed")
    table = to_anndata(load_bag(write_trident_slide(tmp_path)))
    assert table.shape == (1, 12)
    assert "spatial" not in table.obsm


@pytest.mark.filterwarnings("ignore")
def test_attention_of_other_tiles_is_refused(tmp_path: Path):
    pytest.importorskip("anndata", reason="anndata is not installed")
    attention = write_attention(tmp_path / "attention.h5", COORDS[::-1].copy())
    with pytest.raises(BagError, match="of other tiles than the bag"):
        export_bag_as_anndata(write_bag(tmp_path), tmp_path / "S-1.h5ad", attention=attention)
    assert not (tmp_path / "S-1.h5ad").exists()
    with pytest.raises(BagError, match=r"5 tiles and attention has shape \(4,\)"):
        to_anndata(load_bag(tmp_path / "S-1.h5"), attention=ATTENTION[:4])


def test_without_anndata_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(BagError, match=r"pip install 'lamella\[anndata\]'"):
        export_bag_as_anndata(write_bag(tmp_path), tmp_path / "S-1.h5ad")
    assert not (tmp_path / "S-1.h5ad").exists()


def test_a_name_that_anndata_would_not_know_is_refused(tmp_path: Path):
    with pytest.raises(BagError, match=r"Name it S-1\.h5ad"):
        export_bag_as_anndata(write_bag(tmp_path), tmp_path / "S-1.h5")


@pytest.mark.filterwarnings("ignore")
def test_the_verb_writes_a_bag_as_anndata(tmp_path: Path):
    anndata = pytest.importorskip("anndata", reason="anndata is not installed")
    out = tmp_path / "S-1.h5ad"
    address = f"{write_bag(tmp_path)}#uni_v1"
    result = CliRunner().invoke(build_app(), ["bag", "export", address, "--to", "anndata", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "5 tiles x 8" in result.output
    assert anndata.read_h5ad(out).shape == (5, 8)
