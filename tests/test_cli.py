"""The command line: wrong input ends in one readable line and exit code 2, and loses nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_study import TEXT, Tiny

from ablate import cli
from ablate.track import files, seal
from ablate.track.table import read_table

POLICY_ID = ("core: {data: tmaze/passive-3,", "core: {condition: policy-id, data: tmaze/passive-3,")
HIDDEN = ("core: {data: tmaze/passive-3,", "core: {history: states, data: tmaze/passive-3,")


@pytest.fixture
def done(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The study with one cell run; made once, then copied."""
    kept = tmp_path_factory.getbasetemp() / "one cell"
    if not kept.exists():
        assert tiny.run("--only", "mixer=gru").code == 0
        shutil.copytree(tiny.results, kept)
    else:
        shutil.copytree(kept, tiny.results)
    return tiny


def content(folder: Path) -> dict[str, bytes]:
    """Every file, but for the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock.")
    }


@pytest.mark.parametrize("name", ["", "run", "report", "plan", "status", "audit", "bench", "data"])
def test_help_shows_an_example(tiny: Tiny, name: str) -> None:
    ended = tiny.command(*name.split(), "--help")
    assert ended.code == 0
    assert f"Example: python -m ablate {name}".strip() in ended.out


@pytest.mark.parametrize("name", ["list", "show"])
def test_help_of_the_data_commands_shows_an_example(tiny: Tiny, name: str) -> None:
    assert f"Example: python -m ablate data {name}" in tiny.command("data", name, "--help").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "No such command 'rum'"),
        (["run"], "Missing argument"),
        (["run", "tiny.yaml", "--profil", "x"], "--profil"),
        (["run", "tiny.yaml", "--workers", "0"], "'--workers'"),
        (["run", "tiny.yaml", "--seeds", "many"], "'--seeds'"),
        (["run", "tiny.yam"], "there is no study file: 'tiny.yam' is not known"),
        (["run", "nowhere/tiny.yaml"], "nowhere/tiny.yaml: there is no such study file."),
        (["run", "tiny.yaml", "--profile", "quik"], "tiny.yaml: the profile: 'quik' is not known"),
        (["run", "tiny.yaml", "--seeds", "0"], "seeds: found '0'"),
        (["run", "tiny.yaml", "--set", "train.update=3"], "Did you mean 'updates'?"),
        (["run", "tiny.yaml", "--only", "mixer=grue"], "Did you mean 'gru'?"),
        (["run", "tiny.yaml", "--launcher", "locale"], "Did you mean 'local'?"),
        (["run", "tiny.yaml", "--plugin", "none.py"], "--plugin none.py: there is no such file."),
        (["run", "tiny.yaml", "--plugin", "no_such_module"], "ModuleNotFoundError"),
        (["plan", "tiny.yaml", "--profile", "quik"], "'quik' is not known"),
        (["status", "none.yaml"], "none.yaml"),
        (["audit", "grue"], "mixer: 'grue' is not known"),
        (["bench", "updat"], "updat"),
        (["data", "show", "tmase/passive-3"], "data: 'tmase/passive-3' is not known"),
        (["report"], "studies/memory_vs_arch.yaml"),
        (["report", "tiny.yaml"], "trials.csv: there are no results yet; run them first"),
    ],
)
def test_a_wrong_command_line(tiny: Tiny, arguments: list[str], message: str) -> None:
    assert message in tiny.command(*arguments).line
    assert not (tiny.folder / "paper").exists()
    assert not content(tiny.folder / "results")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mixer: [mlp, gru]", "mixer: [mlp, grue]", "tiny.yaml:4: the mixer: 'grue' is not known"),
        ("mixer: gru,", "mixer: grue,", "tiny.yaml:11: the mixer: 'grue' is not known"),
        (*POLICY_ID, ""),
        ("question:", "queston:", "Did you mean 'question'?"),
        ("seeds: 2", "seads: 2", "'seads' is not known"),
        ("seeds: 2", "seeds: 2\nseeds: 3", "tiny.yaml:16: 'seeds' stands twice"),
        ("designs:", "designs: [", "not valid YAML"),
    ],
)
def test_a_wrong_study_file(done: Tiny, old: str, new: str, message: str) -> None:
    before = content(done.results)
    done.write(old, new)
    if (old, new) == POLICY_ID:
        # T-Maze says which policy acted (there is one); D4RL's files don't.
        done.file.write_text(
            done.file.read_text().replace("tmaze/passive-3", "d4rl/hopper-medium-v2")
        )
        message = "tiny.yaml:10: design 'core': the condition 'policy-id' needs data that says"
    assert message in done.run().line
    assert content(done.results) == before


def test_an_impossible_combination(done: Tiny) -> None:
    done.write(*HIDDEN)
    line = done.run("--set", "train.loss=all").line
    assert "--set train.loss=all: design 'core'" in line
    assert "history 'states' hides what it depends on. Allowed here: last." in line


def test_a_data_file_that_is_cut_off(done: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_CACHE", str(done.folder / "cache"))
    assert done.command("data", "show", "tmaze/passive-3").code == 0
    before = content(done.results)
    [file] = (done.folder / "cache").rglob("train.hdf5")
    file.write_bytes(file.read_bytes()[:-1000])
    for arguments in (done.arguments("run"), ["data", "show", "tmaze/passive-3"]):
        line = done.command(*arguments).line
        assert f"{file}: can't be read as HDF5, it is damaged or incomplete" in line
        assert line.endswith(f"Delete the folder {file.parent} to generate it again.")
    assert content(done.results) == before


def test_d4rl_data_that_is_not_there(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tiny.folder))
    tiny.file.write_text(TEXT.replace("tmaze/passive-3", "d4rl/hopper-medium-v2"))
    assert "hopper_medium-v2.hdf5: there is no such file; fetch it with" in tiny.run().line


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("study.json", '{"format": 9, "study": "tiny"}', "written in format 9"),
        ("study.json", '{"format": 2, "study": "horizon"}', "results of the study 'horizon'"),
        ("study.json", '{"format": 2, "study": "tiny", "data": 3}', "no names with hashes"),
        ("study.json", '{"format"', "cannot be read"),
        ("trials.csv", "trial,status\n", "column 'row_hash' is missing"),
        ("trials.csv", "trial,status,data,seed\na,b\n", "line 2: it has 2 cells"),
        ("curves.csv", "fit,loss\n", "column 'row_hash' is missing"),
        ("series.csv", "trial,index,row_hash\n", "its rows are gone"),
        ("audit.json", '[{"key": "a"', "it is damaged (not JSON"),
        ("audit.json", '[{"key": "a"}]', "it is damaged (a record is incomplete)"),
        ("audit.json", "{}", "it is damaged (found a dict)"),
        ("runs/.paces.json", '{"gru', "it is damaged (not JSON"),
        ("runs/.paces.json", '{"gru": "fast"}', "(a measurement is not a number)"),
        ("runs/.paces.json", "[1]", "it is damaged (found a list)"),
        ("yardsticks.csv", "data,context\n", "column 'row_hash' is missing"),
        ("yardsticks.csv", 'data,context\n"', "is not a CSV table"),
    ],
)
def test_results_that_cannot_be_read(done: Tiny, name: str, text: str, message: str) -> None:
    file = done.root / name
    file.write_text(text)
    before = content(done.results)
    line = done.run().line
    assert line.startswith(f"ablate: {file}")
    assert message in line
    after = content(done.results)
    changed = {each for each in before if after.get(each) != before[each]}
    assert f"tiny/{name}" not in changed
    assert not any("runs/" in each or each.endswith(".csv") for each in changed)
    if not name.startswith("runs"):
        assert message in done.command(*done.arguments("report")).line


def refusals(done: Tiny) -> set[str]:
    """What `run`, `status` and `report` say."""
    return {done.command(*done.arguments(each)).line for each in ("run", "status", "report")}


def test_a_changed_digit_or_a_cut_line_of_a_table(done: Tiny) -> None:
    table = done.root / "trials.csv"
    whole = table.read_text()
    header, first, last = whole.splitlines(keepends=True)
    score = header.split(",").index("held-out.action_error")
    cells = first.split(",")
    cells[score] = str(float(cells[score]) + 1)
    changed = {
        f"{table}, row 1 (trial {cells[0]}): a cell is not as it was written": [header, ",".join(cells), last],
        f"{table}: its last rows are missing; 1 are left": [header, first],
    }  # fmt: skip
    for message, text in changed.items():
        table.write_text("".join(text))
        (line,) = refusals(done)
        assert line.startswith(f"ablate: {message}")
        assert table.read_text() == "".join(text)
    table.write_text(whole)
    assert done.run().code == 0


def test_a_score_that_was_changed_in_the_store(done: Tiny) -> None:
    """Alone its hash tells; with a hash that fits, the table does."""
    table = read_table(done.root / "trials.csv")
    runs = (done.root / "runs").glob("*/run.json")
    file = next(each for each in runs if "action_nll" in each.read_text())
    run = json.loads(file.read_text())
    run["result"]["action_error"] += 1e-9
    file.write_text(json.dumps(run))
    (line,) = refusals(done)
    assert line.startswith(f"ablate: {file}: this record of a run is corrupt (it is not as it was")
    run["hash"] = seal.of_run(file.parent.name, run)
    file.write_text(json.dumps(run))
    (line,) = refusals(done)
    assert line.startswith(f"ablate: {file}: action_error is ")
    assert f"in {done.root / 'trials.csv'}, row " in line
    file.parent.rename(done.folder / "away")
    assert done.run().code == 0
    after = read_table(done.root / "trials.csv")
    assert after[after["trial"].isin(table["trial"])].reset_index(drop=True).equals(table)


@pytest.mark.parametrize("text", ['{"status": "COMPL', "[]", '{"status": 3}', ""])
def test_a_corrupt_record_of_a_run(done: Tiny, text: str) -> None:
    [file, *_] = sorted((done.root / "runs").glob("*/run.json"))
    file.write_text(text)
    before = content(done.results)
    for arguments in (done.arguments("run"), done.arguments("status")):
        line = done.command(*arguments).line
        assert line.startswith(f"ablate: {file}: this record of a run is corrupt (")
        assert f"Move the folder {file.parent.name} out of" in line
    after = content(done.results)
    assert {each for each in before if after[each] != before[each]} <= {"tiny/study.json"}


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"study"', "not JSON"), ("[]", "found a list"), ('{"study": "a"}', "an entry is missing")],
)
def test_a_corrupt_note_of_the_last_run(done: Tiny, text: str, message: str) -> None:
    (done.root / "last.json").write_text(text)
    line = done.command("report", "--results", str(done.results)).line
    assert message in line
    assert line.endswith("Delete it: then name the study file.")


@pytest.mark.parametrize("text", ["1 / 0", "def (", "raise OSError(5, 'no\\nluck')"])
def test_a_plugin_that_does_not_import(tiny: Tiny, text: str) -> None:
    (tiny.folder / "mine.py").write_text(text)
    assert "--plugin mine.py: it does not import (" in tiny.run("--plugin", "mine.py").line
    assert not tiny.results.exists()


def test_a_disk_that_is_full_while_the_table_is_written(
    done: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (done.root / "trials.csv").read_bytes()
    real = files.os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "trials.csv" and len(list((done.root / "runs").iterdir())) > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        line = done.run().line
    assert f"{done.root}/trials.csv: the disk is full (No space left on device)" in line
    assert "Free some space and give the same command again." in line
    assert (done.root / "trials.csv").read_bytes() == before
    again = done.run()  # what was recorded meanwhile is in the store
    assert "4 are done, 2 to run" in again.out
    assert again.code == 0


@pytest.fixture
def small_disk(tiny: Tiny) -> Iterator[Path]:
    """A file system of 300 kB."""
    folder = tiny.results
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no program `mount`")
    if made.returncode:
        pytest.skip(f"a small file system can't be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_really_full(tiny: Tiny, small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * 30_000)
    ended = tiny.run()
    assert "full" in ended.line
    assert str(small_disk) in ended.line
    before = [one for one in small_disk.rglob("*.csv") if one.stat().st_size]
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    assert tiny.run().code == 0
    assert all(one.exists() for one in before)
    assert not list(small_disk.rglob("*.tmp"))


def test_debug_shows_the_trace(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    from ablate.errors import UserError

    with pytest.raises(UserError, match="'quik' is not known"):
        cli.main(["run", "tiny.yaml", "--profile", "quik", "--debug"])
    assert capsys.readouterr().err == ""


def test_the_exit_code_says_whether_something_is_missing(done: Tiny) -> None:
    part = done.run("--only", "mixer=gru")
    assert (part.code, part.err) == (0, "")
    assert "Next: python -m ablate report" in part.out
    assert json.loads((done.root / "last.json").read_text())["study"] == str(done.file)
    told = done.command(*done.arguments("status")).out
    assert (
        told
        == "2 of 6 fits trained, 2 of 6 trials completed, 0 failed, 4 without a result\nruns: 6 completed\n"
    )
    assert done.command(*done.arguments("plan")).code == 0
