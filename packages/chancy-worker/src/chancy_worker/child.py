"""The life of a child process: one job after the other, until the worker closes the line or dies.

`current_job()`, `progress()` and `logging` work as they do in the worker. A child is a session of its own, so that the
worker can end it together with what it has started, and Ctrl-C in a terminal is for the worker alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import importlib
import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence

from chancy.current import CurrentJob, running_attempt
from chancy.errors import InvalidTask, MemoryLimitExceeded
from chancy.schema import attempt_schema
from chancy.task import AsyncTask, registered

from . import memory
from .attempt import call, call_async
from .frames import Answer, Done, Logged, Order, Ready, Recalled, Said, Splitter, Told, decode_said, framed
from .records import message_of, traceback_of
from .telling import Lately
from .verdict import Completion, judged


def main(line: socket.socket, modules: Sequence[str], log_level: int) -> None:
    """What the process runs: import the tasks' modules, then perform orders until the line is closed."""
    os.setsid()
    # A service manager's SIGTERM to the whole group is for the worker, which ends its children when it is time. A
    # function and not SIG_IGN, which the programs that a handler starts would inherit.
    signal.signal(signal.SIGTERM, lambda *_: None)
    line.setblocking(True)
    child = Child(line)
    logging.basicConfig(level=log_level, handlers=[_Wire(child)], force=True)
    for module in modules:
        importlib.import_module(module)
    # The worker may be dead, or may have let go of a child that had only begun to start.
    with contextlib.suppress(ConnectionError), asyncio.Runner() as runner:
        child.say(Ready())
        while (order := child.next_order()) is not None:
            answer = child.perform(order, runner)
            child.say(answer)
            if answer.last:
                return


class Child:
    """The child's end of the line. A thread listens, so that orders can be recalled behind a job that takes long."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._saying = threading.Lock()
        self._orders: deque[Order] = deque()
        self._changed = threading.Condition()
        self._busy = self._over = False
        self._progress = Lately[Told](self.say)
        threading.Thread(target=self._listen, name="chancy line", daemon=True).start()

    def say(self, answer: Answer) -> None:
        """Send; from any thread."""
        with self._saying:
            self._line.sendall(framed(answer))

    def next_order(self) -> Order | None:
        """Wait for the next; None when the line is closed. From here on it is begun, and is not recalled any more."""
        with self._changed:
            self._busy = False
            while not self._orders:
                if self._over:
                    return None
                self._changed.wait()
            self._busy = True
            return self._orders.popleft()

    def _listen(self) -> None:
        splitter = Splitter()
        with contextlib.suppress(ConnectionError):
            while data := self._line.recv(1 << 16):
                for body in splitter.split(data):
                    self._hear(decode_said(body))
        # The line is closed over an idle child only. Else the worker is dead, and its jobs may run elsewhere soon.
        with self._changed:
            if self._busy:
                os.killpg(0, signal.SIGKILL)
            self._over = True
            self._changed.notify()

    def _hear(self, said: Said) -> None:
        if isinstance(said, Order):
            with self._changed:
                self._orders.append(said)
                self._changed.notify()
        else:
            with self._changed:
                count = len(self._orders)
                self._orders.clear()
            self.say(Recalled(count))

    def perform(self, order: Order, runner: asyncio.Runner) -> Done:
        """The job's function, within its memory."""
        job = order.job
        task = registered().get(job.task)
        if task is None:
            error = InvalidTask(job.task, "child processes do not know it; define it in a module that they can import")
            return Done(judged(job, error, order.since, lambda *_: None), 0.0, last=False)
        current = CurrentJob(
            job.id,
            job.task,
            job.queue,
            job.attempt,
            job.max_attempts,
            fence=job.fence,
            schema=order.schema,
            encode_result=task.signature.encode_result,
            report=lambda _, progress: self._progress.tell(Told(progress)),
            lease=job.lease,
        )
        running_attempt.set(current)
        attempt_schema.set(order.schema)
        limit, began = _Limit(order.memory), time.perf_counter()
        with limit:
            if isinstance(task, AsyncTask):
                work = call_async(job, task, order.since, limit.explain)
                completion: Completion = runner.run(work, context=contextvars.copy_context())
            else:
                completion = call(job, task, order.since, limit.explain)
        self._progress.forget()  # before the verdict: what comes behind it is of no job
        return Done(completion, time.perf_counter() - began, last=limit.reached)


class _Limit:
    """A memory limit of this process for as long as the block lasts; None is no limit."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.reached = False

    def __enter__(self) -> None:
        if self._limit is not None:
            memory.forget_peak()
            memory.allow(self._limit)

    def __exit__(self, *_: object) -> None:
        if self._limit is not None:
            memory.allow(None)

    def explain(self, error: BaseException) -> BaseException:
        """What a failed allocation means, with the handler's own traceback."""
        refused = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        if self._limit is None or not refused:
            return error
        memory.allow(None)
        self.reached = True
        return MemoryLimitExceeded(self._limit, memory.peak()).with_traceback(error.__traceback__)


class _Wire(logging.Handler):
    """Sends records to the worker, which logs them as its own."""

    def __init__(self, child: Child) -> None:
        super().__init__()
        self._child = child

    def emit(self, record: logging.LogRecord) -> None:
        """Send it, formatted as far as only this process can."""
        try:
            current = running_attempt.get(None)
            self._child.say(
                Logged(
                    _encodable(record.name),
                    record.levelno,
                    _encodable(message_of(record)),
                    record.created,
                    _encodable(traceback_of(record)),
                    None if current is None else (current.id, current.fence),
                )
            )
        except Exception:
            self.handleError(record)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
