"""The documentation quotes the examples as they are, its links lead somewhere, and a newcomer finds every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from tiny_study import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]
NOTEBOOK = ROOT / "examples" / "ask_more.py"
ROLLOUTS = ROOT / "examples" / "long_rollouts.py"  # a program, and no part of one's own
EXAMPLES = sorted({*(ROOT / "examples").glob("*.py")} - {NOTEBOOK, ROLLOUTS})


def prose(page: Path) -> str:
    """A page without its blocks of code, in which a bracket is no link."""
    return re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """What a forge names the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


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
    for target in links(page):
        if target.startswith("https://"):
            continue
        place, _, anchor = target.partition("#")
        found = page.parent / place if place else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_every_page_and_every_example_stands_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    assert {*DOCS, *EXAMPLES, NOTEBOOK, ROLLOUTS} - {index} <= listed


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_lines_are_short(page: Path) -> None:
    assert max(map(len, page.read_text("utf-8").splitlines())) <= 120


def test_the_readme_is_one_screen_before_its_first_heading_of_detail() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split("\n## ")[0].splitlines()) <= 40


def test_files_for_other_programs_are_well_formed() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert cited["version"] == version[1]
    assert f"## {version[1]}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    assert [step.get("run") for step in workflow["jobs"]["ci"]["steps"]][-1] == ".ci/run"
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert [hook["id"] for hook in hooks[0]["hooks"]] == ["ruff", "ruff-format", "mypy"]
