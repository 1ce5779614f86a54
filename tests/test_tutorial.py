"""The page "From question to paper", followed from top to bottom with a small budget."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tiny_study import ROOT, Tiny

PAGE = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
(STUDY,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
(SCRIPT,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^ {4}python -m ablate (.*)$", PAGE, re.MULTILINE)


SLOW = ("data", "power", "--replications")


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_its_commands_and_its_script_do_what_it_says(
    whole: bool, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")  # no LaTeX
    for old in ("updates: 400", "points: 4", "episodes: 100", "seeds: 5"):
        assert STUDY.count(old) == 1
    text = STUDY.replace("updates: 400", "warmup: 1, updates: 4").replace("points: 4", "points: 1")
    text = text.replace("episodes: 100", "episodes: 4").replace("seeds: 5", "seeds: 2")
    Path("cart.yaml").write_text(text, "utf-8")
    assert [line.split()[0] for line in COMMANDS] == [
        *("plan", "data", "run", "status", "report", "power", "run", "report", "report")
    ]
    quick = [line for line in COMMANDS if not set(SLOW) & set(line.split())]
    for line in COMMANDS if whole else dict.fromkeys(quick):
        inline = ("--launcher", "inline") if line.startswith("run") else ()
        ended = tiny.command(*shlex.split(line), *inline)
        assert (ended.code, ended.err) == (0, ""), (line, ended.err)
        if line.startswith("status"):
            assert "8 of 8 fits trained" in ended.out
    assert Path("results", "cart", "report.html").is_file()
    assert "\\CartMemoryResult" in Path("paper", "macros.tex").read_text("utf-8")
    capsys.readouterr()
    exec(compile(SCRIPT, "tutorial.md", "exec"), {})
    assert "Who sees ten timesteps scores more than ten points more" in capsys.readouterr().out


def test_a_wrong_name_is_refused_as_it_says(tiny: Tiny) -> None:
    Path("cart.yaml").write_text(STUDY.replace("[gru, bag]", "[gru, bagg]"), "utf-8")
    assert "'bagg' is not known" in tiny.command("plan", "cart.yaml").line
