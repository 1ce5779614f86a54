"""A plugin that makes training in a job of SLURM slow: an update takes $PAUSE seconds and is noted in $UPDATES."""

import os
import time

from ablate import trial

train = trial.train_cohort


def slowly(*args, leave=lambda: False, **options):
    """As it was, slowly."""

    def asked():
        with open(os.environ["UPDATES"], "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(float(os.environ["PAUSE"]))
        return leave()

    return train(*args, leave=asked, **options)


if "SLURM_JOB_ID" in os.environ:
    trial.train_cohort = slowly
