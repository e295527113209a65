"""A run folder as `lamella run` leaves one, drawn and invented here: nothing in it comes from a slide."""


import cv2
import numpy as np

from lamella.report.heatmap import SlideAttention


def draw_tissue(rng, height, width, lesion=None):
    """An `(height, width, 3)` uint8 thumbnail with a pink piece of tissue off-centre, and a dark lesion on it."""
    noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), max(height, width) / 40)
    noise = (noise - noise.min()) / np.ptp(noise)
    rows, columns = np.mgrid[0:height, 0:width]
    outline = ((columns - 0.57 * width) / (0.37 * width)) ** 2 + ((rows - 0.46 * height) / (0.4 * height)) ** 2
    tissue = outline + 0.9 * (noise - 0.5) < 1
    picture = np.full((height, width, 3), (244, 243, 245), dtype=float)
    pink = np.array([224, 168, 196]) - 70 * (noise[..., None] - 0.5) * np.array([0.5, 1.2, 0.7])
    picture[tissue] = pink[tissue]
    nuclei = rng.random((height, width)) < np.where(tissue, 0.05, 0)
    if lesion is not None:
        x, y, radius = lesion
        inside = ((columns - x) ** 2 + (rows - y) ** 2 < radius**2) & tissue
        picture[inside] = picture[inside] * 0.72 + np.array([95, 50, 120]) * 0.28
        nuclei |= inside & (rng.random((height, width)) < 0.25)
    picture[nuclei] = (92, 60, 130)
    picture = cv2.GaussianBlur(picture, (0, 0), 0.8) + rng.normal(scale=2, size=picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8), tissue


def make_attention(rng, *, slide_size=(24_000, 15_000), slide_mpp=(0.2525, 0.2505), lesion_l0=None, tile_um=112.0):
    """Tiles at half a tile's stride over the drawn tissue, and attention that rises at the lesion; with a thumbnail."""
    scale = 24
    width, height = slide_size[0] // scale, slide_size[1] // scale
    lesion = None if lesion_l0 is None else tuple(value / scale for value in lesion_l0)
    thumbnail, tissue = draw_tissue(rng, height, width, lesion)
    size = (tile_um / slide_mpp[0], tile_um / slide_mpp[1])
    xs = np.arange(0, slide_size[0] - size[0], size[0] / 2)
    ys = np.arange(0, slide_size[1] - size[1], size[1] / 2)
    corners = np.rint(np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)).astype(np.int64)
    centre = corners + np.array(size) / 2
    on = tissue[
        (centre[:, 1] / scale).astype(int).clip(0, height - 1), (centre[:, 0] / scale).astype(int).clip(0, width - 1)
    ]
    corners, centre = corners[on], centre[on]
    logits = rng.normal(scale=0.5, size=len(corners))
    if lesion_l0 is not None:
        distance = np.hypot(centre[:, 0] - lesion_l0[0], centre[:, 1] - lesion_l0[1])
        logits += 3.2 / (1 + np.exp((distance - lesion_l0[2]) / 150))
    attention = np.exp(logits) / np.exp(logits).sum()
    tiles = SlideAttention(
        attention=attention, coords_l0=corners, tile_size_l0=size, slide_size=slide_size, slide_mpp=slide_mpp
    )
    return tiles, thumbnail
