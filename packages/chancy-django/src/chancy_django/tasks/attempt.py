"""One attempt of a Django task: its context, and the signals at its beginning and at its end.

The first says RUNNING in every attempt. The last comes once: where another attempt follows, nothing has finished yet.
"""

from __future__ import annotations

import traceback
from typing import Any

from asgiref.sync import sync_to_async
from django.utils import timezone

import chancy
from chancy.registry import registered

from .api import TaskContext, TaskError, TaskResultStatus, task_backends, task_finished, task_started
from .results import blank, worker_name

_OF_DJANGOS_LOG = 1
"""Receivers that each signal has, of Django itself, which read nothing but the id, the task and the status."""


class Attempt:
    """As its receivers and its context see it."""

    def __init__(self, task: Any, args: list[Any], kwargs: dict[str, Any], backend: str) -> None:
        self.current = chancy.current_job()
        self.backend = task_backends[backend or task.backend]
        self.task, self.args, self.kwargs = task, args, kwargs
        self.result: Any = None

    @property
    def is_told_to_others(self) -> bool:
        """Whether somebody reads the result, who may also ask the database: never on the event loop's thread."""
        others = any(len(signal.receivers) > _OF_DJANGOS_LOG for signal in (task_started, task_finished))
        return others or self.task.takes_context

    def begin(self) -> list[Any]:
        """What the function gets by position. One round trip where somebody reads the result, else none."""
        if self.is_told_to_others:
            self.result = self.backend.get_result(str(self.current.id))
        else:
            self.result = blank(self.backend, self.task, str(self.current.id), self.args, self.kwargs)
        now = timezone.now()
        before = [*self.result.worker_ids, *["?"] * self.current.attempt][: self.current.attempt - 1]
        self._set(
            status=TaskResultStatus.RUNNING,
            started_at=self.result.started_at or now,
            last_attempted_at=now,
            worker_ids=[*before, worker_name(self.current)],
        )
        task_started.send(sender=type(self.backend), task_result=self.result)
        return [TaskContext(task_result=self.result), *self.args] if self.task.takes_context else self.args

    def end(self, value: Any) -> None:
        """It has returned."""
        self._set(_return_value=value, finished_at=timezone.now(), status=TaskResultStatus.SUCCESSFUL)
        task_finished.send(type(self.backend), task_result=self.result)

    def fail(self, error: BaseException) -> None:
        """It has raised, and this is still inside of its `except`: receivers find the exception in `sys.exc_info`.
        Ctrl-C is nothing that a task has done.
        """
        if self.result is None or isinstance(error, KeyboardInterrupt) or not self._is_last(error):
            return
        path = f"{type(error).__module__}.{type(error).__qualname__}"
        kept = TaskError(exception_class_path=path, traceback="".join(traceback.format_exception(error)))
        self._set(errors=[*self.result.errors, kept], finished_at=timezone.now(), status=TaskResultStatus.FAILED)
        task_finished.send(type(self.backend), task_result=self.result)

    async def abegin(self) -> list[Any]:
        """`begin`, off the loop where it may wait."""
        return await sync_to_async(self.begin)() if self.is_told_to_others else self.begin()

    async def aend(self, value: Any) -> None:
        """`end`, off the loop where it may wait."""
        await sync_to_async(self.end)(value) if self.is_told_to_others else self.end(value)

    async def afail(self, error: BaseException) -> None:
        """`fail`, off the loop where it may wait. One that is cancelled has not ended by itself."""
        if isinstance(error, Exception):
            await sync_to_async(self.fail)(error) if self.is_told_to_others else self.fail(error)

    def _is_last(self, error: BaseException) -> bool:
        """Whether no attempt follows."""
        if isinstance(error, chancy.Snooze):
            return False
        if isinstance(error, chancy.Discard) or self.current.attempt >= self.current.max_attempts:
            return True
        if isinstance(error, chancy.Retry) and error.after is not None:
            return False
        return registered()[self.current.task].retry_delay(self.current.attempt, error, None) is None

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self.result, name, value)
