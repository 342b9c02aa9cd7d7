"""`python -m chancy_worker` is `chancy-worker`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
