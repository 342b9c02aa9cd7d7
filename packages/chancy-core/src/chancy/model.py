"""Plain data: a job before, during and after its life, and a statement before it is sent."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

import msgspec

from .errors import InvalidOption
from .options import plain
from .options.limits import Limit
from .options.plain import duration, instant, name, number, several, shown, text
from .options.retry import Backoff
from .states import State
from .wires import wire

Rows: TypeAlias = wire.Rows

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)

MAX_PAYLOAD_BYTES = 16 * 1024**2
"""The largest arguments, and the largest result, of one job."""

LOWEST_PRIORITY, HIGHEST_PRIORITY = -100, 100
MOST_ATTEMPTS = 32_767
LONGEST_DELAY, WITHOUT_END = plain.LONGEST_DELAY, plain.WITHOUT_END


Until: TypeAlias = Literal["started", "finished"]
OnConflict: TypeAlias = Literal["existing", "replace", "raise"]


class UniqueKey(msgspec.Struct, frozen=True):
    """What keeps one job from being there twice: its key, as a text."""

    text: str
    until: Until
    within: timedelta | None
    on_conflict: OnConflict
    others: tuple[str, ...] = ()
    """The other names of its task, under which a job may have the key."""


class Named(Protocol):
    """A task, which stands for all its names."""

    @property
    def names(self) -> tuple[str, ...]:
        """The one that it has now, and those that it had before."""


TaskName: TypeAlias = str | Named
"""A task, by all its names; or one name, which need not be known here."""


def names_of(option: str, task: object) -> list[str]:
    """What a verb means by a task that it was given. Raises `InvalidOption`."""
    if isinstance(task, str):
        return [text(option, task)]
    names = getattr(task, "names", None)
    if not isinstance(names, tuple):
        raise InvalidOption(option, f"expected a task or the name of one, got {shown(task)}")
    return list(dict.fromkeys(text(option, each) for each in names))


class Found(list[T]):
    """What a look has found, and how far it looked: a list, with one word more."""

    def __init__(
        self, found: Iterable[T] = (), looked_to: int | None = None, looked_back_to: datetime | None = None
    ) -> None:
        super().__init__(found)
        self.looked_to = looked_to
        """The id of the job behind which nothing was looked at: give it as `before` to look further. None if all was
        looked at, or as much as was asked for."""
        self.looked_back_to = looked_back_to
        """When that job was submitted; or where jobs are asked for that did not succeed, finished."""


class Statement(msgspec.Struct, Generic[T_co], frozen=True):
    """One round trip: the text with a `{schema}` slot, its parameters, and what its rows mean.

    Every statement returns rows and is always fetched: in pipeline mode `cursor.description` is still None
    when one would want to ask.
    """

    sql: str
    params: Mapping[str, Any]
    parse: Callable[[Rows], T_co]
    adds: Sequence[Any] = ()
    """The jobs that it adds, or that the batch does which it adds, for a backend that reads no SQL: a `NewJob` each; of
    a flow, a `Node`."""
    name: str = ""
    """What it asks, for whoever reads no SQL: the function that makes it, or the verb that sends it alone."""
    prepared: str = ""
    """The same in other words, which are faster where the driver prepares them, and only there."""


class Script(msgspec.Struct, frozen=True):
    """Several statements in one text, without parameters and rows: a migration."""

    sql: str


class Pause(msgspec.Struct, frozen=True):
    """Wait this long, in seconds, before the next step."""

    seconds: float


class LetGo(msgspec.Struct, frozen=True):
    """End the transaction of a connection that was `FRESH` before looks of ours began one, so that it holds nothing."""


class AskStanding(msgspec.Struct, frozen=True):
    """Ask where the connection stands; the answer is a `Standing`."""


Steps: TypeAlias = Generator["Statement[Any] | Script | Pause | LetGo | AskStanding | Callable[[], Any]", Any, T]
"""A verb of several round trips: yields what to do, gets the parsed rows sent back; or what a function of the caller's
gives, which on an async connection is awaited.
"""


class Options(msgspec.Struct, frozen=True):
    """How and when a job runs: what `@task` sets, and what `using` changes for one submit.

    Whatever was given, its fields are of exactly these kinds, and fit into a row. Raises `InvalidOption`.
    """

    queue: str = "default"
    priority: int = 0
    max_attempts: int = 3
    limits: tuple[Limit, ...] | None = None
    """None leaves it to what the task declares where the job runs."""
    retry: Backoff | None = None
    run_at: datetime | None = None
    """In UTC."""
    delay: timedelta | None = None

    def but(self, **changes: Any) -> Options:
        """The same with these changes, which are checked, too: before 0.21, `replace` of msgspec does not do that."""
        return Options(**{name: getattr(self, name) for name in self.__struct_fields__} | changes)

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "queue", name("queue", self.queue))
        msgspec.structs.force_setattr(self, "priority", priority_of(self.priority))
        msgspec.structs.force_setattr(self, "max_attempts", attempts_of("max_attempts", self.max_attempts))
        if self.limits is not None:
            msgspec.structs.force_setattr(self, "limits", _limits(self.limits))
        if not isinstance(self.retry, (Backoff, type(None))):
            raise InvalidOption(
                "retry",
                f"expected a Backoff, got {shown(self.retry)}: what goes into a row is data, a function belongs to "
                f"@task",
            )
        if self.run_at is not None and self.delay is not None:
            raise InvalidOption("delay", "give either run_at or delay")
        if self.run_at is not None:
            msgspec.structs.force_setattr(self, "run_at", instant("run_at", self.run_at))
        if self.delay is not None:
            msgspec.structs.force_setattr(self, "delay", duration("delay", self.delay))


def _limits(given: object) -> tuple[Limit, ...]:
    limits = several("limits", given, "Limit")
    for limit in limits:
        if not isinstance(limit, Limit):
            raise InvalidOption("limits", f"expected a list of Limit, got {shown(limit)} in it")
    return limits


def priority_of(value: object) -> int:
    """A priority that a row holds."""
    return number("priority", value, LOWEST_PRIORITY, HIGHEST_PRIORITY)


def attempts_of(option: str, value: object) -> int:
    """A number of attempts that a row holds."""
    return number(option, value, 1, MOST_ATTEMPTS, why=" (the first attempt counts)")


class AttemptError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one attempt went wrong, as kept on the job. The newest ten are kept, oldest first."""

    attempt: int
    kind: str
    message: str = ""
    traceback: str = ""
    worker: str = ""
    started_at: datetime | None = None
    duration: float = 0.0
    """Seconds that the attempt had run."""
    fingerprint: str = ""
    """The same for the same bug: of kind, place in the application, and the message without what differs from job to
    job. Empty where an older worker wrote it."""
    trace: str = ""
    """Where the attempt is in a trace, as a `traceparent` of the W3C, if somebody traces it."""


class Progress(msgspec.Struct, frozen=True):
    """How far a running job says it is: a fraction from 0 to 1, and a word about it."""

    fraction: float
    note: str = ""


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """One job as it is in the database now, live or finished. Instants are UTC, by the database's clock."""

    id: int
    task: str
    queue: str
    state: State
    priority: int
    attempt: int
    max_attempts: int
    crashes: int
    """How many workers died while they ran it."""
    worker: int | None
    submitted_at: datetime
    run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    arguments: bytes
    """JSON, exactly as submitted."""
    result: bytes | None
    """JSON, exactly as the handler's return value was encoded; None until the job has succeeded, and again once its
    retention is over, if that is shorter than the job's."""
    errors: tuple[AttemptError, ...]
    cancel_at: datetime | None
    """When the end of the running attempt was asked for."""
    progress: Progress | None
    """What the running attempt has said last."""
    unique_key: str | None
    """What makes it unique among the jobs of its task."""
    batch: int | None
    """The batch that it was submitted in."""
    meta: Mapping[str, Any]
    """What travels beside the arguments, as the functions of `chancy.meta` have said when it was bound."""
    needs: tuple[int, ...] = ()
    """The jobs that it was to wait for."""
    becomes: int | None = None
    """The job whose result is to be its own, since its function has returned that."""
