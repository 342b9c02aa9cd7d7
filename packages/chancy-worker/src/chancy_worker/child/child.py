"""The life of a child process: one job after the other, until the worker closes the line or dies.

`current_job()`, `progress()` and `logging` work as they do in the worker. A child is a session of its own, so that it
can be ended together with what it has started, and Ctrl-C in a terminal is for the worker alone. A process that a
handler forks is none of it: it has no line, and ends where it comes back out of the handler.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import errno
import importlib
import logging
import os
import runpy
import signal
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from chancy.current import CurrentJob, running_attempt
from chancy.errors import InvalidTask, MemoryLimitExceeded
from chancy.model import Progress
from chancy.registry import registered
from chancy.schema import attempt_schema
from chancy.task import AsyncTask, BaseTask
from chancy_worker import forks
from chancy_worker.attempts.attempt import Explain, as_it_is, call, call_async
from chancy_worker.attempts.logs import message_of, traceback_of
from chancy_worker.attempts.surround import Surround, found
from chancy_worker.attempts.verdict import Claimed, Completion, Since, judged
from chancy_worker.logs.format import as_json, extra_of
from chancy_worker.words import safe

from . import memory
from .frames import (
    Answer,
    Claim,
    Done,
    Grown,
    Logged,
    Order,
    Ready,
    Recalled,
    Said,
    Setup,
    Splitter,
    Told,
    Unready,
    decode_said,
    framed,
)
from .leftovers import Start
from .telling import Lately

MOST_OF_A_REASON_BYTES = 500


def main(line: socket.socket, setup: Setup, log_level: int) -> None:
    """What the process runs: import the tasks' modules, then perform orders until the line is closed."""
    os.setsid()
    signal.signal(signal.SIGTERM, _stay)
    forks.guard_signal(signal.SIGTERM, _stay)
    forks.keep_from_forks(line)
    line.setblocking(True)
    child = Child(line)
    sys.argv[:] = setup.argv
    _go_to(setup.folder)
    wire = _Wire(child)
    logging.basicConfig(level=log_level, handlers=[wire], force=True)
    # The worker may be dead, or may have let go of a child that had only begun to start.
    with contextlib.suppress(ConnectionError):
        if (why := _import(setup)) is not None:
            child.say(Unready(why))
            return
        logging.basicConfig(level=log_level, handlers=[wire], force=True)  # a module may have configured it anew
        start = Start(wire)
        child.surround = None if setup.surround is None else found(setup.surround)
        child.say(Ready())
        loop = Loop()
        while (order := child.next_order()) is not None:
            done = child.perform(order, loop, start)
            child.say(done)
            if done.last is not None:
                return


def _stay(*_: object) -> None:
    """A service manager's SIGTERM to the whole group is for the worker, which ends its children when it is time.

    A function and not SIG_IGN, which the programs that a handler starts would inherit.
    """


def _go_to(folder: str) -> None:
    """The worker's folder, as it was when that began; where it is gone, one that exists."""
    for each in (folder, "/"):
        with contextlib.suppress(OSError):
            os.chdir(each)
            return


def _import(setup: Setup) -> str | None:
    """The tasks' modules. If that fails, why."""
    module = "numpy.random"
    try:
        if (numpy_random := sys.modules.get(module)) is not None:
            numpy_random.seed()  # a preloaded one is seeded already; `random` sees to that itself
        if setup.main is not None:
            module = "__main__"
            _import_program(*setup.main)
        for module in setup.modules:
            importlib.import_module(module)
        if setup.surround is not None:
            module = ".".join(setup.surround)
            found(setup.surround)
    except BaseException as error:
        traceback.print_exc()
        last_line = traceback.format_exception_only(error)[-1].strip()
        return f"module {module} cannot be imported there: {safe(last_line, MOST_OF_A_REASON_BYTES)}"
    return None


def _import_program(name: str, file: str) -> None:
    """The program itself, with tasks in it, as multiprocessing does it: what stands under `if __name__` is not run."""
    if name:
        found = runpy.run_module(name, run_name="__mp_main__", alter_sys=True)
    else:
        found = runpy.run_path(file, run_name="__mp_main__")
    program = types.ModuleType("__mp_main__")
    program.__dict__.update(found)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = program


def end(code: int) -> NoReturn:
    """End this process, whatever threads still run; what is registered for the end of the interpreter has its turn.

    The worker waits for that a few seconds, and then kills.
    """
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()  # noqa: SLF001 - nothing else has them run where threads are not waited for
    with contextlib.suppress(BaseException):
        logging.shutdown()
    forks.flush()
    os._exit(code)


class Child:
    """The child's end of the line. A thread listens, so that orders can be recalled behind a job that takes long."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._pid = os.getpid()
        self._saying = threading.Lock()
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        """Those that have not begun; None is the end. Each is taken out once, to be performed or to be forgotten."""
        self._busy = False
        self._progress = Lately[Told](self.say)
        self.surround: Surround | None = None
        threading.Thread(target=self._listen, name="chancy line", daemon=True).start()

    @property
    def is_here(self) -> bool:
        """Whether this is the child, and no fork of it."""
        return os.getpid() == self._pid

    def say(self, answer: Answer) -> None:
        """Send; from any thread. A fork says nothing."""
        if os.getpid() != self._pid:
            return
        with self._saying:
            self._line.sendall(framed(answer))

    def next_order(self) -> Order | None:
        """Wait for the next; None when the line is closed. From here on it is begun, and is not recalled any more."""
        self._busy = False
        order = self._orders.get()
        self._busy = order is not None
        return order

    def _listen(self) -> None:
        splitter = Splitter()
        with contextlib.suppress(ConnectionError):
            while data := self._line.recv(1 << 16):
                for body in splitter.split(data):
                    self._hear(decode_said(body))
        # The line is closed over an idle child only. Else the worker is dead, and its jobs may run elsewhere soon.
        if self._busy:
            os.killpg(0, signal.SIGKILL)
        self._forget()
        self._orders.put(None)

    def _hear(self, said: Said) -> None:
        if isinstance(said, Order):
            self._orders.put(said)
        else:
            self.say(Recalled(self._forget()))

    def _forget(self) -> tuple[Claim, ...]:
        claims = []
        with contextlib.suppress(Empty):
            while (order := self._orders.get_nowait()) is not None:
                claims.append((order.job.id, order.job.fence))
        return tuple(claims)

    def perform(self, order: Order, loop: Loop, start: Start) -> Done:
        """The job's function, within its memory, and then order again. Never raises."""
        job = order.job
        task = registered().get(job.task)
        if task is None:
            error = InvalidTask(job.task, "child processes do not know it; define it in a module that they can import")
            return Done(judged(job, error, order.since, _never), 0.0, None)
        current = CurrentJob(
            job.id, job.task, job.queue, job.attempt, job.max_attempts,
            False, False, job.fence, order.schema, task.signature.encode_result,
            self._report, None, job.lease, order.since.worker, job, order.since,
        )  # fmt: skip
        running_attempt.set(current)
        attempt_schema.set(order.schema)
        limit = None if order.memory is None else _Limit(order.memory, self._grown(job, start))
        began = time.perf_counter()
        if limit is None:
            completion = _complete(job, task, order.since, as_it_is, loop, self.surround)
        else:
            with limit:
                completion = _complete(job, task, order.since, limit.explain, loop, self.surround)
        seconds = time.perf_counter() - began
        self._progress.forget()  # before the verdict: what comes behind it is of no job
        return Done(completion, seconds, "" if limit is not None and limit.reached else _left(start, seconds))

    def _grown(self, job: Claimed, start: Start) -> int:
        """What earlier jobs have left in memory: this one's limit does not count it. The worker begins to look whether
        the limit is kept when it has heard of it.
        """
        grown = start.grown
        self.say(Grown((job.id, job.fence), grown))
        return grown

    def _report(self, current: CurrentJob, progress: Progress) -> None:
        self._progress.tell(Told((current.id, current.fence), progress))


def _complete(
    job: Claimed, task: BaseTask[..., Any], since: Since, explain: Explain, loop: Loop, surround: Surround | None
) -> Completion:
    """The verdict, whatever comes out of the function."""
    try:
        if isinstance(task, AsyncTask):
            return loop.run(call_async(job, task, since, explain, surround))
        return call(job, task, since, explain, surround)
    except asyncio.CancelledError as error:  # nobody cancels from outside: a child is killed
        itself = asyncio.CancelledError("the function cancelled itself").with_traceback(error.__traceback__)
        return judged(job, itself, since, task.retry_delay)
    except BaseException as error:
        return judged(job, error, since, task.retry_delay)


def _left(start: Start, seconds: float) -> str | None:
    try:
        return start.restore(seconds)
    except BaseException as error:
        return f"a process that cannot be put right ({type(error).__qualname__})"


def _never(*_: object) -> None:
    """Not to be tried again."""


class Loop:
    """The event loop of the async functions, the same for all jobs of a child; its threads are each job's own."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = _Threads(thread_name_prefix="asyncio")

    def run(self, work: Coroutine[Any, Any, Completion]) -> Completion:
        """Until that is done, whatever else goes wrong on the loop."""
        if self._loop is None or self._loop.is_closed():
            self._loop = self._made()
        verdicts: list[Completion] = []
        task = self._loop.create_task(_into(verdicts, work), context=contextvars.copy_context())
        try:
            while True:
                try:
                    self._loop.run_until_complete(task)
                    return verdicts[0]
                except (SystemExit, KeyboardInterrupt, RuntimeError, asyncio.CancelledError):
                    if verdicts:  # the function has cancelled itself and returned
                        return verdicts[0]
                    # Of another asyncio task, after which asyncio leaves the loop; or the loop has been stopped.
                    if task.done():
                        task.result()
                    if self._loop.is_closed():
                        raise
        finally:
            if self._threads.used:
                self._threads.shutdown(wait=False, cancel_futures=True)
                self._loop.set_default_executor(self._renewed())

    def _made(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.set_default_executor(self._threads)
        forks.guard_loop(loop)
        return loop

    def _renewed(self) -> _Threads:
        self._threads = _Threads(thread_name_prefix="asyncio")
        return self._threads


async def _into(verdicts: list[Completion], work: Coroutine[Any, Any, Completion]) -> None:
    verdicts.append(await work)


class _Threads(ThreadPoolExecutor):
    """Knows whether it has ever had anything to do."""

    used = False

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """See `concurrent.futures.Executor`."""
        self.used = True
        return super().submit(*args, **kwargs)


class _Limit:
    """A memory limit of this process for as long as the block lasts, beyond what it had grown by before."""

    def __init__(self, limit: int, grown: int) -> None:
        self._limit = limit
        self._grown = grown
        self.reached = False

    def __enter__(self) -> None:
        memory.forget_peak()
        memory.allow(self._limit + self._grown)

    def __exit__(self, *_: object) -> None:
        memory.allow(None)

    def explain(self, error: BaseException) -> BaseException:
        """What a failed allocation means, with the handler's own traceback."""
        refused = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        if not refused:
            return error
        memory.allow(None)
        self.reached = True
        return MemoryLimitExceeded(self._limit, memory.peak() - self._grown).with_traceback(error.__traceback__)


class _Wire(logging.Handler):
    """Sends records to the worker, which logs them as its own. Those of a fork go to standard error."""

    def __init__(self, child: Child) -> None:
        super().__init__()
        self._child = child

    def emit(self, record: logging.LogRecord) -> None:
        """Send it, formatted as far as only this process can."""
        try:
            if not self._child.is_here:
                sys.stderr.write(f"{self.format(record)}\n")
                return
            current = running_attempt.get(None)
            self._child.say(
                Logged(
                    _encodable(record.name),
                    record.levelno,
                    _encodable(message_of(record)),
                    record.created,
                    _encodable(traceback_of(record)),
                    None if current is None else (current.id, current.fence),
                    as_json(extra) if (extra := extra_of(record)) else b"",
                )
            )
        except Exception:
            self.handleError(record)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
