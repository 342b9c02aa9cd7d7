"""Jobs as a model, to look at: the rows are Chancy's, and change by its verbs only."""

from __future__ import annotations

from typing import Any

from django.db import models

from chancy.states import State

from .settings import settings_in_use

META: dict[str, Any] = {
    "managed": False,
    "db_table": f'"{settings_in_use().schema}"."any_job"',  # Django leaves a quoted name as it is
    "ordering": ["-id"],
    "verbose_name": "job",
    "default_permissions": ("view", "change", "delete"),
}
"""Also for the migration: what is not in there is to Django a change."""


class Job(models.Model):
    """Any job, live or finished: the view `any_job`, without what may be large."""

    id = models.BigIntegerField(primary_key=True)
    task = models.TextField()
    queue = models.TextField()
    state = models.TextField(choices=[(state.value, state.value) for state in State])
    priority = models.SmallIntegerField()
    attempt = models.SmallIntegerField()
    max_attempts = models.SmallIntegerField()
    crashes = models.SmallIntegerField()
    submitted_at = models.DateTimeField()
    run_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    unique_key = models.TextField(null=True)

    Meta = type("Meta", (), META)

    def __str__(self) -> str:
        return f"{self.task} {self.pk}"

    def save(self, *_: Any, **__: Any) -> None:
        """Raises `TypeError`."""
        raise TypeError("jobs are changed by Chancy's verbs: chancy.cancel, chancy.requeue, chancy_ops.edit, …")

    def delete(self, *_: Any, **__: Any) -> tuple[int, dict[str, int]]:
        """Raises `TypeError`."""
        raise TypeError("jobs are deleted by chancy_ops.delete")
