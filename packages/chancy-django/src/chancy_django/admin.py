"""Jobs in the admin: to look at, and what an operator does with them, by Chancy's own verbs.

Nothing here reads more than it shows: history may hold millions. Counts stop at ten thousand, queues are those that
there are now, and of finished jobs those of the last day are looked at unless somebody asks for more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html

import chancy
import chancy_ops
from chancy.states import LIVE, State

from .database import connection_in_use
from .models import Job
from .project import queues_named
from .settings import settings_in_use

MOST = 10_000
"""Jobs that are counted."""
AT_ONCE = 1_000
"""Jobs that one action goes through."""
VIA = "django admin"
"""What the audit says that has acted."""
_LOG_LINES = 200
_LONGEST_ID = 19
_RUNNING = "id = ANY (ARRAY(SELECT id FROM {schema}.job WHERE state = 'running' LIMIT 10000))"
"""By the index of the running ones, which there is of the table and not of the view."""
_IN_STATE = {state.value: f"state = '{state.value}'" for state in State}


class Capped(Paginator):
    """Of a list that may be longer than anybody counts."""

    @cached_property
    def count(self) -> int:
        """At most `MOST`."""
        return int(self.object_list.order_by()[:MOST].values("pk").count())


class _Choice(admin.SimpleListFilter):
    """One of several, which are asked for when the page is made."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        """The jobs that fit."""
        return queryset.filter(**{self.parameter_name: self.value()}) if self.value() else queryset


class InQueue(_Choice):
    """The queues that the project names, or a worker takes: to look for those of the jobs would be to read them all."""

    title = parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Their names."""
        taken = (queue for worker in chancy_ops.workers(connection_in_use()) for queue in worker.queues)
        return [(name, name) for name in sorted({*queues_named(), *taken})]


class InState(_Choice):
    """The states of a job."""

    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Their names."""
        return [(state.value, state.value) for state in State]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        """A live one is looked for among the live jobs only, a finished one among the finished."""
        if (state := self.value()) not in _IN_STATE:
            return queryset
        # As a literal, by which Postgres sees where none can be; a parameter would have it read all of history.
        conditions = [_IN_STATE[state]]
        if state == State.RUNNING:
            conditions.append(_RUNNING.replace("{schema}", f'"{settings_in_use().schema}"'))
        narrowed = queryset.extra(where=conditions)  # noqa: S610 - some of a few constants
        return narrowed.filter(finished_at__isnull=state in LIVE)


class Finished(admin.SimpleListFilter):
    """How far back to look for finished jobs: history has a partition for each day, and the others are not touched."""

    title, parameter_name = "finished", "finished"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The default comes first."""
        return [("week", "in the last 7 days"), ("any", "at any time")]

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        """Where Django says "All", it is a day here."""
        first, *others = super().choices(changelist)
        yield {**first, "display": "in the last 24 hours"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        """Live jobs are there in any case."""
        if self.value() == "any":
            return queryset
        since = timezone.now() - timedelta(days=7 if self.value() == "week" else 1)
        return queryset.filter(Q(finished_at__isnull=True) | Q(finished_at__gte=since))


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):
    """The list, a page for each job, and the actions, for who may change jobs; `delete` for who may delete them."""

    list_display = ("id", "task", "queue", "state", "priority", "attempts", "submitted_at", "run_at", "finished_at")
    list_filter = (InState, InQueue, Finished)
    search_fields = ("id", "task", "unique_key")
    search_help_text = "the id of a job, the whole name of a task, or a unique key"
    show_full_result_count = False
    paginator = Capped
    actions = ("cancel", "run_again", "remove")
    fields = (
        "task", "queue", "state", "why", "attempts", "priority", "submitted_at", "run_at", "started_at", "finished_at",
        "unique_key", "arguments", "result", "errors", "logs",
    )  # fmt: skip
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        """In the database of the jobs."""
        return super().get_queryset(request).using(settings_in_use().database)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Job], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        """By a task's name or a unique key, among the jobs of the list; by an id, among all that there are."""
        term = search_term.strip()
        if term.isascii() and term.isdecimal() and len(term) < _LONGEST_ID:
            return self.get_queryset(request).filter(pk=int(term)), False
        return (queryset.filter(Q(task=term) | Q(unique_key=term)) if term else queryset), False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Jobs are submitted."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """For the actions; a job's own page is read."""
        return obj is None and super().has_change_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """For the action; Django's own would use the ORM."""
        return False

    def has_remove_permission(self, request: HttpRequest) -> bool:
        """Whose action `remove` is."""
        return super().has_delete_permission(request)

    # What a page shows.

    @admin.display(description="attempt")
    def attempts(self, job: Job) -> str:
        """How many of how many."""
        return f"{job.attempt}/{job.max_attempts}"

    @admin.display(description="why")
    def why(self, job: Job) -> str:
        """One sentence."""
        return chancy_ops.why(connection_in_use(), job.pk).sentence

    @admin.display(description="arguments")
    def arguments(self, job: Job) -> str:
        """As they were submitted."""
        return _pretty(_row(job).arguments)

    @admin.display(description="result")
    def result(self, job: Job) -> str:
        """What the function has returned."""
        return _pretty(_row(job).result)

    @admin.display(description="errors")
    def errors(self, job: Job) -> str:
        """Of the newest ten attempts that have failed."""
        errors = _row(job).errors
        return _text("\n".join(f"attempt {each.attempt} on {each.worker}\n{_told(each)}" for each in errors))

    @admin.display(description="logs")
    def logs(self, job: Job) -> str:
        """Of a task that keeps them."""
        entries = chancy.logs(connection_in_use(), job.pk, limit=_LOG_LINES)
        return _text("\n".join(f"{each.at:%H:%M:%S} {each.level} {each.logger}: {each.message}" for each in entries))

    # What an operator does.

    @admin.action(description="Cancel", permissions=["change"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        """`chancy.cancel` of each."""
        self._each(request, queryset, "cancel", chancy.cancel, "cancelled, or asked to stop")

    @admin.action(description="Run again", permissions=["change"])
    def run_again(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        """`chancy.requeue` of each."""
        self._each(request, queryset, "requeue", chancy.requeue, "ready again")

    @admin.action(description="Delete", permissions=["remove"])
    def remove(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        """`chancy_ops.delete` of each."""
        self._each(request, queryset, "delete", chancy_ops.delete, "deleted")

    def _each(
        self, request: HttpRequest, queryset: QuerySet[Job], did: str, verb: Callable[[Any, int], bool], done: str
    ) -> None:
        ids = list(queryset.values_list("pk", flat=True)[: AT_ONCE + 1])
        changed, refused = 0, list[str]()
        for job_id in ids[:AT_ONCE]:
            try:
                changed += _noted(request, did, verb, job_id)
            except chancy.ChancyError as error:
                refused.append(str(error))
        left = len(ids[:AT_ONCE]) - changed
        self.message_user(request, f"{changed} {done}" + (f", {left} left as they were" if left else ""))
        for words in refused[:10]:
            self.message_user(request, words, messages.WARNING)
        if len(ids) > AT_ONCE:
            words = f"There are more than {AT_ONCE:,}, which is as far as this went: `chancy` does any number."
            self.message_user(request, words, messages.WARNING)


def _noted(request: HttpRequest, did: str, verb: Callable[[Any, int], bool], job_id: int) -> bool:
    """Whether it has changed something; then who has done that is written down in the same transaction."""
    connection = connection_in_use()
    with transaction.atomic(using=connection.alias):
        changed = verb(connection, job_id)
        if changed:
            chancy_ops.note(connection, did, {"job": job_id}, who=_name_of(request), via=VIA)
    return changed


def _name_of(request: HttpRequest) -> str:
    """As he logs in. The audit wants a name; one may be empty where a project has users of its own."""
    return str(request.user.get_username()) or f"user {request.user.pk}"


def _row(job: Job) -> chancy.JobRow:
    """All of it but secrets; once a page."""
    if (row := getattr(job, "_row", None)) is None:
        row = chancy.get(connection_in_use(), job.pk)
        row = job._row = chancy_ops.hiding(connection_in_use(), [row.task]).job(row)  # noqa: SLF001
    return row


def _told(error: chancy.AttemptError) -> str:
    return error.traceback or f"{error.kind}: {error.message}"


def _pretty(data: bytes | None) -> str:
    return "-" if data is None else _text(json.dumps(json.loads(data), indent=2, ensure_ascii=False))


def _text(text: str) -> str:
    return format_html('<pre style="white-space: pre-wrap">{}</pre>', text) if text else "-"
