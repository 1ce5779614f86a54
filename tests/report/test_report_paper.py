"""The paper: macros that are defined and valid, chapters that are whole, and a PDF that is the same twice."""

from __future__ import annotations

import os
import re
import shutil
import zlib
from dataclasses import replace

import pytest

from ablate import registry
from ablate.report import macros, style
from ablate.report.paper import chapter, compile_pdf

LATEX = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed, so main.pdf is not made"
)


def test_macros_are_valid_and_every_one_used_is_defined(written):
    defined = re.findall(r"^\\newcommand\{\\(.+?)\}\{", read(written, "macros.tex"), re.MULTILINE)
    assert len(defined) == len(set(defined))
    assert all(re.fullmatch("[A-Za-z]+", name) for name in defined)
    wanted = ("PoneEstimate", "MemoryInterval", "PfourBCorrectedP", "Answer")
    assert {f"Small{name}" for name in wanted} <= set(defined)
    used = set(re.findall(r"\\([A-Z][a-z]\w+)", read(written, "supplement.tex")))
    assert used <= set(defined)
    assert {"SmallAnswer", "SmallMemorySentence"} <= used
    assert r"\PaperWidth" in read(written, "main.tex")
    assert defined[0] == "PaperWidth"


def test_macro_names_that_would_collide_are_told_apart(written):
    story = written.results.story
    first = story.findings[0]
    twice = replace(story, findings=(replace(first, id="a-b"), replace(first, id="aB")))
    names = macros.names(twice)
    assert len(set(names.values())) == len(names)
    assert set(names.values()) <= set(macros.make(twice))


def test_the_chapter_includes_each_figure_and_table_once(written):
    source = read(written, "supplement.tex")
    for kind, suffix in (("figures", "pdf"), ("tables", "tex")):
        for path in sorted((written.paper / kind / "small").glob(f"*.{suffix}")):
            assert source.count(f"{kind}/small/{path.name}") == 1
    main = read(written, "main.tex")
    for line in (r"\pdfinfoomitdate=1", r"\pdftrailerid{}", r"\pdfsuppressptexinfo=-1"):
        assert line in main
    assert r"\input{supplement.tex}" in main


def test_the_chapter_is_balanced(written):
    source = re.sub(r"\\[{}]", "", read(written, "supplement.tex"))
    assert source.count("{") == source.count("}")
    opened: list[str] = []
    for how, name in re.findall(r"\\(begin|end)\{(\w+)\}", source):
        if how == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert opened == []


def test_a_chapter_on_presets_does_not_say_that_they_are_matched(written):
    story = written.results.story
    compared = replace(story, factors=(("preset", "bc, dt"), *story.factors))
    plain, presets = (chapter(one, figures=(), tables=()) for one in (story, compared))
    assert "same number of parameters" in plain
    assert "same number of parameters" not in presets
    assert "parameters, updates and supervised targets per update are each preset's own" in presets


def test_user_text_is_escaped_everywhere(written):
    assert r"50 \% of it \& the rest\_of \{this\}?" in read(written, "supplement.tex")


def test_figures_are_vector_graphics_with_truetype_fonts(written):
    content = (written.paper / "figures/small/lines.pdf").read_bytes()
    assert b"/FontFile2" in content
    assert b"/Subtype /Type3" not in content
    assert b"/CreationDate" not in content


def test_the_last_digits_of_another_processor_make_no_difference_to_a_figure(written):
    table = written.results.table
    other = written.changed(
        table=table.assign(**{"rollout.score": table["rollout.score"] * (1 + 1e-12)})
    )
    for name in ("lines", "variance"):
        with style.paper_style():
            draw = registry.get("figure", name)
            first, second = (style.files(draw(one.results).figure) for one in (written, other))
        assert first == second


@LATEX
def test_the_pdf_is_the_same_twice(written):
    first, second = compile_pdf(written.paper), compile_pdf(written.paper)
    assert first.problem == ""
    assert first.pdf == second.pdf
    assert b"/CreationDate" not in _unpacked(first.pdf)


@LATEX
def test_a_paper_that_does_not_compile_is_told_in_one_line(tmp_path):
    source = "\\documentclass{article}\\begin{document}\\nosuchthing\\end{document}"
    (tmp_path / "main.tex").write_text(source)
    made = compile_pdf(tmp_path)
    assert made.pdf is None
    assert made.problem == "pdflatex failed: Undefined control sequence."


@LATEX
def test_a_pdf_that_is_newer_than_its_sources_is_kept(written, tmp_path):
    again = written.copy(tmp_path)
    assert again.paper / "main.pdf" in again.write().changed
    assert again.write().changed == ()
    (again.paper / "main.tex").write_text(read(written, "main.tex").replace("What", "All that"))
    assert again.write().changed == (again.paper / "main.pdf",)
    assert again.check() == []


def test_without_latex_the_report_is_whole_and_says_so(written, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    again = written.copy(tmp_path)
    assert "main.tex is complete without it" in again.write().notes[0]
    assert not (again.paper / "main.pdf").exists()
    assert again.check() == []


def test_without_latex_a_pdf_that_lies_there_stays(written, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    again = written.copy(tmp_path)
    pdf = again.paper / "main.pdf"
    pdf.write_bytes(b"%PDF")
    os.utime(pdf, (0, 0))
    report = again.write()
    assert "the one that lies there is older than its sources" in report.notes[0]
    assert pdf.read_bytes() == b"%PDF"
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
