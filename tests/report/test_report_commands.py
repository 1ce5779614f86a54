"""From `run` to the report's files: which studies a report is about, and what a clone keeps of them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_study import ROOT, TEXT, Tiny

from ablate import registry
from ablate.report.paper import skeleton

PROFILES = (
    TEXT.replace(
        "evaluate: {episodes: 2, points: 3}", "measure: {rollout: {episodes: 2}, held-out: {}}"
    )
    + "profiles: {quick: {seeds: 2}, standard: {}}\n"
)


@pytest.fixture
def clone(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """The tiny study in a repository that has our .gitignore and the main.tex to start from."""
    monkeypatch.setenv("PATH", _without_latex())
    (tiny.folder / "studies").mkdir()
    tiny.file.rename(tiny.folder / "studies/tiny.yaml")
    (tiny.folder / "studies/tiny.yaml").write_text(PROFILES)
    shutil.copy(ROOT / ".gitignore", tiny.folder)
    (tiny.folder / "paper").mkdir()
    (tiny.folder / "paper/main.tex").write_text(skeleton())
    git(tiny.folder, "init", "--quiet")
    git(tiny.folder, "add", "--all")
    git(tiny.folder, "commit", "--quiet", "--message", "All that people wrote")
    return tiny


def _without_latex() -> str:
    program = shutil.which("git")
    if program is None:
        pytest.skip("git is not installed")
    return str(Path(program).parent)


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def command(clone: Tiny, *arguments: str) -> str:
    with registry.scope():  # as in a process of its own
        ended = clone.command(*arguments)
    assert ended.code == 0, ended.err + ended.out
    return ended.out


@pytest.fixture
def run(clone: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Run the study at its own profile or another; made once for each, then copied."""

    def once(*more: str) -> None:
        kept = tmp_path_factory.getbasetemp() / "-".join(("clone", *more))
        if not kept.exists():
            where = ("--launcher", "inline", "--results", str(kept))
            command(clone, "run", "studies/tiny.yaml", *where, *more)
        shutil.copytree(kept, clone.results, dirs_exist_ok=True)
        for path in kept.rglob("last.json"):
            (clone.results / path.relative_to(kept)).touch()  # it was run just now

    return once


def test_a_profile_is_run_and_reported_and_the_clone_stays_clean(clone, run):
    run("--profile", "quick")
    said = command(clone, "report")
    assert "Study tiny, profile quick" in said
    quick = clone.root / "quick"
    assert {path.name for path in clone.root.iterdir()} == {"quick"}
    for name in ("trials.csv", "report.html", "paper/supplement.tex", "paper/main.tex"):
        assert (quick / name).is_file()
    assert 'href="tiny/quick/report.html"' in (clone.results / "index.html").read_text()
    assert git(clone.folder, "status", "--porcelain") == ""
    assert command(clone, "report", "--check") == "Everything is as the results say.\n"


def test_tables_and_the_paper_are_all_that_a_study_adds_to_a_clone(clone, run):
    run()
    run("--profile", "quick")
    said = command(clone, "report")
    assert said.index("Study tiny, profile quick") < said.index("Study tiny: ")
    git(clone.folder, "add", "--all")
    tracked = git(clone.folder, "ls-files").split()
    kept = [Path(name) for name in tracked if name.startswith("results/")]
    assert {path.suffix for path in kept} <= {".csv", ".json"}
    assert {"results/tiny/trials.csv", "paper/macros.tex", "paper/manifest.json"} <= set(tracked)
    assert not any(name.startswith("results/tiny/quick") for name in tracked)
    git(clone.folder, "commit", "--quiet", "--message", "Results")
    other = clone.folder.parent / "another clone"
    git(clone.folder.parent, "clone", "--quiet", str(clone.folder), str(other))
    shutil.rmtree(clone.results)
    shutil.copytree(other / "results", clone.results)
    assert command(clone, "report", "--check") == "Everything is as the results say.\n"
    assert command(clone, "report").startswith("Study tiny: ")
    assert git(clone.folder, "status", "--porcelain") == ""
    main = clone.folder / "paper/main.tex"
    main.write_text(
        main.read_text().replace(r"\tableofcontents", "\\tableofcontents\nOf 12 trials")
    )
    ended = clone.command("report", "--check")
    assert ended.code == 1
    assert "main.tex:22: 12 is typed by hand" in ended.out


def test_results_without_a_study_file_are_told(clone, run):
    run()
    (clone.root / "last.json").unlink()
    (clone.folder / "studies/tiny.yaml").rename(clone.folder / "mine.yaml")
    line = clone.command("report").line
    assert "results/tiny: whose results are these? There is no studies/tiny.yaml" in line
    command(clone, "report", "mine.yaml")


def test_without_any_results_a_check_reads_the_paper(clone):
    assert "there are no results yet; run a study first" in clone.command("report").line
    assert command(clone, "report", "--check") == "Everything is as the results say.\n"
    (clone.folder / "paper/figures").mkdir()
    (clone.folder / "paper/figures/old.pdf").write_bytes(b"")
    assert "paper/figures/old.pdf: extra" in clone.command("report", "--check").out


OWN = """\
from ablate.registry import register
from ablate.report import style
from ablate.report.figures.base import Drawn


@register("figure", "own", order=5)
def draw(results):
    figure = style.new_figure(1.0)
    figure.subplots().plot([0, 1], [0, 1])
    return Drawn(figure, "Own", "Drawn by the study's own file.", tuple(results.rows["trial"]))
"""


def test_what_a_study_draws_by_its_own_file_is_in_its_part_of_the_paper_alone(clone, run):
    (clone.folder / "studies/own.py").write_text(OWN)
    text = PROFILES.replace("study: tiny", "study: own") + "code: own.py\n"
    (clone.folder / "studies/own.yaml").write_text(text)
    command(clone, "run", "studies/own.yaml", "--launcher", "inline")
    run()
    command(clone, "report")
    paper = clone.folder / "paper"
    assert (paper / "figures/own/own.pdf").is_file()
    assert not (paper / "figures/tiny/own.pdf").exists()
    assert "figures/own/own.pdf" in (paper / "supplement.tex").read_text()
    assert command(clone, "report", "--check") == "Everything is as the results say.\n"
    (clone.folder / "studies/own.py").write_text(OWN.replace("[0, 1], [0, 1]", "[0, 1], [1, 0]"))
    with registry.scope():
        assert "paper/figures/own/own.pdf: stale" in clone.command("report", "--check").out
