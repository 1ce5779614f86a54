"""The report as a whole: the same bytes twice, staleness found, refusals in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import report_samples as samples

from ablate.errors import UserError
from ablate.report import figures
from ablate.report.write import check, printed, write_report
from ablate.study.load import load


def contents(*folders: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_part_is_written(written):
    names = set(contents(written.paper))
    for name in ("forest", "lines", "learning_curves", "variance", "receptive_fields"):
        assert {f"figures/{name}.{kind}" for kind in ("pdf", "png", "json")} <= names
    for name in ("verdicts", "scores", "matching", "failures"):
        assert {f"tables/{name}.tex", f"tables/{name}.json"} <= names
    assert {"macros.tex", "macros.json", "main.tex", "main.json", "manifest.json"} <= names
    assert (written.folder / "report.html").stat().st_size < 3e6


def test_the_same_bytes_twice(written, tmp_path, drawn_once, monkeypatch):
    monkeypatch.setattr(figures, "draw", drawn_once)
    again = written.copy(tmp_path)
    shutil.rmtree(again.paper)
    (again.folder / "report.html").unlink()
    again.write(pdf=False)
    assert contents(again.folder, again.paper) == contents(written.folder, written.paper)
    monkeypatch.undo()
    assert again.write(pdf=False).changed == ()


def test_check_finds_nothing_and_then_what_was_done(written, tmp_path):
    again = written.copy(tmp_path)
    assert again.check() == []
    (again.paper / "tables/verdicts.tex").write_text("by hand")
    (again.paper / "figures/lines.png").unlink()
    (again.paper / "figures/mine.png").write_bytes(b"")
    page = again.folder / "report.html"
    page.write_text(page.read_text().replace("Answer", "Reply"))
    found = again.check()
    assert len(found) == 4
    for name, what in (
        ("verdicts.tex", "stale"),
        ("lines.png", "missing"),
        ("mine.png", "extra"),
        ("report.html", "stale"),
    ):
        assert any(name in line and what in line for line in found)


def test_check_sees_a_changed_result(written, tmp_path, no_figures):
    again = written.copy(tmp_path)
    again.table = again.table.copy()
    again.table["rollout.score"] += 0.5
    found = again.check()
    for name in ("tables/scores.tex", "tables/scores.json", "manifest.json", "report.html"):
        assert any(f"{name}: stale" in line for line in found)


def test_check_sees_a_pdf_of_other_sources(written, tmp_path):
    again = written.copy(tmp_path)
    (again.paper / "main.pdf").write_bytes(b"%PDF by hand")
    assert again.check() == [
        f"{again.paper / 'main.pdf'}: stale, not the file that the report wrote"
    ]
    assert (again.paper / "main.pdf").exists()


def test_files_of_an_earlier_report_are_removed_but_not_a_person_s(written, tmp_path):
    again = written.copy(tmp_path)
    (again.paper / "figures/mine.png").write_bytes(b"")
    again.curves = None
    report = again.write(pdf=False)
    gone = {path.name for path in report.removed}
    assert gone == {f"learning_curves.{kind}" for kind in ("pdf", "png", "json")}
    assert (again.paper / "figures/mine.png").exists()
    assert "learning_curves" not in (again.paper / "main.tex").read_text()


def test_sidecars_name_the_trials_and_the_hash_of_each_row(written):
    sidecar = json.loads((written.paper / "figures/lines.json").read_text())
    assert sidecar["study_hash"] == samples.registration(written.study)["study_hash"]
    assert set(sidecar["trials"]) <= set(written.table["trial"])
    assert all(len(digest) == 16 for digest in sidecar["trials"].values())
    assert sidecar["packages"]["matplotlib"]
    assert sidecar["script"] == "ablate/report/figures/lines.py"


def test_the_printed_text_says_what_a_newcomer_needs(written):
    text = printed(written.report)
    assert text.index("Answer:") < text.index("Hypotheses") < text.index("Files:")
    for finding in written.report.story.findings:
        line = next(line for line in text.splitlines() if line[2:].startswith(f"{finding.id} "))
        assert finding.verdict in line
        assert "failed" in line
    assert "1 trial failed" in text
    assert str(written.folder / "report.html") in text
    assert "nan" not in text


def test_another_profile_is_said_prominently(written, tmp_path, no_figures):
    study = load(samples.write_study(tmp_path), "quick")
    table = samples.table(study)
    folder, paper = tmp_path / "results", tmp_path / "paper"
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps(samples.registration(study)))
    report = write_report(study, "quick", table, None, [], folder, paper, pdf=False)
    assert "demonstration at reduced scale" in printed(report)
    assert "demonstration at reduced scale" in (paper / "macros.tex").read_text()
    assert r"\fbox" in (paper / "main.tex").read_text()
    assert "receptive_fields.pdf" not in {path.name for path in report.written}


def test_hypotheses_changed_after_the_first_run_are_exploratory(written, tmp_path, no_figures):
    again = written.copy(tmp_path)
    registration = samples.registration(again.study) | {"hypotheses_hash": "other"}
    (again.folder / "study.json").write_text(json.dumps(registration))
    report = again.write(pdf=False)
    assert {finding.standing for finding in report.story.findings} == {"exploratory"}
    assert "exploratory" in printed(report)


def test_a_table_from_elsewhere_is_reported_by_its_levels(written, tmp_path, no_figures):
    table = written.table.drop(columns=["trial", "status", "failure", "parameters"])
    table = table[table["rollout.score"].notna()]
    report = write_report(
        written.study, None, table, None, [], tmp_path, tmp_path / "paper", foreign=True, pdf=False
    )
    assert report.story.foreign
    assert not report.story.confirmatory
    assert "not written by this toolkit" in (tmp_path / "paper/main.tex").read_text()


@pytest.mark.parametrize("case", ["empty", "unfinished", "other study"])
def test_nothing_to_report_is_one_line_with_the_command(written, tmp_path, case):
    again = written.copy(tmp_path)
    table = again.table.copy()
    if case == "empty":
        table = table.iloc[:0]
    elif case == "unfinished":
        table["status"] = "FAILED"
    else:
        table["trial"] = [f"{n:012x}" for n in range(len(table))]
    again.table = table
    before = contents(again.paper)
    for act in (again.write, again.check):
        with pytest.raises(UserError) as refusal:
            act()
        line = str(refusal.value)
        assert "\n" not in line
        assert "python -m ablate run studies/small.yaml --profile standard" in line
    assert contents(again.paper) == before


def test_a_broken_study_json_and_a_wrong_profile_are_refused(written, tmp_path):
    again = written.copy(tmp_path)
    with pytest.raises(UserError, match="loaded at profile 'standard', not 'quick'"):
        check(again.study, "quick", again.table, None, [], again.folder, again.paper)
    (again.folder / "study.json").write_text("{")
    with pytest.raises(UserError, match=r"study\.json: not JSON"):
        again.check()


def test_a_place_that_cannot_be_written_is_refused(written, tmp_path):
    again = written.copy(tmp_path)
    shutil.rmtree(again.paper)
    again.paper.write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        again.write(pdf=False)


def test_thousands_of_trials_stay_below_the_size_of_the_page(written):
    from ablate.report.page import trial_columns

    many = pd.concat([written.table] * 40, ignore_index=True).head(3000)
    assert len(json.dumps(trial_columns(many))) < 4e5
