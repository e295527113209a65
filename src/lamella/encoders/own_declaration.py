"""What an encoder of one's own says of itself: attributes of the network that `FILE.py:build` returns, checked.

Each may be left out. `docs/encoders.md` lists them; nothing here runs the network.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamella.encoders.names import N_BLOCKS
from lamella.errors import EncoderError

if TYPE_CHECKING:
    from lamella.encoders.cards import Pooling

_POOLINGS: tuple["Pooling", ...] = ("", "token", "mean", "token+mean")
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnDeclaration:
    """What a network of one's own declares.

    Attributes:
        mean: `(red, green, blue)` subtracted from pixel values in 0 to 1.
        std: `(red, green, blue)` that the difference is divided by.
        input_px: Side of the image it was trained at, in pixels; the only one it takes where `size_step` is None.
        size_step: It takes sides that are multiples of this, in pixels; None where it takes `input_px` only, or any.
        mpp: Resolutions it was trained at, in um/px.
        tile_px: Side of the tiles it was trained on, before any resizing, in pixels.
        blocks: Names of the modules that blocks 1 to 4 end with; empty where it is used whole only.
        pooling: How tokens `(B, N, D)` become an embedding.
        n_prefix_tokens: How many tokens come before those of patches: the class token and registers.
        norm: Name of the module that tokens pass before they are pooled, at each depth; empty for none.
        channels_last: Whether maps are `(B, h, w, D)`.
        trained_on: Data sets it has seen.
    """

    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    input_px: int | None = None
    size_step: int | None = None
    mpp: tuple[float, ...] = ()
    tile_px: int | None = None
    blocks: tuple[str, ...] = ()
    pooling: "Pooling" = ""
    n_prefix_tokens: int = 1
    norm: str = ""
    channels_last: bool = False
    trained_on: tuple[str, ...] = ()

    @property
    def fixed_input(self) -> bool:
        """True where it takes one size only, to which tiles are resized."""
        return self.input_px is not None and self.size_step is None


def read_declaration(name: str, module: Any) -> OwnDeclaration:
    """Read what a network declares.

    Args:
        name: The encoder, for the errors.
        module: The network.

    Raises:
        EncoderError: Naming the attribute that cannot be, what it is and what is needed.
    """
    mean, std = _read_colours(name, module)
    return OwnDeclaration(
        mean=mean,
        std=std,
        input_px=_read_side(name, module, "input_px"),
        size_step=_read_side(name, module, "size_step"),
        mpp=_read_mpp(name, module),
        tile_px=_read_side(name, module, "tile_px"),
        blocks=_read_blocks(name, module),
        pooling=_read_pooling(name, module),
        n_prefix_tokens=_read_count(name, module, "n_prefix_tokens", 1),
        norm=_read_module_name(name, module, "norm", getattr(module, "norm", "")),
        channels_last=bool(getattr(module, "channels_last", False)),
        trained_on=tuple(str(item) for item in getattr(module, "trained_on", ())),
    )


def read_triple(values: Any) -> Triple:
    """Return three numbers as floats.

    Raises:
        TypeError, ValueError: If they are not three numbers.
    """
    try:
        red, green, blue = (float(value) for value in values)
    except OverflowError as error:  # a number of hundreds of digits
        raise ValueError(str(error)) from error
    return red, green, blue


def _read_colours(name: str, module: Any) -> tuple[Triple, Triple]:
    triples = []
    for attribute, default in (("mean", (0.0, 0.0, 0.0)), ("std", (1.0, 1.0, 1.0))):
        values = getattr(module, attribute, default)
        try:
            triples.append(read_triple(values))
        except (TypeError, ValueError) as error:
            raise EncoderError(
                f"encoder '{name}' has {attribute} {values!r} and needs three numbers, for red, green and blue in 0 to "
                f"1. Correct its attribute '{attribute}', or leave it out."
            ) from error
    mean, std = triples
    if min(std) <= 0:
        raise EncoderError(
            f"encoder '{name}' has std {std} and needs three numbers above 0. Correct its attribute 'std'."
        )
    if min(mean) < 0 or max(*mean, *std) > 1:
        raise EncoderError(
            f"encoder '{name}' has mean {mean} and std {std}, which are not of pixel values in 0 to 1. If they are of "
            "0 to 255, divide both by 255."
        )
    return mean, std


def _read_side(name: str, module: Any, attribute: str) -> int | None:
    """Return a number of pixels; a pair of the same is one side."""
    value = getattr(module, attribute, None)
    if value is None:
        return None
    sides = set(value) if isinstance(value, Sequence) and not isinstance(value, str) else {value}
    side = sides.pop() if len(sides) == 1 else None
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise EncoderError(
            f"encoder '{name}' has {attribute} {value!r} and needs one whole number of pixels, the side of a square. "
            f"Correct its attribute '{attribute}', or leave it out."
        )
    return side


def _read_count(name: str, module: Any, attribute: str, default: int) -> int:
    value = getattr(module, attribute, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise EncoderError(
            f"encoder '{name}' has {attribute} {value!r} and needs a whole number from 0. Correct its attribute "
            f"'{attribute}', or leave it out."
        )
    return value


def _read_mpp(name: str, module: Any) -> tuple[float, ...]:
    value = getattr(module, "mpp", ())
    try:
        numbers = tuple(float(number) for number in (value if isinstance(value, Sequence) else (value,)))
        if not all(0 < number < 1000 for number in numbers):
            raise ValueError("outside what a scanner does")
    except (TypeError, ValueError) as error:
        raise EncoderError(
            f"encoder '{name}' has mpp {value!r} and needs um/px, one number or several. Correct its attribute 'mpp', "
            "or leave it out."
        ) from error
    return numbers


def _read_pooling(name: str, module: Any) -> "Pooling":
    value = getattr(module, "pooling", "")
    if not isinstance(value, str):  # a module that is called so
        return ""
    if value not in _POOLINGS:
        raise EncoderError(
            f"encoder '{name}' has pooling {value!r} and known are {', '.join(map(repr, _POOLINGS[1:]))}. Correct its "
            "attribute 'pooling', or pool inside the network."
        )
    return next(known for known in _POOLINGS if known == value)


def _read_blocks(name: str, module: Any) -> tuple[str, ...]:
    value = getattr(module, "blocks", ())
    is_names = isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, str) for v in value)
    if not is_names:  # a network's own blocks, which happen to be called so
        return ()
    names = tuple(value)
    if names and (len(names) != N_BLOCKS or len(set(names)) != N_BLOCKS):
        raise EncoderError(
            f"encoder '{name}' has blocks {names!r} and needs {N_BLOCKS} names of modules, the last of each block. "
            "Correct its attribute 'blocks', or leave it out."
        )
    return tuple(_read_module_name(name, module, "blocks", block) for block in names)


def _read_module_name(name: str, module: Any, attribute: str, value: Any) -> str:
    """Return a module's name, seen to be there."""
    if not isinstance(value, str) or not value:  # a module that is itself called `norm`
        return ""
    known = [path for path, _ in module.named_modules() if path]
    if value in known:
        return value
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.3)
    hint = f" The nearest is '{near[0]}'." if near else ""
    raise EncoderError(
        f"encoder '{name}' names the module '{value}' in its attribute '{attribute}' and has none of that name.{hint} "
        f"`named_modules()` of the network lists all."
    )
