"""What stands for the result of a job that is not known yet: an argument of another one, or its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeAlias, TypeVar, cast

import msgspec

from chancy.errors import InvalidOption
from chancy.model import AttemptError
from chancy.options.plain import shown
from chancy.states import State

if TYPE_CHECKING:
    from chancy.job import Job, NewJob

R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)

Kind: TypeAlias = Literal["s", "a", "e"]
"""What is needed of a job: its result; that it succeeds, without its result; its outcome, whatever that is."""


class Outcome(msgspec.Struct, Generic[T_co], frozen=True):
    """How a job has ended that another one needs, whatever has become of it."""

    job: int
    """Its id."""
    state: State
    result: T_co | None = None
    """None unless it has succeeded."""
    errors: tuple[AttemptError, ...] = ()


def _refuse(self: Any, *_: Any, **__: Any) -> NoReturn:
    raise TypeError(
        f"{self!r}, which is not known yet: give it to `bind`, `submit` or `after`, or return it; what has to look "
        f"into it is a task of its own"
    )


class Later:
    """The result of a job, or its outcome, where it is not known yet.

    Nothing can be done with it but to hand it on: it is no value, although type checkers take it for one.
    """

    __slots__ = ("job", "kind")
    __chancy_hole__ = True
    """So whoever encodes arguments knows it, which is before flows in the order of rooms."""

    def __init__(self, job: Any, kind: Kind) -> None:
        self.job = job
        """A `NewJob`, which is submitted together with what needs it; or a `Job`."""
        self.kind: Kind = kind

    def __repr__(self) -> str:
        return f"the {'outcome' if self.kind == 'e' else 'result'} of {self.job.task}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _refuse(self)

    if not TYPE_CHECKING:
        __hash__ = _refuse
        __bool__ = __len__ = __iter__ = __getitem__ = __contains__ = __call__ = __str__ = __format__ = _refuse
        __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = __index__ = __bytes__ = _refuse
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __mod__ = __neg__ = _refuse
        __or__ = __ror__ = __and__ = __enter__ = __await__ = __aiter__ = _refuse


def result_of(job: NewJob[R] | Job[R], /) -> R:
    """The result that this job will have: an argument of another one, or what the job that runs returns as its own.

    Whoever is given it waits for that job, and is cancelled if it does not succeed. A bound job is submitted together
    with what needs it, once in one call; a submitted one is there already. It is no value yet: whatever else is done
    with it raises `TypeError`.
    """
    return cast("R", later(job, "s"))


def outcome_of(job: NewJob[R] | Job[R], /) -> Outcome[R]:
    """The same for who wants to know how the job has ended, in whichever way."""
    return cast("Outcome[Any]", later(job, "e"))


def later(job: object, kind: Kind) -> Later:
    """Of a job. Raises `InvalidOption` for what is none."""
    if not callable(getattr(job, "decode_result", None)):
        raise InvalidOption("job", f"expected a job, of task.bind(…) or of task.submit(conn, …), got {shown(job)}")
    return Later(job, kind)


def after_of(jobs: tuple[object, ...]) -> tuple[Later, ...]:
    """What a job comes after: jobs, which have to succeed, and outcomes, which only have to be there."""
    return tuple(job if isinstance(job, Later) else later(job, "a") for job in jobs)


def laters_in(value: object) -> list[Later]:
    """Those anywhere in it."""
    found: list[Later] = []

    def note(part: object) -> None:
        if type(part) is Later:
            found.append(part)

    if type(value) is Later:
        return [value]
    try:
        msgspec.to_builtins(value, enc_hook=note, builtin_types=())
    except Exception:  # of what cannot be said at all, which whoever has to say it complains of
        return found
    return found


Fill: TypeAlias = Callable[[int], bytes]
MARK = b"\x1f"
"""Around the number of a need in arguments: a character that no JSON has in it."""


def filled(arguments: bytes, fill: Fill) -> bytes:
    """With what each need has come to, by its number, in its place."""
    parts = arguments.split(MARK)
    parts[1::2] = [fill(int(number)) for number in parts[1::2]]
    return b"".join(parts)
