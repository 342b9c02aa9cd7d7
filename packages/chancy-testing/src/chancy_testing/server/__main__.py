"""`python -m chancy_testing.server FOLDER`: a Postgres that keeps its data in a folder, until standard input ends.

The first line of standard output is where it is. What it complains of goes to standard error. Who has started this ends
it by closing the pipe, and needs no more than to end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
from pathlib import Path

from .postgres import DURABLE, DirectoryInUse, Postgres

LOOK_SECONDS = 0.25


def main() -> int:
    """Run it; 2 where it cannot be started."""
    options = argparse.ArgumentParser(prog="python -m chancy_testing.server", description=__doc__)
    options.add_argument("folder", type=Path, help="new, empty, or of an earlier start")
    options.add_argument(
        "--wait", type=float, default=0.0, metavar="S", help="seconds for a server that is just ending in the folder"
    )
    options.add_argument(
        "--for-libpq",
        action="store_true",
        help="print where it is with words that outdo libpq's variables, and that other drivers do not know",
    )
    asked = options.parse_args()
    try:
        server = begun(asked.folder, asked.wait)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    with server, contextlib.suppress(KeyboardInterrupt):
        print(server.dsn if asked.for_libpq else server.address, flush=True)
        follow(asked.folder / "log")
        sys.stdin.read()
    return 0


def begun(folder: Path, seconds: float) -> Postgres:
    """A server that runs. Raises `RuntimeError` that says why it does not."""
    until = time.monotonic() + seconds
    while True:
        server = Postgres(folder, settings=DURABLE)
        try:
            server.start()
        except DirectoryInUse:
            if time.monotonic() > until:
                raise
            time.sleep(LOOK_SECONDS)
        else:
            return server


def follow(file: Path) -> None:
    """Write to standard error what is added to the server's log from now on, but for what is no complaint."""
    log = file.open(encoding="utf-8", errors="replace")  # to the end of this process
    log.seek(0, os.SEEK_END)

    def copy() -> None:
        while True:
            if not (line := log.readline()):
                time.sleep(LOOK_SECONDS)
            elif " LOG:  " not in line:
                sys.stderr.write(line)
                sys.stderr.flush()

    threading.Thread(target=copy, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
