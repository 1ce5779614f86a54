"""A study of seconds, run through the command line: in this process, or in one to be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ablate import cli
from ablate.errors import UserError
from ablate.launch.base import Event, Failed, Finished, Job, Started
from ablate.launch.worker import find

ROOT = Path(__file__).parents[1]
TEXT = """\
study: tiny
question: Does memory help?
factors:
  mixer: [mlp, gru]
  context: [1, 2]
  condition: [none, policy-id]
  history: [states+actions, states]
data: [tmaze/passive-3]
designs:
  core: {data: tmaze/passive-3, context: all}
  other: {data: tmaze/passive-3, mixer: gru, context: 2}
model: {parameters: 4000, tolerance: 0.1}
train: {updates: 6, targets_per_update: 16, warmup: 1, points: 3}
measure: {rollout: {episodes: 2}, held-out: {}}
seeds: 2
"""


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of a refusal."""
        assert (self.code, self.err.count("\n")) == (2, 1), self.err
        assert self.err.startswith("ablate: ")
        assert "Traceback" not in self.out + self.err
        return self.err.strip()


@dataclass
class Tiny:
    """The study in a folder of its own."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    @property
    def file(self) -> Path:
        """The study file."""
        return self.folder / "tiny.yaml"

    @property
    def results(self) -> Path:
        """What `--results` names."""
        return self.folder / "results"

    @property
    def root(self) -> Path:
        """The study's own folder."""
        return self.results / "tiny"

    def write(self, old: str = "", new: str = "") -> None:
        """The study file, with one thing changed."""
        assert TEXT.count(old) == 1 or not old
        self.file.write_text(TEXT.replace(old, new) if old else TEXT, encoding="utf-8")

    def arguments(self, command: str, *more: str) -> list[str]:
        """The command line for this study."""
        return [command, str(self.file), "--results", str(self.results), *more]

    def run(self, *more: str) -> Ran:
        """`run` here, its cohorts too."""
        return self.command(*self.arguments("run", "--launcher", "inline", *more))

    def command(self, *arguments: str) -> Ran:
        """Any command, in this process."""
        self.capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return Ran(code or 0, *self.capture.readouterr())

    def process(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """A command in a process group of its own."""
        paths = [str(ROOT), *environment.pop("PYTHONPATH", "").split(os.pathsep)]
        return subprocess.Popen(
            [sys.executable, "-m", "ablate", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def inline(
    jobs: Sequence[Job],
    work: str,
    workers: int,
    on_event: Callable[[Event], None],
    plugins: Sequence[str] = (),
) -> None:
    """A launcher that runs the cohorts in this process."""
    for job in jobs:
        on_event(Started(0, job))
        try:
            value = find(work)(job.payload, lambda fraction, text: None)
        except UserError as error:
            on_event(Failed(0, job, str(error), "", refused=True))
        else:
            on_event(Finished(0, job, value))
