"""The attempt that is running: what a handler may ask about itself, and say."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, overload

import msgspec

from .arguments.meta import parsed
from .errors import ChancyError, InvalidConnection, LeaseLost
from .flows.becoming import becoming
from .flows.later import Later
from .history.moving import DAYS_AHEAD, make_partitions
from .model import AskStanding, AttemptError, Progress, Steps
from .options import plain
from .run import perform
from .statements import complete_job, parse_errors
from .steps.stepwise import Journal, Stepwise
from .wires.connections import AsyncConn, SyncConn
from .wires.wire import Standing

LONGEST_NOTE = 500
"""Characters of a note about the progress."""


def _nobody(job: object, progress: Progress) -> None:
    """Listens."""


class CurrentJob(Stepwise, msgspec.Struct):
    """One attempt, seen from inside its handler. What it does step by step is `steps/stepwise.py`."""

    id: int
    task: str
    queue: str
    attempt: int
    """Counted from 1, at the claim."""
    max_attempts: int
    lease_lost: bool = False
    """The worker's lease ran out: another worker may run this job now, and nothing that this attempt says counts."""
    cancelled: bool = False
    """Somebody has asked for the end of this attempt. A thread has to look here, since it cannot be stopped."""
    fence: int = 0
    schema: str = ""
    encode_result: Callable[[Any], bytes] = bytes
    report: Callable[[CurrentJob, Progress], None] = _nobody
    """Takes what `progress` is told to the worker."""
    book: object = None
    """What keeps its log records, in the worker's terms; None if its task does not ask for it."""
    lease: int = 0
    """Of the worker, when it claimed the job: with the fence, whose the row is."""
    worker: str = ""
    """The name of the worker that runs it."""
    claimed: Any = None
    """What the claim has brought, in the worker's terms."""
    since: Any = None
    """When the attempt began and what is known of it since, in the worker's terms."""
    stopped: str = ""
    """Why this attempt is being stopped, as a phrase: its time limit is over, its worker stops. For what is around it;
    a child process is not told."""
    journal: Journal | None = None
    """What it knows of its job's steps, from the first one on."""

    def __repr__(self) -> str:
        return f"CurrentJob({', '.join(f'{name}={getattr(self, name)!r}' for name in _SHOWN)})"

    @property
    def submitted_at(self) -> datetime:
        """When the job was submitted, by the database's clock, in UTC."""
        return self._claimed.submitted_at.astimezone(UTC)  # type: ignore[no-any-return]

    @property
    def run_at(self) -> datetime:
        """From when on this attempt could begin, by the database's clock, in UTC."""
        return self._claimed.run_at.astimezone(UTC)  # type: ignore[no-any-return]

    @property
    def meta(self) -> Mapping[str, Any]:
        """What travels beside the arguments, as the functions of `chancy.meta` have said when it was bound."""
        return parsed(self._claimed.meta)

    @property
    def trace(self) -> str:
        """Where this attempt is in a trace, as a `traceparent` of the W3C; "" where nobody has said it.

        It is there in a child process, too, and if the attempt goes wrong, it stays with its error.
        """
        return "" if self.since is None else self.since.trace

    @trace.setter
    def trace(self, traceparent: str) -> None:
        """For who traces: in a middleware, or in the surround. A child process tells nobody."""
        if self.since is not None:
            self.since.trace = plain.text("trace", traceparent)

    @property
    def error(self) -> AttemptError | None:
        """How the last attempt went wrong, of a job that is tried again."""
        errors = parse_errors(self._claimed.errors)
        return errors[-1] if errors else None

    @property
    def _claimed(self) -> Any:
        if self.claimed is None:
            raise ChancyError(f"job {self.id} ({self.task}) was not claimed here, and nothing more is known of it")
        return self.claimed

    def progress(self, fraction: float, note: str = "") -> None:
        """Say how far this attempt is, from 0 to 1: `chancy.get(conn, id).progress` shows the last word a second later.

        Costs no query here: the worker writes what has changed, of all its jobs at once, at most once a second. Of the
        note the first 500 characters are kept. Raises `InvalidOption`, a `ValueError`, for a fraction outside of that,
        and for a note that is no text.
        """
        self.report(self, Progress(plain.fraction("fraction", fraction), plain.beginning("note", note, LONGEST_NOTE)))

    @overload
    def complete(self, conn: SyncConn, result: object = None, /) -> None: ...
    @overload
    def complete(self, conn: AsyncConn, result: object = None, /) -> Coroutine[Any, Any, None]: ...
    def complete(self, conn: SyncConn | AsyncConn, result: object = None, /) -> Coroutine[Any, Any, None] | None:
        """Make this job succeeded in the handler's own transaction: its effects and this commit together, or neither.
        With `result_of(job)` it waits for that job instead, whose result will be its own.

        Two round trips; the job's row is locked until the transaction ends. Whatever the handler returns or raises
        after the commit changes nothing; after a rollback it counts as always. Raises `LeaseLost` where the job no
        longer is this attempt's, so that the transaction fails, `InvalidConnection` in autocommit, `InvalidResult`.
        """
        return perform(conn, self._complete(result), self.schema)

    def _complete(self, result: object) -> Steps[None]:
        if (yield AskStanding()) is Standing.AUTOCOMMIT:
            raise InvalidConnection(
                f"job {self.id} ({self.task}) can be completed inside a transaction only, together with its effects; "
                f"this connection is in autocommit: use `with conn.transaction():`, or what your stack has for it"
            )
        if type(result) is Later:
            return (yield from becoming(self.id, self.task, self.fence, self.lease, result, self.schema))
        encoded = self.encode_result(result)
        yield make_partitions(DAYS_AHEAD)  # a missing one could not be made up for inside this transaction
        if not (yield complete_job(self.id, self.fence, self.lease, encoded)):
            raise LeaseLost(self.id, self.task)


_SHOWN = ("id", "task", "queue", "attempt", "max_attempts", "lease_lost", "cancelled", "worker", "stopped")

running_attempt: ContextVar[CurrentJob] = ContextVar("chancy_running_attempt")
"""Set by worker, eager and drain around the handler; threads get a copy."""


def current_job() -> CurrentJob:
    """The job whose handler is calling. Raises `ChancyError` outside of a handler."""
    try:
        return running_attempt.get()
    except LookupError:
        raise ChancyError("no job is running here: current_job() works inside a task's function only") from None
