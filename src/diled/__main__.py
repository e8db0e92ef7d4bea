"""`python -m diled`: the command line."""

import sys

from diled.cli import main

if __name__ == "__main__":
    sys.exit(main())
