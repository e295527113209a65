"""Runtimes: what computes embeddings on this machine.

OpenVINO on processors, torch on graphics cards and wherever OpenVINO cannot go. Both take raw uint8 pixels, give
float32 embeddings in order, and are held against torch in fp32 on real tiles before they are trusted.
"""

from lamella.encoders.runtime.machine import RuntimeDescription, describe_runtimes
from lamella.encoders.runtime.opening import open_runtime
from lamella.encoders.runtime.protocol import PrecisionCheck, Runtime, RuntimeSettings, SettledPrecision

__all__ = [
    "PrecisionCheck",
    "Runtime",
    "RuntimeDescription",
    "RuntimeSettings",
    "SettledPrecision",
    "describe_runtimes",
    "open_runtime",
]
