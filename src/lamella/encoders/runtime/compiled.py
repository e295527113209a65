"""Networks converted to OpenVINO, kept on disk: converting takes from seconds to half a minute, and needs torch.

compiled/<fingerprint>-<tile_px>px-b<batch>-openvino<version>[-int8-<calibration>]/
  network.xml, network.bin   the network in fp32, whether it will run in that or in bf16; quantised, where it is int8
  manifest.json              their SHA-256; written last, so an entry with a manifest is whole
  check-<precision>-<processor>.json
"""

import dataclasses
import hashlib
import inspect
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lamella.encoders.runtime.protocol import PrecisionCheck
from lamella.encoders.runtime.silent import import_openvino
from lamella.encoders.store import compiled_folder
from lamella.errors import OutputError
from lamella.files import find_sha256, parse_json_file, replacing, write_json
from lamella.temporaries import temporary_folder

_log = logging.getLogger(__name__)
_FILES = ("network.xml", "network.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledEntry:
    """Where one converted network lies, whether or not it is there yet.

    Attributes:
        fingerprint: SHA-256 of weights, normalisation and network, at all depths that are read.
        tile_px: Side of a tile, in pixels.
        batch_size: Tiles a batch.
        processor: Name and capabilities of the processor, which precision checks hold for.
        calibration: SHA-256 of the tiles that it was quantised on; empty where it was not.
    """

    fingerprint: str
    tile_px: int
    batch_size: int
    processor: str
    calibration: str = ""

    @property
    def folder(self) -> Path:
        """The entry's folder."""
        key = f"{self.fingerprint[:24]}-{self.tile_px}px-b{self.batch_size}-openvino{version('openvino')}"
        return compiled_folder() / (f"{key}-int8-{self.calibration[:12]}" if self.calibration else key)

    @property
    def network_path(self) -> Path:
        """The network, as OpenVINO reads it."""
        return self.folder / _FILES[0]

    def is_whole(self) -> bool:
        """True where the network is there and every byte of it as it was written."""
        try:
            manifest = parse_json_file(self.folder / "manifest.json")
        except (OSError, ValueError):
            return False
        try:
            whole = manifest["fingerprint"] == self.fingerprint and all(
                find_sha256(self.folder / file) == manifest[file] for file in _FILES
            )
        except (OSError, KeyError, TypeError):
            whole = False
        if not whole:
            _log.warning("the compiled network in '%s' is damaged and is built again", self.folder)
        return whole

    def save(self, model: Any) -> None:
        """Write a converted network, whole or not at all.

        Raises:
            OutputError: If the store cannot be written.
        """
        self._write(lambda folder: save_network(model, folder / _FILES[0]))

    def _write(self, fill: Callable[[Path], None]) -> None:
        with replacing(self.folder / "manifest.json"):
            pass  # the folder is writable; an old manifest no longer vouches for the files that follow
        with temporary_folder(self.folder / "network") as folder:
            fill(folder)
            manifest = {file: find_sha256(folder / file) for file in _FILES}
            for file in _FILES:
                with replacing(self.folder / file) as temporary:
                    (folder / file).replace(temporary)
        write_json(self.folder / "manifest.json", {"fingerprint": self.fingerprint, **manifest})

    def load_checks(self, precision: str) -> tuple[PrecisionCheck, ...]:
        """Load the outcome, at each depth, of an earlier check in `precision` on this processor; empty where none."""
        try:
            depths = parse_json_file(self._check_path(precision))["depths"]
            return tuple(PrecisionCheck(**check) for check in depths)
        except (OSError, ValueError, KeyError, TypeError):
            return ()

    def save_checks(self, checks: Sequence[PrecisionCheck]) -> None:
        """Write the outcome of a check.

        Raises:
            OutputError: If the store cannot be written.
        """
        content = {"depths": [dataclasses.asdict(check) for check in checks]}
        write_json(self._check_path(checks[0].precision_used), content)

    def _check_path(self, precision: str) -> Path:
        processor = hashlib.sha256(self.processor.encode()).hexdigest()[:12]
        return self.folder / f"check-{precision}-{processor}.json"


def save_network(model: Any, path: Path) -> None:
    """Write a converted network in fp32: `path`, which ends in `.xml`, and a `.bin` beside it.

    Raises:
        OutputError: If the disk does not take it.
    """
    try:
        import_openvino().save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:  # "iostream error": the network itself was converted before
        path.with_suffix(".bin").unlink(missing_ok=True)
        raise OutputError(
            f"'{path.parent}' does not take a converted network: the disk is full or fails. Free some space and run "
            "the same command again; what is finished is kept."
        ) from error


def load_or_convert(entry: CompiledEntry, network: Callable[[], Any], *, n_weights: int | None = None) -> Any:
    """Return the path of a converted network, kept now if it was not; itself where the store cannot be written.

    Args:
        entry: Where it is kept.
        network: Makes what is converted, as `convert` takes it.
        n_weights: As `convert` takes it.

    Raises:
        RuntimeError: As `convert`.
    """
    return load_or_make(
        entry, lambda: convert(network(), tile_px=entry.tile_px, batch_size=entry.batch_size, n_weights=n_weights)
    )


def load_or_make(entry: CompiledEntry, make: Callable[[], Any]) -> Any:
    """Return the path of a network of OpenVINO's, kept now if it was not; itself where the store cannot be written.

    Raises:
        RuntimeError: As `make`.
    """
    if entry.is_whole():
        return entry.network_path
    model = make()
    try:
        entry.save(model)
    except OSError as error:
        _log.warning("the compiled network is not kept: %s", error)
        return _pass_through_file(model)
    return entry.network_path


def _pass_through_file(model: Any) -> Any:
    """Return a converted network as it is read from a file, which none is left of; as it was where there is no room.

    OpenVINO fuses a network that was read otherwise than one that was converted, and the embeddings' last digits
    would depend on whether the store can be written.
    """
    try:
        with temporary_folder(Path(tempfile.gettempdir()) / "lamella-network") as folder:
            path = folder / _FILES[0]
            save_network(model, path)
            core = import_openvino().Core()
            core.set_property({"ENABLE_MMAP": False})  # the file is gone when the network is compiled
            return core.read_model(path)
    except OSError as error:  # no folder for temporary files, or one that is full
        _log.warning("the last digits of embeddings may differ from other runs': %s", error)
        return model


def _restore_docstring() -> None:
    """Give `convert_model` the docstring that OpenVINO reads its parameters from, which `python -OO` has taken."""
    from openvino.tools import ovc

    if ovc.convert_model.__doc__ is None:
        names = inspect.signature(ovc.convert_model).parameters
        ovc.convert_model.__doc__ = "".join(f":param {name}: .\n" for name in names) + "Returns:\n"


def convert(network: Any, *, tile_px: int, batch_size: int, n_weights: int | None = None) -> Any:
    """Convert a torch network into OpenVINO's, which takes `(batch_size, tile_px, tile_px, 3)` uint8 pixels.

    Args:
        network: Takes `(B, 3, H, W)` float32, and `(B, n_weights)` float32 beside it where that is given.
        tile_px: Side of a tile, in pixels.
        batch_size: Tiles a batch.
        n_weights: Length of the second input's rows; None where there is none.

    Raises:
        RuntimeError: If the network does something that OpenVINO has no word for.
    """
    import torch

    from lamella.encoders.blocks import settle_positions

    openvino = import_openvino()
    from openvino import frontend
    from openvino.preprocess import PrePostProcessor

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch calls tracing deprecated, and each Python `if` in a network suspicious
        # Traced on one tile, without the second run that would check it: our own check, on real tiles, is stricter.
        examples = (torch.zeros(1, 3, tile_px, tile_px), *(() if n_weights is None else (torch.zeros(1, n_weights),)))
        _restore_docstring()
        with settle_positions(network, tile_px):
            traced = torch.jit.trace(network, examples, check_trace=False)  # type: ignore[no-untyped-call]
        shapes = [openvino.PartialShape([batch_size, *example.shape[1:]]) for example in examples]
        try:
            model = openvino.convert_model(traced, input=shapes)
        except (
            frontend.GeneralFailure,
            frontend.NotImplementedFailure,
            frontend.OpConversionFailure,
            frontend.OpValidationFailure,
        ) as error:  # OpenVINO derives these from Exception itself
            raise RuntimeError(str(error)) from error
    pixels = PrePostProcessor(model)
    pixels.input(0).tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    pixels.input(0).preprocess().convert_element_type(openvino.Type.f32)
    pixels.input(0).model().set_layout(openvino.Layout("NCHW"))
    return pixels.build()
