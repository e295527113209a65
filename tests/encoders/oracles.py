"""What the foundation models are held against: independent implementations with the same random weights.

Each oracle is a network of another library (transformers, lazyslide-models, timm), or where there is none, a second
implementation from the papers in `second.py`. It gives the weights as their authors publish them, and embeddings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lamella.encoders.cards import EncoderCard
from lamella.encoders.timm_trunk import create_trunk
from tests.encoders import second
from tests.encoders.reduced import State, publish, random_state, randomise

TRANSFORMERS = ("phikon", "phikon-v2", "midnight-12k", "hibou-b", "hibou-l", "plip", "dinov2-s-reg")
LAZYSLIDE = {
    "uni": "uni.UNI",
    "uni2-h": "uni.UNI2",
    "virchow": "virchow.Virchow",
    "virchow2": "virchow.Virchow2",
    "gigapath": "gigapath.GigaPath",
    "h-optimus-0": "h_optimus.HOptimus0",
    "h-optimus-1": "h_optimus.HOptimus1",
    "h0-mini": "h_optimus.H0Mini",
    "gpfm": "gpfm.GPFM",
    "lunit-s16": "lunit.LunitDINOPatch16",
    "lunit-s8": "lunit.LunitDINOPatch8",
}
SECOND = ("ctranspath", "conch", "conch-v1.5")
# What the hub's configurations say, which the loaders' own arguments go over; gated ones are from their READMEs.
_HUB: dict[str, tuple[str, dict[str, Any]]] = {
    "uni": ("vit_large_patch16_224", {"img_size": 224}),
    "uni2-h": ("vit_giant_patch14_224", {}),
    "virchow": ("vit_huge_patch14_224", {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": ""}),
    "virchow2": (
        "vit_huge_patch14_224",
        {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", "reg_tokens": 4},
    ),
    "gigapath": ("vit_giant_patch14_dinov2", {"img_size": 224, "patch_size": 16, "mlp_ratio": 5.33334}),
    "h-optimus-0": ("vit_giant_patch14_reg4_dinov2", {"img_size": 224}),
    "h-optimus-1": ("vit_giant_patch14_reg4_dinov2", {"img_size": 224}),
    "h0-mini": ("vit_base_patch14_reg4_dinov2", {"img_size": 224, "mlp_ratio": 5.33334, "global_pool": ""}),
    "gpfm": ("vit_large_patch14_dinov2", {}),
    "lunit-s16": ("vit_small_patch16_224", {}),
    "lunit-s8": ("vit_small_patch8_224", {}),
}
# timm's own ways to the networks that others build on it, spelt out here apart from the cards.
_TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "kaiko-s16": ("vit_small_patch16_224", {"dynamic_img_size": True}),
    "kaiko-s8": ("vit_small_patch8_224", {"dynamic_img_size": True}),
    "kaiko-b16": ("vit_base_patch16_224", {"dynamic_img_size": True}),
    "kaiko-b8": ("vit_base_patch8_224", {"dynamic_img_size": True}),
    "kaiko-l14": ("vit_large_patch14_reg4_dinov2", {"img_size": 518, "dynamic_img_size": True}),
    "dinov2-s": ("vit_small_patch14_dinov2", {"dynamic_img_size": True}),
    "dinov2-b": ("vit_base_patch14_dinov2", {"dynamic_img_size": True}),
    "dinov2-l": ("vit_large_patch14_dinov2", {"dynamic_img_size": True}),
    "dinov2-b-reg": ("vit_base_patch14_reg4_dinov2", {"dynamic_img_size": True}),
    "dinov2-l-reg": ("vit_large_patch14_reg4_dinov2", {"dynamic_img_size": True}),
    "dinov3-s": ("vit_small_patch16_dinov3", {"global_pool": "token"}),
    "dinov3-b": ("vit_base_patch16_dinov3", {"global_pool": "token"}),
    "dinov3-l": ("vit_large_patch16_dinov3", {"global_pool": "token"}),
    "clip-b16": ("vit_base_patch16_clip_quickgelu_224", {}),
    "clip-l14": ("vit_large_patch14_clip_quickgelu_224", {}),
    "convnext-tiny": ("convnext_tiny", {}),
    "convnext-base": ("convnext_base", {}),
}
_SIZES = ("embed_dim", "depth", "num_heads", "depths", "dims")


@dataclass(frozen=True)
class Oracle:
    """An independent implementation.

    Attributes:
        weights: As their authors publish them.
        encode: From normalised images `(B, 3, H, W)` to embeddings `(B, D)`.
    """

    weights: State
    encode: Callable[[Tensor], Tensor]


def name_oracle(name: str) -> str:
    """Return which library an encoder is held against."""
    if name in TRANSFORMERS:
        return "transformers"
    if name in LAZYSLIDE:
        return "lazyslide-models"
    return "none independent: a second implementation of ours" if name in SECOND else "timm"


def make_oracle(card: EncoderCard, folder: Path) -> Oracle:
    """Make the oracle of an encoder, at the sizes of a card; the test is skipped where its library is not installed."""
    if card.name in TRANSFORMERS:
        return _make_of_transformers(card, folder)
    if card.name in LAZYSLIDE:
        return _make_of_lazyslide(card, folder)
    state = random_state(card)
    if card.name in SECOND:
        encode = {"ctranspath": second.encode_ctranspath, "conch": second.encode_conch}.get(
            card.name, second.encode_conch15
        )
        if card.name == "conch-v1.5":  # published at 14 x 14, and enlarged by its authors' code
            state["pos_embed"] = state["pos_embed"][:, : 1 + 14 * 14].clone()
        heads = card.model_args.get("num_heads", (3, 6, 12, 24) if card.name == "ctranspath" else 12)
        heads = 16 if heads == 12 and card.name == "conch-v1.5" else heads
        return Oracle(publish(state, card), lambda images: encode(state, images, heads))
    network, arguments = _TIMM[card.name]
    model = timm.create_model(network, num_classes=0, **arguments, **_sizes_of(card))
    model.load_state_dict(state)
    return Oracle(state, model.eval())


def _sizes_of(card: EncoderCard) -> dict[str, Any]:
    return {key: value for key, value in card.model_args.items() if key in _SIZES}


def _make_of_transformers(card: EncoderCard, folder: Path) -> Oracle:
    transformers = pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    trunk: Any = create_trunk(card.network, card.model_args, device="meta")
    patch = trunk.patch_embed.patch_size[0]
    sizes = {
        "hidden_size": trunk.embed_dim,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": trunk.blocks[0].attn.num_heads,
        "patch_size": patch,
        "image_size": 518 if card.name in ("midnight-12k", "dinov2-s-reg") else 224,
    }
    model: nn.Module
    if card.name == "phikon":
        config = transformers.ViTConfig(**sizes, intermediate_size=4 * trunk.embed_dim)
        model = transformers.ViTModel(config, add_pooling_layer=False)
    elif card.name == "plip":
        text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
        text |= {"vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2}
        vision = sizes | {"intermediate_size": 4 * trunk.embed_dim}
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=card.embedding_dim)
        model = transformers.CLIPModel(config)
    else:
        packed = card.name in ("midnight-12k", "hibou-b", "hibou-l")
        kind = "Dinov2WithRegisters" if trunk.num_prefix_tokens > 1 else "Dinov2"
        config = getattr(transformers, f"{kind}Config")(**sizes, use_swiglu_ffn=packed)
        model = getattr(transformers, f"{kind}Model")(config)
    randomise(model, card.name)
    model.eval()
    model.save_pretrained(folder / "published")

    def encode(images: Tensor) -> Tensor:
        if card.name == "plip":
            return model.visual_projection(model.vision_model(pixel_values=images).pooler_output)
        tokens = model(images).last_hidden_state
        if card.name == "midnight-12k":
            return torch.cat((tokens[:, 0], tokens[:, 1:].mean(dim=1)), dim=-1)
        return tokens[:, 0]

    return Oracle(load_file(folder / "published" / "model.safetensors"), encode)


def _make_of_lazyslide(card: EncoderCard, folder: Path) -> Oracle:
    pytest.importorskip("lazyslide_models", reason="lazyslide-models, the oracle, is not installed")
    import importlib

    module, _, kind = LAZYSLIDE[card.name].partition(".")
    state, create = random_state(card), timm.create_model
    path = folder / "state.pth"
    torch.save(state, path)

    def create_locally(name: str, *, pretrained: bool = False, **named: Any) -> nn.Module:
        network, arguments = _HUB[card.name] if "hub:" in name else (name, {})
        return create(network, pretrained=False, **{**arguments, "num_classes": 0, **named, **_sizes_of(card)})

    loader = importlib.import_module(f"lazyslide_models.vision.{module}")
    with mock.patch.object(timm, "create_model", create_locally):
        if card.name == "gpfm":
            with mock.patch.object(loader, "hf_hub_download", return_value=str(path)):
                model = getattr(loader, kind)()
        else:
            model = getattr(loader, kind)()
    model.model.load_state_dict(state)
    model.model.eval()
    return Oracle(state, model.encode_image)
