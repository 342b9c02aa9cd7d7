"""`ChancyBackend`: `enqueue` is Chancy's submit on Django's connection, in Django's transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error
from django.utils.module_loading import import_string

import chancy
from chancy import Job, SubmitOutcome, UnknownJob
from chancy.job import submit_one
from chancy.options.plain import LARGEST_ID
from chancy.run import perform
from chancy.schema import schema_in_use
from chancy_django.database import connection_in_use

from .api import BaseTaskBackend, Task, TaskResultDoesNotExist, normalize_json, task_enqueued
from .declared import ATTEMPTS, bound, declared, django_task_of
from .results import blank, local, result_of
from .task import ChancyTask

_LONGEST_ID = len(str(LARGEST_ID))


class ChancyBackend(BaseTaskBackend):
    """A backend for `TASKS`. `OPTIONS` may have `database`, an alias, and `max_attempts` of tasks that do not say."""

    task_class = ChancyTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    @property
    def connection(self) -> Any:
        """Django's, of this thread."""
        return connection_in_use(self.options.get("database"))

    @property
    def _attempts(self) -> int:
        return int(self.options.get("max_attempts", ATTEMPTS))

    def validate_task(self, task: Any) -> None:
        """Also when the task is made: from there on workers know it. Asks neither apps nor database."""
        super().validate_task(task)
        declared(task, self._attempts)

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """In the transaction that is open. Of a unique task the result may be that of the job which is there already.

        One round trip; of a unique task two.
        """
        self.validate_task(task)
        schema = schema_in_use()
        new = bound(task, args, kwargs, self._attempts)
        job: Job[Any] = perform(self.connection, submit_one(new, schema), schema)  # type: ignore[assignment]
        result = self._result(job, task, args, kwargs)
        task_enqueued.send(type(self), task_result=result)
        return result

    def enqueue_many(self, calls: Iterable[tuple[Any, Any, Any]]) -> list[Any]:
        """Beyond Django's contract: `[(task, args, kwargs), …]`, all or none, in one round trip. Sends no signals."""
        calls = list(calls)
        for task, _, _ in calls:
            self.validate_task(task)
        jobs = chancy.submit_many(self.connection, [bound(*call, self._attempts) for call in calls])
        return [self._result(job, *call) for job, call in zip(jobs, calls, strict=True)]

    def _result(self, job: Job[Any], task: Any, args: Any, kwargs: Any) -> Any:
        at = job.submitted_at
        if job.outcome is not SubmitOutcome.INSERTED or at is None:  # another call's arguments, and perhaps its result
            return self.get_result(str(job.id))
        args, kwargs = normalize_json(list(args)), normalize_json(kwargs)
        return blank(self, task, str(job.id), args, kwargs, enqueued_at=local(at))

    def get_result(self, result_id: str) -> Any:
        """One round trip. Raises `TaskResultDoesNotExist`, also for a job that is of no Django task."""
        text = str(result_id)
        if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_ID and int(text) <= LARGEST_ID):
            raise TaskResultDoesNotExist(result_id)
        try:
            row = chancy.get(self.connection, int(text))
            task = django_task_of(row.task) or import_string(row.task)
        except (UnknownJob, ImportError) as error:
            raise TaskResultDoesNotExist(result_id) from error
        if not isinstance(task, Task):
            raise TaskResultDoesNotExist(result_id)
        return result_of(self, task, row)

    def check(self, **_: Any) -> list[CheckMessage]:
        """For `manage.py check`."""
        if apps.is_installed("chancy_django"):
            return []
        message = f"TASKS[{self.alias!r}] is Chancy's backend, whose app is not installed"
        return [Error(message, hint="add 'chancy_django' to INSTALLED_APPS", id="chancy.E003")]
