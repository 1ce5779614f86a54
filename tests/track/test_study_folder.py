"""A study's folder: whose it is, its format, and one scheduler at a time."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ablate.errors import UserError
from ablate.track.folder import StudyFolder, folder_of

ROOT = Path(__file__).parents[2]


def test_the_first_run_registers_the_hypotheses(tmp_path):
    folder = StudyFolder(tmp_path / "memory", "memory")
    assert not folder.root.exists()
    first = folder.register("s1", {"lq": "aaaa"})
    assert folder.read() == first
    assert (first["format"], first["study"]) == (2, "memory")
    later = StudyFolder(tmp_path / "memory", "memory").register("s2", {"tmaze": "bbbb"})
    assert later == {**first, "study_hash": "s2", "data": {"lq": "aaaa", "tmaze": "bbbb"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 1, "study": "memory"}', "written in format 1"),
        ('{"study": "memory"}', "written in format None"),
        ("[1]", "written in format None"),
        ('{"format": 2, "study": "horizon"}', "results of the study 'horizon', not of 'memory'"),
        ('{"format": 1, "stu', "cannot be read"),
    ],
)
def test_a_folder_of_something_else_is_refused_untouched(tmp_path, text, message):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(UserError) as caught:
        StudyFolder(tmp_path, "memory")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "study.json").read_text() == text


def test_results_without_an_owner_are_refused(tmp_path):
    (tmp_path / "trials.csv").write_text("trial\n")
    with pytest.raises(UserError, match=r"trials\.csv but no study\.json"):
        StudyFolder(tmp_path, "memory")


@dataclass
class Named:
    study: str = "memory"
    profile: str = "standard"
    streams: str = "memory"
    own_streams: str = "memory"


def test_profiles_and_replications_have_folders_of_their_own(tmp_path):
    root = tmp_path / "memory"
    assert folder_of(tmp_path, Named()).root == root
    assert folder_of(tmp_path, Named(profile="quick")).root == root / "quick"
    assert folder_of(tmp_path, Named(streams="b")).root == root / "streams-b"
    both = folder_of(tmp_path, Named(profile="quick", streams="b"))
    assert both.root == root / "quick" / "streams-b"
    for name in ("runs", "checkpoints", "../other"):
        with pytest.raises(UserError, match=f"found the profile '{name}'"):
            folder_of(tmp_path, Named(profile=name))


def test_one_scheduler_at_a_time_and_a_killed_one_does_not_block(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from ablate.track.folder import StudyFolder\n"
        "with StudyFolder(Path(sys.argv[1]), 'memory').lock():\n"
        "    print('held', flush=True); time.sleep(30)"
    )
    folder = StudyFolder(tmp_path, "memory")
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"being run by process {other.pid} on"), folder.lock():
            pass
        other.kill()
        other.wait()
        with folder.lock():
            pass
    with folder.lock():
        pass
