"""Choosing a runtime: device, precision, and whether the choice computes what torch in fp32 would."""

import copy
import hashlib
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lamella.cores import using_threads
from lamella.encoders.cards import EncoderSpec
from lamella.encoders.fingerprint import fingerprint_encoder
from lamella.encoders.names import drop_folders
from lamella.encoders.registry import Trunk, find_encoder
from lamella.encoders.runtime import machine
from lamella.encoders.runtime.checking import (
    N_COMPARED,
    N_TORCH,
    compare_depths,
    split_batches,
    take_check_tiles,
)
from lamella.encoders.runtime.compiled import CompiledEntry, convert, load_or_convert
from lamella.encoders.runtime.planning import RuntimePlan, plan_runtime
from lamella.encoders.runtime.protocol import (
    Embeddings,
    PrecisionCheck,
    Runtime,
    RuntimeSettings,
    SettledPrecision,
    Tiles,
    needed_cosines,
)
from lamella.encoders.runtime.quantised import calibrate, load_or_quantise, quantise
from lamella.encoders.runtime.several import SeveralRuntimes
from lamella.errors import EncoderError

if TYPE_CHECKING:  # as below inside functions: a network kept in the store opens without torch's weight
    from lamella.encoders.network import TileNetwork
    from lamella.encoders.runtime.openvino_runtime import OpenVINORuntime

_log = logging.getLogger(__name__)


class _Reference:
    """The network in torch, the check tiles, and what they are in fp32; each made when first needed."""

    def __init__(
        self,
        trunk: Trunk,
        widths: tuple[int, ...],
        plan: RuntimePlan,
        tile_px: int,
        check_tiles: Callable[[], Tiles],
    ) -> None:
        self.trunk, self.widths, self._plan = trunk, widths, plan
        self.tile_px, self._check_tiles = tile_px, check_tiles

    @cached_property
    def network(self) -> "TileNetwork":
        from lamella.encoders.network import build_network, refuse_tile_size

        network = build_network(self.trunk.deepest, self.trunk.depths)
        with using_threads(self._plan.n_threads):
            refuse_tile_size(network, find_encoder(self.trunk.deepest.name), self.tile_px)
        return network

    @cached_property
    def _tiles(self) -> Tiles:
        return take_check_tiles(self._check_tiles, encoder=self.trunk.name, tile_px=self.tile_px)

    @property
    def compared(self) -> Tiles:
        """The tiles that embeddings are compared on."""
        return self._tiles[:N_COMPARED]

    @property
    def calibration(self) -> Tiles:
        """Other tiles, or the same where there are no others, that int8 takes its scales from."""
        return self._tiles[N_COMPARED:] if len(self._tiles) > N_COMPARED else self._tiles

    def embed(self, tiles: Tiles) -> Embeddings:
        """Return torch's embeddings in fp32."""
        from lamella.encoders.runtime.torch_runtime import embed_in_fp32

        with using_threads(self._plan.n_threads):
            return embed_in_fp32(
                self.network,
                tiles,
                encoder=self.trunk.name,
                widths=self.widths,
                device=self._plan.device,
                batch_size=self._plan.batch_size,
            )

    def check_conversion(self, exact: Runtime) -> tuple[PrecisionCheck, ...]:
        """Compare what was converted, in fp32, with torch, at each depth: on few tiles, which torch takes long over."""
        tiles = self.compared[:N_TORCH]
        return self._compare(exact, tiles, self.embed(tiles))

    def check(self, runtime: Runtime, exact: Runtime | None = None) -> tuple[PrecisionCheck, ...]:
        """Compare a runtime with fp32, at each depth: with a runtime's, compared with torch, or with torch's."""
        tiles = self.compared
        reference = self.embed(tiles) if exact is None else _encode(exact, tiles)
        return self._compare(runtime, tiles, reference)

    def _compare(self, runtime: Runtime, tiles: Tiles, reference: Embeddings) -> tuple[PrecisionCheck, ...]:
        try:
            embeddings = _encode(runtime, tiles)
        except EncoderError as error:  # NaN or infinity, where fp32 has numbers
            _log.warning("%s", error)
            failed = PrecisionCheck(
                cosine_min=0.0, cosine_mean=0.0, n_tiles=len(tiles), precision_used=runtime.precision
            )
            return (failed,) * len(self.widths)
        return compare_depths(embeddings, reference, self.widths, precision=runtime.precision)


def _encode(runtime: Runtime, tiles: Tiles) -> Embeddings:
    return np.concatenate(list(runtime.encode(split_batches(tiles, runtime.batch_size))))


def open_runtime(
    encoder: EncoderSpec | Trunk,
    settings: RuntimeSettings,
    *,
    tile_px: int,
    check_tiles: Callable[[], Tiles],
    settled: SettledPrecision | None = None,
) -> Runtime:
    """Open the fastest runtime that computes this encoder as torch in fp32 does; close it after use.

    The first time, OpenVINO's conversion is compared with torch on 8 real tiles, bf16 or int8 with its fp32 on 32, and
    kept in the store with what was found; from then on the encoder opens in under a second and torch is not imported.

    Args:
        encoder: The encoder and its weights; or one network that is to be read at several depths.
        settings: Device, precision, cores; all may be left to be chosen.
        tile_px: Side of the tiles it will be given, in pixels.
        check_tiles: Returns `(n, tile_px, tile_px, 3)` uint8 RGB, real tiles, better 96; called only when a check is
            due, or int8 to be calibrated.
        settled: How finished embeddings of the same cohort were computed: taken unchecked where it can be had here.

    Raises:
        EncoderError: If no encoder has that name, or the device or precision asked for is not here.
        WeightsError: If the weights are not on this machine, or are of another network.
    """
    trunk = encoder if isinstance(encoder, Trunk) else Trunk((encoder,))
    plan = plan_runtime(settings, tile_px=tile_px)
    if trunk.deepest.weights == "random":
        random = f"encoder '{drop_folders(trunk.name)}' has random weights, seeded by its name: a control, not a result"
        plan = replace(plan, notes=(*plan.notes, random))
    widths = tuple(find_encoder(spec.name).embedding_dim for spec in trunk.specs)
    reference = _Reference(trunk, widths, plan, tile_px, check_tiles)
    if settled is not None and (runtime := _open_settled(settled, plan, reference)) is not None:
        return runtime
    if plan.runtime == "openvino":
        return _open_openvino(plan, reference)
    return _open_torch(plan, reference)


def time_encoder(encoder: EncoderSpec, settings: RuntimeSettings, *, tile_px: int, seconds: float = 2.0) -> float:
    """Measure how many tiles a second an encoder makes into embeddings here, nothing else running; unchecked.

    Args:
        encoder: The encoder and its weights; its speed does not depend on their values.
        settings: Device, precision, cores.
        tile_px: Side of the tiles, in pixels.
        seconds: How long to measure, after warming up.

    Returns:
        Tiles a second.

    Raises:
        EncoderError: If no encoder has that name, or the device or precision asked for is not here.
        WeightsError: If the weights are not on this machine.
    """
    trunk, plan = Trunk((encoder,)), plan_runtime(settings, tile_px=tile_px)
    tile = np.random.default_rng(0).integers(0, 256, (plan.batch_size, tile_px, tile_px, 3), dtype=np.uint8)
    widths = (find_encoder(encoder.name).embedding_dim,)
    runtime = _open_unchecked(plan, _Reference(trunk, widths, plan, tile_px, lambda: tile))
    rows = runtime.encode(itertools.repeat(tile))
    for _ in range(4):
        next(rows)
    started, n = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        next(rows)
        n += plan.batch_size
    rate = n / (time.perf_counter() - started)
    rows.close()  # type: ignore[attr-defined]
    runtime.close()
    return rate


def _open_unchecked(plan: RuntimePlan, reference: _Reference) -> Runtime:
    if plan.runtime == "openvino":
        try:
            model = convert(reference.network, tile_px=reference.tile_px, batch_size=plan.batch_size)
            if plan.precision == "int8":
                model = quantise(model, reference.calibration)
            return _make_openvino_runtime(plan, model, reference, plan.precision)
        except RuntimeError as error:
            _log.warning("OpenVINO cannot run '%s': %s", reference.trunk.name, error)
            plan = replace(plan, precision="fp32")
    return _make_torch_runtime(plan, reference, plan.precision)


def _open_settled(settled: SettledPrecision, plan: RuntimePlan, reference: _Reference) -> Runtime | None:
    """Open what finished embeddings were computed with; None where this machine computes in another way."""
    runtime: Runtime
    if settled.runtime.startswith("openvino ") and plan.runtime == "openvino":
        if settled.precision not in machine.cpu_precisions(plan.core):
            return None
        try:
            model = load_or_convert(_find_entry(plan, reference), lambda: reference.network)
            if settled.precision == "int8":
                entry = calibrate(_find_entry(plan, reference), reference.calibration)
                model = load_or_quantise(entry, model, reference.calibration)
            runtime = _make_openvino_runtime(plan, model, reference, settled.precision)
        except RuntimeError as error:
            _log.warning("OpenVINO cannot run '%s' any more: %s", reference.trunk.name, error)
            return None
    elif settled.runtime.startswith("torch ") and settled.precision in ("fp32", plan.precision):
        runtime = _make_torch_runtime(plan, reference, settled.precision)
    else:
        return None
    if runtime.name != settled.runtime:  # another version, which has to be checked like any
        runtime.close()
        return None
    runtime.notes, runtime.is_settled = settled.notes or plan.notes, True
    return runtime


def _find_entry(plan: RuntimePlan, reference: _Reference) -> CompiledEntry:
    fingerprints = [fingerprint_encoder(spec) for spec in reference.trunk.specs]
    joined = hashlib.sha256(",".join(fingerprints).encode()).hexdigest()
    return CompiledEntry(
        fingerprint=fingerprints[0] if len(fingerprints) == 1 else joined,
        tile_px=reference.tile_px,
        batch_size=plan.batch_size,
        processor=machine.describe_processor(plan.core),
    )


def _open_openvino(plan: RuntimePlan, reference: _Reference) -> Runtime:
    entry, notes = _find_entry(plan, reference), plan.notes
    try:
        model = load_or_convert(entry, lambda: reference.network)
        find_exact = cache(lambda: _make_openvino_runtime(plan, model, reference, "fp32"))
        conversion = entry.load_checks("fp32")
        if not conversion:
            conversion = reference.check_conversion(find_exact())
            _keep_checks(entry, conversion)
        if not _all_passed(conversion):
            notes = (*notes, _too_far(reference.trunk, conversion))
            return _open_torch(replace(plan, precision="fp32", notes=notes), reference)
        if plan.precision != "fp32":
            runtime, checks = _open_lower(plan, reference, entry, model, find_exact)
            if runtime is not None:
                runtime.checks, runtime.notes = checks, notes
                return runtime
            notes = (*notes, _too_far(reference.trunk, checks))
        exact = find_exact()
        exact.checks, exact.notes = conversion, notes
        return exact
    except RuntimeError as error:  # a network with a part that OpenVINO cannot convert or compile
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        _log.warning("OpenVINO cannot run '%s': %s", reference.trunk.name, error)
        name = drop_folders(reference.trunk.name)
        notes = (*notes, f"OpenVINO cannot run '{name}' ({reason[:160]}): torch computes it, slower")
    return _open_torch(replace(plan, precision="fp32", notes=notes), reference)


def _open_lower(
    plan: RuntimePlan,
    reference: _Reference,
    entry: CompiledEntry,
    model: Any,
    find_exact: Callable[[], "OpenVINORuntime"],
) -> tuple["OpenVINORuntime | None", tuple[PrecisionCheck, ...]]:
    """Open a network in a lower precision than fp32; return None, and how far it strays, where it strays too far.

    Args:
        plan: Which precision.
        reference: The tiles that it is compared on.
        entry: Of the network in fp32.
        model: That network, or its path.
        find_exact: Returns it in fp32, which was compared with torch.
    """
    if plan.precision == "int8":
        entry = calibrate(entry, reference.calibration)
        model = load_or_quantise(entry, model, reference.calibration)
    checks = entry.load_checks(plan.precision)
    if checks and not _all_passed(checks):
        return None, checks
    runtime = _make_openvino_runtime(plan, model, reference, plan.precision)
    if not checks:
        checks = reference.check(runtime, find_exact())
        _keep_checks(entry, checks)
        if not _all_passed(checks):
            runtime.close()
            return None, checks
        find_exact().close()
    return runtime, checks


def _all_passed(checks: tuple[PrecisionCheck, ...]) -> bool:
    return all(check.passed for check in checks)


def _keep_checks(entry: CompiledEntry, checks: tuple[PrecisionCheck, ...]) -> None:
    """Keep a check for the next run."""
    try:
        entry.save_checks(checks)
    except OSError as error:
        _log.warning("the precision check is not kept: %s", error)


def _open_torch(plan: RuntimePlan, reference: _Reference) -> Runtime:
    runtime = _make_torch_runtime(plan, reference, plan.precision)
    runtime.notes = plan.notes
    if plan.precision == "fp32":
        return runtime
    runtime.checks = reference.check(runtime)
    if _all_passed(runtime.checks):
        return runtime
    fallback = _make_torch_runtime(plan, reference, "fp32")
    fallback.notes = (*plan.notes, _too_far(reference.trunk, runtime.checks))
    return fallback


def _make_openvino_runtime(plan: RuntimePlan, model: Any, reference: _Reference, precision: str) -> "OpenVINORuntime":
    """Compile a converted network, or the path of one.

    Raises:
        RuntimeError: If OpenVINO cannot.
    """
    from lamella.encoders.runtime.openvino_runtime import OpenVINORuntime  # OpenVINO need not be installed

    return OpenVINORuntime(
        model, encoder=reference.trunk.name, widths=reference.widths, precision=precision, n_threads=plan.n_threads
    )


def _make_torch_runtime(plan: RuntimePlan, reference: _Reference, precision: str) -> Runtime:
    """Put the network on the device, or a copy of it on each of several."""
    from lamella.encoders.runtime.torch_runtime import TorchRuntime

    runtimes = []
    for number, device in enumerate(plan.devices):
        runtime = TorchRuntime(
            copy.deepcopy(reference.network) if number else reference.network,
            encoder=reference.trunk.name,
            widths=reference.widths,
            device=device,
            precision=precision,
            tile_px=reference.tile_px,
            batch_size=plan.batch_size,
        )
        runtime.n_threads = plan.n_threads
        runtimes.append(runtime)
    return runtimes[0] if len(runtimes) == 1 else SeveralRuntimes(runtimes)


def _too_far(trunk: Trunk, checks: tuple[PrecisionCheck, ...]) -> str:
    """Say which depth strays furthest, and what computes instead."""
    worst, spec = min(zip(checks, trunk.specs, strict=True), key=lambda pair: pair[0].cosine_mean)
    instead = "torch computes it" if worst.precision_used == "fp32" else "fp32 is used"
    name = drop_folders(spec.name)
    mean, least = needed_cosines(worst.precision_used)
    return (
        f"encoder '{name}' in {worst.precision_used} strays from fp32 over {worst.n_tiles} tiles (mean cosine "
        f"{worst.cosine_mean:.4f} where {mean} is needed, least {worst.cosine_min:.4f} where {least}): {instead}"
    )
