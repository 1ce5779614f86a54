"""A plugin that holds a study at a chosen moment, so that a test can end it there from outside, or let it go on by a
file named `go on`.

SABOTAGE is `training` or `recording`. Both hold the second cohort of two fits: at the second point
of its training, whose state was saved at the first, or when one of its fits is recorded and the
other is not. FLAG is a file that says it is held.
"""

import os
import time
from pathlib import Path

from ablate.learn import train
from ablate.track import recorder

SECOND_POINT = 4  # updates
seen = set()
closings = 0
metric, close = recorder.Log.metric, recorder._Run.close


def hold():
    """Say so, and wait for the end."""
    flag = Path(os.environ["FLAG"])
    flag.touch()
    deadline = time.monotonic() + 900
    while not flag.with_name("go on").exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def held_metric(self, name, value, step):
    """The third fit is the first of the second cohort."""
    metric(self, name, value, step)
    seen.add(self.trial_id)
    if len(seen) > 2 and step == SECOND_POINT:
        hold()


def held_close(self, sacred_run):
    """Two fits and four rows of the first cohort, then the second's fits from the last to the first."""
    global closings
    closings += 1
    if closings == 8:
        hold()
    return close(self, sacred_run)


train.SAVE_EVERY = -1.0  # at every point
if os.environ["SABOTAGE"] == "training":
    recorder.Log.metric = held_metric
else:
    recorder._Run.close = held_close
