"""For tests of a Django project: jobs performed on Django's own connection, inside the transaction of a `TestCase`, by
Chancy's own claim, attempt and verdict. Needs chancy-testing (`pip install chancy-django[testing]`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import fields, replace
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections

import chancy_testing
from chancy import AsyncTask, Task
from chancy.registry import registered, tasks
from chancy_testing import Drained

from .settings import settings_in_use
from .tasks.backend import ChancyBackend

__all__ = ["Drained", "ImmediateBackend", "adrain", "drain"]

_draining: ContextVar[bool] = ContextVar("chancy_django_draining", default=False)


def drain(using: str | None = None, *, with_scheduled: bool = False, limit: int | None = None) -> Drained:
    """Perform what is due, one job after the other, in this thread, and async ones too: the test's transaction sees
    what they do, and takes it back. See `chancy_testing.drain` for the options, and what it returns.

    `using` is the alias of another database than the one in which the project's jobs are.
    """
    connection = connections[using or settings_in_use().database]
    connection.ensure_connection()
    if connection.in_atomic_block:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")  # until something is sent, the driver has not begun the transaction
    token = _draining.set(True)
    try:
        with _on_this_connection(connection):
            return chancy_testing.drain(connection.connection, with_scheduled=with_scheduled, limit=limit)
    finally:
        _draining.reset(token)


async def adrain(using: str | None = None, *, with_scheduled: bool = False, limit: int | None = None) -> Drained:
    """`drain`, from an async test."""
    return await sync_to_async(drain)(using, with_scheduled=with_scheduled, limit=limit)


@contextlib.contextmanager
def _on_this_connection(connection: Any) -> Iterator[None]:
    """Within the block tasks run where this connection is, and leave it as usable as they have found it.

    An async function on a loop of its own would ask the ORM from another thread, where there is another connection:
    asgiref has to be the one who makes the loop.
    """
    before = dict(registered())

    def usable(function: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            try:
                return call(*args, **kwargs)
            finally:
                if connection.in_atomic_block:  # the drain goes back to a savepoint, of which Django is not told
                    connection.set_rollback(False)

        return called

    for task in {id(each): each for each in before.values()}.values():
        made: Any
        if isinstance(task, AsyncTask):
            values = {field.name: getattr(task, field.name) for field in fields(task)}
            made = Task(**values | {"function": usable(task.function, async_to_sync(task.function))})
        else:
            made = replace(task, function=usable(task.function, task.function))
        tasks.update(dict.fromkeys(task.names, made))
    try:
        yield
    finally:
        tasks.update(before)


class ImmediateBackend(ChancyBackend):
    """A backend that performs what is due at each `enqueue`, and gives the finished result: for tests, and for
    development without a worker. What a job enqueues is performed after it.

    A job that is to run later, or again, waits for `drain(with_scheduled=True)`.
    """

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """See `ChancyBackend`."""
        result = super().enqueue(task, args, kwargs)
        if not _draining.get():
            drain(self.options.get("database"))
            result.refresh()
        return result
