"""The site of docs/ has every page in the order of the index, refuses links that lead nowhere, and asks no network."""

from __future__ import annotations

import functools
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import browser
import pytest
import yaml
from tiny_study import ROOT

SETTINGS = ROOT / "mkdocs.yml"


def build(settings: Path, site: Path) -> None:
    """What `mkdocs build` does, which is strict by the settings; Abort where anything is refused."""
    load = pytest.importorskip("mkdocs.config", reason="MkDocs isn't installed").load_config
    pytest.importorskip("material", reason="the theme of the site isn't installed")
    from mkdocs.commands.build import build

    config = load(str(settings), site_dir=str(site))
    config.plugins.on_startup(command="build", dirty=False)
    build(config)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build(SETTINGS, folder)
    return folder


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository of one page, which links to a file, a folder and a text beside docs/."""
    for name in ("docs", "parts"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "docs" / "hooks.py", tmp_path / "docs")
    (tmp_path / "mkdocs.yml").write_text(SETTINGS.read_text("utf-8").split("\nnav:")[0], "utf-8")
    (tmp_path / "parts" / "one.py").write_text('"""`~~~` and [a link](nowhere.md)."""\n')
    (tmp_path / "NOTES.md").write_text("# Notes\n\n[back](docs/README.md#part)\n")
    links = "[one](../parts/one.py), [all](../parts), [notes](../NOTES.md#notes)"
    (tmp_path / "docs" / "README.md").write_text(f"# Pages\n\n{links}\n\n## Part\n")
    return tmp_path


def test_the_navigation_is_in_the_order_of_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8").split("\n## ")[0]
    links = dict.fromkeys(re.findall(r"\]\(([^)#]+)\)", index))
    nav = [next(iter(entry.values())) for entry in yaml.safe_load(SETTINGS.read_text())["nav"]]
    beside = [name.removeprefix("source/") for name in nav if name.startswith("source/")]
    named = [f"../{name}" if (ROOT / name).exists() else f"../{name[:-3]}" for name in beside]
    inside = iter(named)
    assert nav[0] == "README.md"
    assert list(links) == [next(inside) if one.startswith("source/") else one for one in nav[1:]]


def test_what_pages_link_to_beside_docs_is_part_of_the_site(clone: Path) -> None:
    build(clone / "mkdocs.yml", clone / "site")
    page = (clone / "site" / "index.html").read_text("utf-8")
    for link in ("parts/one.py.html", "parts/index.html", "NOTES.html#notes"):
        assert f'href="source/{link}"' in page
        assert (clone / "site" / "source" / link.partition("#")[0]).is_file()
    notes = (clone / "site" / "source" / "NOTES.html").read_text("utf-8")
    assert 'href="../index.html#part"' in notes


@pytest.mark.parametrize(
    "link", ["nowhere.md", "../parts/two.py", "#nowhere", "../NOTES.md#nowhere", "/README.md"]
)
def test_a_link_that_leads_nowhere_is_refused(
    link: str, clone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (clone / "docs" / "README.md").open("a") as page:
        page.write(f"\n[wrong]({link})\n")
    with pytest.raises(SystemExit):
        build(clone / "mkdocs.yml", clone / "site")
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert link.removeprefix("../") in said


def test_a_page_that_is_not_in_the_navigation_is_refused(clone: Path) -> None:
    (clone / "docs" / "more.md").write_text("# More\n")
    with (clone / "mkdocs.yml").open("a") as settings:
        settings.write("\nnav: [README.md]\n")
    with pytest.raises(SystemExit):
        build(clone / "mkdocs.yml", clone / "site")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def home(site: Path) -> Iterator[str]:
    """Where a server of this machine shows the site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(browser.program() is None, reason="no Chromium opens the site")
def test_it_asks_no_network_and_finds_what_is_searched(home: str, tmp_path: Path) -> None:
    with browser.Browser(tmp_path) as page:
        page.visit(home)
        page.wait("document.querySelectorAll('.md-nav--primary .md-nav__link').length > 15")
        page.click(".md-search__input")
        page.send("Input.insertText", text="replications")
        page.wait("document.querySelectorAll('.md-search-result__link').length > 2")
        found = page.run(
            "[...document.querySelectorAll('.md-search-result__link')].map(a => a.href)"
        )
        assert any("studies.html" in link for link in found)
        assert not any("/source/" in link for link in found)
        assert page.errors == []
