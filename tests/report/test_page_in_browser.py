"""The page as a person uses it, in a real browser: mouse, keyboard, narrow screens, no network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from PIL import Image

from ablate.report.provenance import trials

pytestmark = pytest.mark.skipif(
    browser.program() is None, reason="no Chromium is installed, so the page is not opened"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def opened(page: browser.Browser, written) -> browser.Browser:
    page.errors.clear()
    page.open(written.folder / "report.html")
    return page


def column(page: browser.Browser, name: str) -> list[str]:
    """The cells shown under a header."""
    return page.run(
        f"""(() => {{
          const heads = [...document.querySelectorAll("th button[data-column]")];
          const place = heads.findIndex(head => head.dataset.name === {json.dumps(name)});
          return [...document.querySelectorAll("#rows tr")].map(row => row.children[place].textContent);
        }})()"""
    )


def test_it_works_from_a_file_without_a_network_or_an_error(opened, written):
    assert opened.run("document.querySelectorAll('#rows tr').length") == len(written.results.table)
    assert opened.run("[...document.images].every(i => i.complete && i.naturalWidth > 300)")
    assert opened.errors == []


def test_the_table_sorts_by_keyboard_and_says_so(opened, written):
    scores = sorted(written.results.table["rollout.score"].dropna())
    button = 'button[data-name="rollout.score"]'
    opened.run(f"document.querySelector('th {button}').focus()")
    opened.press("Enter")
    shown = [float(cell) for cell in column(opened, "rollout.score") if cell]
    assert shown == pytest.approx(scores, rel=1e-3)
    opened.press(" ")
    shown = [float(cell) for cell in column(opened, "rollout.score") if cell]
    assert shown == pytest.approx(scores[::-1], rel=1e-3)
    assert column(opened, "rollout.score")[-1] == ""  # what has no score comes last either way
    sort = f"document.querySelector('th:has({button})').getAttribute('aria-sort')"
    assert opened.run(sort) == "descending"


def test_focus_can_be_seen_wherever_tab_leads(opened):
    opened.press("Tab")
    assert opened.run("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(60):
        opened.press("Tab")
        seen.add(opened.run("document.activeElement.tagName"))
        style = opened.run("getComputedStyle(document.activeElement).outlineStyle")
        assert style not in ("none", ""), opened.run("document.activeElement.outerHTML")
    assert {"A", "BUTTON", "SUMMARY"} <= seen


def test_filters_and_search_narrow_the_table(opened, written):
    opened.run(
        """(() => {
          const choice = document.querySelector("select[data-column=mixer]");
          choice.value = [...choice.options].find(o => o.text === "gru").value;
          choice.dispatchEvent(new Event("change"));
        })()"""
    )
    wanted = written.results.table[written.results.table["mixer"] == "gru"]
    assert set(column(opened, "mixer")) == {"gru"}
    assert len(column(opened, "trial")) == len(wanted)
    opened.run("document.getElementById('search').focus()")
    opened.send("Input.insertText", text="tmaze")
    some = wanted[wanted["data"].str.contains("tmaze")]
    assert set(column(opened, "trial")) == set(some["trial"])
    said = opened.run("document.getElementById('count').textContent")
    assert said.startswith(f"{len(some)} of {len(some)} matching")


@pytest.mark.parametrize("way", ["mouse on the figure", "keyboard on its button"])
def test_a_click_leads_from_a_figure_to_the_runs_behind_it(opened, written, way):
    if way.startswith("mouse"):
        opened.click("#figure-lines img")
    else:
        opened.run("document.querySelector('#figure-lines button').focus()")
        opened.press("Enter")
    entry = json.loads((written.paper / "manifest.json").read_text())["studies"]["small"]
    shown = trials(entry, entry["shown"]["figures/small/lines"]["trials"])
    assert set(column(opened, "trial")) == set(shown)
    assert len(shown) < len(written.results.table)
    assert opened.run("document.activeElement.id") == "trials"
    top = opened.run("document.getElementById('trials').getBoundingClientRect().top")
    assert -1 <= top < 400  # whole pixels are what a window scrolls by
    opened.click("#everything")
    assert len(column(opened, "trial")) == len(written.results.table)
    assert opened.run("document.getElementById('chip').hidden")


def test_a_verdict_leads_to_its_trials(opened, written):
    finding = next(f for f in written.results.findings if f.id == "memory")
    opened.click("[data-behind='verdict memory']")
    assert set(column(opened, "trial")) == set(finding.trials)


@pytest.mark.parametrize("width", [320, 375, 768])
def test_a_narrow_screen_scrolls_inside_tables_only(page, written, width):
    page.open(written.folder / "report.html", width, 800)
    page.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.run("document.documentElement.scrollWidth") <= width
    inside = page.run(
        "[...document.querySelectorAll('.scroll')].every(b => b.getBoundingClientRect().right <= innerWidth)"
    )
    assert inside
    assert page.run("getComputedStyle(document.querySelector('.scroll')).overflowX") == "auto"
    # Figures are seen whole, and larger on request.
    ends = "[...document.querySelectorAll('figure img')].map(i => i.getBoundingClientRect().right)"
    assert max(page.run(ends)) <= width
    if width <= 640:
        page.run("document.querySelectorAll('.larger input').forEach(box => box.click())")
        assert min(page.run(ends)) >= 640
        assert page.run("document.documentElement.scrollWidth") <= width


def test_words_have_contrast_in_light_and_in_dark(page, written, tmp_path):
    for dark in (False, True):
        page.open(written.folder / "report.html", dark=dark)
        pairs = page.run(COLOURS)
        assert min(contrast(front, back) for front, back in map(tuple, pairs)) >= 4.5
        page.picture(tmp_path / "page.png")
        corner = Image.open(tmp_path / "page.png").convert("L").getpixel((5, 5))
        assert (corner < 60) == dark


# [colour, colour behind it] of everything that is read.
COLOURS = r"""
[...document.querySelectorAll(
  "p, h1, h2, h3, dt, dd, td, th, a, summary, .word, li, label, button, figcaption"
)].filter(e => e.textContent.trim() && e.getClientRects().length).map(e => {
  const shade = x => getComputedStyle(x).backgroundColor;
  let under = e;
  while (under && /, 0\)$|transparent/.test(shade(under))) under = under.parentElement;
  return [getComputedStyle(e).color, under ? shade(under) : "rgb(255, 255, 255)"];
})"""


def contrast(front: str, back: str) -> float:
    """The contrast ratio of two CSS colours (WCAG 2.1)."""

    def luminance(colour: str) -> float:
        parts = [float(v) / 255 for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(front), luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_without_scripts_the_answer_and_the_figures_are_there(page, written: Path):
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(written.folder / "report.html")
        assert page.run("document.querySelector('noscript p, .answer') !== null")
        assert page.run("document.querySelector('#figure-forest button').hidden")
        assert page.run("document.getElementById('controls').hidden")
    finally:
        page.send("Emulation.setScriptExecutionDisabled", value=False)
