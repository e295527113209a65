"""How large a pixel is: stated by the file or given by the user, never guessed."""

import math
from dataclasses import dataclass

from lamella.errors import ResolutionError

FINEST_MPP, COARSEST_MPP = 0.05, 20.0  # um/px that a slide scanner can plausibly have at level 0
MAX_ANISOTROPY = 0.02  # x and y may differ by this share; each axis is then resampled by its own factor


@dataclass(frozen=True, slots=True)
class Resolution:
    """The size of a level-0 pixel and who said so.

    Attributes:
        x: um per pixel along x, at level 0.
        y: um per pixel along y, at level 0.
        source: "file" or "given" (by `--slide-mpp` or the cohort's `slide_mpp` column).
    """

    x: float
    y: float
    source: str


def check_given_mpp(slide_mpp: float, *, name: str) -> Resolution:
    """Return a given resolution, after checking that a scanner could have it.

    Args:
        slide_mpp: um per level-0 pixel, both axes.
        name: The slide's file name, for the message.

    Raises:
        ResolutionError: If it is not a number between 0.05 and 20 um/px.

    Example:
        >>> check_given_mpp(0.25, name="S-0412.svs")
        Resolution(x=0.25, y=0.25, source='given')
    """
    if not is_plausible(slide_mpp):
        raise ResolutionError(
            f"slide '{name}' is given a resolution of {slide_mpp:g} um/px but a scanner's lies between "
            f"{FINEST_MPP:g} and {COARSEST_MPP:g}. Pass the scanner's value, such as --slide-mpp 0.25."
        )
    return Resolution(float(slide_mpp), float(slide_mpp), "given")


def check_stated_mpp(stated_mpp: tuple[float, float] | None, *, name: str) -> Resolution:
    """Return the resolution a file states, after checking that a scanner could have it.

    Args:
        stated_mpp: `(x, y)` um per level-0 pixel, or None where the file states none.
        name: The slide's file name, for the message.

    Raises:
        ResolutionError: If it is missing, implausible, or differs by more than 2% between x and y.

    Example:
        >>> check_stated_mpp((0.2525, 0.2524), name="S-0412.svs")
        Resolution(x=0.2525, y=0.2524, source='file')
        >>> check_stated_mpp(None, name="S-0412.svs")
        Traceback (most recent call last):
        ...
        lamella.errors.ResolutionError: slide 'S-0412.svs' does not state its resolution. If the scanner's value is \
known, pass --slide-mpp 0.25.
    """
    if stated_mpp is None:
        raise ResolutionError(
            f"slide '{name}' does not state its resolution. If the scanner's value is known, pass --slide-mpp 0.25."
        )
    x, y = stated_mpp
    if not (is_plausible(x) and is_plausible(y)):
        raise ResolutionError(
            f"slide '{name}' states {_say_pair(x, y)} um/px{_explain_dpi(x)} but a scanner's resolution lies between "
            f"{FINEST_MPP:g} and {COARSEST_MPP:g}. If the scanner's value is known, pass --slide-mpp 0.25."
        )
    difference = max(x, y) / min(x, y) - 1
    if difference > MAX_ANISOTROPY + 1e-9:
        raise ResolutionError(
            f"slide '{name}' states {x:g} um/px along x and {y:g} along y, {difference:.1%} apart, and they may differ "
            f"by {MAX_ANISOTROPY:.0%}. If the scanner's value is known, pass --slide-mpp {min(x, y):.4g}."
        )
    return Resolution(x, y, "file")


def is_plausible(mpp: float) -> bool:
    """Tell whether a scanner could have this resolution."""
    return math.isfinite(mpp) and FINEST_MPP <= mpp <= COARSEST_MPP


def _say_pair(x: float, y: float) -> str:
    """Write one number where both axes agree, else both."""
    return f"{x:.6g}" if math.isclose(x, y, rel_tol=1e-4) or x != x else f"{x:.6g} x {y:.6g}"


def _explain_dpi(mpp: float) -> str:
    """Name the display resolutions that image editors write into files."""
    for dpi in (72, 96, 150, 300, 600):
        if math.isfinite(mpp) and math.isclose(mpp, 25400 / dpi, rel_tol=2e-3):
            return f" ({dpi} dots per inch, a setting for screens and printers)"
    return ""
