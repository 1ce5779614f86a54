"""What the user sees while cohorts run."""

import io
import json
from types import SimpleNamespace

from rich.console import Console

from ablate.launch.base import Died, Failed, Finished, Job, Progress, Started
from ablate.launch.progress import Display, told_by


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def jobs():
    return [Job(str(i), None, label=f"gru K={i}", trials=3, cost=10.0) for i in range(4)]


def recorded(*statuses):
    return [SimpleNamespace(status=status) for status in statuses]


def test_the_state_in_one_line():
    clock, todo = Clock(), jobs()
    display = Display(todo, done=6, failed=1, clock=clock, console=Console(file=io.StringIO()))
    assert display.line() == "6/19 trials done, 1 failed, 0 running, 0 s so far"
    display.handle(Started(0, todo[0]))
    display.handle(Started(1, todo[1]))
    clock.now = 60.0
    display.handle(Progress(1, todo[1], 0.5, "update 400"))
    display.handle(Finished(0, todo[0], recorded("COMPLETED", "FAILED", "COMPLETED")))
    # 15 of 40 units in 60 seconds: 25 units need 100 seconds more
    assert display.left() == 100.0
    assert display.line() == (
        "8/19 trials done, 2 failed, 3 running, 1 min 40 s left, 1 min 00 s so far"
    )
    display.handle(Died(1, todo[1], -9, "its worker was ended by SIGKILL"))
    display.handle(Failed(0, todo[2], "ValueError: no", "trace"))
    assert (display.done, display.failed, display.running) == (8, 2, 0)
    assert "8/19 trials done, 2 failed, 6 without a result, 0 running" in display.line()


def test_plain_lines_where_there_is_no_terminal():
    clock, todo, out = Clock(), jobs(), io.StringIO()
    with Display(todo, clock=clock, console=Console(file=out, width=40), every=15) as display:
        for second in range(40):
            clock.now = float(second)
            display.handle(Progress(0, todo[0], second / 40, "update"))
        display.handle(Failed(0, todo[0], "ValueError: [bold] is no number, and that is long", ""))
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("0/12 trials done, 0 failed, 3 running")
    assert lines[2] == "no result from gru K=0: ValueError: [bold] is no number, and that is long"
    assert lines[3].startswith("0/12 trials done, 0 failed, 3 without a result, 0 running")


def test_a_live_display_on_a_terminal():
    todo, out = jobs(), io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with Display(todo, console=console) as display:
        display.handle(Started(0, todo[0]))
        display.handle(Progress(0, todo[0], 0.25, "update 200 of 800"))
        display._live.refresh()
        shown = out.getvalue()
    assert "worker 1" in shown
    assert "gru K=0" in shown
    assert "25%" in shown
    assert "update 200 of 800" in shown


def test_who_looks_on_reads_what_the_display_shows(tmp_path):
    clock, todo, post = Clock(), jobs(), tmp_path / "progress.json"
    assert told_by(post) is None
    with Display(todo, clock=clock, console=Console(file=io.StringIO()), post=post) as display:
        display.handle(Started(0, todo[0]))
        clock.now = 30.0
        display.handle(Progress(0, todo[0], 0.5, "update 400"))
        assert told_by(post) == {
            "left": 210.0,
            "workers": [{"label": "gru K=0", "fraction": 0.5, "text": "update 400"}],
        }
        written = json.loads(post.read_text())
        written["process"]["started"] += 1  # another process of this number
        (tmp_path / "other.json").write_text(json.dumps(written))
        assert told_by(tmp_path / "other.json") is None
    assert told_by(post) is None
