"""What this machine can compute with: cores, devices, precisions."""

import ctypes
import importlib.util
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lamella.cores import count_cores
from lamella.encoders.runtime.silent import has_nncf, import_openvino
from lamella.errors import EncoderError

_CAPABILITY = {"bf16": "BF16", "fp16": "FP16", "int8": "INT8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeDescription:
    """What one runtime can do here.

    Attributes:
        name: `torch` or `openvino`.
        version: Its version; empty where it is not installed.
        devices: What it computes on, in words.
        precisions: Precisions that those devices compute in hardware.
        remedy: The command that installs it; empty where it is here.
    """

    name: str
    version: str
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    remedy: str


def describe_runtimes() -> tuple[RuntimeDescription, ...]:
    """Describe both runtimes, for `lamella doctor`; imports torch and OpenVINO where they are installed."""
    return _describe_openvino(), _describe_torch()


def find_openvino_core() -> Any:
    """Return OpenVINO's core, or None where it is not installed."""
    if importlib.util.find_spec("openvino") is None:
        return None
    return import_openvino().Core()


def cpu_precisions(core: Any) -> tuple[str, ...]:
    """List the precisions that this processor computes in hardware, as OpenVINO finds them; int8 where NNCF is here."""
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    here = ["fp32", *(precision for precision, name in _CAPABILITY.items() if name in capabilities)]
    return tuple(precision for precision in here if precision != "int8" or has_nncf())


def describe_processor(core: Any) -> str:
    """Return the processor's name and capabilities: what a precision check holds for."""
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return f"{core.get_property('CPU', 'FULL_DEVICE_NAME')} {' '.join(sorted(capabilities))}"


def choose_device(asked: str) -> str:
    """Choose `cpu`, `cuda` or `mps`; torch is imported only where there may be a graphics card.

    Args:
        asked: As `RuntimeSettings.device`; numbered cards are `cuda`.

    Raises:
        EncoderError: If the device asked for is not here.
    """
    if asked == "cpu":
        return "cpu"
    if ":" in asked:
        _refuse_absent(asked.split(","))
        return "cuda"
    here = [device for device in ("cuda", "mps") if asked in ("auto", device) and _has_device(device)]
    if here:
        return here[0]
    if asked == "auto":
        return "cpu"
    raise EncoderError(
        f"device '{asked}' is asked for but this machine has none that torch can use. Pass --device cpu."
    )


def _refuse_absent(cards: Sequence[str]) -> None:
    """Refuse numbered graphics cards that are not here.

    Raises:
        EncoderError: Naming the first.
    """
    n_here = 0
    if _has_device("cuda"):
        import torch

        n_here = torch.cuda.device_count()
    absent = [card for card in cards if int(card.partition(":")[2]) >= n_here]
    if absent:
        numbered = ", ".join(f"cuda:{number}" for number in range(n_here))
        here = f"this machine has {numbered or 'none that torch can use'}"
        raise EncoderError(f"device '{absent[0]}' is asked for and {here}. Pass --device auto.")


def _has_device(device: str) -> bool:
    if device == "cuda" and not _driver_sees_cuda():
        return False
    if device == "mps" and not (sys.platform == "darwin" and platform.machine() == "arm64"):
        return False
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()


def _driver_sees_cuda() -> bool:
    """Ask NVIDIA's driver for its devices: a hundred times faster than importing torch to be told there is none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _describe_openvino() -> RuntimeDescription:
    core = find_openvino_core()
    if core is None:
        remedy = "pip install 'lamella[openvino]'"
        return RuntimeDescription(name="openvino", version="", devices=(), precisions=(), remedy=remedy)
    return RuntimeDescription(
        name="openvino",
        version=version("openvino"),
        devices=(f"cpu: {core.get_property('CPU', 'FULL_DEVICE_NAME')}, {count_cores()} cores",),
        precisions=cpu_precisions(core),
        remedy="",
    )


def _describe_torch() -> RuntimeDescription:
    try:
        torch_version = version("torch")
    except PackageNotFoundError:
        remedy = "pip install 'lamella[torch]'"
        return RuntimeDescription(name="torch", version="", devices=(), precisions=(), remedy=remedy)
    import torch

    devices, precisions = [f"cpu: {count_cores()} cores"], ["fp32"]
    if torch.cuda.is_available():
        devices += [f"cuda: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
        precisions += ["bf16", "fp16"] if torch.cuda.is_bf16_supported() else ["fp16"]
    if torch.backends.mps.is_available():
        devices.append("mps: Apple GPU")
        precisions.append("fp16")
    return RuntimeDescription(
        name="torch", version=torch_version, devices=tuple(devices), precisions=tuple(precisions), remedy=""
    )
