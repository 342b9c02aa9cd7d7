"""What a handler says to do one part of its job after the other, and not again: `step`, `sleep`, `wait`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec
from typing_extensions import ParamSpec

from chancy import run
from chancy.errors import InvalidConnection, InvalidOption, LeaseLost, NotSignalled
from chancy.model import AskStanding, Steps
from chancy.options.outcomes import Suspended
from chancy.options.phrases import moment
from chancy.options.plain import LONGEST_DELAY, Duration, duration
from chancy.options.plain import name as name_of
from chancy.wires.connections import AsyncConn, SyncConn
from chancy.wires.wire import Standing

from .results import Result, of_function, of_type
from .statements import Rest, keep_step, known_step, known_steps, rest
from .values import MOST_STEPS, StepKind

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_NOW = timedelta(0)


class Journal(msgspec.Struct):
    """What an attempt knows of its job's steps."""

    known: dict[str, bytes | None] | None = None
    """Those that earlier attempts have done; a large result is None. None is not read yet."""
    begun: set[str] = msgspec.field(default_factory=set)
    """The names that this attempt has used."""
    suspended: Suspended | None = None
    """What has ended this attempt."""


class Stepwise:
    """The part of the current job that is about steps."""

    __slots__ = ()

    if TYPE_CHECKING:
        id: int
        task: str
        attempt: int
        fence: int
        lease: int
        schema: str
        journal: Journal | None

    @overload
    def step(self, conn: SyncConn, name: str, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def step(
        self, conn: AsyncConn, name: str, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]: ...
    def step(self, conn: Any, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What the function returns. It is called in the first attempt that gets here, and its result is kept: later
        attempts get that, and do not call it.

        That it is done is written on `conn` when it has returned, and holds when that transaction is committed: then
        what the function has written on `conn` holds, too, or neither does. In autocommit it is a transaction of its
        own: what the function does elsewhere is done again if the worker dies between the two. One round trip, and in
        an attempt that is not the job's first one more for all its steps; the job's row is locked FOR KEY SHARE until
        the transaction ends, and nobody else begins this job meanwhile.

        `name` is the step's alone: to use it twice in an attempt is an `InvalidOption`, unless the function has raised.
        The result is JSON, read back by the function's annotation, also the first time. Raises `InvalidResult` for one
        that could not be, or is above 1 MiB, and `LeaseLost` where the job no longer is this attempt's, so that the
        transaction fails. What the function raises is not kept.
        """
        result = of_function(self._label(name), function)
        is_async = run.awaited(conn)

        def call() -> Any:
            return (_awaiting if is_async else _at_once)(function, args, kwargs)

        return self._once(conn, name_of("name", name), lambda plain: self._step(plain, call, result))

    def _step(self, name: str, call: Callable[[], Any], result: Result) -> Steps[Any]:
        journal = self._journal()
        if journal.known is None:
            journal.known = yield known_steps(self.id)
        if name in journal.known:
            payload = journal.known[name]
            if payload is None:
                payload = yield known_step(self.id, name)
            if payload is not None:
                return result.decode(payload)
        if len(journal.known) + len(journal.begun - journal.known.keys()) > MOST_STEPS:
            raise InvalidOption(
                "name", f"job {self.id} has {MOST_STEPS:,} steps, and no job has more: let one step do several parts"
            )
        payload = result.encode((yield call))
        if not (yield keep_step(self.id, self.fence, self.lease, name, payload)):
            raise LeaseLost(self.id, self.task)
        return result.decode(payload)

    @overload
    def sleep(self, conn: SyncConn, name: str, delay: Duration, /) -> None: ...
    @overload
    def sleep(self, conn: AsyncConn, name: str, delay: Duration, /) -> Coroutine[Any, Any, None]: ...
    def sleep(self, conn: Any, name: str, delay: Duration, /) -> Any:
        """Go on after so much time, a timedelta or seconds, and need no worker meanwhile.

        Ends the attempt by raising `Suspended`, which the handler has to let pass; the attempt does not count. The next
        one comes here again, by way of the steps that are done, and goes on when the time is over: it counts from the
        first time, by the database's clock. A signal of this name ends it. One round trip.

        In autocommit only: what is raised would undo it in a transaction, which is refused as `InvalidConnection`.
        Raises `LeaseLost` where the job no longer is this attempt's.
        """
        plain = duration("delay", delay)
        return self._once(conn, name_of("name", name), lambda name: self._sleep(name, max(plain, _NOW)))

    def _sleep(self, name: str, delay: timedelta) -> Steps[None]:
        yield from self._rest(name, StepKind.SLEEP, delay)

    @overload
    def wait(self, conn: SyncConn, name: str, kind: type[T], /, *, timeout: Duration | None = None) -> T: ...
    @overload
    def wait(
        self, conn: AsyncConn, name: str, kind: type[T], /, *, timeout: Duration | None = None
    ) -> Coroutine[Any, Any, T]: ...
    def wait(self, conn: Any, name: str, kind: Any, /, *, timeout: Duration | None = None) -> Any:
        """What somebody tells the job by this name, as `chancy.signal(conn, job_id, name, value)`, read as `kind`.

        It may have been said before. Else the attempt ends by raising `Suspended`, which the handler has to let pass,
        and does not count; the next one comes here again when the job has been told, by way of the steps that are done,
        and needs no worker meanwhile. One round trip.

        `timeout` counts from the first time, by the database's clock; then `NotSignalled`, a `TimeoutError`, is raised
        here in each attempt. In autocommit only, as `sleep`. Raises `InvalidResult` where what was said does not fit
        `kind`, and `LeaseLost` where the job no longer is this attempt's.
        """
        result = of_type(self._label(name), kind, "kind")
        most = None if timeout is None else max(duration("timeout", timeout), _NOW)
        return self._once(conn, name_of("name", name), lambda name: self._wait(name, result, most))

    def _wait(self, name: str, result: Result, timeout: timedelta | None) -> Steps[Any]:
        value: bytes | None = yield from self._rest(name, StepKind.WAIT, timeout)
        if value is None:
            raise NotSignalled(self.id, self.task, name)
        return result.decode(value)

    def _rest(self, name: str, kind: StepKind, delay: timedelta | None) -> Steps[bytes | None]:
        """What the job was told by this name, or None when its time is over. Else ends the attempt."""
        standing: Standing = yield AskStanding()
        # In memory a connection of another stack stands nowhere.
        if standing is not Standing.AUTOCOMMIT and (standing is not Standing.FRESH or run.backend().elsewhere):
            raise InvalidConnection(
                f"job {self.id} ({self.task}) cannot {kind.value} in {name!r} on this connection: the exception that "
                f"ends the attempt would undo it in a transaction; give a connection in autocommit"
            )
        seen: Rest = yield rest(self.id, self.fence, self.lease, name, kind, delay)
        if seen.fate == "lost":
            raise LeaseLost(self.id, self.task)
        if seen.fate != "rest":
            return seen.value
        what = f"sleeps in {name!r}" if kind is StepKind.SLEEP else f"waits for the signal {name!r}"
        end = "" if seen.until is None else f" until {moment(seen.until)}"
        left = LONGEST_DELAY if seen.seconds is None else timedelta(seconds=seen.seconds)
        suspended = Suspended(left, what + end)
        self._journal().suspended = suspended
        raise suspended

    def _label(self, name: object) -> str:
        return f"{self.task}, step {name!r}"

    def _journal(self) -> Journal:
        if self.journal is None:
            self.journal = Journal(  # type: ignore[misc]  # its slot is that of `CurrentJob`
                {} if self.fence <= 1 else None  # a job's first claim has nothing behind it
            )
        return self.journal

    def _once(self, conn: Any, name: str, plan: Callable[[str], Steps[Any]]) -> Any:
        """Do it, under a name that is free again where it has raised."""
        journal = self._journal()
        if journal.suspended is not None:
            raise journal.suspended  # somebody has caught it, and goes on
        if name in journal.begun:
            raise InvalidOption(
                "name",
                f"job {self.id} ({self.task}) has begun a step {name!r} in this attempt already: give each a name of "
                f'its own, as f"page {{n}}"',
            )
        work, is_async = plan(name), run.awaited(conn)
        journal.begun.add(name)
        if is_async:
            return _guarded(run.perform(conn, work, self.schema), journal, name)
        try:
            return run.perform(conn, work, self.schema)
        except BaseException:
            journal.begun.discard(name)
            raise


async def _guarded(work: Any, journal: Journal, name: str) -> Any:
    try:
        return await work
    except BaseException:
        journal.begun.discard(name)
        raise


def _at_once(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    value = function(*args, **kwargs)
    if inspect.iscoroutine(value):
        value.close()
        raise InvalidOption("function", "it is async, and the connection is not: give it an async connection")
    return value


async def _awaiting(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    value = function(*args, **kwargs)
    return await value if inspect.isawaitable(value) else value
