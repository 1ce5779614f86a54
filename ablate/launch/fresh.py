"""A worker in a new interpreter: `python -m ablate.launch.fresh CONNECTION PARENT`."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from ablate.launch.worker import become

if __name__ == "__main__":
    become(Connection(int(sys.argv[1])), int(sys.argv[2]))
