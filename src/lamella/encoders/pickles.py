"""Checkpoints that hold Python objects besides tensors, read without running any of them.

A pickle names functions and calls them; a hostile one names whatever it likes. Here only the few that rebuild tensors
are looked up. Every other name becomes a stand-in, which takes any call and does nothing: what it stood for is lost,
the tensors beside it are not. Used where `torch.load(weights_only=True)` refuses a file, as it does Lightning's.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

# What rebuilds tensors and holds them, by the names that torch's files use; none of these runs code of the file's.
_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
}


class StandIn:
    """Stands where an object of an unknown class would be; takes whatever a pickle does to it, and does nothing."""

    def __new__(cls, *_args: Any, **_named: Any) -> "StandIn":
        """Return an empty stand-in, whatever it is called with."""
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_named: Any) -> None:
        """Ignore the arguments."""

    def __call__(self, *_args: Any, **_named: Any) -> "StandIn":
        """Return itself."""
        return self

    def __setstate__(self, _state: Any) -> None:
        """Ignore the state."""

    def __setitem__(self, _key: Any, _value: Any) -> None:
        """Ignore the item: some classes are filled like dictionaries."""

    def append(self, _item: Any) -> None:
        """Ignore the item: some classes are filled like lists."""

    def extend(self, _items: Any) -> None:
        """Ignore the items."""

    def add(self, _item: Any) -> None:
        """Ignore the item: some classes are filled like sets."""

    def __hash__(self) -> int:
        """Serve as a key."""
        return id(self)


class InertUnpickler(pickle.Unpickler):
    """An unpickler that looks up nothing but what rebuilds tensors."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what rebuilds tensors, or a stand-in."""
        known = _KNOWN.get((module, name))
        if known is not None:
            return known
        if module == "torch" and name.endswith("Storage") and name.isidentifier():
            return getattr(torch, name, StandIn)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return StandIn


class _InertPickle(ModuleType):
    """What `torch.load` takes for the module `pickle`."""

    Unpickler = InertUnpickler

    @staticmethod
    def load(file: Any, **named: Any) -> Any:
        """Load one object, inertly."""
        return InertUnpickler(file, **named).load()


def load_inertly(path: Path) -> Any:
    """Load a file of `torch.save`, in its new or its old form; what is no tensor or plain container is a `StandIn`.

    Raises:
        pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError: If
            the file is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_InertPickle("inert_pickle"))
    except (AssertionError, RecursionError, MemoryError, OverflowError) as error:  # torch asserts what files claim
        raise ValueError(f"what the file says of itself cannot be ({type(error).__name__})") from error
