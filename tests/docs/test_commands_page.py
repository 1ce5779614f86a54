"""The page of the commands names each of them, and a shell completes them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tiny_study import ROOT

from ablate.cli import app
from ablate.registry import process


def test_every_command_stands_on_its_page() -> None:
    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    for name in typer.main.get_command(app).commands:
        assert f"| `{name}" in page or f", `{name}`" in page, name


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash to complete in")
def test_bash_completes_what_the_installed_function_gives_it(tmp_path: Path) -> None:
    _, environment = process("ablate")
    shown = tmp_path / "ablate"
    shown.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ablate "$@"\n')
    shown.chmod(0o755)
    script = """
        eval "$(_ABLATE_COMPLETE=source_bash ablate)"
        complete -p ablate
        COMP_WORDS=(ablate re) COMP_CWORD=1
        _ablate_completion ablate && echo "${COMPREPLY[@]}"
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        env={**environment, "PATH": path},
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "complete -o default -F _ablate_completion ablate",
        "report reference",
    ]
