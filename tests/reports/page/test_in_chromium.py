"""Pages in a real headless Chromium: they work, ask for nothing, and can be read by day, night and phone.

Skipped where there is no Chromium with its driver, unless LAMELLA_NEEDS_CHROMIUM=1 says that there must be one.
"""

import contextlib
import csv
import json
import os
import re
import shutil
import time

import pytest

from lamella.files import parse_json_file
from lamella.reports.page import write_page
from tests.reports.fake_run import write_run
from tests.reports.page.fake_study import write_study

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
LIGHT_AND_DARK = [(size, scheme) for size in SIZES for scheme in ("light", "dark")]
# What of the page's own text stands out least from what is behind it, by WCAG's ratio.
CONTRAST = """
const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length > 3 ? m : [...m, 1]; };
const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => sum + w * linear(c[i] / 255), 0);
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const colour = parse(getComputedStyle(e).backgroundColor);
    if (colour[3] > 0.9) return colour;
  }
  return [255, 255, 255, 1];
};
const found = [];
for (const e of document.querySelectorAll("p, td, tbody th, dd, dt, h1, h2, h3, li, figcaption, svg text, .badge")) {
  const svg = e.closest("svg"), style = getComputedStyle(e), own = svg ? style.fill : style.color;
  if (!e.checkVisibility() || (svg && svg.querySelector("image") && own === "rgb(11, 18, 22)")) continue;  // on shades
  const [a, b] = [light(parse(own)), light(behind(e))].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)]);
}
return found.sort((x, y) => x[0] - y[0]).slice(0, 3);
"""


def open_chromium(home):
    if CHROMIUM is None or DRIVER is None:
        reason = "there is no chromium with chromedriver here. Run: apt-get install chromium chromium-driver"
        if os.environ.get("LAMELLA_NEEDS_CHROMIUM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install lamella[dev]")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={home / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(home)})
    return driver


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("chromium")


@pytest.fixture(scope="module")
def chromium(home):
    driver = open_chromium(home)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(home, chromium):
    write_study(
        home / "study", slide_ids=["<script>window.hit = 1", '"><img src=x onerror="window.hit = 1">'], n_drawn=4
    )
    return write_page(home / "study")


@pytest.fixture(scope="module")
def run_page(home):
    write_run(home / "run", n_slides=30, n_drawn=2)
    return write_page(home / "run")


def show(chromium, page, size="desktop", scheme="light"):
    """Open the page afresh; return the addresses that were asked for and what the console said."""
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    for log in ("browser", "performance"):
        chromium.get_log(log)
    chromium.get(page.as_uri())


def list_requests(chromium):
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]


def read_column(chromium, table, column):
    return chromium.execute_script(
        "return [...document.getElementById(arguments[0]).tBodies[0].rows].filter((row) => !row.hidden)"
        ".map((row) => row.cells[arguments[1]].dataset.text ?? row.cells[arguments[1]].textContent)",
        table,
        column,
    )


def click(chromium, css):
    element = chromium.find_element("css selector", css)
    chromium.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    element.click()


def save(chromium, home, table, kind):
    """Press a table's button; return what came down."""
    path = home / f"lamella-{table}.{kind}"
    path.unlink(missing_ok=True)
    click(chromium, f'.tools[data-for="{table}"] [data-save="{kind}"]')
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size:
                return path.read_text(encoding="utf-8")
        time.sleep(0.05)
    raise AssertionError(f"{path.name} did not come down")


@pytest.mark.parametrize(("size", "scheme"), LIGHT_AND_DARK)
def test_it_opens_without_errors_or_requests_and_does_not_scroll_sideways(chromium, page, size, scheme):
    show(chromium, page, size, scheme)
    assert [entry for entry in chromium.get_log("browser") if entry["level"] != "INFO"] == []
    beyond = [url for url in list_requests(chromium) if not url.startswith(("data:", page.as_uri()))]
    assert beyond == []
    inner, whole = chromium.execute_script("return [window.innerWidth, document.documentElement.scrollWidth]")
    assert inner == SIZES[size][0]
    assert whole <= inner


@pytest.mark.parametrize(("size", "scheme"), LIGHT_AND_DARK)
def test_all_text_stands_out_from_what_is_behind_it(chromium, page, size, scheme):
    show(chromium, page, size, scheme)
    weakest = chromium.execute_script(CONTRAST)
    assert weakest[0][0] >= 4.0, weakest


@pytest.mark.parametrize("size", SIZES)
def test_lettering_of_charts_is_large_enough_to_read(chromium, page, size):
    show(chromium, page, size)
    heights = chromium.execute_script(
        "return [...document.querySelectorAll('figure svg text')].filter((e) => e.checkVisibility())"
        ".map((e) => parseFloat(getComputedStyle(e).fontSize) * Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b))"
    )
    assert min(heights) >= 7.5
    kinds = "return [...document.querySelectorAll('.wide, .narrow')].map((e) => [e.className, e.checkVisibility()])"
    assert all(shown == ((name == "narrow") == (size == "phone")) for name, shown in chromium.execute_script(kinds))


@pytest.mark.parametrize("size", SIZES)
def test_a_runs_page_opens_without_errors_and_does_not_scroll_sideways(chromium, run_page, size):
    show(chromium, run_page, size)
    assert [entry for entry in chromium.get_log("browser") if entry["level"] != "INFO"] == []
    assert [url for url in list_requests(chromium) if not url.startswith(("data:", run_page.as_uri()))] == []
    inner, whole = chromium.execute_script("return [window.innerWidth, document.documentElement.scrollWidth]")
    assert whole <= inner == SIZES[size][0]
    assert chromium.execute_script(CONTRAST)[0][0] >= 4.0


@pytest.mark.parametrize("size", SIZES)
def test_every_chart_is_seen_once(chromium, page, run_page, size):
    script = (
        "return [...document.querySelectorAll('figure.chart')].map((f) => "
        "[...f.querySelectorAll('svg')].filter((e) => e.checkVisibility()).length)"
    )
    for opened, n_charts in ((page, 12), (run_page, 6)):
        show(chromium, opened, size)
        assert chromium.execute_script(script) == [1] * n_charts


def test_a_table_of_a_run_is_sorted_filtered_and_saved_as_a_studys_is(chromium, run_page, home):
    show(chromium, run_page)
    click(chromium, "#measures thead th:nth-child(4) button")
    values = [float(text) for text in read_column(chromium, "measures", 3) if text != "-"]
    assert values == sorted(values)
    chromium.find_element("css selector", '.tools[data-for="measures"] input').send_keys("SENSITIV")
    rows = list(csv.reader(save(chromium, home, "measures", "csv").splitlines()))
    assert rows[0] == ["arm", "of", "measure", "value", "95% interval", "CI method", "at a prevalence of"]
    model = parse_json_file(home / "run" / "metrics.json")["arms"]["model"]["patients"]["sensitivity"]
    assert [row[:4] for row in rows[1:]] == [["efficientnet-lite0", "patients", "sensitivity", f"{model['value']:.3f}"]]
    assert save(chromium, home, "measures", "tex").startswith("\\begin{tabular}{lllllll}")


def test_names_run_nothing(chromium, page):
    show(chromium, page)
    assert chromium.execute_script("return window.hit ?? null") is None
    assert "<script>window.hit = 1" in read_column(chromium, "slides-all", 0)


@pytest.mark.parametrize("size", SIZES)
def test_a_slider_lays_one_view_over_the_other(chromium, page, size):
    from selenium.webdriver.common.keys import Keys

    show(chromium, page, size)
    boxes = chromium.find_elements("css selector", ".compare")
    assert len(boxes) == 8
    for box in boxes[:2]:
        slider, over = box.find_element("css selector", "input"), box.find_element("css selector", ".over")
        assert over.value_of_css_property("clip-path") == "inset(0px 0px 0px 50%)"
        slider.send_keys(Keys.HOME)
        assert over.value_of_css_property("clip-path") in ("inset(0px 0px 0px 0%)", "inset(0px)")
        slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
        assert over.value_of_css_property("clip-path") == "inset(0px 0px 0px 3%)"
        sizes = [(image.size["width"], image.size["height"]) for image in box.find_elements("css selector", "img")]
        assert sizes[0] == sizes[1]
        assert min(sizes[0]) > 80


def test_every_picture_is_drawn(chromium, page):
    show(chromium, page)
    script = "return [...document.images].map((image) => image.complete && image.naturalWidth > 0)"
    drawn = chromium.execute_script(script)
    assert len(drawn) == 16
    assert all(drawn)


@pytest.mark.parametrize("size", SIZES)
def test_a_click_on_a_heading_sorts_either_way(chromium, page, size):
    show(chromium, page, size)
    for wanted in ("ascending", "descending"):
        click(chromium, "#costs thead th:nth-child(4) button")
        seconds = [float(text) for text in read_column(chromium, "costs", 3)]
        assert seconds == sorted(seconds, reverse=wanted == "descending")
        header = chromium.find_element("css selector", "#costs thead th:nth-child(4)")
        assert header.get_attribute("aria-sort") == wanted
    click(chromium, "#costs thead th:first-child button")
    names = read_column(chromium, "costs", 0)
    assert names[0].startswith("densenet121")
    assert names[-1] == "resnet50@4"


def test_rows_without_a_figure_come_last_either_way(chromium, page):
    show(chromium, page)
    for _ in range(2):
        click(chromium, '[id="table-I"] thead th:nth-child(7) button')
        column = read_column(chromium, "table-I", 6)
        absent = [text == "-" for text in column]
        assert absent == sorted(absent)
        assert 0 < sum(absent) < len(absent)


def test_typing_filters_and_what_is_shown_is_what_is_saved(chromium, page, home):
    show(chromium, page)
    verdict = parse_json_file(home / "study" / "verdict.json")
    rows = list(csv.reader(save(chromium, home, "arms", "csv").splitlines()))
    assert rows[0][:3] == ["arm", "AUC", "95% interval"]
    assert rows[0][-1] == "mark"
    assert {row[0]: row[1] for row in rows[1:]} == {one["arm"]: f"{one['auc']:.3f}" for one in verdict["arms"]}
    assert [row[0] for row in rows if "recommended" in row[-1]] == [verdict["verdict"]["arm"]]
    box = chromium.find_element("css selector", '.tools[data-for="arms"] input')
    box.send_keys("DENSENET")
    shown = read_column(chromium, "arms", 0)
    assert len(shown) == sum("densenet" in one["arm"] for one in verdict["arms"])
    click(chromium, "#arms thead th:nth-child(2) button")
    filtered = list(csv.reader(save(chromium, home, "arms", "csv").splitlines()))
    assert [row[0] for row in filtered[1:]] == read_column(chromium, "arms", 0)
    assert [row[1] for row in filtered[1:]] == sorted(row[1] for row in filtered[1:])


def test_a_table_comes_down_as_latex(chromium, page, home):
    show(chromium, page)
    text = save(chromium, home, "table-IV", "tex")
    assert text.startswith("\\begin{tabular}{")
    assert text.rstrip().endswith("\\end{tabular}")
    assert "p (Holm)" in text
    assert "95\\% interval" in text
    widths = {line.replace("\\&", "").count("&") for line in text.splitlines() if line.endswith("\\\\")}
    assert len(widths) == 1
    arms = save(chromium, home, "arms", "tex")
    assert "$<$0.001" in arms
    failures = save(chromium, home, "failures", "tex")
    assert not re.search(r"(?<!\\)[&#$%](?! )", re.sub(r"\$[<>|]\$| & ", "", failures))


def test_the_methods_can_be_selected_at_once(chromium, page):
    show(chromium, page)
    click(chromium, "[data-select=paste]")
    selected = chromium.execute_script("return getSelection().toString()")
    assert selected.startswith("Source of data and participants.")
    assert "[state: funding, and conflicts of interest]." in selected


def test_it_prints_on_a_reasonable_number_of_sheets(chromium, page, home):
    import base64

    show(chromium, page, scheme="dark")
    found = chromium.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": False})
    pdf = base64.b64decode(found["data"])
    (home / "page.pdf").write_bytes(pdf)
    assert pdf.startswith(b"%PDF")
    assert 5 < len(re.findall(rb"/Type\s*/Page\b", pdf)) < 30
