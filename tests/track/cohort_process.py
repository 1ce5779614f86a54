"""Processes that the tests of the recorder start and stop from outside."""

import os
import signal
import sys
import time
from pathlib import Path

from ablate.track import provenance
from ablate.track.recorder import Entry, Log, Outcome, record

# A shell that starts its command in the background has it ignore SIGINT, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def crowd(store: Path, size: int) -> None:
    """`size` processes, each recording its own trial, all let go at the same moment."""
    ready, go = os.pipe()
    provenance.repositories()  # once here instead of once a child
    provenance.hardware()
    children = []
    for number in range(size):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(ready, 1)  # returns when the parent closes its end
            one(store, number)
            os._exit(0)
        children.append(child)
    os.close(go)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0


def one(store: Path, number: int) -> None:
    """Record a run; of 50, ten claim a trial that another one claims too."""
    entry = Entry(f"{number % 40:012x}", {"seed": number})
    record([entry], lambda logs: [Outcome({"seed": number})], store)


def patient(store: Path, swallow: bool) -> None:
    """Three trials of one cohort, which work until they are stopped."""

    def body(logs: list[Log]) -> list[Outcome]:
        for log in logs:
            log.metric("loss", 1.0, 0)
        print("working", flush=True)
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            if not swallow:
                raise
        return [Outcome({"score": 1.0}) for _ in logs]

    record([Entry(f"trial{i}", {"seed": i}) for i in range(3)], body, store)


if __name__ == "__main__":
    if sys.argv[1] == "crowd":
        crowd(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        patient(Path(sys.argv[2]), swallow=sys.argv[1] == "swallow")
