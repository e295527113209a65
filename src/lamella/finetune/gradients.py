"""The gradient of a slide's loss through all its tiles, exactly, in memory that does not grow with their number.

The loss needs all embeddings of a bag at once, but a tile's embedding needs only the tile. So the bag is encoded in
chunks without keeping what the gradient needs, the loss's gradient is taken with respect to the embeddings, and each
chunk is encoded again to carry its part of it on into the weights: the chain rule, cut at the embedding. It is the
whole-bag gradient, not an estimate, as long as a tile's embedding does not depend on its chunk: batch normalisation
must be in eval mode.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Encode = Callable[[Tensor], Tensor]


def backpropagate_bag(
    encode: Encode, inputs: Tensor, find_loss: Callable[[Tensor], Tensor], *, chunk: int
) -> tuple[float, Tensor]:
    """Add the gradient of a bag's loss to the weights of encoder and head.

    Args:
        encode: From a part of `inputs`, `(c, ...)`, to embeddings `(c, D)`; the same each time it is called.
        inputs: `(n, ...)`, the bag's tiles, or the maps that enter the trained blocks.
        find_loss: From all embeddings `(n, D)` to the loss, a scalar.
        chunk: Most tiles encoded at once while keeping what the gradient needs; a bag within it is encoded once only.

    Returns:
        The loss, and the embeddings `(n, D)`, detached.
    """
    if len(inputs) <= chunk:
        embeddings = encode(inputs)
        loss = find_loss(embeddings)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), embeddings.detach()
    parts = torch.split(inputs, chunk)
    with torch.no_grad():
        embeddings = torch.cat([encode(part) for part in parts])
    embeddings.requires_grad_()
    loss = find_loss(embeddings)
    loss.backward()  # type: ignore[no-untyped-call]
    assert embeddings.grad is not None
    for part, gradient in zip(parts, torch.split(embeddings.grad, chunk), strict=True):
        encode(part).backward(gradient)  # type: ignore[no-untyped-call]
    return float(loss.detach()), embeddings.detach()


def choose_chunk(encode: Encode, inputs: Tensor, parameters: Sequence[nn.Parameter], *, memory_bytes: int) -> int:
    """Choose how many tiles fit into memory at once, by encoding one and counting what it keeps for its gradient.

    Args:
        encode: As `backpropagate_bag` takes it.
        inputs: `(n, ...)`, at least one tile.
        parameters: Weights, which are kept anyway and not counted.
        memory_bytes: Bytes that may be kept.

    Returns:
        At least 1.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    # The output lives until the count is read: freed storages would be counted once for two tensors.
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        output = encode(inputs[:1])
    a_tile = sum(kept.values())
    del output
    # Beside what is kept, the layer at work needs its own input, output and workspace; half as much again is ample.
    return max(1, int(memory_bytes / (1.5 * max(a_tile, 1))))
