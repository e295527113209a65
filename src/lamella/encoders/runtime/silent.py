"""OpenVINO and NNCF without their telemetry, which would report imports and conversions to their makers.

Both do without where its package `openvino_telemetry` is not installed. Its own way of opting out writes a file
into the user's home, and is asked about only after the package was loaded; so here the package is not to be found.
"""

import importlib.util
import logging
import sys
from typing import Any

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """Import OpenVINO, its telemetry left out.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    if "openvino" not in sys.modules:
        _hide_telemetry()
    import openvino

    return openvino


def import_nncf() -> Any:
    """Import NNCF, its telemetry left out.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    if "nncf" not in sys.modules:
        _hide_telemetry()
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # warns of CUDA, which is not asked for
    import nncf

    return nncf


def has_nncf() -> bool:
    """Say whether NNCF is installed."""
    return importlib.util.find_spec("nncf") is not None


def _hide_telemetry() -> None:
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # makes `import` raise ImportError
