"""A launcher of one's own: every cohort in this process, one after another, which a debugger can follow.

python -m ablate run examples/quantiles.yaml --launcher serial --plugin examples/serial.py
"""

import traceback

from ablate.errors import UserError
from ablate.launch.base import Failed, Finished, Progress, Started
from ablate.launch.worker import find
from ablate.registry import register


@register("launcher", "serial")
def serial(jobs, work, workers, on_event, plugins=()):
    """Run all jobs here; `workers` and `plugins` are for launchers that start processes."""
    run = find(work)
    for job in jobs:
        on_event(Started(0, job))

        def report(fraction, text="", job=job):
            on_event(Progress(0, job, fraction, text))

        try:
            value = run(job.payload, report)
        except Exception as error:
            refused = isinstance(error, UserError)
            on_event(Failed(0, job, str(error), traceback.format_exc(), refused))
        else:
            on_event(Finished(0, job, value))
