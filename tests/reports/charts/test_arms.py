"""Charts: the same bytes for the same numbers, and no text that can break the page."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from lamella.reports.charts.arms import draw_forest
from lamella.reports.charts.curves import Scores, draw_calibration, draw_precision_recall, draw_roc
from lamella.reports.charts.curves import draw_scores as draw_dots
from lamella.reports.charts.marks import ArmMark


@pytest.fixture
def scores():
    rng = np.random.default_rng(2)
    truth = rng.random(40) < 0.4
    shares = 1 / (1 + np.exp(-rng.normal(size=40) - 2 * truth))
    return Scores(name="tumour", truth=truth, score=shares, fold=np.arange(40) % 5)


def draw_all(scores, name="tumour"):
    labels = [name if truth else "benign" for truth in scores.truth]
    return {
        "roc": draw_roc([scores], point=(0.1, 0.8)),
        "recall": draw_precision_recall([scores]),
        "calibration": draw_calibration(scores),
        "forest": draw_forest([ArmMark(name=name, auc=0.9, low=0.8, high=0.95, emphasised=True)], name="forest"),
        "scores": draw_dots(scores.score, labels, positive=name, thresholds=[0.4, 0.5]),
    }


def test_charts_are_the_same_bytes_each_time(scores):
    assert draw_all(scores) == draw_all(scores)


def test_charts_are_svg_that_points_nowhere(scores):
    for svg in draw_all(scores).values():
        ElementTree.fromstring(svg)
        bare = svg.replace("http://www.w3.org/1999/xlink", "").replace("http://www.w3.org/2000/svg", "")
        assert "http" not in bare
        assert "matplotlib.org" not in svg


def test_charts_of_one_page_share_no_id(scores):
    found = [
        element.attrib["id"]
        for svg in draw_all(scores).values()
        for element in ElementTree.fromstring(svg).iter()
        if "id" in element.attrib
    ]
    assert len(found) == len(set(found))


def test_labels_are_text_whatever_they_hold(scores):
    svg = draw_all(scores, name="<b>$x$ & y</b>")["scores"]
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert "<b>$x$ & y</b>" in text


def test_several_classes_have_a_line_each(scores):
    svg = draw_roc([scores, Scores(name="other", truth=~scores.truth, score=-scores.score, fold=scores.fold)])
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert "tumour" in text
    assert "other" in text
    assert "single folds" not in text


def test_few_slides_make_no_calibration_groups():
    few = Scores(
        name="tumour",
        truth=np.array([True, False, True]),
        score=np.array([0.9, 0.2, 0.6]),
        fold=np.zeros(3, dtype=np.int64),
    )
    assert "groups of" not in draw_calibration(few)
