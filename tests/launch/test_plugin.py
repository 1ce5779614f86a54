"""A user's own mixer, in a file that is not ours: audited, matched, trained and reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_study import ROOT, TEXT, Tiny

from ablate import registry
from ablate.track import kept
from ablate.track.folder import StudyFolder
from ablate.track.store import attempts
from ablate.track.table import read_table

EXAMPLE = (ROOT / "examples" / "ema.py").read_text("utf-8")
LEAKING = EXAMPLE.replace("self.step(token, state)", "self.step(token + tokens[:, -1], state)")
BROKEN = EXAMPLE.replace("tokens.unbind(1)", "tokens.unbind(7)")
STUDY = (
    TEXT.replace("mixer: [mlp, gru]", "mixer: [ema, mlp]")
    .replace("  other: {data: tmaze/passive-3, mixer: gru, context: 2}\n", "")
    .replace("core: {data: tmaze/passive-3, context: all}", "core: {data: tmaze/passive-3, mixer: all, context: 2}")
)  # fmt: skip


@pytest.fixture
def own(tiny: Tiny) -> Tiny:
    """A study of the mixer `ema` beside one of ours."""
    tiny.file.write_text(STUDY)
    (tiny.folder / "ema.py").write_text(EXAMPLE)
    return tiny


def test_a_mixer_in_a_file_of_the_users(own: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no LaTeX, which takes long
    shown = own.command("audit", "ema", "--plugin", "ema.py", "--context", "3")
    assert (shown.code, shown.out.rstrip().endswith("PASSED")) == (0, True)
    ended = own.run("--plugin", "ema.py")
    assert ended.code == 0, ended.err
    table = read_table(own.root / "trials.csv")
    assert list(table["mixer"]) == ["ema", "ema", "mlp", "mlp"]
    assert set(table["status"]) == {"COMPLETED"}
    assert (abs(table["parameters"] - 4000) <= 400).all()  # matched
    assert table["rollout.score"].notna().all()
    records = {one["mixer"]: one for one in kept.audits(StudyFolder(own.root, "tiny"))}
    assert records["ema"]["passed"]
    reported = own.command("report", "--results", str(own.results))  # finds the plugin by itself
    assert reported.code == 0, reported.err
    assert "EMA" in (own.root / "report.html").read_text()
    assert list((own.folder / "paper" / "figures").rglob("*.pdf"))
    told = own.command(*own.arguments("status", "--plugin", "ema.py")).out
    assert told.startswith("4 of 4 fits trained, 4 of 4 trials")
    assert "'ema' is not known" not in own.command(*own.arguments("plan")).err
    again = own.run("--plugin", "ema.py")
    assert "4 are done, 0 to run" in again.out


def test_an_edited_mixer_is_run_again(own: Tiny) -> None:
    with registry.scope():  # as in a process of its own
        assert own.run("--plugin", "ema.py").code == 0
    before = read_table(own.root / "trials.csv")
    (own.folder / "ema.py").write_text(EXAMPLE.replace("(-1, 4, width)", "(-2, 4, width)"))
    ended = own.run("--plugin", "ema.py")
    assert "2 are done, 2 to run" in ended.out
    assert "note: 2 results in" in ended.out
    after = read_table(own.root / "trials.csv")
    assert (len(before), len(after), len({*before["trial"], *after["trial"]})) == (4, 4, 6)


@pytest.mark.parametrize(
    ("text", "finding"), [(LEAKING, "future"), (BROKEN, "does-not-run")], ids=["leaks", "broken"]
)
def test_a_mixer_that_fails_its_audit_is_not_trained(own: Tiny, text: str, finding: str) -> None:
    (own.folder / "bad.py").write_text(text)
    refused = own.command("audit", "ema", "--plugin", "bad.py", "--context", "3")
    assert "audit: refused: ema; a trial of such a model doesn't train." in refused.line
    ended = own.run("--plugin", "bad.py")
    assert ended.code == 0, ended.err
    assert "2 of 4 trials completed, 2 failed" in ended.out
    table = read_table(own.root / "trials.csv").set_index("mixer")
    assert set(table.loc["mlp", "status"]) == {"COMPLETED"}
    assert set(table.loc["ema", "status"]) == {"FAILED"}
    for failure in table.loc["ema", "failure"]:
        assert failure.startswith("audit: ")
        assert finding in failure
    failed = [one for one in attempts(own.root / "runs") if one.status == "FAILED"]
    assert len(failed) == 2
    assert not any((one.path / "curve.csv").exists() for one in failed)
    assert ", 2 failed," in own.command(*own.arguments("status", "--plugin", "bad.py")).out


def installed(own: Tiny, text: str) -> Path:
    """A folder with a distribution whose entry point is a module of this text."""
    site = own.folder / "site"
    about = site / "my_mixers-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-mixers\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[ablate.plugins]\nmine = my_mixers\n")
    (site / "my_mixers.py").write_text(text)
    return site


def test_a_mixer_of_an_installed_distribution(own: Tiny) -> None:
    site = installed(own, EXAMPLE)
    command = own.arguments("run", "--workers", "1", "--only", "mixer=ema")
    out, err = own.process(*command, PYTHONPATH=str(site)).communicate(timeout=120)
    assert "2 of 2 trials completed, 0 failed" in out, err
    configs = [json.loads(path.read_text()) for path in (own.root / "runs").glob("*/config.json")]
    assert [one["mixer"] for one in configs if "mixer" in one] == ["ema", "ema"]
    assert len(configs) == 6  # two fits, each measured twice


def test_a_distribution_that_is_broken(own: Tiny) -> None:
    site = installed(own, "import no_such_library\n")
    _, err = own.process(*own.arguments("run"), PYTHONPATH=str(site)).communicate(timeout=120)
    assert "entry point mine of my-mixers: it does not import (ModuleNotFoundError" in err
    assert len(err.strip().splitlines()) == 1
