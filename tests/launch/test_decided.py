"""Seeds are added in declared looks until the primary hypotheses are decided, and no further."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tiny_study import TEXT, Tiny

from ablate.analyse import decisions
from ablate.analyse.verdict import INCONCLUSIVE, SUPPORTED, Verdict
from ablate.errors import UserError
from ablate.launch import decided
from ablate.launch.run import Options
from ablate.study import identity
from ablate.study.load import load
from ablate.study.schema import Study
from ablate.track.folder import StudyFolder
from ablate.track.table import read_table

LOOKS = "sequential: {looks: [2, 3, 4]}\n"
CLAIM = """\
hypotheses:
  - id: memory
    says: Memory doesn't do boundless harm.
    contrast: context[2] - context[1]
    where: {mixer: mlp}
    test: superiority
    threshold: -1000
    primary: true
"""


def study(tiny: Tiny, extra: str = LOOKS + CLAIM) -> Study:
    text = TEXT.replace("  other: {data: tmaze/passive-3, mixer: gru, context: 2}\n", "")
    tiny.file.write_text(text + extra, encoding="utf-8")
    return load(tiny.file)


def options(tiny: Tiny, **more: str) -> Options:
    return Options(results=tiny.results, workers=1, launcher="inline", **more)


def until(tiny: Tiny, made: Study) -> str:
    """What the command prints."""
    console = Console(soft_wrap=True, width=500)
    tiny.capture.readouterr()
    decided.until_decided(made, options(tiny), console, {"study": "tiny.yaml", "seeds": None})
    return tiny.capture.readouterr().out


def fake(monkeypatch: pytest.MonkeyPatch, verdicts: list[str]) -> list[int]:
    """Verdicts of the looks to come, whatever the trials say; the looks taken, by their seeds."""
    taken: list[int] = []
    real = decided.judged

    def judged(at: Study, folder: StudyFolder, level: float) -> list[Verdict]:
        taken.append(at.seeds)
        return [replace(v, verdict=verdicts[len(taken) - 1]) for v in real(at, folder, level)]

    monkeypatch.setattr(decided, "judged", judged)
    return taken


def test_it_stops_at_the_look_that_decides_and_goes_no_further(tiny: Tiny, monkeypatch):
    made = study(tiny)
    taken = fake(monkeypatch, [INCONCLUSIVE, SUPPORTED])
    out = until(tiny, made)
    assert taken == [2, 3]
    assert "look 1 of 3: 2 seeds" in out
    assert "decided now: memory supported; open: nothing." in out
    record = decisions.read(tiny.root)
    assert record is not None
    assert record.ended
    assert record.decided["memory"].look == 2
    assert "stopped at look 2 of 3 (3 seeds" in record.line
    assert set(read_table(tiny.root / "trials.csv")["seed"]) == {0, 1, 2}
    assert json.loads((tiny.root / "last.json").read_text())["seeds"] == 3
    # The same command finds nothing left to do, and takes no further look.
    again = until(tiny, made)
    assert taken == [2, 3]
    assert "0 to run" in again
    assert record.line in again
    assert decisions.read(tiny.root) == record


def test_it_goes_on_after_an_interruption_without_looking_twice(tiny: Tiny, monkeypatch):
    made = study(tiny)
    taken = fake(monkeypatch, [INCONCLUSIVE, INCONCLUSIVE, INCONCLUSIVE])
    real, calls = decided.run, []

    def stops_at_three(at: Study, *rest: object) -> object:
        calls.append(at.seeds)
        if calls == [2, 3]:
            raise KeyboardInterrupt
        return real(at, *rest)

    monkeypatch.setattr(decided, "run", stops_at_three)
    with pytest.raises(KeyboardInterrupt):
        until(tiny, made)
    assert taken == [2]
    until(tiny, made)
    assert taken == [2, 3, 4]
    assert calls == [2, 3, 3, 4]
    record = decisions.read(tiny.root)
    assert record is not None
    assert record.ended
    assert record.open == ("memory",)
    assert "ended at the last, look 3 of 3" in record.line


def test_a_look_judges_its_own_seeds_only_at_its_own_level(tiny: Tiny):
    made = study(tiny)
    decided.run(made.model_copy(update={"seeds": 3}), options(tiny), Console())
    assert len(read_table(tiny.root / "trials.csv")) == 6
    at = made.model_copy(update={"seeds": 2})
    verdict = decided.judged(at, StudyFolder(tiny.root, "tiny"), 0.01)[0]
    assert (verdict.n_trials, verdict.confidence) == (4, 0.99)
    assert verdict.status == "confirmatory"


def test_what_was_declared_stays(tiny: Tiny):
    until(tiny, study(tiny))
    before = (tiny.root / decisions.NAME).read_text()
    changed = study(tiny, LOOKS.replace("4]", "6]") + CLAIM)
    with pytest.raises(
        UserError, match=r"looks\.json: the looks.* were changed after look \d of 3"
    ):
        until(tiny, changed)
    assert (tiny.root / decisions.NAME).read_text() == before


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        (CLAIM, "declares no looks"),
        (LOOKS, "declares no primary hypothesis"),
        (LOOKS + CLAIM.replace("true", "false"), "declares no primary hypothesis"),
    ],
)
def test_a_study_that_cannot_be_run_in_looks_is_refused(tiny: Tiny, extra: str, line: str):
    with pytest.raises(UserError, match=line):
        until(tiny, study(tiny, extra))
    assert not tiny.root.exists()


def test_only_a_part_of_the_cells_decides_nothing(tiny: Tiny):
    with pytest.raises(UserError, match="found --only"):
        decided.start(study(tiny), options(tiny, only="mixer=gru"))


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ("[4, 4]", "sequential.looks: found 4, 4; allowed: numbers of seeds that increase"),
        ("[6, 4]", "found 6, 4; allowed: numbers of seeds that increase"),
        ("[1, 4]", "two seeds or more at the first look"),
        ("[]", "found no looks"),
        ("[2.5, 4]", "integer"),
        ("[4, 6], spending: linear", "'obrien-fleming' or 'pocock'"),
        ("[4, 6], bound: none", "'union' or 'normal'"),
        ("[4, 6], spendin: pocock", "spending"),
    ],
)
def test_a_wrong_section_is_refused_with_its_line(tiny: Tiny, wrong: str, line: str):
    with pytest.raises(UserError, match=r"tiny\.yaml:\d+: ") as refused:
        study(tiny, f"sequential: {{looks: {wrong}}}\n" + CLAIM)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_damaged_record_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / decisions.NAME
    for text in ("{", "[]", '{"format": 2}', '{"format": 1, "seeds": [2]}'):
        path.write_text(text)
        with pytest.raises(UserError, match="othing was changed"):
            decisions.read(tmp_path)
        assert path.read_text() == text
    path.unlink()
    assert decisions.read(tmp_path) is None


def test_looks_are_part_of_what_is_registered_and_of_no_trial(tiny: Tiny):
    without, with_looks = study(tiny, CLAIM), study(tiny)
    assert identity.study_hash(without) == identity.study_hash(with_looks)
    assert identity.hypotheses_hash(without) != identity.hypotheses_hash(with_looks)
