"""The page: everything on it comes from the folder, it needs nothing else, and tells no more than it should."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from lamella.errors import ModelError, SettingsError
from lamella.reports.loading import load_record
from lamella.reports.page import PageSettings, write_page
from tests.reports.fake_run import write_run

SECTIONS = ("answer", "all-arms", "curves", "controls", "outlines", "slides", "cohort", "reproduction", "cite")


class Outline(HTMLParser):
    """Collects tags, ids, images and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.images, self.links, self.text = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids.append(attributes.get("id"))
        self.links += [value for key, value in attrs if key in ("src", "href", "xlink:href")]
        if tag == "img":
            self.images.append(attributes)

    def handle_data(self, data):
        self.text += f"{data} "


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "ward-seven", n_drawn=2)


@pytest.fixture
def run(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "run")


def read(path):
    return path.read_text(encoding="utf-8")


def test_the_page_has_every_section_and_answers_first(run):
    page = Outline(read(write_page(run)))
    assert [name for name in page.ids if name in SECTIONS] == list(SECTIONS)
    auc = json.loads(read(run / "metrics.json"))["arms"]["model"]["patients"]["auc"]
    text = " ".join(page.text.split())
    assert (
        "Attention over efficientnet-lite0 tiles separates malignant from benign with an AUC of "
        f"{auc['value']:.3f} (95% CI {auc['interval'][0]:.3f} to {auc['interval'][1]:.3f}) within folds"
    ) in text
    assert "generalisation to other hospitals was not tested" in text
    for said in (
        "Batch alone - - the cohort has no batch column",
        "Colour alone",
        "Tissue area, tile count",
        "Within each batch",
        "efficientnet-lite0, each batch left out",
        "Labels and predicted classes",
        "Tiles a slide",
        "train.epochs 100",
        "openvino on CPU, bf16",
    ):
        assert said in text


def test_the_page_needs_nothing_but_itself(run):
    text = read(write_page(run))
    page = Outline(text)
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in page.links)
    assert page.tags.count("script") == 1
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in text


def test_every_picture_is_described(run):
    page = Outline(read(write_page(run)))
    assert len(page.images) == 4
    assert all(image["alt"] for image in page.images)
    assert read(run / "report.html").count('role="img" aria-label="') == 9


def test_the_page_is_the_same_each_time(run):
    assert read(write_page(run)) == read(write_page(run))


def test_no_folder_is_named_on_the_page(run, tmp_path):
    text = read(write_page(run))
    for hidden in ("/data", "ward", "Jane", "/home/me", str(tmp_path)):
        assert hidden not in text
    assert "slide 'S-439.svs' stops at 0.50 um/px" in Outline(text).text


def test_a_picture_that_is_not_ours_is_shown_whole_and_one_that_cannot_be_read_is_counted(run):
    from PIL import Image

    picture = run / "heatmaps" / "S-400" / "attention.png"
    with Image.open(picture) as image:
        bare = image.convert("RGB")
    bare.save(picture)
    assert len(Outline(read(write_page(run))).images) == 4
    picture.write_bytes(b"no picture")
    page = Outline(read(write_page(run)))
    assert len(page.images) == 3
    assert "Pictures of 1 slide are left out because they cannot be read." in page.text


def test_identifiers_and_labels_are_escaped(tmp_path):
    run = write_run(tmp_path / "run", n_drawn=0, classes=("benign", "<script>alert(1)</script>"))
    for name in ("cohort.csv", "predictions.csv", "ledger.csv"):
        text = read(run / name).replace("S-401", "<img src=x onerror=1>").replace("block A", "<i>A</i>")
        (run / name).write_text(text, encoding="utf-8")
    text = read(write_page(run))
    page = Outline(text)
    assert page.tags.count("script") == 1
    assert page.images == []
    assert "i" not in page.tags
    assert "<img src=x onerror=1>" in page.text
    assert "<script>alert(1)</script>" in page.text


def test_a_large_cohort_shows_some_slides_and_says_how_many_are_left_out(run):
    page = Outline(read(write_page(run, settings=PageSettings(max_slides=1, max_rows=10))))
    assert len(page.images) == 2
    text = " ".join(page.text.split())
    assert "1 more slide is drawn and left out; the pictures lie in the folder." in text
    assert "The 30 slides with the smallest error are left out: the predictions have all." in text


def test_pictures_shrink_and_then_go_until_the_page_fits(run):
    bare = write_page(run, settings=PageSettings(max_slides=0)).stat().st_size / 1e6
    sizes, shown = [], []
    for max_mb in (bare + 3, bare + 0.2, bare + 0.03):
        page = write_page(run, settings=PageSettings(max_slides=2, max_mb=max_mb))
        sizes.append(page.stat().st_size)
        shown.append(len(Outline(read(page)).images))
        assert sizes[-1] <= max_mb * 1e6
    assert sizes == sorted(sizes, reverse=True)
    assert shown[0] == 4 > shown[-1]


def test_wrong_calls_are_shown_first_when_there_is_room_for_few(run):
    rows = read(run / "predictions.csv").splitlines()
    header, second = rows[0], rows[2]
    place = header.split(",").index("label")
    cells = second.split(",")
    cells[place] = {"benign": "malignant", "malignant": "benign"}[cells[place]]
    swapped = read(run / "cohort.csv").splitlines()
    own = swapped[2].split(",")
    own[2] = cells[place]
    swapped[2] = ",".join(own)
    (run / "cohort.csv").write_text("\n".join(swapped) + "\n", encoding="utf-8")
    page = Outline(read(write_page(run, settings=PageSettings(max_slides=1))))
    assert "S-401" in page.images[0]["alt"]


@pytest.mark.parametrize(
    ("absent", "says"),
    [
        ("metrics.json", "there is no figure to say how good they are"),
        ("ledger.csv", "no slide was cut into tiles"),
        ("run.json", "settings and versions (run.json)"),
        ("heatmaps", "No slide is drawn"),
        ("failures.csv", "None: every slide was read"),
        ("cohort.csv", "the cohort (cohort.csv)"),
    ],
)
def test_what_the_folder_lacks_is_said_and_the_rest_is_shown(run, absent, says):
    path = run / absent
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = Outline(read(write_page(run)))
    assert says in " ".join(page.text.split())
    assert [name for name in page.ids if name in SECTIONS] == list(SECTIONS)


def test_several_classes_get_a_curve_each_and_no_threshold(tmp_path):
    run = write_run(tmp_path / "run", n_drawn=0, n_slides=45, classes=("benign", "in situ", "invasive"))
    text = " ".join(Outline(read(write_page(run))).text.split())
    assert "separates benign, in situ and invasive with a mean one-against-rest AUC of" in text
    assert "predicted in situ" in text
    assert "Each slide is called what is most probable" in text


def test_unlabelled_predictions_make_a_page(tmp_path):
    run = write_run(tmp_path / "run", n_drawn=1)
    for name in ("metrics.json", "cohort.csv", "ledger.csv"):
        (run / name).unlink()
    rows = [line.split(",") for line in read(run / "predictions.csv").splitlines()]
    for row in rows[1:]:
        row[2] = ""
    (run / "predictions.csv").write_text("\n".join(",".join(row) for row in rows) + "\n", encoding="utf-8")
    record = json.loads(read(run / "run.json")) | {"external": True}
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    text = " ".join(Outline(read(write_page(run))).text.split())
    assert "Predictions for 40 slides of 37 patients" in text
    assert "without labels nothing says how good their predictions are" in text


def test_the_record_joins_tables_and_pictures(run):
    record = load_record(run)
    first = record.slides[0]
    assert (first.slide_id, first.patient_id, first.fold, first.batch) == ("S-400", "P-00", 0, "block A")
    assert sum(first.shares.values()) == pytest.approx(1, abs=1e-9)
    assert record.missing == ()
    assert record.thresholds[3] == pytest.approx(0.49)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("metrics.json", '{"arms": ', "metrics.json' is damaged"),
        ("cohort.csv", "slide,label\nx,y\n", "cohort.csv' has no column 'slide_id'"),
        ("predictions.csv", "slide_id,fold,prob_benign,prob_malignant\nS-400,0,0.1,many\n", "says 'many' for a number"),
        ("predictions.csv", "slide_id,fold,prob_a\nS-400,0,0.5\n", "'predictions.csv' has no column 'prob_benign'"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(run, name, content, says):
    (run / name).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=says):
        write_page(run)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no run .* Name the --out folder"):
        write_page(tmp_path)


def test_negative_numbers_of_slides_are_refused():
    with pytest.raises(SettingsError, match="fewer than 0"):
        PageSettings(max_slides=-1)
