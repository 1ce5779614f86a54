"""What the site adds to docs/: each file and folder of the repository that a page links to, as a page of its own.

So a link such as `../examples/ema.py` is right on a forge and in the site, which needs no repository. A link that leads
nowhere stays as it is, and MkDocs refuses it.
"""

import re
from pathlib import Path
from posixpath import dirname, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
LANGUAGES = {".py": "python", ".yaml": "yaml"}
_LINK = re.compile(r"(?<=\]\()[^)#\s]+(?=[)#])")
_origins: dict[str, Path] = {}  # by the place of a page in the site, the Markdown file that it is


def place(path: Path) -> str:
    """Where the page of a file or a folder lies, as MkDocs names its sources."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    inside = "source" / path.relative_to(ROOT)
    if path.is_dir():
        return (inside / "index.md").as_posix()
    return inside.as_posix() + ("" if path.suffix == ".md" else ".md")


def linked(origin: Path, text: str) -> list[Path]:
    """What a page links to that is there."""
    found = ((origin.parent / link).resolve() for link in _LINK.findall(text))
    return [path for path in found if path.exists() and path.is_relative_to(ROOT)]


def content(path: Path) -> str:
    """The Markdown that shows a file, or lists a folder."""
    if path.suffix == ".md":
        return path.read_text("utf-8")
    head = f"---\nhide: [toc]\nsearch: {{exclude: true}}\n---\n# `{path.relative_to(ROOT).as_posix()}`\n\n"
    if path.is_dir():
        names = sorted(one.name for one in path.iterdir() if one.is_file())
        return head + "\n".join(
            f"* [{name}]({name}.md)" if Path(name).suffix in LANGUAGES else f"* {name}"
            for name in names
        )
    return f"{head}~~~~~~ {LANGUAGES.get(path.suffix, 'text')}\n{path.read_text('utf-8')}~~~~~~\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for everything outside docs/ that is linked to, directly or from such a page."""
    _origins.clear()
    waiting = []
    for file in files.documentation_pages():
        _origins[file.src_uri] = Path(str(file.abs_src_path))
        waiting += linked(_origins[file.src_uri], file.content_string)
    while waiting:
        path = waiting.pop()
        uri = place(path)
        if files.get_file_from_path(uri) is not None:
            continue
        text = content(path)
        files.append(File.generated(config, uri, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
        if path.is_dir():
            waiting += [one for one in path.iterdir() if one.suffix in LANGUAGES]
        elif path.suffix == ".md":
            _origins[uri] = path
            waiting += linked(path, text)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where their targets lie in the site."""
    origin = _origins.get(page.file.src_uri)
    if origin is None:
        return markdown

    def moved(link: re.Match[str]) -> str:
        targets = linked(origin, f"]({link[0]})")
        return relpath(place(targets[0]), dirname(page.file.src_uri)) if targets else link[0]

    return _LINK.sub(moved, markdown)
