"""`status` lists a study's trials once and counts from then on, without importing what trains or draws."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.launch import standing
from ablate.registry import process
from ablate.study import load as loading
from ablate.track import roll

TEXT = """
study: counted
question: How many?
factors:
  mixer: [gru]
  context: [1, 3]
data: [lq-mix/single]
designs: {all: {data: all, mixer: all, context: all}}
seeds: 3
hypotheses:
  - {id: longer, says: More is better., contrast: "context[3] - context[1]", test: superiority}
"""
HEAVY = ("torch", "pandas", "numpy", "scipy", "gymnasium", "h5py", "matplotlib")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "counted.yaml"
    path.write_text(TEXT)
    return path


def told(study: Path, *overrides: str) -> str:
    return standing.asked(study, None, overrides, [], study.parent / "results").text()


def test_what_was_listed_is_not_listed_again(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = told(study)
    assert first == "no runs yet: 0 of 6 fits trained, 0 of 6 trials completed"
    assert "0 of 4 fits" in told(study, "seeds=2")
    monkeypatch.setattr(loading, "load", None)
    assert told(study) == first
    study.write_text(TEXT.replace("[1, 3]", "[1, 3, 4]"))
    with pytest.raises(TypeError):  # another file is read anew
        told(study)


def test_a_program_reads_what_a_person_does(study: Path) -> None:
    found = standing.asked(study, None, (), [], study.parent / "results")
    record = json.loads(json.dumps(found.record()))
    assert (record["fits"], record["trials"], record["completed"]) == (6, 6, 0)
    assert (record["begun"], record["without_a_result"], record["ended"]) == (False, 6, [])


def test_a_list_that_is_not_as_it_was_written_is_made_again(study: Path) -> None:
    first = told(study)
    (kept,) = (study.parent / "cache" / "rolls").iterdir()
    whole = kept.read_text()
    for damaged in (whole.replace("counted", "another"), whole[:-30], "[]", "{}", ""):
        kept.write_text(damaged)
        assert told(study) == first
        assert kept.read_text() == whole


def test_what_lies_beside_a_study_and_our_own_code_count(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [roll.place(tmp_path, study, None, [], [])]
    (tmp_path / "own.py").write_text("")
    places.append(roll.place(tmp_path, study, None, [], []))
    monkeypatch.setattr(roll, "code", lambda: "another")
    places.append(roll.place(tmp_path, study, None, [], []))
    assert len(set(places)) == 3
    assert roll.place(tmp_path, study, None, [], ["plugin.py"]) is None


def test_it_imports_nothing_heavy(study: Path) -> None:
    told(study)
    command, environment = process("ablate", "status", str(study))
    command = [sys.executable, "-X", "importtime", *command[1:]]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=study.parent, check=True
    )
    assert "0 of 6 fits" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not imported.intersection(HEAVY)
