"""The report as a whole: the same bytes twice, staleness found, refusals in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import report_samples as samples

from ablate.errors import UserError
from ablate.report import figures, shared, universes
from ablate.report.provenance import trials
from ablate.report.results import Results
from ablate.report.write import check, printed, write_index, write_paper, write_report
from ablate.study.load import load


def contents(*folders: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def entry(paper: Path, study: str = "small") -> dict:
    return json.loads((paper / "manifest.json").read_text())["studies"][study]


def second(folder: Path, name: str) -> Results:
    """Results of a second, smaller study of that name."""
    path = folder / f"{name}.yaml"
    path.write_text(samples.STUDY.replace("study: small", f"study: {name}"), encoding="utf-8")
    study = load(path, "quick")
    return Results(
        study,
        samples.table(study),
        registration=samples.registration(study),
        folder=folder / "copy/results" / name,
    )


@pytest.fixture
def other(tmp_path: Path) -> Results:
    return second(tmp_path, "other")


def test_every_part_is_written(written):
    names = set(contents(written.paper))
    for name in ("forest", "lines", "learning_curves", "variance", "receptive_fields"):
        assert {f"figures/small/{name}.{kind}" for kind in ("pdf", "png")} <= names
    for name in ("verdicts", "scores", "matching", "failures"):
        assert f"tables/small/{name}.tex" in names
    shared = {name for name in names if "/" not in name}
    assert shared == {"macros.tex", "supplement.tex", "manifest.json", "main.tex"}
    assert contents(written.folder).keys() == {"report.html"}
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


def test_shared_figures_are_of_the_numbers_that_the_manifest_holds(written, monkeypatch):
    """Digits beyond it depend on the processor, and on whether the study was reported now or before."""
    drawn = []
    monkeypatch.setattr(universes, "draw", lambda entries, venue: drawn.append(entries) or {})
    paper = shared.read(written.paper)

    def nudged(content):
        if isinstance(content, dict):
            return {name: nudged(value) for name, value in content.items()}
        if isinstance(content, list):
            return [nudged(value) for value in content]
        return content * (1.0 + 1e-12) if isinstance(content, float) else content

    parts = {n: replace(part, entry=nudged(part.entry)) for n, part in paper.parts.items()}
    assert parts != paper.parts
    assert replace(paper, parts=parts).files() == paper.files()
    assert drawn[0] == drawn[1]


def test_check_finds_nothing_and_then_what_was_done(written, tmp_path):
    again = written.copy(tmp_path)
    assert again.check() == []
    (again.paper / "tables/small/verdicts.tex").write_text("by hand")
    (again.paper / "figures/small/lines.png").unlink()
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


def test_a_clone_without_pages_passes_its_check_and_draws_nothing(written, tmp_path, monkeypatch):
    again = written.copy(tmp_path)
    shutil.rmtree(again.folder)
    monkeypatch.setattr(figures, "draw", None)
    assert again.check() == []


def test_check_sees_a_changed_result(written, tmp_path, no_figures):
    again = written.copy(tmp_path)
    table = again.results.table.copy()
    table["rollout.score"] += 0.5
    found = again.changed(table=table).check()
    for name in ("tables/small/scores.tex", "manifest.json", "report.html"):
        assert any(f"{name}: stale" in line for line in found)


def test_check_passes_code_that_gives_the_same_bytes(written, tmp_path, monkeypatch):
    from ablate.report import provenance

    again = written.copy(tmp_path)
    monkeypatch.setattr(provenance, "code", lambda: "of another commit")
    monkeypatch.setattr(provenance, "packages", lambda: {"matplotlib": "another"})
    again.folder.joinpath("report.html").unlink()  # it says which packages made it
    assert [line for line in again.check() if "manifest" not in line] == []


def test_files_of_an_earlier_report_are_removed_but_not_a_person_s(written, tmp_path):
    again = written.copy(tmp_path)
    (again.paper / "figures/mine.png").write_bytes(b"")
    (again.paper / "main.tex").write_text("mine")
    (again.paper / "main.pdf").write_bytes(b"%PDF of somewhere with LaTeX")
    report = again.changed(curves=samples.curves(again.results.table).iloc[:0]).write(pdf=False)
    gone = {path.name for path in report.removed}
    assert gone == {f"learning_curves.{kind}" for kind in ("pdf", "png")}
    for name in ("figures/mine.png", "main.pdf"):
        assert (again.paper / name).exists()
    assert (again.paper / "main.tex").read_text() == "mine"
    assert "learning_curves" not in (again.paper / "supplement.tex").read_text()


def test_two_studies_share_a_paper_and_each_is_written_without_the_other(
    written, other, tmp_path, no_figures
):
    again = written.copy(tmp_path)
    before = contents(again.paper)
    write_report(other, again.paper, pdf=False)
    for file in ("macros.tex", "supplement.tex", "manifest.json"):
        text = (again.paper / file).read_text()
        assert "other" in text
        assert "small" in text
    assert (again.paper / "tables/other/verdicts.tex").exists()
    assert check([again.results, other], again.paper, whole=True) == []
    assert check([other], again.paper, whole=False) == []
    assert any("tables/other/verdicts.tex: extra" in line for line in again.check())
    report = write_paper([again.results, other], again.paper, pdf=False)
    assert report.changed == ()
    # One that is no longer among the results leaves the paper as it was before.
    gone = write_paper([again.results], again.paper, pdf=False)
    assert all("other" in path.parts for path in gone.removed)
    assert contents(again.paper) == before


def test_a_venue_is_that_of_all_studies(written, other, tmp_path, no_figures):
    again = written.copy(tmp_path)
    with pytest.raises(UserError, match="change all of them"):
        write_report(other, again.paper, "icml2024", pdf=False)
    write_paper([other], again.paper, "icml2024", pdf=False)
    assert r"\newcommand{\PaperWidth}{6.75in}" in (again.paper / "macros.tex").read_text()
    assert write_report(other, again.paper, pdf=False).paper.venue == "icml2024"


def test_two_studies_that_name_a_number_alike_are_refused(written, tmp_path, no_figures):
    again = written.copy(tmp_path)
    before = contents(again.paper)
    with pytest.raises(UserError, match=r"'Small' and 'small' both give \\SmallAlpha"):
        write_report(second(tmp_path, "Small"), again.paper, pdf=False)
    assert contents(again.paper) == before


def test_a_damaged_supplement_is_not_taken_over(written, other, tmp_path, no_figures):
    again = written.copy(tmp_path)
    supplement = again.paper / "supplement.tex"
    supplement.write_text(supplement.read_text().replace("Answer", "Reply"))
    with pytest.raises(UserError, match="chapter of 'small' isn't the one that was written"):
        write_report(other, again.paper, pdf=False)
    again.write(pdf=False)
    assert again.check() == []


def test_the_manifest_names_the_trials_and_the_hash_of_each_row(written):
    found = entry(written.paper)
    table = written.results.table
    assert found["study_hash"] == samples.registration(written.results.study)["study_hash"]
    assert [line.split(" ")[0] for line in found["rows"]] == table["trial"].tolist()
    assert all(len(line.split(" ")[1]) == 16 for line in found["rows"])
    assert found["packages"]["matplotlib"]
    lines = found["shown"]["figures/small/lines"]
    assert lines["script"] == "ablate/report/figures/lines.py"
    assert set(trials(found, lines["trials"])) <= set(table["trial"])
    finding = next(one for one in written.results.findings if one.id == "memory")
    number = found["numbers"]["SmallMemoryEstimate"]
    assert set(trials(found, number["trials"])) == set(finding.trials)
    assert finding.shown_estimate in number["value"]
    assert set(trials(found, found["numbers"]["SmallAnswer"]["trials"])) == set(table["trial"])


def test_the_printed_text_says_what_a_newcomer_needs(written):
    text = printed(written.report, written.results.story)
    assert text.index("Answer:") < text.index("Hypotheses") < text.index("Files:")
    for finding in written.results.findings:
        line = next(line for line in text.splitlines() if line[2:].startswith(f"{finding.id} "))
        assert finding.verdict in line
        assert "failed" in line
    assert "1 trial failed" in text
    assert str(written.folder / "report.html") in text
    assert "nan" not in text
    assert printed(written.report).startswith("Study small: Memory: yes")


def test_the_list_of_studies_leads_to_every_page(written, other, tmp_path, no_figures):
    again = written.copy(tmp_path)
    quick = replace(other, profile="quick", folder=again.folder.parent / "other/quick")
    write_report(quick, quick.folder / "paper", pdf=False)
    index = write_index(again.folder.parent, again.paper).read_text()
    for address in ("small/report.html", "other/quick/report.html"):
        assert f'href="{address}"' in index
    assert "profile quick" in index
    assert "data:image/png" not in index  # without claims there is no figure of them
    for finding in written.results.findings:
        assert (finding.shown_interval in index) == (finding.primary and finding.tested)
    assert write_index(tmp_path / "none", tmp_path) is None


def test_another_profile_is_said_prominently(other, tmp_path, no_figures):
    paper = tmp_path / "paper"
    report = write_report(other, paper, pdf=False)
    assert "demonstration at reduced scale" in " ".join(printed(report, other.story).split())
    assert "demonstration at reduced scale" in (paper / "macros.tex").read_text()
    assert r"\fbox" in (paper / "supplement.tex").read_text()
    assert "receptive_fields.pdf" not in {path.name for path in report.written}


def test_hypotheses_changed_after_the_first_run_are_exploratory(written, tmp_path, no_figures):
    registration = samples.registration(written.results.study) | {"hypotheses": {}}
    again = written.copy(tmp_path).changed(registration=registration)
    report = again.write(pdf=False)
    assert {finding.standing for finding in again.results.findings} == {"exploratory"}
    assert "exploratory" in printed(report, again.results.story)


def test_one_late_hypothesis_leaves_the_others_confirmatory(written, tmp_path, no_figures):
    registration = samples.registration(written.results.study)
    late = next(h for h, said in registration["hypotheses"].items() if said["id"] == "cue")
    registration["hypotheses"][late] |= {"after": 9, "registered": "tuesday"}
    again = written.copy(tmp_path).changed(registration=registration)
    report = again.write(pdf=False)
    found = {f.id: f.standing for f in again.results.findings}
    assert found.pop("cue") == "exploratory"
    assert set(found.values()) == {"confirmatory"}
    assert "cue (registered when 9 results were there, tuesday)" in " ".join(
        printed(report, again.results.story).split()
    )


def test_seeds_added_after_results_are_said(written, tmp_path, no_figures):
    registration = samples.registration(written.results.study)
    seeds = written.results.study.seeds
    registration["seeds"].insert(
        0, {"seeds": seeds - 1, "looks": [], "registered": "m", "after": 0}
    )
    registration["seeds"][1] |= {"after": 9}
    again = written.copy(tmp_path).changed(registration=registration)
    report = again.write(pdf=False)
    assert {finding.standing for finding in again.results.findings} == {"exploratory"}
    assert (
        f"the seeds were raised from {seeds - 1} to {seeds} when 9 results were there"
        in " ".join(printed(report, again.results.story).split())
    )


def test_a_table_from_elsewhere_is_reported_by_its_levels(written, tmp_path, no_figures):
    table = written.results.table.drop(columns=["trial", "status", "failure", "parameters"])
    table = table[table["rollout.score"].notna()]
    results = Results(written.results.study, table, foreign=True, folder=tmp_path)
    write_report(results, tmp_path / "paper", pdf=False)
    assert results.story.foreign
    assert not results.story.confirmatory
    assert "not written by this toolkit" in (tmp_path / "paper/supplement.tex").read_text()


@pytest.mark.parametrize("case", ["empty", "unfinished", "other study"])
def test_nothing_to_report_is_one_line_with_the_command(written, tmp_path, case):
    again = written.copy(tmp_path)
    table = again.results.table.copy()
    if case == "empty":
        table = table.iloc[:0]
    elif case == "unfinished":
        table["status"] = "FAILED"
    else:
        table["trial"] = [f"{n:012x}" for n in range(len(table))]
    again = again.changed(table=table)
    before = contents(again.paper)
    for act in (again.write, again.check):
        with pytest.raises(UserError) as refusal:
            act()
        line = str(refusal.value)
        assert "\n" not in line
        assert f"python -m ablate run {again.results.study.file}` first" in line
    assert contents(again.paper) == before


def test_a_place_that_cannot_be_written_is_refused(written, tmp_path, no_figures):
    again = written.copy(tmp_path)
    shutil.rmtree(again.paper)
    again.paper.write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        again.write(pdf=False)


def test_thousands_of_trials_stay_below_the_size_of_the_page(written):
    from ablate.report.page import trial_columns

    many = pd.concat([written.results.table] * 40, ignore_index=True).head(3000)
    assert len(json.dumps(trial_columns(many))) < 4e5
