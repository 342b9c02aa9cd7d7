"""`python -m chancy_worker.standby FD …` is `chancy-worker …`, begun when somebody says so on this pipe: until then it
has imported what every worker needs, and nothing of the program. It ends when the pipe does.
"""

from __future__ import annotations

import importlib
import os
import sys

from . import cli


def stand_by() -> None:
    """Returns when it is to begin."""
    if sys.platform != "win32":
        importlib.import_module("chancy_worker.children.pool")  # which a worker imports when it begins
    line = int(sys.argv.pop(1))
    told = os.read(line, 1)
    os.close(line)
    if not told:
        sys.exit(0)
    importlib.invalidate_caches()  # the program has changed since


if __name__ == "__main__":
    stand_by()
    cli.command()
