"""`@task`: a typed function with a stable name, which can be called here or submitted to run there."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Self, TypedDict, TypeVar, overload

from typing_extensions import ParamSpec, Unpack

from .arguments.codec import Signature, signature_of
from .arguments.functions import checked_function, is_async, refusal, task_name
from .arguments.meta import meta_now
from .errors import InvalidArguments, InvalidOption, InvalidTask, ResultExpired
from .flows.here import performed, performed_async
from .flows.holes import encode_with_holes
from .flows.later import Later, after_of
from .job import Job, NewJob, submit_one
from .keys.gates import Gates, gates_of
from .keys.key import UniqueKeys, unique_of
from .keys.unique import Unique
from .model import JobRow, Options
from .options.limits import KeyFunction, Limit, Place, PlaceWish, SharedLimit, checked_key, divided, place_of, wish_of
from .options.plain import Duration, flag, kept, several, shown
from .options.plain import name as name_of
from .options.retry import DEFAULT_BACKOFF, Backoff, RetryFunction, checked_retry, delay_of
from .options.spelling import refuse_others
from .registry import register
from .run import awaited, backend, perform
from .schedules.recurrence import When, declared
from .schema import schema_in_use
from .states import State
from .wires.connections import AsyncConn, SyncConn

P = ParamSpec("P")
R = TypeVar("R")


_NO_FUNCTION = "expected a text as its key: what goes into a row is data, a function belongs to @task"


class OptionChanges(TypedDict, total=False):
    """What `using` may change for one submit. Each of them goes into the job's row."""

    queue: str
    priority: int
    run_at: datetime | None
    delay: Duration | None
    max_attempts: int
    limits: Iterable[Limit | SharedLimit]
    retry: Backoff | None
    unique: Unique | None
    group: str | None
    after: Iterable[object]
    """Jobs that it comes after, each bound or submitted: `outcome_of(job)` for one that need not succeed."""


@dataclass(frozen=True)
class BaseTask(Generic[P, R]):
    """What sync and async tasks share: everything but the direct call."""

    name: str
    function: Callable[P, Any] = field(repr=False)
    signature: Signature = field(repr=False, compare=False)
    options: Options = field(repr=False, default_factory=Options)
    retry: RetryFunction | None = field(repr=False, default=None)
    """Decides delays where they are not data; a job's own `Backoff`, given by `using`, goes first."""
    executor: PlaceWish | None = field(repr=False, default=None)
    """Where it is to run, if not where its limits say."""
    shared: tuple[SharedLimit, ...] = field(repr=False, default=())
    """Its limits over all workers."""
    group: KeyFunction | str | None = field(repr=False, default=None)
    """Whose turn a job takes."""
    gates: Gates | None = field(repr=False, compare=False, default=None)
    """What its jobs have to pass, made of the two."""
    unique: Unique | None = field(repr=False, default=None)
    """What keeps a job from being there twice."""
    unique_keys: UniqueKeys | None = field(repr=False, compare=False, default=None)
    """The keys of its jobs, made of that."""
    refusal: str | None = field(repr=False, default=None)
    """Why jobs of this task could not be performed by a worker, if so. In memory they can."""
    keep_logs: bool = field(repr=False, default=False)
    """Whether what its jobs log is kept with them."""
    schedule: When | None = field(repr=False, default=None)
    """When workers submit it by themselves."""
    aliases: tuple[str, ...] = field(repr=False, default=())
    """Its older names, the oldest first: jobs that were submitted under them are its own."""
    after: tuple[Later, ...] = field(repr=False, compare=False, default=())
    """What its jobs wait for, and are not told of."""

    @property
    def names(self) -> tuple[str, ...]:
        """All its names: wherever a verb takes a task, they are meant."""
        return (self.name, *self.aliases)

    @property
    def root(self) -> str:
        """Its oldest name: its limits over all workers are named after that, so that a rename leaves them whole."""
        return self.aliases[0] if self.aliases else self.name

    def retry_delay(self, attempt: int, error: BaseException, own: Backoff | None) -> timedelta | None:
        """The delay after failed attempt `attempt` of a job with a backoff of its `own`; None for "give up".

        Raises what a retry function raises, and `TypeError` or `ValueError` for one that returns no delay.
        """
        if own is None and self.retry is not None:
            given = self.retry(attempt, error)
            try:
                return None if given is None else delay_of(given)
            except (TypeError, ValueError) as wrong:
                raise type(wrong)(f"the retry function of task {self.name} returned no delay: {wrong}") from None
        return (own or self.options.retry or DEFAULT_BACKOFF).delay(attempt)

    def place(self, limits: Iterable[Limit] | None = None) -> Place:
        """Where a job with these limits runs; by default those that the task declares.

        Raises `ValueError` where the task's `executor` cannot keep them.
        """
        limits = self.options.limits if limits is None else limits
        return place_of(isinstance(self, AsyncTask), self.executor, limits or ())

    @overload
    def submit(self, conn: SyncConn, /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def submit(self, conn: AsyncConn, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Job[R]]: ...
    def submit(
        self, conn: SyncConn | AsyncConn, /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R] | Coroutine[Any, Any, Job[R]]:
        """Add one job in the caller's transaction; it exists when that commits. One round trip; never commits.

        Raises `InvalidArguments`, which names the argument, and `InvalidConnection`, before anything is sent.

        For a unique task this may return the job that has the key already (`Job.outcome` says so), or raise
        `DuplicateJob`. It blocks while another transaction that has added, claimed, replaced or finished a job of this
        key is open; under REPEATABLE READ psycopg's `SerializationFailure` may follow.
        """
        try:
            new = self.bind(*args, **kwargs)
        except InvalidArguments:
            awaited(conn)  # raises for what is none: it has been taken for the connection, if that was forgotten
            raise
        schema = schema_in_use()
        return perform(conn, submit_one(new, schema), schema)

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> NewJob[R]:
        """The job with these arguments, checked and encoded, for `submit_many`. Sends nothing."""
        if self.refusal and backend().elsewhere:
            raise InvalidTask(self.name, self.refusal)
        try:
            return self.carrying(self.signature.encode_arguments(args, kwargs), meta_now(self.name))
        except InvalidArguments:
            if (holed := encode_with_holes(self.signature, args, kwargs)) is None:
                raise
        return self.carrying(holed.payload, meta_now(self.name), holed.known, holed.needs)

    def carrying(
        self,
        payload: bytes,
        meta: bytes | None = None,
        known: Mapping[str, Any] | None = None,
        needs: tuple[Later, ...] = (),
    ) -> NewJob[R]:
        """The job with these, encoded; with holes, those that are `known`, and the `needs` that will fill them.

        Raises `InvalidArguments` when a key function fails.
        """
        gates = unique = None
        if self.gates is not None or self.unique_keys is not None:
            arguments = self.signature.named_arguments(payload) if known is None else known
            gates = None if self.gates is None else self.gates.passed_by(arguments)
            unique = None if self.unique_keys is None else self.unique_keys(arguments)
        return NewJob(
            self.name, payload, self.options, self.signature.decode_result, gates, unique, meta, (*needs, *self.after)
        )

    def result_of(self, row: JobRow) -> R:
        """What a job of this task has returned, as its function's type: of its row, without a round trip.

        Raises `InvalidOption` for a job of another task and for one that has not succeeded, `ResultExpired` where its
        result is kept no longer, and `InvalidResult` where the type has changed since.
        """
        if row.task not in self.names:
            raise InvalidOption("row", f"expected a job of {self.name}, got job {row.id} of {row.task}")
        if row.state is not State.SUCCEEDED:
            raise InvalidOption("row", f"job {row.id} ({row.task}) has no result: it is {row.state}")
        if row.result is None:
            raise ResultExpired(row.id, row.task)
        result: R = self.signature.decode_result(row.result)
        return result

    def using(self, **changes: Unpack[OptionChanges]) -> Self:
        """The same task with other options for what is submitted through it. Sends nothing.

        `run_at` is an aware datetime, `delay` counts from the submit by the database's clock, as a `timedelta` or in
        seconds; of a job that needs others it counts from when those are over. `limits` replace those of an attempt;
        those over all workers stay, unless others of that kind are named. `unique` None lets it be there as often as it
        is submitted. `after` are jobs that have to succeed before it begins.
        Raises `InvalidArguments` for an option that cannot go into a row.
        """
        given: dict[str, Any] = dict(changes)
        group, unique, after = given.pop("group", None), given.pop("unique", None), given.pop("after", ())
        named: tuple[SharedLimit, ...] = ()
        try:
            refuse_others(changes, OptionChanges.__annotations__)
            if "limits" in given:
                given["limits"], named = divided(given["limits"])
            options = self.options.but(**given)
            wait_for = after_of(several("after", after, "jobs"))
            if callable(group):
                raise InvalidOption("group", _NO_FUNCTION)
            if group is not None:
                group = checked_key("group", group)
            if not (unique is None or isinstance(unique, Unique)):
                raise InvalidOption("unique", f"expected a Unique or None, got {shown(unique)}")
        except InvalidOption as error:
            raise InvalidArguments(self.name, error.option, error.reason) from None
        try:
            self.place(options.limits) if "limits" in given else None
        except InvalidOption as error:
            raise InvalidArguments(self.name, "limits", error.reason) from None
        if any(callable(limit.key) for limit in named):
            raise InvalidArguments(self.name, "limits", _NO_FUNCTION)
        if unique is not None and callable(unique.key):
            raise InvalidArguments(self.name, "unique", _NO_FUNCTION)
        made: dict[str, Any] = {"options": options}
        if named or "group" in changes:
            together, group = named or self.shared, group if "group" in changes else self.group
            gates = gates_of(together, group, self.signature, self.root)
            made |= {"shared": together, "group": group, "gates": gates}
        if "after" in changes:
            made["after"] = wait_for
        if "unique" in changes:
            made |= {"unique": unique, "unique_keys": unique_of(unique, self.signature, self.aliases)}
        return replace(self, **made)


class Task(BaseTask[P, R]):
    """A plain function; a worker runs it in a thread, or in a process of its own if it has limits."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, without a database; and the jobs whose result it returns, if it does."""
        result: R = self.function(*args, **kwargs)
        return performed(result) if type(result) is Later else result


class AsyncTask(BaseTask[P, R]):
    """An `async def`; a worker runs it on its event loop, or in a process of its own if it has a memory limit."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
            """Run the function here and now, without a database."""

    else:

        async def __call__(self, *args, **kwargs):
            """Run the function here and now, without a database; and the jobs whose result it returns, if it does."""
            result = await self.function(*args, **kwargs)
            return await performed_async(result) if type(result) is Later else result


if sys.version_info >= (3, 12):  # for whoever asks whether what it was given has to be awaited
    inspect.markcoroutinefunction(AsyncTask)


class TaskDecorator:
    """What `@task(…)` with options gives."""

    def __init__(self, make: Callable[[Callable[..., Any]], BaseTask[..., Any]]) -> None:
        self._make = make

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> BaseTask[..., Any]:
        """Make the function a task with these options."""
        return self._make(function)


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]
@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    queue: str = "default",
    priority: int = 0,
    max_attempts: int = 3,
    limits: Iterable[Limit | SharedLimit] = (),
    retry: Backoff | RetryFunction | None = None,
    executor: PlaceWish | None = None,
    unique: Unique | None = None,
    group: KeyFunction | str | None = None,
    keep_logs: bool = False,
    schedule: When | None = None,
    aliases: Iterable[str] = (),
) -> TaskDecorator: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = "default",
    priority: int = 0,
    max_attempts: int = 3,
    limits: Iterable[Limit | SharedLimit] = (),
    retry: Backoff | RetryFunction | None = None,
    executor: PlaceWish | None = None,
    unique: Unique | None = None,
    group: KeyFunction | str | None = None,
    keep_logs: bool = False,
    schedule: When | None = None,
    aliases: Iterable[str] = (),
    **others: object,
) -> BaseTask[..., Any] | TaskDecorator:
    """Make a typed function a task: it can still be called, and it can be submitted.

    The name defaults to `module.qualname` and is what the rows say: give `name` before you move the function, or
    `aliases` afterwards, its older names, the oldest first. `max_attempts` counts the first attempt. Larger `priority`
    runs sooner, from -100 to 100. `retry` is a `Backoff`, or a function of attempt and exception that returns a delay
    (a timedelta or seconds), or None to give up. Raises `InvalidTask` for a function that could not be carried as a
    row, and for an option that does not fit.

    A wrapper that was made with `functools.wraps` is seen as what it wraps: around an `async def` it is awaited. One
    that runs the coroutine by itself says `executor="thread"`.

    `limits` decide where it runs: a memory limit, or a time limit of a plain function, puts each of its jobs into a
    child process, since nothing else can be stopped. `executor="process"` asks for one openly, `"thread"` never.
    A process does not see what `lifespan` has opened in the worker.

    `Limit.concurrency` and `Limit.rate` are limits over all workers. `group=lambda tenant: tenant` lets groups take
    turns inside a priority: one with a million jobs does not keep one with a single job waiting.

    `unique=Unique(key=lambda order: order)` keeps a second job of the same key from being there while the first is.

    `keep_logs` keeps with each job what its function logs with `logging`: see `chancy.logs`.

    `schedule=cron("0 9 * * 1-5", timezone="Europe/Prague")` or `every(minutes=5)` has workers submit it, with the
    defaults of its arguments, from the start of the first worker on that knows it. More schedules of a task, and such
    with arguments, are made by `chancy.schedule`.
    """
    if isinstance(function, str):
        raise InvalidTask(function, f"say its name as an option: @task(name={function!r})")
    limits, aliases = kept(limits), kept(aliases)

    def make(function: Callable[..., Any]) -> BaseTask[..., Any]:
        if isinstance(function, BaseTask):
            raise InvalidTask(function.name, "it is a task already: leave one @task away")
        function = checked_function(function)
        full_name = task_name(function, name)
        try:
            refuse_others(others, _OPTIONS)
            own, together = divided(limits)
            given = (name_of("aliases", alias) for alias in several("aliases", aliases, "names"))
            older = tuple(dict.fromkeys(alias for alias in given if alias != full_name))
            wish = wish_of(executor)
            decide = checked_retry(retry)
            data = decide if isinstance(decide, Backoff) else None
            options = Options(queue, priority, max_attempts, own or None, data)
            keeps = flag("keep_logs", keep_logs)
            if not (unique is None or isinstance(unique, Unique)):
                raise InvalidOption("unique", f"expected a Unique, got {shown(unique)}")
            turn = checked_key("group", group)
        except InvalidOption as error:
            raise InvalidTask(full_name, str(error)) from None
        signature = signature_of(function, full_name)
        kind = AsyncTask if is_async(function, wish == "thread") else Task
        made: BaseTask[..., Any] = kind(
            full_name,
            function,
            signature,
            options,
            None if isinstance(decide, Backoff) else decide,
            wish,
            together,
            turn,
            gates_of(together, turn, signature, older[0] if older else full_name),
            unique,
            unique_of(unique, signature, older),
            refusal(function),
            keeps,
            declared(schedule, signature),
            older,
        )
        try:
            made.place()
        except InvalidOption as error:
            raise InvalidTask(full_name, error.reason) from None
        register(made)
        return made

    return make(function) if function is not None else TaskDecorator(make)


_OPTIONS = tuple(each.name for each in inspect.signature(task).parameters.values() if each.kind is each.KEYWORD_ONLY)
"""Of `@task`."""
