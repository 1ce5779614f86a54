"""The documentation quotes the examples as they are, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_study import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_quoted_verbatim_and_its_lines_are_counted(path: Path) -> None:
    page = (ROOT / "docs" / "extend.md").read_text("utf-8")
    text = path.read_text("utf-8")
    assert f"```python\n{text}```\n" in page
    row = next(line for line in page.splitlines() if line.startswith(f"| [{path.name}]"))
    assert int(row.split(" | ")[2]) == len(text.splitlines())


def test_nothing_else_is_quoted() -> None:
    page = (ROOT / "docs" / "extend.md").read_text("utf-8")
    kept = [*EXAMPLES, *(ROOT / "examples").glob("*.yaml")]
    files = {path.read_text("utf-8") for path in kept}
    assert set(re.findall(r"```(?:python|yaml)\n(.*?)```", page, re.DOTALL)) <= files


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_lines_are_short(page: Path) -> None:
    assert max(map(len, page.read_text("utf-8").splitlines())) <= 120


def test_the_readme_is_one_screen_before_its_first_heading_of_detail() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split("\n## ")[0].splitlines()) <= 40
