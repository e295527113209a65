"""Thumbnails drawn for the tests of `lamella.tissue`: wider than high, tissue off-centre."""

import cv2
import numpy as np

from lamella.tissue import find_tissue

GLASS = (243, 243, 243)
STROMA = (222, 168, 205)
NUCLEI = (96, 74, 150)
UM = 8.0
INKS = {
    "green": (60, 140, 90),
    "blue": (50, 80, 180),
    "navy": (30, 45, 95),
    "black": (35, 36, 40),
    "red": (215, 35, 45),
}


def draw_glass(height=150, width=220, *, colour=GLASS, noise=1.0, seed=0):
    """Draw an empty scan with sensor noise; a pixel is 8 um."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(0, noise, (height, width, 3)) + np.array(colour), 0, 255).round().astype(np.uint8)


def draw_section(picture, centre=(70, 60), axes=(45, 30), *, pale=0, seed=1):
    """Draw H&E tissue into a picture in place; return where it is, `(h, w)` bool."""
    rng = np.random.default_rng(seed)
    inside = np.zeros(picture.shape[:2], np.uint8)
    cv2.ellipse(inside, centre, axes, 20, 0, 360, 1, -1)
    inside = inside > 0
    texture = np.array(STROMA) + rng.normal(0, 6, (*inside.shape, 1))
    nuclei = rng.random(inside.shape) < 0.15
    texture = np.where(nuclei[..., None], np.array(NUCLEI) + rng.normal(0, 8, (*inside.shape, 1)), texture)
    if pale:
        texture = np.array(GLASS) - np.array([0.25, 1.0, 0.45]) * pale + rng.normal(0, 1, (*inside.shape, 1))
    picture[inside] = np.clip(texture, 0, 255).astype(np.uint8)[inside]
    return inside


def frame(picture, um=UM, mpp=0.5):
    """Return the slide's size and resolution that make a pixel of the picture `um` wide."""
    height, width = picture.shape[:2]
    return {"slide_size": (round(width * um / mpp), round(height * um / mpp)), "slide_mpp": (mpp, mpp)}


def overlap(found, truth):
    """Return the share of `truth` that was found, and the share of the rest that was."""
    return found[truth].mean(), found[~truth].mean()


def find(picture, um=UM):
    """Find the tissue of a drawn thumbnail."""
    return find_tissue(picture, **frame(picture, um))
