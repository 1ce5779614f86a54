"""`python -m ablate`."""

import os
import sys

# `python -m` looks into the current folder first; a file beside a study must not stand in for a module of that name.
if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
    sys.path.append(sys.path.pop(0))

try:
    from ablate.cli import main
except KeyboardInterrupt:  # Ctrl-C while it loads
    sys.exit(130)

main()
