"""A job's row as a `TaskResult` of Django."""

from __future__ import annotations

import json
import os
import re
import socket
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone

import chancy
from chancy import State

from .api import TaskError, TaskResult, TaskResultStatus

_STATUS = {
    State.BLOCKED: TaskResultStatus.READY,
    State.READY: TaskResultStatus.READY,
    State.SCHEDULED: TaskResultStatus.READY,
    State.RUNNING: TaskResultStatus.RUNNING,
    State.SUCCEEDED: TaskResultStatus.SUCCESSFUL,
    State.FAILED: TaskResultStatus.FAILED,
    State.DISCARDED: TaskResultStatus.FAILED,
    State.CANCELLED: TaskResultStatus.FAILED,
}


def blank(backend: Any, task: Any, id_: str, args: Any, kwargs: Any, **known: Any) -> Any:
    """A result of a job of which nothing else is known."""
    values: dict[str, Any] = {
        "status": TaskResultStatus.READY,
        "enqueued_at": None,
        "started_at": None,
        "finished_at": None,
        "last_attempted_at": None,
        "errors": [],
        "worker_ids": [],
    }
    return TaskResult(task=task, id=id_, args=args, kwargs=kwargs, backend=backend.alias, **(values | known))


def result_of(backend: Any, task: Any, row: chancy.JobRow) -> Any:
    """The result of a job, live or finished."""
    call = json.loads(row.arguments)
    waits = row.attempt == 0 and row.run_at != row.submitted_at
    options: dict[str, Any] = {"priority": row.priority, "queue_name": row.queue, "backend": backend.alias}
    task = task.using(**options, run_after=local(row.run_at) if waits else None)
    errors = [_error(error) for error in row.errors]
    if row.state is State.CANCELLED:
        errors.append(TaskError(exception_class_path="chancy.errors.JobCancelled", traceback="cancelled\n"))
    made = blank(
        backend,
        task,
        str(row.id),
        call.get("args", []),
        call.get("kwargs", {}),
        status=_STATUS.get(row.state, TaskResultStatus.READY),
        enqueued_at=local(row.submitted_at),
        started_at=local(_first_started_at(row)),
        last_attempted_at=local(row.started_at),
        finished_at=local(row.finished_at),
        errors=errors,
        worker_ids=_workers(row),
    )
    if row.state is State.SUCCEEDED and row.result is not None:
        object.__setattr__(made, "_return_value", json.loads(row.result))
    return made


def _workers(row: chancy.JobRow) -> list[str]:
    """One for each attempt: the errors know theirs by name, of which the newest ten are kept; the row that of the last
    one by its number.
    """
    names = [error.worker or "?" for error in row.errors if error.attempt]
    if row.attempt > len(names) and row.worker is not None:
        names.append(str(row.worker))
    return [*["?"] * (row.attempt - len(names)), *names][: row.attempt]


def _first_started_at(row: chancy.JobRow) -> datetime | None:
    if row.errors and row.errors[0].attempt == 1 and row.errors[0].started_at is not None:
        return row.errors[0].started_at
    return row.started_at


def _error(error: chancy.AttemptError) -> Any:
    told = error.traceback or f"{error.kind}: {error.message}\n"
    return TaskError(exception_class_path=_class_path(error), traceback=told)


def _class_path(error: chancy.AttemptError) -> str:
    """The class's full name. The row has the last part of it, and the last line of the traceback all of it."""
    name = error.kind.rpartition(".")[2]
    for line in reversed(error.traceback.splitlines()):
        if found := re.match(rf"((?:\w+\.)*{re.escape(name)})(?::|$)", line):
            return found[1] if "." in found[1] else f"builtins.{name}"
    return f"chancy.errors.{name}"


def local(at: datetime | None) -> datetime | None:
    """As the project has its instants: without a zone where it does not use them."""
    return at if at is None or settings.USE_TZ else timezone.make_naive(at)


def worker_name(current: chancy.CurrentJob) -> str:
    """Of the one that performs it here."""
    return current.worker or f"{socket.gethostname()}:{os.getpid()}"
