"""`python -m chancy_ops` is the command `chancy`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
