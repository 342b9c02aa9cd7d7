"""What was submitted, asked by a test on its own connection: what it has not committed itself counts, too."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine, Generator
from datetime import timedelta
from typing import Any, TypeVar, overload

import msgspec
from typing_extensions import ParamSpec

from chancy.job import Job
from chancy.model import JobRow, Options, Statement
from chancy.options.plain import a_kind
from chancy.registry import registered
from chancy.run import perform
from chancy.schema import schema_in_use
from chancy.task import BaseTask
from chancy.verbs import select_jobs
from chancy.wires.connections import AsyncConn, SyncConn

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

MOST = 100_000
"""As many jobs are looked at."""
PATIENCE_SECONDS = 60.0
"""For so long, at most."""
SHOWN = 5
"""As many near misses are printed."""

_COMPARED = ("queue", "priority", "max_attempts")
Steps = Generator[Statement[Any], Any, T]


@overload
def submitted(conn: SyncConn, task: BaseTask[..., R], /) -> list[Job[R]]: ...
@overload
def submitted(conn: AsyncConn, task: BaseTask[..., R], /) -> Coroutine[Any, Any, list[Job[R]]]: ...
def submitted(
    conn: SyncConn | AsyncConn, task: BaseTask[..., R], /
) -> list[Job[R]] | Coroutine[Any, Any, list[Job[R]]]:
    """The jobs of this task that the connection sees, live and finished, first one first. One round trip."""
    schema = schema_in_use()
    return perform(conn, _submitted(task, schema), schema)


@overload
def assert_submitted(conn: SyncConn, task: BaseTask[..., R], /) -> Job[R]: ...
@overload
def assert_submitted(conn: SyncConn, task: BaseTask[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
@overload
def assert_submitted(conn: AsyncConn, task: BaseTask[..., R], /) -> Coroutine[Any, Any, Job[R]]: ...
@overload
def assert_submitted(
    conn: AsyncConn, task: BaseTask[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[Any, Any, Job[R]]: ...
def assert_submitted(
    conn: SyncConn | AsyncConn, task: BaseTask[..., R], /, *args: Any, **kwargs: Any
) -> Job[R] | Coroutine[Any, Any, Job[R]]:
    """The newest job of this task with these arguments, as the connection sees it.

    Without arguments any job of the task will do; an argument that is left out may have any value. Options count where
    they are named: `assert_submitted(conn, my_task.using(queue="mail"), x=1)`. Fails with the jobs that come nearest.
    """
    schema = schema_in_use()
    return perform(conn, _assert_submitted(task, _named(task, args, kwargs), schema), schema)


@overload
def refute_submitted(conn: SyncConn, task: BaseTask[..., R], /) -> None: ...
@overload
def refute_submitted(conn: SyncConn, task: BaseTask[P, R], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
@overload
def refute_submitted(conn: AsyncConn, task: BaseTask[..., R], /) -> Coroutine[Any, Any, None]: ...
@overload
def refute_submitted(
    conn: AsyncConn, task: BaseTask[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[Any, Any, None]: ...
def refute_submitted(
    conn: SyncConn | AsyncConn, task: BaseTask[..., R], /, *args: Any, **kwargs: Any
) -> Coroutine[Any, Any, None] | None:
    """No job that `assert_submitted` would find. Fails with those that there are."""
    schema = schema_in_use()
    return perform(conn, _refute_submitted(task, _named(task, args, kwargs)), schema)


def _submitted(task: BaseTask[..., R], schema: str) -> Steps[list[Job[R]]]:
    rows = yield from _rows(task)
    return [_handle(row, task, schema) for row in rows]


def _assert_submitted(task: BaseTask[..., R], wanted: dict[str, Any], schema: str) -> Steps[Job[R]]:
    rows = yield from _rows(task)
    options = _options(task)
    misses = {row.id: _differences(row, task, wanted, options) for row in rows}
    for row in reversed(rows):
        if not misses[row.id]:
            return _handle(row, task, schema)
    lines = [f"no job of {task.name} was submitted with {_told(wanted | options) or 'any arguments'}"]
    nearest = sorted(rows, key=lambda row: (len(misses[row.id]), -row.id))[:SHOWN]
    lines += [f"  job {row.id} ({row.state}) has {'; '.join(misses[row.id])}" for row in nearest]
    if len(rows) > SHOWN:
        lines.append(f"  and {len(rows) - SHOWN} more of this task")
    if not rows:
        others = yield select_jobs(MOST, seconds=PATIENCE_SECONDS)
        names = ", ".join(sorted({row.task for row in others}))
        lines.append(f"  this connection sees jobs of {names}" if names else "  this connection sees no job at all")
    raise AssertionError("\n".join(lines))


def _refute_submitted(task: BaseTask[..., Any], wanted: dict[str, Any]) -> Steps[None]:
    rows = yield from _rows(task)
    found = [row for row in rows if not _differences(row, task, wanted, _options(task))]
    if found:
        lines = [f"{len(found)} jobs of {task.name} were submitted with {_told(wanted) or 'any arguments'}"]
        lines += [f"  job {row.id} ({row.state}) {row.arguments.decode()}" for row in found[:SHOWN]]
        raise AssertionError("\n".join(lines))


def _rows(task: BaseTask[..., Any]) -> Steps[list[JobRow]]:
    """Under each of its names, oldest first."""
    rows: list[JobRow] = yield select_jobs(MOST, tasks=list(_checked(task).names), seconds=PATIENCE_SECONDS)
    return sorted(rows, key=lambda row: row.id)


def _handle(row: JobRow, task: BaseTask[..., R], schema: str) -> Job[R]:
    return Job(row.id, row.task, row.queue, schema, None, task.signature.decode_result, None, row.submitted_at)


def _checked(task: BaseTask[P, R]) -> BaseTask[P, R]:
    """Raises `TypeError` for what is no task of Chancy's."""
    if isinstance(task, BaseTask):
        return task
    raise TypeError(
        f"expected what `chancy.task` has made, got {a_kind(task)} (of a task of Django's ask "
        f"`chancy_django.models.Job.objects.filter(task=…)`)"
    )


def _named(task: BaseTask[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    signature = _checked(task).signature
    known = {*signature.names, *signature.keyword_only}
    if len(args) > len(signature.names) or not kwargs.keys() <= known:
        raise TypeError(f"{task.name} takes {', '.join(known) or 'no arguments'}; got {args} and {kwargs}")
    return dict(zip(signature.names, args, strict=False)) | kwargs


def _options(task: BaseTask[..., Any]) -> dict[str, Any]:
    """What `using` has changed, against what the task declares."""
    declared = registered()[task.name].options if task.name in registered() else Options()
    changed = {name: getattr(task.options, name) for name in _COMPARED}
    changed = {name: value for name, value in changed.items() if value != getattr(declared, name)}
    for name in ("run_at", "delay"):
        if (value := getattr(task.options, name)) is not None:
            changed[name] = value
    return changed


def _differences(row: JobRow, task: BaseTask[..., Any], wanted: dict[str, Any], options: dict[str, Any]) -> list[str]:
    """What is otherwise than wanted, in words."""
    given = _defaults(task) | msgspec.json.decode(row.arguments, type=dict[str, msgspec.Raw])
    different = []
    for name, value in wanted.items():
        if name not in given:
            different.append(f"no {name}")
        elif not _same(bytes(given[name]), value, task, name):
            different.append(f"{name}={bytes(given[name]).decode()}")
    seen = {name: getattr(row, name) for name in (*_COMPARED, "run_at")}
    seen["delay"] = row.run_at - row.submitted_at
    for name, value in options.items():
        near = abs(seen[name] - value) < timedelta(milliseconds=1) if name == "delay" else seen[name] == value
        if not near:
            different.append(f"{name}={seen[name]}")
    return different


def _defaults(task: BaseTask[..., Any]) -> dict[str, msgspec.Raw]:
    """Of the arguments that were not given, which are not stored."""
    found = {}
    for field in msgspec.structs.fields(task.signature.struct):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        with contextlib.suppress(Exception):  # of a type that is not carried; or there is none
            found[field.name] = msgspec.Raw(task.signature.say(field.name, default))
    return found


def _same(given: bytes, value: Any, task: BaseTask[..., Any], name: str) -> bool:
    """Whether an argument's JSON is this value: by its text, or (a set, a dict) by what it is read as."""
    try:
        text = task.signature.say(name, value)
    except Exception:  # of a type that the task could not be given
        return False
    if text == given or msgspec.json.decode(text) == msgspec.json.decode(given):
        return True
    try:
        return bool(task.signature.read(name, given) == task.signature.read(name, text))
    except ValueError:
        return False


def _told(wanted: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in wanted.items())
