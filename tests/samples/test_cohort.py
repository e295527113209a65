"""Drawn cohorts: their table, their outlines, and that nothing but lesions tells the labels apart."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lamella.errors import SettingsError
from lamella.samples import DEMO_SIZE, draw_cohort, plan_cohort, save_outlines
from lamella.tissue.regions import read_drawing

SIZE = (640, 512)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_cohort(tmp_path_factory.mktemp("cohort"), n_slides=6, seed=3, size=SIZE)


def test_the_table_lists_every_slide_with_its_label(table: Path) -> None:
    rows = pd.read_csv(table)
    assert list(rows.columns) == ["slide", "slide_id", "patient_id", "label", "batch"]
    assert rows["slide_id"].is_unique
    assert rows["label"].value_counts().to_dict() == {"benign": 3, "tumour": 3}
    assert all((table.parent / name).is_file() for name in rows["slide"])


def test_outlines_lie_beside_the_slides_that_have_lesions_and_only_those(table: Path) -> None:
    for row in pd.read_csv(table).itertuples():
        outlines = table.parent / f"{row.slide_id}.geojson"
        assert outlines.is_file() == (row.label == "tumour")
        if outlines.is_file():
            assert all(area.shape.is_valid and area.shape.area > 100 for area in read_drawing(outlines).areas)


def test_outlines_are_annotations_as_qupath_writes_them(table: Path) -> None:
    content = json.loads(next(table.parent.glob("*.geojson")).read_text())
    assert content["type"] == "FeatureCollection"
    for feature in content["features"]:
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        assert feature["properties"]["objectType"] == "annotation"
        assert feature["properties"]["classification"] == {"name": "Tumor", "color": [200, 0, 0]}


def test_outlines_written_then_read_are_the_same(table: Path, tmp_path: Path) -> None:
    lesions = tuple(area.shape for area in read_drawing(next(table.parent.glob("*.geojson"))).areas)
    save_outlines(lesions, tmp_path / "again.geojson")
    assert tuple(area.shape for area in read_drawing(tmp_path / "again.geojson").areas) == lesions


def test_a_cohort_is_drawn_alike_twice(table: Path, tmp_path: Path) -> None:
    again = draw_cohort(tmp_path, n_slides=6, seed=3, size=SIZE)
    assert again.read_bytes() == table.read_bytes()
    for path in table.parent.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_some_patients_have_two_slides_of_one_label_and_batch() -> None:
    slides = defaultdict(list)
    for row in plan_cohort(n_slides=44, seed=0, size=DEMO_SIZE, mpp=0.5):
        slides[row.patient_id].append((row.recipe.label, row.batch))
    counts = np.array([len(own) for own in slides.values()])
    assert set(counts) == {1, 2}
    assert 3 <= (counts == 2).sum() <= 10
    assert all(len(set(own)) == 1 for own in slides.values())


def test_batches_are_balanced_between_labels() -> None:
    rows = plan_cohort(n_slides=44, seed=0, size=DEMO_SIZE, mpp=0.5)
    counts = pd.crosstab([row.recipe.label for row in rows], [row.batch for row in rows]).to_numpy()
    assert counts.min() >= 7
    assert np.abs(counts[0] - counts[1]).max() <= 1


def test_cohorts_of_other_seeds_differ_in_everything_but_their_makeup() -> None:
    one, two = (plan_cohort(n_slides=12, seed=seed, size=DEMO_SIZE, mpp=0.5) for seed in (0, 1))
    assert {row.recipe.seed for row in one}.isdisjoint(row.recipe.seed for row in two)
    assert sorted(row.recipe.label for row in one) == sorted(row.recipe.label for row in two)


def test_a_cohort_of_one_slide_is_refused() -> None:
    with pytest.raises(SettingsError, match="needs at least 2"):
        plan_cohort(n_slides=1, seed=0, size=DEMO_SIZE, mpp=0.5)
