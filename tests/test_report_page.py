"""The report in a browser: it loads alone, sorts, switches, fits a phone, and prints whole."""

import shutil
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from acn_cl import metrics
from acn_cl.reports import make_report
from acn_cl.reports.words import mean_std
from acn_cl.runs.load import load_runs
from acn_cl.stats import summarise

synthetic = SimpleNamespace(**run_path(str(Path(__file__).with_name("synthetic_runs.py"))))

EVIL = "<script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    more = synthetic.measured()
    more["extra"]["comparisons"] = [
        {"axis": "backbone.name", "values": ["ac_mixer", "res_mixer"], "primary": True},
        {"experiments": ["ac_mixer-si", "res_mixer-naive"], "measure": "effective_depth"},
    ]
    folder = synthetic.write_grid(tmp_path_factory.mktemp("runs"), **more)
    axes = {"backbone.name": EVIL, "strategy.name": "si"}
    synthetic.write_run(folder, "evil", 0, axes=axes, answers=synthetic.answers(0))
    synthetic.write_run(folder, "evil", 1, axes=axes, state="failed", error=EVIL)
    return folder


@pytest.fixture(scope="module")
def report(store, tmp_path_factory):
    """Everything that a report can have, but for noise and published numbers."""
    theirs = tmp_path_factory.mktemp("theirs") / f"{EVIL.replace('/', '')}.csv"
    theirs.write_text("90,,,\n70,91,,\n60,70,88,\n50,60,70,90\n")
    return make_report([store, theirs], tmp_path_factory.mktemp("out"), equivalence=2.0)


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["desktop", "phone"])
def page(browser, report, request):
    """The report opened; what it complains of, or asks the network for, fails the test."""
    width, scheme = request.param
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: complaints.append(request.url) if request.url != report.as_uri() else None)
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert complaints == []


def column(page, table, position):
    """The visible text of one column."""
    script = (
        "([table, i]) => [...document.querySelector(table).tBodies[0].rows].map((r) => r.cells[i].innerText.trim())"
    )
    return page.evaluate(script, [table, position])


def test_nothing_is_wider_than_the_window(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_names_are_text(page):
    assert page.title().startswith("Forgetting report")
    assert EVIL in page.inner_text("#summary")
    assert EVIL in page.inner_text("#missing")


def test_tables_sort_by_number_and_back(page):
    head = page.locator("#summary th button").nth(2)
    head.click()
    up = column(page, "#summary table", 2)
    assert [float(text.split()[0]) for text in up] == sorted(float(text.split()[0]) for text in up)
    head.click()
    assert column(page, "#summary table", 2) == up[::-1]
    assert page.locator("#summary th").nth(2).get_attribute("aria-sort") == "descending"


def test_the_picker_changes_the_numbers(page, store):
    runs = load_runs(store)
    R = [run.by_depth[..., -1] for run in runs.finished("res_mixer-naive")]
    page.locator("#summary th button").first.click()  # by name
    for dialect in metrics.DIALECTS:
        page.select_option("select[name=dialect]", dialect)
        shown = dict(zip(column(page, "#summary table", 0), column(page, "#summary table", 3), strict=True))
        assert shown["res_mixer · naive"] == mean_std(
            summarise([100 * metrics.average_forgetting(r, dialect) for r in R])
        )
        visible = page.locator(".picker p:visible").all_inner_texts()
        assert len(visible) == 1 and visible[0].startswith(dialect)


def test_the_picker_changes_the_verdicts(page):
    page.select_option("select[name=measure]", "average_forgetting")
    page.locator("#findings details.more > summary").first.click()
    assert "forgets" in page.inner_text("#findings details.more")
    page.select_option("select[name=measure]", "average_accuracy")
    said = page.inner_text("#findings details.more")
    assert "more accurate than" in said and "forgets" not in said


def test_declared_comparisons_stay_whatever_is_chosen(page):
    said = page.inner_text("#findings")
    assert "Declared by the recipe synthetic" in said
    page.select_option("select[name=measure]", "learning_accuracy")
    page.select_option("select[name=dialect]", "max-all")
    assert "Forgetting, from-learned · naive:" in page.inner_text("#findings")
    assert not page.locator("#findings details.more p").first.is_visible()
    page.locator("#findings details.more > summary").first.click()
    assert page.locator("#findings details.more p").first.is_visible()


def test_the_cost_table_sorts(page):
    head = page.locator("#cost th button").nth(1)
    head.click()
    assert page.locator("#cost th").nth(1).get_attribute("aria-sort") == "ascending"
    assert column(page, "#cost table", 1)[-1] == "–"  # imported: not known, so last


def test_the_difference_map_subtracts_what_is_chosen(page):
    page.select_option(".difference select[name=a]", "res_mixer-si")
    page.select_option(".difference select[name=b]", "res_mixer-si")
    cells = page.locator("#difference td").all_inner_texts()
    assert {text for text in cells if text} == {"0"}
    page.select_option(".difference select[name=b]", "evil")
    assert {text for text in page.locator("#difference td").all_inner_texts() if text} != {"0"}


def test_no_text_of_a_figure_is_outside_it(page):
    outside = page.evaluate(
        """() => [...document.querySelectorAll(".drawing svg")]
          .filter((svg) => svg.checkVisibility()).flatMap((svg) => {
          const out = svg.getBoundingClientRect();
          return [...svg.querySelectorAll("text")].filter((text) => {
            const own = text.getBoundingClientRect();
            const room = [own.left - out.left, out.right - own.right, own.top - out.top, out.bottom - own.bottom];
            return Math.min(...room) < -8; // the reader's font may be wider than matplotlib's
          }).map((text) => text.textContent);
        })"""
    )
    assert outside == []


def test_it_prints_to_pdf_with_every_fold_open(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every((fold) => fold.open)")
    tables = page.locator("table:visible").evaluate_all(
        "(all) => all.map((table) => [table.innerText, table.scrollWidth])"
    )
    assert [text[:100] for text, width in tables if width > 718] == []
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()
