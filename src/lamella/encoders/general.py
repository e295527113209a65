"""Cards of general-purpose models of today, to hold the pathology models against: data, nothing but data."""

from dataclasses import replace
from functools import partial

from lamella.encoders.cards import EncoderCard
from lamella.encoders.transformer_cards import IMAGENET_MEAN, IMAGENET_STD, describe_transformer, say_source

_general = partial(replace, licence="apache-2.0", commercial_use=True, access="open")
_dinov2 = partial(_general, trained_on=("LVD-142M",), citation="Oquab et al. 2024, TMLR, arXiv:2304.07193")
_dinov3 = partial(
    replace,
    licence="dinov3-license",
    trained_on=("LVD-1689M",),
    citation="Siméoni et al. 2025, arXiv:2508.10104",
)
_openai = partial(
    _general,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    trained_on=("WIT-400M",),
    citation="Radford et al. 2021, ICML, arXiv:2103.00020",
)

_CARDS = (
    _dinov2(
        describe_transformer("dinov2-s", "vit_small_patch14_dinov2", 384, {"img_size": 518}, size_step=14),
        hub_id="timm/vit_small_patch14_dinov2.lvd142m",
    ),
    _dinov2(
        describe_transformer("dinov2-b", "vit_base_patch14_dinov2", 768, {"img_size": 518}, size_step=14),
        hub_id="timm/vit_base_patch14_dinov2.lvd142m",
    ),
    _dinov2(
        describe_transformer("dinov2-l", "vit_large_patch14_dinov2", 1024, {"img_size": 518}, size_step=14),
        hub_id="timm/vit_large_patch14_dinov2.lvd142m",
    ),
    _dinov2(
        describe_transformer("dinov2-s-reg", "vit_small_patch14_reg4_dinov2", 384, {"img_size": 518}, size_step=14),
        hub_id="timm/vit_small_patch14_reg4_dinov2.lvd142m",
    ),
    _dinov2(
        describe_transformer("dinov2-b-reg", "vit_base_patch14_reg4_dinov2", 768, {"img_size": 518}, size_step=14),
        hub_id="timm/vit_base_patch14_reg4_dinov2.lvd142m",
    ),
    _dinov2(
        describe_transformer("dinov2-l-reg", "vit_large_patch14_reg4_dinov2", 1024, {"img_size": 518}, size_step=14),
        hub_id="timm/vit_large_patch14_reg4_dinov2.lvd142m",
    ),
    _dinov3(
        describe_transformer("dinov3-s", "vit_small_patch16_dinov3", 384, {}, input_px=256, size_step=16),
        hub_id="timm/vit_small_patch16_dinov3.lvd1689m",
    ),
    _dinov3(
        describe_transformer("dinov3-b", "vit_base_patch16_dinov3", 768, {}, input_px=256, size_step=16),
        hub_id="timm/vit_base_patch16_dinov3.lvd1689m",
    ),
    _dinov3(
        describe_transformer("dinov3-l", "vit_large_patch16_dinov3", 1024, {}, input_px=256, size_step=16),
        hub_id="timm/vit_large_patch16_dinov3.lvd1689m",
    ),
    _openai(
        describe_transformer("clip-b16", "vit_base_patch16_clip_quickgelu_224", 768, {}),
        hub_id="timm/vit_base_patch16_clip_224.openai",
    ),
    _openai(
        describe_transformer("clip-l14", "vit_large_patch14_clip_quickgelu_224", 1024, {}),
        hub_id="timm/vit_large_patch14_clip_224.openai",
    ),
    *(
        EncoderCard(
            name=f"convnext-{size}",
            network=f"convnext_{size}",
            source="",
            weights_tag="",
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            embedding_dim=dims[-1],
            block_dims=dims,
            licence="apache-2.0",
            commercial_use=True,
            access="open",
            hub_id=f"timm/convnext_{size}.fb_in22k",
            trained_on=("ImageNet-22k",),
            input_px=224,
            pooling="mean",
            citation="Liu et al. 2022, CVPR, arXiv:2201.03545",
        )
        for size, dims in (("tiny", (96, 192, 384, 768)), ("base", (128, 256, 512, 1024)))
    ),
)

GENERAL: tuple[EncoderCard, ...] = tuple(map(say_source, _CARDS))
"""The general-purpose foundation models that `lamella encoders` lists."""
