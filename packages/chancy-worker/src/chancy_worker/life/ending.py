"""When the process of a worker ends is the worker's affair: what is raised through its event loop does not end it, and
what jobs have left in it does not hold it up.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from chancy.current import CurrentJob, running_attempt
from chancy_worker.words import kind_of, words_of

from .signals import Asked

T = TypeVar("T")

log = logging.getLogger("chancy.worker")

AT_EXIT_SECONDS = 3.0
"""That what is registered with `atexit` gets: flushing what was traced, ending the processes of a pool."""

_OURS = ("chancy", "asyncio_")
"""How the names of threads begin that are there without a job's doing."""


def to_the_end(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run the loop until `work` has come to its end, whatever is raised through the loop meanwhile.

    An asyncio task or callback that raises SystemExit or KeyboardInterrupt stops the whole loop, after whoever awaits
    the task has been given it. A job's `loop.stop()` does, too.
    """
    task = loop.create_task(work)
    while True:
        try:
            return loop.run_until_complete(task)
        except BaseException as error:
            if task.done() or loop.is_closed() or isinstance(error, Asked):
                raise
            log.error("%s; this worker goes on", _told(error))


def _told(error: BaseException) -> str:
    """What went through the loop, and from where as far as that can be known."""
    job: CurrentJob | None = None
    where = "the event loop itself"
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        handle = frame.f_locals.get("self")
        if isinstance(handle, asyncio.Handle):
            job = handle._context.get(running_attempt)  # type: ignore[attr-defined]  # noqa: SLF001 - nothing else tells
        where = f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{trace.tb_lineno})"
        trace = trace.tb_next
    whose = "" if job is None else f", of job {job.id} ({job.task})"
    return f"{kind_of(error)} ({words_of(error)}) was raised through the event loop, in {where}{whose}"


def end(code: int) -> NoReturn:
    """End this process, whatever threads and processes jobs have left in it; what is registered with `atexit` gets a
    few seconds.

    The interpreter's own end would wait for every thread, and for every process that `multiprocessing` has started.
    """
    left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if left := [name for name in left if not name.startswith(_OURS)]:
        log.warning("with this process end the threads that jobs have left in it: %s", ", ".join(left))
    with contextlib.suppress(BaseException):
        last = threading.Timer(AT_EXIT_SECONDS, os._exit, [code])
        last.daemon = True
        last.start()
        atexit._run_exitfuncs()  # noqa: SLF001 - as forked processes of multiprocessing do
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(code)
