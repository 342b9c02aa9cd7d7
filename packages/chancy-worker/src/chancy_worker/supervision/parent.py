"""A process that ends with the one that has started it, however that one ends, SIGKILL included.

Nothing tells a process of that: a thread looks who its parent is. A job may block the event loop for ever, and the
process ends all the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping

log = logging.getLogger("chancy.worker")

ENDS_WITH = "CHANCY_WORKER_ENDS_WITH"
"""The environment variable that tells a process with which other one it ends."""

LOOK_SECONDS = 0.5
TO_END_SECONDS = 22.0
"""That an orderly stop may take beside the grace: 1 to obey, 10 to write the last verdicts (`life.stopping`), 10 to
leave a lifespan, and one for what Python itself ends."""


def ended_with_this(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is to end with this one."""
    return {**env, ENDS_WITH: str(os.getpid())}


@contextlib.contextmanager
def ending_with_parent(stop: Callable[[], object], grace: float) -> Iterator[None]:
    """While the block lasts: `stop` is called, in a thread, when the parent is gone with which this process is to end;
    where that has not come to an end within the grace and `TO_END_SECONDS`, the process is ended.

    Those that jobs start are told nothing of it.
    """
    told = os.environ.pop(ENDS_WITH, None)
    if told is None:
        yield
        return
    parent, over = int(told), threading.Event()

    def watch() -> None:
        while os.getppid() == parent:
            if over.wait(LOOK_SECONDS):
                return
        log.warning("the process that has started this one is gone: stopping")
        stop()
        if not over.wait(grace + TO_END_SECONDS):
            os._exit(1)

    threading.Thread(target=watch, name="chancy parent", daemon=True).start()
    try:
        yield
    finally:
        over.set()
