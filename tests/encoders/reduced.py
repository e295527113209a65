"""The foundation models at reduced width and depth, with random weights, and their files as their authors publish them.

Everything else is as on the card: patches, registers, packed MLPs, LayerScale, pooling, image size.
"""

import dataclasses
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lamella.encoders import list_encoders
from lamella.encoders.cards import EncoderCard
from lamella.encoders.foundation import FOUNDATION
from lamella.encoders.general import GENERAL
from lamella.encoders.timm_trunk import create_trunk

State = dict[str, Tensor]
_NAMES = {card.name for card in (*FOUNDATION, *GENERAL)}
CARDS = {card.name: card for card in list_encoders() if card.name in _NAMES}
DIM, LAYERS, HEADS = 48, 5, 2
# In which layout the authors publish the weights; all others are timm's.
PUBLISHED = {
    "phikon": "transformers' ViT",
    "phikon-v2": "transformers' DINOv2",
    "midnight-12k": "transformers' DINOv2",
    "hibou-b": "transformers' DINOv2",
    "hibou-l": "transformers' DINOv2",
    "plip": "transformers' CLIP",
    "conch": "CoCa",
    "conch-v1.5": "CONCH v1.5",
    "ctranspath": "Swin",
}
_QKV = ("query", "key", "value")


def shrink(card: EncoderCard) -> EncoderCard:
    """Return a card of the same network, narrow and shallow."""
    arguments: dict[str, Any] = dict(card.model_args)
    if "swin" in card.network:
        small: dict[str, Any] = {"embed_dim": 16, "depths": [1, 2, 2, 1], "num_heads": [1, 2, 2, 4]}
        dims: tuple[int, ...] = (16, 32, 64, 128)
    elif "convnext" in card.network:
        dims = (8, 16, 24, 32)
        small = {"depths": [1, 1, 2, 1], "dims": list(dims)}
    else:
        small = {"embed_dim": DIM, "depth": LAYERS, "num_heads": HEADS}
        width = 2 * DIM if card.pooling == "token+mean" else DIM
        if "query_pool" in arguments:
            width = 32
            arguments["query_pool"] = {**arguments["query_pool"], "width": width, "heads": 4}
        if "projection" in arguments:
            width = arguments["projection"] = 32
        dims = (width,) * 4
    return dataclasses.replace(card, model_args=arguments | small, embedding_dim=dims[-1], block_dims=dims)


def randomise(module: nn.Module, name: str, *, scale: float = 1.0) -> None:
    """Give a network weights that let every part of it count; the same for the same name."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if not tensor.is_floating_point() or "relative_position_index" in key:
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                fan_in = tensor[0].numel() if tensor.ndim != 3 else 4
                tensor.copy_(scale * noise / fan_in**0.5)
            elif "var" in key:
                tensor.copy_(1 + noise.abs())
            elif key.endswith("bias") or "mean" in key:
                tensor.copy_(0.1 * noise)
            else:  # norms and LayerScale
                tensor.copy_(1 + 0.2 * noise)


def random_state(card: EncoderCard) -> State:
    """Return random weights of a card's network, under timm's names."""
    trunk = create_trunk(card.network, card.model_args)
    randomise(trunk, card.name)
    return dict(trunk.state_dict())


def publish(state: Mapping[str, Tensor], card: EncoderCard) -> State:
    """Return weights under the names that the encoder's authors publish them by: written apart from `layouts`."""
    layout = PUBLISHED.get(card.name, "timm's")
    if layout == "CoCa":
        return _publish_coca(state)
    if layout == "CONCH v1.5":
        return _publish_conch15(state)
    if not layout.startswith("transformers'"):
        return dict(state)
    published: State = {}
    clip, vit = layout.endswith("CLIP"), layout.endswith("ViT")
    for key, tensor in state.items():
        block = re.match(r"blocks\.(\d+)\.(.*)", key)
        if block is None:
            continue
        number, part = block.groups()
        stem = f"vision_model.encoder.layers.{number}" if clip else f"encoder.layer.{number}"
        if part.startswith("attn.qkv"):
            tail = part.rpartition(".")[2]
            for piece, rows in zip(_QKV, tensor.chunk(3), strict=True):
                attention = f"self_attn.{piece[0]}_proj" if clip else f"attention.attention.{piece}"
                published[f"{stem}.{attention}.{tail}"] = rows.clone()
            continue
        names = _CLIP_PARTS if clip else _VIT_PARTS if vit else _dinov2_parts(card)
        old, tail = part.rsplit(".", 1)
        published[f"{stem}.{names[old]}" + ("" if names[old].endswith("lambda1") else f".{tail}")] = tensor
    return published | (_publish_clip_ends(state) if clip else _publish_vit_ends(state))


_CLIP_PARTS = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_VIT_PARTS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def _dinov2_parts(card: EncoderCard) -> dict[str, str]:
    packed = card.model_args.get("mlp_layer") == "SwiGLUPacked" or "giant" in card.network
    first, second = ("mlp.weights_in", "mlp.weights_out") if packed else ("mlp.fc1", "mlp.fc2")
    return {
        "norm1": "norm1",
        "norm2": "norm2",
        "attn.proj": "attention.output.dense",
        "ls1": "layer_scale1.lambda1",
        "ls2": "layer_scale2.lambda1",
        "mlp.fc1": first,
        "mlp.fc2": second,
    }


def _publish_vit_ends(state: Mapping[str, Tensor]) -> State:
    token, positions = state["cls_token"], state["pos_embed"]
    published = {
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    if "reg_token" in state:  # the class token has a position of its own there
        first = 0.3 * torch.ones_like(token)
        token, positions = token - first, torch.cat((first, positions), dim=1)
        published["embeddings.register_tokens"] = state["reg_token"]
    if any("ls1" in key for key in state):
        published["embeddings.mask_token"] = torch.zeros(1, token.shape[-1])
    return published | {"embeddings.cls_token": token, "embeddings.position_embeddings": positions}


def _publish_clip_ends(state: Mapping[str, Tensor]) -> State:
    return {
        "vision_model.embeddings.class_embedding": state["cls_token"].reshape(-1).clone(),
        "vision_model.embeddings.position_embedding.weight": state["pos_embed"][0].clone(),
        "vision_model.embeddings.patch_embedding.weight": state["patch_embed.proj.weight"],
        **{
            f"vision_model.{theirs}.{tail}": state[f"{ours}.{tail}"]
            for ours, theirs in (("norm_pre", "pre_layrnorm"), ("norm", "post_layernorm"))
            for tail in ("weight", "bias")
        },
        "visual_projection.weight": state["fc_norm.weight"],
        "vision_model.embeddings.position_ids": torch.arange(50)[None],
        "text_model.final_layer_norm.weight": torch.ones(8),
        "text_projection.weight": torch.ones(8, 8),
        "logit_scale": torch.tensor(2.7),
    }


def _publish_coca(state: Mapping[str, Tensor]) -> State:
    """Return the whole of CoCa, whose text towers and captioning are left out but for a tensor each."""
    published = {f"visual.trunk.{k}": t for k, t in state.items() if not k.startswith(("attn_pool.", "fc_norm."))}
    width = state["attn_pool.to_q.weight"].shape[0]
    for piece in "qkv":
        published[f"visual.attn_pool_contrast.attn.{piece}_proj_weight"] = state[f"attn_pool.to_{piece}.weight"]
    biases = [state[f"attn_pool.to_{piece}.bias"] for piece in "qkv"]
    published["visual.attn_pool_contrast.attn.in_proj_bias"] = torch.cat(biases)
    for tail in ("weight", "bias"):
        published[f"visual.attn_pool_contrast.attn.out_proj.{tail}"] = state[f"attn_pool.to_out.{tail}"]
        published[f"visual.ln_contrast.{tail}"] = state[f"fc_norm.{tail}"]
        for norm in ("ln_q", "ln_k"):
            published[f"visual.attn_pool_contrast.{norm}.{tail}"] = state[f"attn_pool.{norm}.{tail}"]
    return published | {
        "visual.attn_pool_contrast.query": state["attn_pool.query"],
        "visual.proj_contrast": torch.ones(width, width),
        "visual.attn_pool_caption.query": torch.ones(4, width),
        "visual.ln_caption.weight": torch.ones(width),
        "text.positional_embedding": torch.ones(4, 8),
        "text_decoder.text_projection": torch.ones(8, 8),
        "logit_scale": torch.tensor(2.7),
    }


def _publish_conch15(state: Mapping[str, Tensor]) -> State:
    published = {f"trunk.{k}": t for k, t in state.items() if not k.startswith(("attn_pool.", "fc_norm."))}
    for key in ("query", "ln_q.weight", "ln_q.bias", "ln_k.weight", "ln_k.bias", "to_q.weight", "to_out.weight"):
        published[f"attn_pool_contrast.{key}"] = state[f"attn_pool.{key}"]
    pair = [state[f"attn_pool.to_{piece}.weight"] for piece in "kv"]
    published["attn_pool_contrast.to_kv.weight"] = torch.cat(pair)
    for tail in ("weight", "bias"):
        published[f"ln_contrast.{tail}"] = state[f"fc_norm.{tail}"]
    return published


def save_snapshot(state: Mapping[str, Tensor], card: EncoderCard, folder: Path) -> Path:
    """Save a snapshot of the hub: the configuration and the weights, as the authors publish them; return the weights.

    Args:
        state: Under the names of the publisher.
        card: Of the encoder.
        folder: Where the snapshot goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_describe(card)), encoding="utf-8")
    file = card.hub_file or ("pytorch_model.bin" if card.access == "gated" else "model.safetensors")
    if file.endswith(".safetensors"):
        save_file({key: tensor.contiguous().clone() for key, tensor in state.items()}, folder / file)
    else:
        torch.save(dict(state), folder / file)
    return folder / file


def _describe(card: EncoderCard) -> dict[str, Any]:
    """Return what the hub's `config.json` says: less than is needed, where the authors leave the rest to the README."""
    if PUBLISHED.get(card.name, "").startswith("transformers'"):
        return {"architectures": [PUBLISHED[card.name]], "model_type": PUBLISHED[card.name], "hidden_size": DIM}
    side = card.model_args.get("img_size", card.input_px)
    own = ("init_values", "mlp_layer", "act_layer", "query_pool", "embed_layer", "img_size", "dynamic_img_size")
    return {
        "architecture": card.network,
        "num_classes": 0,
        "global_pool": "" if card.pooling == "token+mean" else "token",
        "model_args": {key: value for key, value in card.model_args.items() if key not in own},
        "pretrained_cfg": {"input_size": [3, side, side], "mean": list(card.mean), "std": list(card.std)},
    }
