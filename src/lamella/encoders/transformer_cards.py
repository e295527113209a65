"""What the cards of transformers have in common, and how they are written down."""

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from lamella.encoders.cards import EncoderCard, Pooling

if TYPE_CHECKING:
    from pydantic import JsonValue

Arguments: TypeAlias = "dict[str, JsonValue]"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

# timm's name of a way of pooling tokens; the last two are ours (`timm_trunk`).
_POOLS: "dict[Pooling, str]" = {"token": "token", "mean": "avg", "token+mean": "token+mean", "attention": "attention"}


def describe_transformer(
    name: str,
    network: str,
    dim: int,
    arguments: Arguments,
    *,
    input_px: int = 224,
    size_step: int = 0,
    pooling: Pooling = "token",
) -> EncoderCard:
    """Return the part of a transformer's card that describes its network; its embedding is as wide at every depth.

    Args:
        name: What one asks for.
        network: timm's name of the architecture.
        dim: Width of the embedding.
        arguments: Of the architecture, without size and pooling.
        input_px: As on the card.
        size_step: As on the card; 0 where the network takes `input_px` only.
        pooling: As on the card.
    """
    sizes: Arguments = {"img_size": input_px, "global_pool": _POOLS[pooling]}
    if size_step:
        sizes["dynamic_img_size"] = True
    return EncoderCard(
        name=name,
        network=network,
        source="",
        weights_tag="",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        embedding_dim=dim,
        block_dims=(dim,) * 4,
        licence="unknown",
        trained_on=(),
        input_px=input_px,
        fixed_input=size_step == 0,
        size_step=size_step or 1,
        pooling=pooling,
        model_args=sizes | arguments,
    )


def say_source(card: EncoderCard) -> EncoderCard:
    """Return a card that names its repository of the hub as its source."""
    tag = (card.hub_id or "").rpartition("/")[2]
    return replace(card, source=f"the hub, {card.hub_id}", weights_tag=tag)
