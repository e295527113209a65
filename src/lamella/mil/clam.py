"""CLAM's loss of tiles: the most and least attended of a slide must be told apart (Lu et al. 2021).

Lu MY, Williamson DFK, Chen TY, et al. Data-efficient and weakly supervised computational pathology on whole-slide
images. Nat Biomed Eng 2021;5:555-570.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def find_instance_loss(
    tiles: Tensor, attention: Tensor, target: int, classifiers: Sequence[nn.Module], *, n_instances: int
) -> Tensor:
    """Return the loss of the tiles of one slide, a number.

    The classifier of the slide's class learns to call the most attended tiles 1 and the least attended 0; those of the
    other classes learn to call the most attended 0, as a slide has one class. The mean over classes is returned.

    Args:
        tiles: `(N, E)` embedded.
        attention: `(N,)`; what is chosen by it is chosen, so no gradient goes that way.
        target: Class of the slide.
        classifiers: One a class, from `(k, E)` to `(k, 2)`.
        n_instances: Tiles at each end; of a slide with less than twice as many, half its tiles. One tile alone has
            no loss.
    """
    n_chosen = min(n_instances, len(tiles) // 2)
    if n_chosen == 0:
        return tiles.new_zeros(())
    order = attention.detach()
    most, least = (tiles[order.topk(n_chosen, largest=largest).indices] for largest in (True, False))
    total = tiles.new_zeros(())
    for number, classifier in enumerate(classifiers):
        if number == target:
            logits = classifier(torch.cat([most, least]))  # (2k, 2)
            wanted = torch.arange(2 * n_chosen, device=tiles.device) < n_chosen
        else:
            logits, wanted = classifier(most), torch.zeros(n_chosen, dtype=torch.bool, device=tiles.device)
        total = total + find_smooth_svm_loss(logits, wanted.long()).mean()
    return total / len(classifiers)


def find_smooth_svm_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the smooth top-1 SVM loss `(T,)` of `(T, C)` logits, margin and temperature 1 (Berrada et al. 2018).

    Example:
        >>> find_smooth_svm_loss(torch.zeros(1, 2), torch.tensor([0])).item()  # log(1 + e)
        1.3132616...
    """
    margin = 1.0 - nn.functional.one_hot(targets, logits.shape[1]).to(logits.dtype)  # (T, C)
    return (logits + margin - logits.gather(1, targets.unsqueeze(1))).logsumexp(dim=1)
