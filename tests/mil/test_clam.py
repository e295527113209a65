"""CLAM's loss of tiles: its formula, in loops, and what torchmil has of it."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lamella.mil.clam import find_instance_loss, find_smooth_svm_loss
from lamella.mil.heads import ClamHead, make_clam_sb


def make_head(n_classes: int = 3) -> ClamHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        head = make_clam_sb(7, n_classes)
    assert isinstance(head, ClamHead)
    return head.eval()


def make_bag(n_tiles: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_tiles, 7, generator=torch.Generator().manual_seed(seed))


def find_loss_in_loops(
    tiles: NDArray[np.float64],
    attention: NDArray[np.float64],
    target: int,
    layers: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    k: int,
) -> float:
    """Return the loss as the paper and its code have it: tile by tile, class by class."""
    by_attention = sorted(range(len(tiles)), key=lambda number: attention[number])
    least, most = by_attention[:k], by_attention[-k:]
    total = 0.0
    for number, (weight, bias) in enumerate(layers):
        wanted = [(tile, 1) for tile in most] + [(tile, 0) for tile in least] if number == target else []
        wanted = wanted or [(tile, 0) for tile in most]
        losses = []
        for tile, label in wanted:
            scores = weight @ tiles[tile] + bias
            losses.append(math.log(sum(math.exp(scores[c] + (c != label) - scores[label]) for c in (0, 1))))
        total += sum(losses) / len(losses)
    return total / len(layers)


@pytest.mark.parametrize(("n_tiles", "k"), [(40, 8), (9, 4), (2, 1)])
@pytest.mark.parametrize("target", [0, 2])
def test_the_loss_of_tiles_is_the_papers(n_tiles: int, k: int, target: int) -> None:
    head, bag = make_head(), make_bag(n_tiles)
    with torch.no_grad():
        tiles = head.embed(bag)
        attention = head(bag[None], torch.ones(1, n_tiles, dtype=torch.bool)).attention[0]
        loss = find_instance_loss(tiles, attention, target, list(head.classify_tiles), n_instances=8)
    layers = [
        (layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()) for layer in head.classify_tiles
    ]
    wanted = find_loss_in_loops(tiles.double().numpy(), attention.double().numpy(), target, layers, k)
    assert float(loss) == pytest.approx(wanted, abs=1e-6)


def test_a_tile_alone_has_no_loss_of_its_own() -> None:
    head = make_head()
    loss = find_instance_loss(torch.ones(1, 512), torch.ones(1), 1, list(head.classify_tiles), n_instances=8)
    assert float(loss) == 0


def test_a_head_learns_from_its_slide_and_its_tiles_whatever_the_padding() -> None:
    head, sizes, targets = make_head(), (20, 5), torch.tensor([2, 0])
    bags, real = torch.full((2, 23, 7), 1e6), torch.zeros(2, 23, dtype=torch.bool)
    wanted = []
    for number, size in enumerate(sizes):
        bags[number, :size], real[number, :size] = make_bag(size, number), True
        alone = torch.ones(1, size, dtype=torch.bool)
        with torch.no_grad():
            logits, attention = head(bags[number : number + 1, :size], alone)
            of_slide = torch.nn.functional.cross_entropy(logits, targets[number : number + 1])
            of_tiles = find_instance_loss(
                head.embed(bags[number, :size]),
                attention[0],
                int(targets[number]),
                list(head.classify_tiles),
                n_instances=8,
            )
        wanted.append(0.7 * float(of_slide) + 0.3 * float(of_tiles))
    losses = head.find_losses(bags, real, targets)
    assert losses.tolist() == pytest.approx(wanted, abs=1e-5)
    losses.sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_the_smooth_loss_nears_the_margin_loss_of_sure_scores() -> None:
    loss = find_smooth_svm_loss(torch.tensor([[0.0, 30.0], [30.0, 0.0]]), torch.tensor([1, 1]))
    torch.testing.assert_close(loss, torch.tensor([0.0, 31.0]))


def test_it_is_torchmils_with_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the loss of a tile: torchmil 1.0.2 broadcasts its targets `(T, 1)` to `(T, T, 2)` and mixes the tiles."""
    models = pytest.importorskip("torchmil.models")
    monkeypatch.setattr(
        "torchmil.nn.utils.SmoothTop1SVM.forward",
        lambda _, logits, targets: find_smooth_svm_loss(logits, targets[:, 0].long()).mean(),
    )
    ours = make_head(2)
    theirs = models.CLAM_SB(in_shape=(7,), att_dim=256, gated=True, k_sample=8, feat_ext=ours.embed).eval()
    theirs.pool.fc1.module.load_state_dict(ours.pool.value.state_dict())
    theirs.pool.fc_gated.module.load_state_dict(ours.pool.gate.state_dict())
    theirs.pool.fc2.load_state_dict({"weight": ours.pool.score.weight})
    theirs.classifier.module.load_state_dict({name: w[1:] - w[:1] for name, w in ours.classify.state_dict().items()})
    for layer, own in zip(theirs.inst_classifiers, ours.classify_tiles, strict=True):
        layer.module.load_state_dict(own.state_dict())
    bag, real = make_bag(40)[None], torch.ones(1, 40, dtype=torch.bool)
    for target in (0, 1):
        label = torch.tensor([target])
        with torch.no_grad():
            logits, attention = ours(bag, real)
            logit, scores = theirs(bag, return_att=True)
            _, losses = theirs.compute_loss(label, bag)
            loss = find_instance_loss(
                ours.embed(bag[0]), attention[0], target, list(ours.classify_tiles), n_instances=8
            )
        assert float(logits[0, 1] - logits[0, 0]) == pytest.approx(float(logit), abs=1e-5)
        torch.testing.assert_close(attention, scores.softmax(dim=1), rtol=0, atol=1e-5)
        of_slide = torch.nn.functional.cross_entropy(logits, label)
        assert float(of_slide) == pytest.approx(float(losses["BCEWithLogitsLoss"]), abs=1e-5)
        assert 2 * float(loss) == pytest.approx(float(losses["InstLoss"]), abs=1e-5)  # torchmil sums over classes
