"""The gradient of a bag in chunks is the gradient of the bag."""

import numpy as np
import pytest
import torch
from torch import nn

from lamella.encoders import EncoderSpec
from lamella.encoders.network import build_network, pool
from lamella.finetune.gradients import backpropagate_bag, choose_chunk
from lamella.mil.heads import make_attention

TILES = torch.randint(0, 256, (7, 3, 64, 64), generator=torch.Generator().manual_seed(2)).float()


def find_gradients(name: str, chunk: int, dtype: torch.dtype) -> tuple[float, dict[str, torch.Tensor]]:
    """Backpropagate a bag of seven tiles; return the loss and every weight's gradient."""
    network = build_network(EncoderSpec(name, "random")).eval().requires_grad_(True).to(dtype)
    torch.manual_seed(0)
    head = make_attention(network(TILES[:1].to(dtype)).shape[1], 2).to(dtype)

    def find_loss(embeddings: torch.Tensor) -> torch.Tensor:
        logits = head(embeddings.unsqueeze(0) / embeddings.detach().std(), torch.ones(1, 7, dtype=torch.bool)).logits
        return nn.functional.cross_entropy(logits, torch.tensor([1]))

    loss, _ = backpropagate_bag(lambda x: pool(network.read_maps(x)[0]), TILES.to(dtype), find_loss, chunk=chunk)
    modules = {"encoder": network, "head": head}
    return loss, {f"{m}.{n}": p.grad for m, module in modules.items() for n, p in module.named_parameters()}


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet-b0", "resnet18@2"])
def test_chunks_give_the_gradient_of_the_whole_bag(name):
    # oneDNN takes other kernels for other batch sizes: with AVX-512 their rounding alone moves gradients by 1e-4.
    with torch.backends.mkldnn.flags(enabled=False):
        compare_with_chunks(name)


def compare_with_chunks(name):
    whole_loss, whole = find_gradients(name, 7, torch.float32)
    for chunk in (1, 3):
        loss, chunked = find_gradients(name, chunk, torch.float32)
        assert loss == pytest.approx(whole_loss, rel=1e-6)
        assert whole.keys() == chunked.keys()
        for part in ("encoder.", "head."):
            ours, theirs = (
                torch.cat([g.flatten() for key, g in gradients.items() if key.startswith(part)])
                for gradients in (chunked, whole)
            )
            assert float((ours - theirs).norm()) <= 1e-5 * float(theirs.norm())


def test_in_double_precision_they_agree_weight_by_weight():
    whole, chunked = (find_gradients("resnet18@2", chunk, torch.float64)[1] for chunk in (7, 2))
    largest = max(float(gradient.abs().max()) for gradient in whole.values())
    for key, gradient in whole.items():
        # A bias before a softmax has gradient 0, and rounding is all that is left of it.
        scale = max(float(gradient.abs().max()), 1e-6 * largest)
        assert float((gradient - chunked[key]).abs().max()) <= 1e-9 * scale, key


def test_some_gradient_is_not_zero_everywhere():
    _, gradients = find_gradients("resnet18", 3, torch.float32)
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients.values())


def test_more_memory_takes_more_tiles_at_once_and_never_none():
    network = build_network(EncoderSpec("resnet18", "random")).requires_grad_(True)
    weights = list(network.parameters())

    def choose(mib: float, px: int) -> int:
        return choose_chunk(
            lambda x: pool(network.read_maps(x)[0]), torch.zeros(1, 3, px, px), weights, memory_bytes=int(mib * 2**20)
        )

    assert choose(0.001, 64) == 1
    assert choose(64, 64) == pytest.approx(4 * choose(64, 128), rel=0.5)
    assert choose(512, 128) == pytest.approx(8 * choose(64, 128), rel=0.2)


def test_augmented_tiles_are_the_same_tiles_turned_and_restained():
    from lamella.finetune.augment import augment_tiles

    turned = augment_tiles(TILES, np.random.default_rng(0), flips=True, stain_jitter=0)
    assert not torch.equal(turned, TILES)
    assert torch.equal(turned.flatten(1).sort(dim=1)[0], TILES.flatten(1).sort(dim=1)[0])
    same = augment_tiles(TILES, np.random.default_rng(0), flips=False, stain_jitter=1e-9)
    torch.testing.assert_close(same, TILES, atol=0.05, rtol=0)
    restained = augment_tiles(TILES, np.random.default_rng(0), flips=False, stain_jitter=0.1)
    assert 1 < float((restained - TILES).abs().mean()) < 60
    assert 0 <= float(restained.min()) <= float(restained.max()) <= 255
