"""Stain and scanner: from amounts of haematoxylin and eosin to the RGB that a scanner saves."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lamella.samples.textures import crop_texture, grain_texture

Floats = NDArray[np.float32]

# Optical densities of the two stains in R, G, B (Macenko et al., 2009, as commonly used reference vectors).
_HAEMATOXYLIN = np.array([0.65, 0.72, 0.32])
_EOSIN = np.array([0.16, 0.86, 0.42])


@dataclass(frozen=True, slots=True, eq=False)
class StainStyle:
    """The look that a laboratory and a scanner give to a slide.

    Attributes:
        haematoxylin: `(3,)` float32 optical density (base e) of one unit in R, G, B.
        eosin: `(3,)` float32, likewise.
        glass: `(3,)` float32 RGB of empty glass, 0 to 255.
        noise: SD of the sensor's noise, in grey levels.
        blur_um: SD of the optics' blur.
    """

    haematoxylin: Floats
    eosin: Floats
    glass: Floats
    noise: float
    blur_um: float

    @classmethod
    def draw(cls, batch: int, rng: np.random.Generator) -> "StainStyle":
        """Return the style of one slide: its batch's, and a little of its own."""
        lab = np.random.default_rng([23, batch])

        def vector(reference: NDArray[np.float64], strength: float) -> Floats:
            hue = np.exp(lab.normal(size=3) * 0.13) * np.exp(rng.normal(size=3) * 0.035)
            amount = np.exp(lab.normal() * 0.14) * np.exp(rng.normal() * 0.13)
            return np.asarray(reference * hue * amount * strength, dtype=np.float32)

        haematoxylin, eosin = vector(_HAEMATOXYLIN, 1.2), vector(_EOSIN, 1.0)
        glass = 243 + lab.normal(size=3) * 2.5 + rng.normal(size=3) * 0.8
        return cls(haematoxylin, eosin, glass.clip(233, 250).astype(np.float32), 1.4, 0.32 + 0.12 * float(lab.random()))


def develop(
    haematoxylin: Floats, eosin: Floats, extra: Floats | None, style: StainStyle, corner_px: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return the scanner's RGB by Beer and Lambert's law, with sensor noise.

    Args:
        haematoxylin: `(h, w)` float32 amount of haematoxylin.
        eosin: `(h, w)` float32 amount of eosin.
        extra: `(h, w, 3)` float32 optical density of whatever else lies on the glass, or None.
        style: Stain vectors, glass and noise.
        corner_px: `(x, y)` of the first pixel, level 0; decides which noise falls where.

    Returns:
        `(h, w, 3)` uint8 RGB.
    """
    height, width = haematoxylin.shape
    density = cv2.merge(
        [
            cv2.addWeighted(haematoxylin, -float(style.haematoxylin[c]), eosin, -float(style.eosin[c]), 0)
            for c in range(3)
        ]
    )
    if extra is not None:
        density = density - extra
    light = np.asarray(cv2.exp(density), dtype=np.float32)
    light *= style.glass
    noise = crop_texture(_noise_tile(round(style.noise, 2)), corner_px, (width, height))
    return np.asarray(cv2.add(light, noise, dtype=cv2.CV_8U), dtype=np.uint8)


@lru_cache(maxsize=8)
def _noise_tile(noise: float) -> Floats:
    """Return `(1021, 1021, 3)` float32 periodic noise; the side is prime so that it never falls in step with tiles."""
    channels = [grain_texture(seed, 0.55, 1021) for seed in (31, 32, 33)]
    return np.stack(channels, axis=-1) * np.float32(noise)
