"""Fine-tuning: it learns, it repeats, it resumes where it was killed, and a frozen part stays frozen."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lamella.encoders import EncoderSpec
from lamella.encoders.network import build_network
from lamella.encoders.trust import trusting
from lamella.errors import EncoderError, SettingsError
from lamella.finetune import fit
from lamella.finetune.fit import fit_encoder
from lamella.finetune.inputs import FitPlaces, LabelledSlides
from lamella.finetune.settings import FinetuneSettings
from lamella.finetune.tiles import choose_top
from lamella.mil import fit_model
from lamella.mil.settings import TrainSettings

IDS = [f"S{i}" for i in range(8)]
TARGETS = {name: i % 2 for i, name in enumerate(IDS)}
TRAIN, VAL = IDS[:6], IDS[6:]
SETTINGS = FinetuneSettings(k=3, epochs=3, encoder_lr=1e-4, head_lr=1e-3, n_threads=1, memory_mib=8)


class Tiles:
    """Three tiles a slide: noise, and in every other slide a stripe."""

    def read(self, slide_id: str) -> np.ndarray:
        i = IDS.index(slide_id)
        tiles = np.random.default_rng(i).integers(100, 156, (3, 40, 40, 3), dtype=np.uint8)
        if i % 2:
            tiles[1:, 8:16, :, 0] = 220
        return tiles


def encode(network, tiles):
    with torch.inference_mode():
        return network(torch.from_numpy(tiles).permute(0, 3, 1, 2).float()).numpy()


@pytest.fixture(scope="module")
def stage_1():
    torch.set_num_threads(1)
    network = build_network(EncoderSpec("resnet18@3", "random"))
    bags = {name: encode(network, Tiles().read(name)) for name in IDS}
    labels = {name: "ab"[target] for name, target in TARGETS.items()}
    return fit_model(bags, labels, train=TRAIN, val=VAL, classes=("a", "b"), settings=TrainSettings(epochs=1))


def tune(stage_1, settings=SETTINGS, tiles=None, *, name="resnet18@3", checkpoint=None, maps=None):
    network = build_network(EncoderSpec(name, "random"))
    slides = LabelledSlides(targets=TARGETS, train=tuple(TRAIN), val=tuple(VAL))
    places = FitPlaces(checkpoint=checkpoint, maps=maps)
    return fit_encoder(network, stage_1, tiles or Tiles(), slides=slides, settings=settings, places=places)


def weights(result):
    state = {**result.network.blocks.named_state(), **{f"head.{k}": v for k, v in result.head.state_dict().items()}}
    return {key: tensor.clone() for key, tensor in state.items()}


def test_the_loss_falls_and_stage_1_is_the_epoch_0(stage_1):
    result = tune(stage_1, dataclasses.replace(SETTINGS, epochs=6))
    losses = [record.train_loss for record in result.history[1:]]
    assert losses[-1] < losses[0]
    assert result.history[0].epoch == 0
    best = min(result.history, key=lambda record: record.val_log_loss)
    assert result.best_epoch == best.epoch


def test_it_repeats_bit_for_bit(stage_1):
    first, second = weights(tune(stage_1)), weights(tune(stage_1))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_killed_after_any_epoch_it_ends_the_same(stage_1, tmp_path, monkeypatch):
    settings = dataclasses.replace(SETTINGS, flips=True, stain_jitter=0.05)
    whole = weights(tune(stage_1, settings))
    path = tmp_path / "epoch.pt"
    train_epoch = fit._Fit._train_epoch

    class KilledError(Exception):
        pass

    for stop in (1, 2):

        def die(self, order, epoch, advance, stop=stop):
            if epoch == stop + 1:
                raise KilledError
            return train_epoch(self, order, epoch, advance)

        monkeypatch.setattr(fit._Fit, "_train_epoch", die)
        with pytest.raises(KilledError):
            tune(stage_1, settings, checkpoint=path)
    monkeypatch.setattr(fit._Fit, "_train_epoch", train_epoch)
    resumed = weights(tune(stage_1, settings, checkpoint=path))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_damaged_checkpoint_costs_time_and_nothing_else(stage_1, tmp_path):
    path = tmp_path / "epoch.pt"
    path.write_bytes(b"half a file")
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(tune(stage_1)).values(), weights(tune(stage_1, checkpoint=path)).values(), strict=True)
    )


def test_only_the_last_blocks_move_and_cached_maps_give_the_same(stage_1, tmp_path):
    settings = dataclasses.replace(SETTINGS, train_blocks=1)
    before = build_network(EncoderSpec("resnet18@3", "random")).blocks.named_state()
    plain = tune(stage_1, settings)
    cached = tune(stage_1, settings, maps=tmp_path / "maps")
    assert len(list((tmp_path / "maps").iterdir())) == len(IDS)
    moved = {key for key, tensor in plain.network.blocks.named_state().items() if not torch.equal(tensor, before[key])}
    assert moved
    assert all(key.startswith("layer3.") for key in moved)
    assert not any("running" in key for key in moved)  # batch normalisation stays in eval mode
    ours, theirs = weights(cached), weights(plain)
    for key in ours.keys() - {"head.pool.score.bias"}:  # its gradient is 0, and Adam makes steps of what is rounding
        torch.testing.assert_close(ours[key].float(), theirs[key].float(), rtol=1e-4, atol=1e-5)


def test_the_control_trains_the_head_alone(stage_1, tmp_path):
    settings = dataclasses.replace(SETTINGS, finetuned="head")
    before = build_network(EncoderSpec("resnet18@3", "random")).blocks.named_state()
    result = tune(stage_1, settings, maps=tmp_path / "maps")
    assert all(torch.equal(tensor, before[key]) for key, tensor in result.network.blocks.named_state().items())
    assert any(not torch.equal(t, stage_1.head.state_dict()[k]) for k, t in result.head.state_dict().items())


def test_tiles_chosen_again_are_asked_for_after_each_so_many_epochs(stage_1, tmp_path):
    asked = []

    class Choosing(Tiles):
        def choose_again(self, _network, _head, epoch):
            asked.append(epoch)
            return Tiles()

    settings = dataclasses.replace(SETTINGS, choose_again=2, epochs=4, patience=9)
    tune(stage_1, settings, Choosing(), checkpoint=tmp_path / "epoch.pt")
    assert asked == [2, 4]
    tune(stage_1, dataclasses.replace(settings, epochs=5), Choosing(), checkpoint=tmp_path / "epoch.pt")
    assert asked == [2, 4, 4]  # a training that goes on takes what was chosen before


def test_the_most_attended_are_taken_in_the_order_of_the_bag():
    assert choose_top(np.array([0.3, 0.1, 0.4, 0.2]), 3).tolist() == [0, 2, 3]
    assert choose_top(np.array([0.5, 0.5]), 64).tolist() == [0, 1]


OWN = """
import torch

def build():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU())
    network.mean = network.std = (0.5, 0.5, 0.5)
    return network
"""


def test_what_cannot_be_trained_is_refused(stage_1, tmp_path):
    with pytest.raises(SettingsError, match="must be tuned or head"):
        FinetuneSettings(finetuned="all")
    path = tmp_path / "own.py"
    path.write_text(OWN)
    with trusting(path), pytest.raises(EncoderError, match="--train-blocks 1 cannot be done"):
        tune(stage_1, dataclasses.replace(SETTINGS, train_blocks=1), name=f"{path}:build")


MEMORY = """
import resource, sys, torch
from lamella.encoders import EncoderSpec
from lamella.encoders.network import build_network, pool
from lamella.finetune.gradients import backpropagate_bag, choose_chunk
network = build_network(EncoderSpec("resnet18", "random")).requires_grad_(True)
n = int(sys.argv[1])
tiles = torch.randint(0, 256, (n, 128, 128, 3), dtype=torch.uint8)
encode = lambda x: pool(network.read_maps(x.permute(0, 3, 1, 2).float())[0])
chunk = choose_chunk(encode, tiles, list(network.parameters()), memory_bytes=64 * 2**20)
backpropagate_bag(encode, tiles, lambda e: e.square().sum(), chunk=chunk)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read as Linux states it")
def test_memory_does_not_grow_with_the_number_of_tiles():
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    few, many = (
        int(
            subprocess.run(
                [sys.executable, "-c", MEMORY, str(n)], env=environment, check=True, capture_output=True
            ).stdout
        )
        for n in (16, 128)
    )
    assert many < few + 60  # the tiles themselves are 6 MiB; what they keep for the gradient would be 1.4 GiB


def test_how_many_threads_torch_was_left_with_changes_nothing(stage_1, monkeypatch):
    """An undisturbed run comes here after other steps than one that is resumed, and sums differ with the count."""
    used = []
    backpropagate = fit.backpropagate_bag
    monkeypatch.setattr(
        fit, "backpropagate_bag", lambda *a, **k: (used.append(torch.get_num_threads()), backpropagate(*a, **k))[1]
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            tune(stage_1, dataclasses.replace(SETTINGS, n_threads=None, epochs=1))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(before)
    assert set(used) == {1}
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert fit._count_threads() == fit.count_cores()
