"""The paper: macros that are defined and valid, and a PDF that is the same twice."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from dataclasses import replace

import pytest
import report_samples as samples

from ablate.report import macros
from ablate.report.paper import compile_pdf, source

LATEX = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed, so main.pdf is not made"
)


def test_macros_are_valid_and_every_one_used_is_defined(written):
    defined = re.findall(r"^\\newcommand\{\\(.+?)\}\{", read(written, "macros.tex"), re.MULTILINE)
    assert len(defined) == len(set(defined))
    assert all(re.fullmatch("[A-Za-z]+", name) for name in defined)
    assert {"PoneEstimate", "MemoryInterval", "PfourBCorrectedP", "StudyAnswer"} <= set(defined)
    used = set(re.findall(r"\\([A-Z][a-z]\w+)", read(written, "main.tex")))
    known = {"Large"}
    assert used - known <= set(defined)
    assert "StudyAnswer" in used
    assert "MemorySentence" in used


def test_macro_names_that_would_collide_are_told_apart(written):
    story = written.report.story
    first = story.findings[0]
    twice = replace(story, findings=(replace(first, id="a-b"), replace(first, id="aB")))
    names = macros.names(twice)
    assert len(set(names.values())) == len(names)
    assert set(names.values()) <= set(macros.make(twice))


def test_the_paper_includes_each_figure_and_table_once(written):
    source = read(written, "main.tex")
    for path in sorted((written.paper / "figures").glob("*.pdf")):
        assert source.count(f"figures/{path.name}") == 1
    for path in sorted((written.paper / "tables").glob("*.tex")):
        assert source.count(f"tables/{path.name}") == 1
    for line in (r"\pdfinfoomitdate=1", r"\pdftrailerid{}", r"\pdfsuppressptexinfo=-1"):
        assert line in source


def test_a_paper_on_presets_does_not_say_that_they_are_matched(written):
    story = written.report.story
    compared = replace(story, factors=(("preset", "bc, dt"), *story.factors))
    plain, presets = (source(one, figures=(), tables=()) for one in (story, compared))
    assert "same number of parameters" in plain
    assert "same number of parameters" not in presets
    assert "parameters, updates and supervised targets per update are each preset's own" in presets


def test_user_text_is_escaped_everywhere(written):
    assert r"50 \% of it \& the rest\_of \{this\}?" in read(written, "main.tex")


def test_figures_are_vector_graphics_with_truetype_fonts(written):
    content = (written.paper / "figures/lines.pdf").read_bytes()
    assert b"/FontFile2" in content
    assert b"/Subtype /Type3" not in content
    assert b"/CreationDate" not in content


@LATEX
def test_the_pdf_is_the_same_twice(written):
    files = {
        str(path.relative_to(written.paper)): path.read_bytes()
        for path in written.paper.rglob("*")
        if path.suffix in (".tex", ".pdf")
    }
    first, second = compile_pdf(files), compile_pdf(files)
    assert first.problem == ""
    assert first.pdf == second.pdf
    assert b"/CreationDate" not in _unpacked(first.pdf)


@LATEX
def test_a_paper_that_does_not_compile_is_told_in_one_line(written):
    files = {"main.tex": b"\\documentclass{article}\\begin{document}\\nosuchthing\\end{document}"}
    made = compile_pdf(files)
    assert made.pdf is None
    assert made.problem == "pdflatex failed: Undefined control sequence."


@LATEX
def test_a_pdf_of_the_same_sources_is_kept(written, tmp_path):
    again = written.copy(tmp_path)
    first = again.write()
    assert again.paper / "main.pdf" in first.changed
    assert again.write().changed == ()
    assert again.check() == []
    registration = samples.registration(again.study) | {"registered": "another day"}
    (again.folder / "study.json").write_text(json.dumps(registration))
    assert any("main.pdf: stale, compiled from other" in line for line in again.check())


def test_without_latex_the_report_is_whole_and_says_so(written, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    again = written.copy(tmp_path)
    report = again.write()
    assert "pdflatex is not installed" in report.notes[0]
    assert not (again.paper / "main.pdf").exists()
    assert again.check() == []


def read(written, name: str) -> str:
    return (written.paper / name).read_text()


def _unpacked(content: bytes) -> bytes:
    out = content
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", content, re.DOTALL):
        try:
            out += zlib.decompress(stream)
        except zlib.error:
            continue
    return out
