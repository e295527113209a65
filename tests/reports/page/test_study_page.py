"""The study's page: one file that needs nothing, says what must be said, and gives nobody away."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lamella.errors import ModelError, SettingsError
from lamella.files import parse_json_file
from lamella.reports.charts.arms import draw_cost
from lamella.reports.charts.marks import ArmMark
from lamella.reports.page import PageSettings, write_page
from tests.reports.page.fake_study import TABLES, WAITING, write_study

OPTIONAL = (
    *("verdict.json", "controls.json", "metrics.json", "cka.json", "localisation.json", "costs.json"),
    *("cohort.csv", "ledger.csv", "failures.csv", "predictions.parquet", "results.csv"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "out"
    write_study(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return write_page(folder).read_text(encoding="utf-8")


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "out")


def visible(page):
    """The page's text: no scripts, no styles, no markup."""
    bare = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", " ", bare)
    for entity, character in (("&#39;", "'"), ("&#34;", '"'), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(entity, character)
    return re.sub(r"\s+", " ", text)


def test_it_is_one_file_that_asks_for_nothing(page):
    bare = page.replace("http://www.w3.org/1999/xlink", "").replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in bare
    assert "https:" not in bare
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", bare)
    assert "@import" not in bare
    assert "default-src 'none'" in page


def test_the_sentence_and_the_figures_behind_it_come_first(folder, page):
    verdict = parse_json_file(folder / "verdict.json")
    text = visible(page)
    own = verdict["verdict"]
    assert (own["question"], own["arm"]) == ("reference", "efficientnet-lite0@2")
    order = [own["use"], own["worse"], own["open"], "Result by non-inferiority margin", "All arms"]
    assert [text.index(said) for said in order] == sorted(text.index(said) for said in order)
    for figure in (own["best_auc_raw"], own["best_auc_corrected"]):
        assert f"{figure:.3f}" in text


def test_every_declared_table_is_there_with_starred_best_and_recommended_rows(folder, page):
    verdict = parse_json_file(folder / "verdict.json")
    for table in TABLES:
        assert f"Table {table['name']}: {table['title']}".replace("'", "&#39;") in page
    starred = sum(row["starred"] for table in verdict["tables"] for row in table["rows"])
    assert starred > 0
    assert len(re.findall(r"<td>[+-][\d.]+ \*</td>", page)) == starred
    assert '<tr class="recommended"' in page
    assert '<tr class="best"' in page


def test_the_papers_figures_stand_beside_its_preset_only(page, copied):
    row = re.search(r'data-text="resnet18@3">.*?</tr>', page[page.index("Table IV") :], flags=re.DOTALL)
    assert row is not None
    assert "<td>90.8</td><td>78.5</td>" in row.group()
    study = parse_json_file(copied / "study.json")
    (copied / "study.json").write_text(json.dumps(study | {"preset": None}))
    other = write_page(copied).read_text(encoding="utf-8")
    assert "CAMELYON16" not in other


def test_arms_that_did_not_run_are_listed_with_cost_or_command(page):
    text = visible(page[page.index('id="not-run-arms"') :])
    for arm, said in (
        ("densenet169@4", "87 min"),
        ("efficientnet-b0-pytorch@4", "cannot be read any more"),
        ("resnet18-ciga@4", WAITING),
    ):
        assert arm in text
        assert said in text
    assert "waiting for weights" in visible(page[page.index("Table II") : page.index("Table III")])


@pytest.mark.parametrize(
    "said",
    [
        "Internal validation",
        "not another hospital",
        "was not itself measured",
        "not adjusted",
        "trained models held fixed",
        "too narrow under cross-validation",
        "Small dots are single folds: a spread, not an interval.",
        "SDs of folds and seeds tell spread and make no interval.",
        "With so few points no absence of a correlation can be claimed.",
        "2 lost by an arm",
        "The batch alone predicts the label",
        "Added after results had been seen: densenet121-capricorn@4.",
        "+0.031 (SE 0.012) 0.742 0.913 0.850 to 0.950",
        "over the 11 nearest slides by mean features",
        "TRIPOD+AI",
        "[state: ethical approval]",
        "split seed 0",
        "openvino 2026.4.1",
    ],
)
def test_it_says_what_must_be_said(page, said):
    assert said in visible(page)


def test_slides_come_with_the_worst_errors_first_under_sliders(folder, page):
    frame = pd.read_parquet(folder / "predictions.parquet")
    frame = frame[(frame["arm"] == "efficientnet-lite0@2") & (frame["side"] == "test")]
    means = frame.groupby("slide_id").agg({"label": "first", "logit_benign": "mean", "logit_tumour": "mean"})
    own = np.where(means["label"] == "tumour", means["logit_tumour"], means["logit_benign"])
    loss = np.logaddexp(means["logit_benign"], means["logit_tumour"]) - own
    worst = means.index[np.argsort(-loss.to_numpy(), kind="stable")][:6].tolist()
    assert re.findall(r"<article.*?<h3>(.*?)</h3>", page, flags=re.DOTALL) == worst
    assert page.count('class="compare"') == 12
    assert page.count('type="range"') == 12


def test_a_leak_is_said_at_the_top_in_red(copied, tmp_path):
    write_study(tmp_path / "leaky", leak=True, n_drawn=0, n_slides=60)
    page = write_page(tmp_path / "leaky").read_text(encoding="utf-8")
    assert page.index('class="caution leak"') < page.index('class="lead"')
    assert page.count("<strong>Leak:</strong>") == 2
    assert "Leak:" not in visible(write_page(copied).read_text(encoding="utf-8"))


def test_names_cannot_break_the_page(tmp_path):
    bad = ["<script>alert(1)", "<img src=x onerror=alert(2)>", "a&b\"c'd"]
    write_study(tmp_path / "out", slide_ids=bad, classes=("<b>benign", "tumour"), n_slides=60, n_drawn=60, side_px=64)
    page = write_page(tmp_path / "out", settings=PageSettings(max_slides=60)).read_text(encoding="utf-8")
    for name in ("<script>alert", "<img src=x", "<b>benign"):
        assert name not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("<script>") == 1


def test_no_path_reaches_the_page(page, folder):
    text = visible(page)
    for part in ("/data/", "ward 7", "old scans", str(folder), str(folder.parent)):
        assert part not in text
    assert "S-003.svs" in text


def test_pictures_shrink_and_then_go_until_the_page_fits(copied):
    rng = np.random.default_rng(0)
    for view in copied.glob("slides/*/*.jpg"):
        noise = rng.integers(0, 255, (450, 700, 3), dtype=np.uint8)
        Image.fromarray(noise).save(view, quality=95)
    bare = write_page(copied, settings=PageSettings(max_slides=0)).stat().st_size / 1e6
    sizes, shown = [], []
    for max_mb in (bare + 15, bare + 1.9, bare + 0.25):
        path = write_page(copied, settings=PageSettings(max_mb=max_mb))
        sizes.append(path.stat().st_size)
        shown.append(path.read_text(encoding="utf-8").count("<article"))
        assert sizes[-1] <= max_mb * 1e6
    assert shown[0] == shown[1] == 6 > shown[2]
    assert sizes == sorted(sizes, reverse=True)
    assert "drawn and left out" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["verdict.json", "metrics.json", "cohort.csv", "predictions.parquet"])
def test_any_file_but_the_record_may_be_absent(copied, name):
    (copied / name).unlink()
    assert "Which encoder, how deep" in visible(write_page(copied).read_text(encoding="utf-8"))


def test_parts_that_are_not_there_say_why(copied):
    for name in OPTIONAL:
        (copied / name).unlink()
    shutil.rmtree(copied / "slides")
    text = visible(write_page(copied).read_text(encoding="utf-8"))
    for said in (
        "No arm ran, so nothing can be recommended",
        "There is no result by margin",
        "No arm ran: 'What was not run' says why.",
        "No arm ran, so none was timed.",
        "CKA was not computed",
        "Not drawn: no predictions",
        "There is no metrics.json",
        "No outlines of lesions were given",
        "No baselines were measured",
        "Labels were not permuted",
        "names no batches",
        "no slide was predicted or drawn",
        "There is no cohort.csv",
        "There is no ledger.csv",
        "None: every slide was read",
    ):
        assert said in text


def test_empty_contents_are_as_good_as_absent_ones(copied):
    for name in ("cka.json", "localisation.json", "controls.json"):
        (copied / name).write_text("{}")
    text = visible(write_page(copied).read_text(encoding="utf-8"))
    assert "No outlines of lesions were given" in text


def test_a_page_of_several_classes_draws_each_against_the_rest(tmp_path):
    write_study(tmp_path / "out", classes=("benign", "grade 1", "grade 2"), n_slides=90, n_drawn=2, side_px=120)
    page = write_page(tmp_path / "out").read_text(encoding="utf-8")
    curves = page[page.index('id="curves"') : page.index('id="outlines"')]
    assert all(f">{name}</text>" in curves for name in ("benign", "grade 1", "grade 2"))
    assert "perfect calibration" not in curves


def test_charts_of_the_page_share_no_id(page):
    found = re.findall(r'\bid="([^"]+)"', page)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("cost", [1e-9, 0.0033, 0.01, 1.0, 123.0])
def test_a_single_arm_of_any_cost_has_a_chart(cost):
    arm = ArmMark(name="resnet18@1", auc=0.5, cost=cost, number=1)
    for narrow in (False, True):
        assert "seconds a slide" in draw_cost([arm], name="cost", narrow=narrow)


def test_the_same_folder_makes_the_same_page(folder, page):
    assert write_page(folder).read_text(encoding="utf-8") == page


def test_no_study_and_damaged_files_are_named(tmp_path, copied):
    with pytest.raises(ModelError, match=r"holds no run .* and no study \(study.json\)"):
        write_page(tmp_path / "nothing")
    (copied / "verdict.json").write_text("{")
    with pytest.raises(ModelError, match=r"verdict.json' is damaged \(.*\). Run `lamella study` again"):
        write_page(copied)
    with pytest.raises(SettingsError, match="fewer than 0 slides"):
        PageSettings(max_slides=-1)


def test_the_page_needs_no_torch():
    code = "import sys, lamella.reports.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
