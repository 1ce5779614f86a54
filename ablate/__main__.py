"""`python -m ablate`."""

import sys

try:
    from ablate.cli import main
except KeyboardInterrupt:  # Ctrl-C while it loads
    sys.exit(130)

main()
