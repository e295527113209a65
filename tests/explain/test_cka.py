"""Comparing encoders over slides: itself is 1, what changed is told block by block, a killed comparison goes on."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch

from lamella.cohort import gather_slides
from lamella.encoders import EncoderSpec
from lamella.encoders.network import build_network
from lamella.encoders.trust import trusting
from lamella.errors import EncoderError, OutputError, SettingsError
from lamella.explain import cka
from lamella.explain.cka import CkaSettings, compare_encoders
from lamella.features.plan import CutSettings
from lamella.reports.charts.cka import save_cka_figures
from lamella.tiles import TileSpec
from tests.tiny import draw_tissue, save_slide

FROZEN = EncoderSpec("resnet18", "random")


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    paths = [save_slide(folder / f"S-{i}.tiff", draw_tissue(i, malignant=bool(i % 2))) for i in range(8)]
    return gather_slides(paths).slides


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The frozen network, and one whose third block alone has moved."""
    network = build_network(FROZEN)
    state = {key: tensor.clone() for key, tensor in network.blocks.named_state().items()}
    generator = torch.Generator().manual_seed(0)
    for key in state:
        if key.startswith("layer3") and key.endswith("conv1.weight"):
            state[key] += 4 * state[key].std() * torch.randn(state[key].shape, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "moved.pth"
    torch.save(state, path)
    return CkaSettings(
        first=FROZEN,
        second=EncoderSpec("resnet18", str(path)),
        controls=(EncoderSpec("resnet34", "random"),),
        cut=CutSettings(spec=TileSpec(tile_px=64, mpp=0.5)),
        n_tiles=3,
    )


def test_only_the_block_that_moved_and_those_behind_it_differ(slides, settings, tmp_path):
    result = compare_encoders(slides, settings, tmp_path)
    moved, itself, other = result.alignments.values()
    np.testing.assert_allclose(np.diagonal(itself.values), 1, atol=1e-9)
    diagonal = np.diagonal(moved.values)
    np.testing.assert_allclose(diagonal[:2], 1, atol=1e-6)
    assert diagonal[2] < 0.999
    assert result.weight_change[2] > 0.05
    assert not result.weight_change[[0, 1, 3]].any()
    alone = result.one_block.values[0]
    np.testing.assert_allclose(alone[[0, 1, 3]], 1, atol=1e-6)  # block 4 has not moved, it only inherits
    assert alone[2] == pytest.approx(diagonal[2], abs=1e-6)
    assert other.values.shape == (4, 4)
    content = json.loads((tmp_path / "cka.json").read_text())
    assert content["alignments"][content["second"]]["cka"][2][2] == pytest.approx(diagonal[2])
    with (tmp_path / "cka.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 3 * 16
    for path in save_cka_figures(tmp_path):
        assert path.read_text().startswith("<svg")


def test_activations_are_the_embeddings_of_the_blocks_and_are_computed_once(slides, settings, tmp_path, monkeypatch):
    first = compare_encoders(slides, settings, tmp_path)
    monkeypatch.setattr(cka._Comparison, "save_activations", None)
    again = compare_encoders(slides, settings, tmp_path)
    for name, alignment in first.alignments.items():
        np.testing.assert_array_equal(alignment.values, again.alignments[name].values)


def test_killed_half_way_it_finds_the_same(slides, settings, tmp_path, monkeypatch):
    whole = compare_encoders(slides, settings, tmp_path / "whole")
    save, n = cka._Comparison.save_activations, []

    class KilledError(Exception):
        pass

    def die(self, item, folder):
        if len(n) == 5:
            raise KilledError
        n.append(item)
        save(self, item, folder)

    monkeypatch.setattr(cka._Comparison, "save_activations", die)
    with pytest.raises(KilledError):
        compare_encoders(slides, settings, tmp_path / "killed")
    monkeypatch.setattr(cka._Comparison, "save_activations", save)
    resumed = compare_encoders(slides, settings, tmp_path / "killed")
    for name, alignment in whole.alignments.items():
        np.testing.assert_array_equal(alignment.values, resumed.alignments[name].values)


def test_a_slide_that_cannot_be_read_is_listed_and_seven_are_too_few(slides, settings, tmp_path):
    bad = save_slide(tmp_path / "bad.tiff", draw_tissue(9))
    bad.write_bytes(bad.read_bytes()[:2000])
    with pytest.raises(SettingsError, match="over 7 slides that can be read"):
        compare_encoders((*slides[:7], *gather_slides([bad]).slides), settings, tmp_path / "out")
    assert "bad" in (tmp_path / "out" / "failures.csv").read_text()


def test_encoders_of_two_families_are_compared_without_swapping_blocks(slides, settings, tmp_path):
    mixed = dataclasses.replace(settings, second=EncoderSpec("efficientnet-lite0@2", "random"), controls=())
    result = compare_encoders(slides, mixed, tmp_path)
    assert result.one_block is None
    assert result.weight_change is None
    assert next(iter(result.alignments.values())).values.shape == (4, 2)


def test_an_encoder_without_blocks_is_refused(slides, settings, tmp_path):
    (tmp_path / "mine.py").write_text("import torch\ndef build():\n    return torch.nn.Conv2d(3, 5, 3)\n")
    mine = EncoderSpec(f"{tmp_path / 'mine.py'}:build")
    with trusting(mine.name), pytest.raises(EncoderError, match="no numbered blocks"):
        compare_encoders(slides, dataclasses.replace(settings, second=mine), tmp_path / "out")


def test_a_disk_that_takes_half_an_array_ends_the_comparison_and_is_no_failed_slide(
    slides, settings, tmp_path, monkeypatch
):
    def write_half(*_: object) -> None:
        raise OSError("17472 requested and 16352 written")  # NumPy's words, without a number

    monkeypatch.setattr(np, "save", write_half)
    with pytest.raises(OutputError, match="npy' cannot be written: the disk is full"):
        compare_encoders(slides, settings, tmp_path)
    assert not list(tmp_path.rglob("*.npy"))
