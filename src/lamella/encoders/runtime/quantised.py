"""Networks in int8: OpenVINO's, quantised by NNCF after training, calibrated on real tiles of the cohort at hand.

An encoder that is quantised on other tiles has other scales, so each calibration is kept in the store by its tiles.
"""

import hashlib
import logging
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np

from lamella.encoders.runtime.compiled import CompiledEntry, load_or_make
from lamella.encoders.runtime.protocol import Tiles
from lamella.encoders.runtime.silent import import_nncf, import_openvino


def calibrate(entry: CompiledEntry, tiles: Tiles) -> CompiledEntry:
    """Return where a network that is quantised on these tiles is kept.

    Args:
        entry: Of the network in fp32.
        tiles: `(n, px, px, 3)` uint8.
    """
    return replace(entry, calibration=hashlib.sha256(tiles.tobytes()).hexdigest())


def load_or_quantise(entry: CompiledEntry, model: Any, tiles: Tiles) -> Any:
    """Return the path of a quantised network, kept now if it was not; itself where the store cannot be written.

    Args:
        entry: As `calibrate` returns it.
        model: That network, or its path.
        tiles: `(n, px, px, 3)` uint8, real ones to calibrate on; the scales are theirs.

    Raises:
        RuntimeError: If the network has a part that cannot be quantised.
    """
    return load_or_make(entry, lambda: quantise(model, tiles))


def quantise(model: Any, tiles: Tiles) -> Any:
    """Quantise a network to int8: products and convolutions, with the inputs of both.

    Args:
        model: OpenVINO's network or its path; takes batches of `(b, px, px, 3)` uint8.
        tiles: `(n, px, px, 3)` uint8, real ones to calibrate on.

    Raises:
        RuntimeError: If it cannot be.
    """
    nncf, core = import_nncf(), import_openvino().Core()
    nncf.set_log_level(logging.ERROR)
    network = core.read_model(model) if not hasattr(model, "inputs") else model.clone()
    batch_size = int(network.input(0).shape[0])
    shape = (batch_size, *tiles.shape[1:])
    whole = [np.resize(tiles[i : i + batch_size], shape) for i in range(0, len(tiles), batch_size)]
    try:
        with redirect_stdout(StringIO()):  # NNCF draws bars there, which has no place in what is printed as JSON
            return nncf.quantize(
                network, nncf.Dataset(whole), preset=nncf.QuantizationPreset.PERFORMANCE, subset_size=len(whole)
            )
    except Exception as error:  # NNCF has no class of its own for what it cannot do
        raise RuntimeError(str(error)) from error
