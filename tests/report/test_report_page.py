"""The HTML page: well formed, self-contained, usable from the keyboard."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
import report_samples as samples

from ablate.report import page as page_of_results
from ablate.report.page import audit_row, trial_columns
from ablate.report.provenance import spans
from ablate.report.provenance import trials as behind

VOID = {"meta", "img", "input", "br", "link", "hr"}


class Page(HTMLParser):
    """Collects elements and refuses what is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


@pytest.fixture(scope="module")
def page(written) -> Page:
    parser = Page()
    parser.feed((written.folder / "report.html").read_text())
    parser.close()
    return parser


def test_it_is_well_formed_and_needs_no_network(page, written):
    assert page.open == []
    text = (written.folder / "report.html").read_text()
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "data"):
            value = attributes.get(name) or ""
            assert not re.match(r"(https?:)?//", value)
    assert "@import" not in text
    assert not re.search(r"url\((?!%23)", text)  # only parts of the same picture
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in page.elements}


def test_every_id_is_unique_and_every_link_inside_leads_somewhere(page):
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        if tag == "a" and (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in ids


def test_headers_sort_by_buttons_and_images_say_what_they_show(page):
    buttons = [a for tag, a in page.elements if tag == "button" and "data-column" in a]
    assert len(buttons) > 8
    assert all(a.get("alt") for tag, a in page.elements if tag == "img")


def test_all_trials_are_in_it(page, written):
    data = json.loads(next(s for s in page.scripts if s.strip().startswith("{")))
    assert data["rows"] == len(written.results.table)
    columns = {column["name"]: column for column in data["columns"]}
    assert columns["trial"]["values"] == written.results.table["trial"].tolist()
    mixers = columns["mixer"]
    assert [mixers["levels"][code] for code in mixers["codes"]] == written.results.table[
        "mixer"
    ].tolist()
    assert data["left"] == 0


def test_a_long_table_is_cut_and_the_page_says_so(written, tmp_path, no_figures, monkeypatch):
    monkeypatch.setattr(page_of_results, "_MOST_ROWS", 7)
    again = written.copy(tmp_path)
    again.write(pdf=False)
    parser = Page()
    parser.feed((again.folder / "report.html").read_text())
    data = json.loads(next(s for s in parser.scripts if s.strip().startswith("{")))
    assert (data["rows"], data["left"]) == (7, len(written.results.table) - 7)
    assert any("on this page, the first of" in script for script in parser.scripts)


def test_what_is_behind_a_figure_is_what_the_manifest_says(page, written):
    data = json.loads(next(s for s in page.scripts if s.strip().startswith("{")))
    trials = written.results.table["trial"].tolist()
    manifest = json.loads((written.paper / "manifest.json").read_text())
    entry = manifest["studies"]["small"]
    for name in ("lines", "forest", "variance"):
        ends = data["groups"][f"figure {name}"]
        pairs = zip(ends[::2], ends[1::2], strict=True)
        shown = {trials[row] for first, last in pairs for row in range(first, last + 1)}
        assert shown == set(behind(entry, entry["shown"][f"figures/small/{name}"]["trials"]))
    assert {f"verdict {f.id}" for f in written.results.findings} <= set(data["groups"])


def test_spans():
    assert spans([5, 3, 4, 9, 4]) == [3, 5, 9, 9]
    assert spans([]) == []


def test_what_a_trial_says_cannot_leave_its_script(written, tmp_path, no_figures):
    again = written.copy(tmp_path)
    table = again.results.table.copy()
    table.loc[table["status"] == "FAILED", "failure"] = (
        "</script><img src=x onerror=alert(1)> & <b>"
    )
    again.changed(table=table).write(pdf=False)
    text = (again.folder / "report.html").read_text()
    assert "</script><img" not in text
    parser = Page()
    parser.feed(text)
    assert parser.open == []


def test_verdicts_are_said_in_words(written):
    text = (written.folder / "report.html").read_text()
    for finding in written.results.findings:
        assert f'<span class="word">{finding.verdict}</span>' in text


def test_empty_columns_are_left_out_and_numbers_short(written):
    table = written.results.table.assign(**{"rollout.jerk": float("nan")})
    columns = {column["name"]: column for column in trial_columns(table)}
    assert "rollout.jerk" not in columns
    score = columns["rollout.score"]["values"]
    assert len(str(score[0])) <= 6
    assert score[4] is None
    assert columns["data"]["filter"]
    assert columns["context"]["filter"]
    assert not columns["seed"]["filter"]


def test_the_audit_says_what_was_seen():
    rows = [audit_row(record) for record in samples.audits()]
    mlp = next(row for row in rows if row["mixer"] == "MLP" and row["context"] == 20)
    assert not mlp["passed"]
    assert "observation 0 to 19" in mlp["seen"]
    assert "return-to-go -1 to 19" in mlp["seen"]
