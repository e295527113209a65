"""OpenVINO without its telemetry, which would report each import and each conversion to its makers.

OpenVINO does without where its package `openvino_telemetry` is not installed. Its own way of opting out writes a file
into the user's home, and is asked about only after the package was loaded; so here the package is not to be found.
"""

import sys
from typing import Any

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """Import OpenVINO, its telemetry left out.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    if "openvino" not in sys.modules:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # makes `import` raise ImportError
    import openvino

    return openvino
