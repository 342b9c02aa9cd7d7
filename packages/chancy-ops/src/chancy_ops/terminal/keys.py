"""Keys as they are pressed, for what goes on until somebody ends it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Keys as they are pressed, without echo: a function that waits so many seconds for one.

    The terminal is as it was afterwards, also when the process is told to end.
    """
    try:
        import termios
        import tty
    except ImportError:  # Windows: Ctrl-C alone ends it

        def wait(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield wait
        return
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    told = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        tty.setcbreak(stdin)

        def pressed(seconds: float) -> str:
            ready, _, _ = select.select([stdin], [], [], seconds)
            return os.read(stdin, 1).decode("latin-1") if ready else ""

        yield pressed
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, told)
