"""Pen, padding and pigment: ink and the scanner's padding are no tissue, dense nuclei and blood are no ink."""

import cv2
import numpy as np
import pytest

from tests.tissue.drawing import INKS, NUCLEI, draw_glass, draw_section, find, overlap


@pytest.mark.parametrize("padding", [(0, 0, 0), (128, 128, 128), (215, 215, 215), (255, 255, 255), (255, 0, 255)])
def test_padding_by_the_scanner_is_no_tissue(padding):
    picture = draw_glass(200, 300)
    truth = draw_section(picture, (120, 100))
    picture[:, 250:] = padding
    picture[:30, 180:] = padding
    # Resampled as a reader would, so that the padding has a soft edge.
    fine = cv2.resize(picture, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
    picture = cv2.resize(fine[2:-1, 2:-1], (300, 200), interpolation=cv2.INTER_AREA)
    tissue = find(picture)
    kept, wrong = overlap(tissue.mask, truth)
    assert kept > 0.97
    assert wrong < 0.005
    assert tissue.ledger[1].step == "padding"
    assert tissue.ledger[1].removed_um2 > 0.15 * tissue.ledger[0].kept_um2


def test_padding_alone_holds_no_tissue():
    assert not find(np.zeros((60, 90, 3), np.uint8)).mask.any()
    assert not find(np.full((60, 90, 3), 255, np.uint8)).mask.any()
    assert not find(np.full((60, 90, 3), 128, np.uint8)).mask.any()


@pytest.mark.parametrize("ink", INKS)
def test_pen_strokes_are_no_tissue(ink):
    picture = draw_glass(200, 300)
    truth = draw_section(picture, (110, 90))
    stroke = np.zeros(picture.shape[:2], np.uint8)
    cv2.polylines(
        stroke, [np.array([[190, -5], [200, 80], [290, 100], [230, 180]])], isClosed=False, color=1, thickness=18
    )
    soft = cv2.GaussianBlur(stroke.astype(np.float32), (0, 0), 1.0)[..., None]
    colour = np.array(INKS[ink]) + np.random.default_rng(2).normal(0, 2, picture.shape)
    picture = np.clip(picture * (1 - soft) + colour * soft, 0, 255).astype(np.uint8)
    tissue = find(picture)
    kept, wrong = overlap(tissue.mask, truth)
    assert kept > 0.99
    assert wrong < 0.005
    assert {step.step: step.removed_um2 for step in tissue.ledger}["pen"] > 0


def test_dense_nuclei_and_blood_are_not_taken_for_ink():
    picture = draw_glass(200, 300)
    rng = np.random.default_rng(5)
    draw_section(picture, (120, 90), (90, 60))
    follicle, bleeding, clot = np.zeros((3, 200, 300), np.uint8)
    cv2.circle(follicle, (90, 80), 25, 1, -1)
    cv2.circle(bleeding, (160, 110), 22, 1, -1)
    cv2.circle(clot, (250, 160), 15, 1, -1)
    picture[follicle > 0] = (np.array(NUCLEI) + rng.normal(0, 10, picture.shape)).astype(np.uint8)[follicle > 0]
    cells = np.where(rng.random((200, 300, 1)) < 0.3, (225, 140, 150), (188, 58, 72)) + rng.normal(0, 6, picture.shape)
    blood = (bleeding + clot) > 0
    picture[blood] = np.clip(cells, 0, 255).astype(np.uint8)[blood]
    mask = find(picture).mask
    for name, area in {"follicle": follicle, "bleeding": bleeding, "clot": clot}.items():
        assert mask[area > 0].mean() > 0.99, name


def test_narrow_ink_on_a_margin_and_pigment_stay_tissue():
    picture = draw_glass(200, 300)
    truth = draw_section(picture, (120, 90), (90, 60))
    edge = (cv2.erode(truth.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0) & truth
    picture[edge] = (40, 130, 120)
    cv2.circle(picture, (120, 90), 3, (40, 38, 36), -1)
    assert find(picture).mask[truth].mean() > 0.99


def test_much_ink_is_said_aloud():
    picture = draw_glass(200, 300)
    draw_section(picture, (60, 60), (20, 15))
    picture[100:180, 120:260] = (60, 120, 170)
    (note,) = find(picture).notes
    assert "--tissue otsu" in note


@pytest.mark.parametrize("ink", ["green", "blue", "red"])
def test_a_narrow_stroke_on_a_small_slide_is_no_tissue(ink):
    picture = draw_glass(200, 300)
    truth = draw_section(picture, (110, 90))
    stroke = np.zeros(picture.shape[:2], np.uint8)
    cv2.polylines(stroke, [np.array([[190, 40], [215, 70], [290, 75]])], isClosed=False, color=1, thickness=6)
    streaks = np.random.default_rng(4).normal(0, 10, (1, 300, 1))
    picture[stroke > 0] = np.clip(np.array(INKS[ink]) + streaks + np.zeros(picture.shape), 0, 255)[stroke > 0]
    kept, wrong = overlap(find(picture).mask, truth)
    assert kept > 0.99
    assert wrong < 0.005


@pytest.mark.parametrize("ink", [(0.15, 0.32, 0.70), (0.15, 0.55, 0.27)])
def test_a_wide_blue_or_green_stroke_over_tissue_is_left_out_with_what_it_hides(ink):
    picture = draw_glass(200, 300)
    truth = draw_section(picture, (120, 100), (80, 60))
    stroke = np.zeros(picture.shape[:2], np.uint8)
    cv2.line(stroke, (100, 10), (130, 190), 1, thickness=20)
    picture[stroke > 0] = (picture * np.array(ink))[stroke > 0]
    mask = find(picture).mask
    assert mask[stroke > 0].mean() < 0.05
    beside = truth & (cv2.dilate(stroke, np.ones((11, 11), np.uint8)) == 0)
    assert mask[beside].mean() > 0.99
