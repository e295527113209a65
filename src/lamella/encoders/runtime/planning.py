"""What computes an encoder here: runtime, device, precision and batch, chosen before anything is loaded."""

from dataclasses import dataclass
from typing import Any

from lamella.cores import count_cores
from lamella.encoders.runtime import machine
from lamella.encoders.runtime.protocol import RuntimeSettings
from lamella.encoders.runtime.silent import has_nncf
from lamella.errors import EncoderError

# One ordinary tile a batch: its maps stay in the core's cache. By benchmarks/encoders.py in fp32, EfficientNet-Lite0 at
# 224 px loses 15% with batches of 4; ResNet-18, DenseNet-121 and EfficientNet-B0 gain nothing that repeats.
_CPU_BATCH_PIXELS = 1 << 16
_GPU_BATCH_PIXELS = 64 * 512 * 512


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimePlan:
    """What will be tried, before anything is loaded; `device` is the kind of the `devices`."""

    runtime: str
    device: str
    devices: tuple[str, ...]
    precision: str
    n_threads: int
    batch_size: int
    notes: tuple[str, ...]
    core: Any = None


def choose_batch_size(device: str, tile_px: int) -> int:
    """Choose how many tiles make a batch: a power of two; on the CPU one, but for small ones.

    Example:
        >>> [choose_batch_size("cpu", tile_px) for tile_px in (64, 224, 512)]
        [16, 1, 1]
    """
    pixels = _CPU_BATCH_PIXELS if device == "cpu" else _GPU_BATCH_PIXELS
    largest = 32 if device == "cpu" else 512
    return min(largest, 1 << max(0, (pixels // tile_px**2).bit_length() - 1))


def plan_runtime(settings: RuntimeSettings, *, tile_px: int) -> RuntimePlan:
    """Choose runtime, device, precision, cores and batch.

    Raises:
        EncoderError: If the runtime, device or precision asked for is not here.
    """
    device = machine.choose_device(settings.device)
    core = machine.find_openvino_core() if device == "cpu" and settings.runtime != "torch" else None
    _refuse_runtime(settings, device, core)
    runtime, precision, notes = _choose_on_cpu(settings, core) if device == "cpu" else _choose_on_gpu(settings, device)
    return RuntimePlan(
        runtime=runtime,
        device=device,
        devices=settings.devices if ":" in settings.device else (device,),
        precision=precision,
        n_threads=settings.n_threads or count_cores(),
        batch_size=settings.batch_size or choose_batch_size(device, tile_px),
        notes=notes,
        core=core,
    )


def _refuse_runtime(settings: RuntimeSettings, device: str, core: Any) -> None:
    if settings.runtime != "openvino" or core is not None:
        return
    if device != "cpu":
        raise EncoderError(
            f"runtime 'openvino' computes on the CPU and device '{device}' is asked for. Pass --device cpu."
        )
    raise EncoderError(
        "runtime 'openvino' is not installed. Run: pip install 'lamella[openvino]', or leave runtime at 'auto'."
    )


def _choose_on_cpu(settings: RuntimeSettings, core: Any) -> tuple[str, str, tuple[str, ...]]:
    """Return runtime, precision and notes."""
    asked = settings.precision
    if core is None:
        if asked in ("fp16", "int8"):
            raise EncoderError(
                f"precision '{asked}' is asked for but torch on the CPU has it not. Pass --precision fp32."
            )
        slow = (
            ()
            if settings.runtime == "torch"
            else ("OpenVINO is not installed: torch computes, at half the speed. Run: pip install 'lamella[openvino]'",)
        )
        return "torch", "fp32" if asked == "auto" else asked, slow
    here = machine.cpu_precisions(core)
    if asked == "auto":
        return "openvino", "bf16" if "bf16" in here else "fp32", ()
    if asked in here:
        return "openvino", asked, ()
    if asked == "bf16" and settings.runtime == "auto":
        slow_note = "this processor has no bf16 arithmetic: torch imitates it, slower than fp32. Pass --precision fp32"
        return "torch", "bf16", (slow_note,)
    if asked == "int8" and not has_nncf():
        raise EncoderError("precision 'int8' needs NNCF, which is not installed. Run: pip install 'lamella[int8]'.")
    raise EncoderError(
        f"precision '{asked}' is asked for but this processor computes {', '.join(here)}. Pass --precision {here[0]}."
    )


def _choose_on_gpu(settings: RuntimeSettings, device: str) -> tuple[str, str, tuple[str, ...]]:
    import torch

    if settings.precision == "int8":
        raise EncoderError("precision 'int8' is computed on the CPU alone. Pass --device cpu, or --precision auto.")
    half = "bf16" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if settings.precision == "bf16" and half != "bf16":
        raise EncoderError(
            f"precision 'bf16' is asked for but this {device} device has it not. Pass --precision {half}."
        )
    return "torch", half if settings.precision == "auto" else settings.precision, ()
