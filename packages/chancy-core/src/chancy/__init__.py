"""Chancy: a task queue whose only infrastructure is the Postgres that you already run.

Decorate a typed function with `@task`, submit it on your own connection, and run `chancy-worker`.

What a process that submits may never need (the app, batches, migrations) is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .arguments.meta import meta
from .arguments.submits import Submit, around_submit
from .carried.secrets import Secret
from .current import CurrentJob, current_job
from .errors import (
    AttemptStopped,
    ChancyError,
    DevelopmentSchema,
    DuplicateJob,
    InvalidArguments,
    InvalidConnection,
    InvalidDSN,
    InvalidModule,
    InvalidOption,
    InvalidResult,
    InvalidTask,
    JobCancelled,
    JobFailed,
    LeaseLost,
    MemoryLimitExceeded,
    MissingRights,
    NotCommitted,
    NotSignalled,
    ProcessDied,
    ResultExpired,
    SchedulePaused,
    SchemaOutdated,
    TimeLimitExceeded,
    UnknownBatch,
    UnknownJob,
    UnknownSchedule,
    UnsupportedDatabase,
)
from .flows.later import Outcome, outcome_of, result_of
from .job import Job, NewJob, submit_many
from .keys.unique import SubmitOutcome, Unique
from .logs.kept import LogEntry, logs
from .logs.records import WithJob
from .model import AttemptError, Found, JobRow, Progress
from .options.limits import Limit, SharedLimit
from .options.outcomes import Decision, Discard, Retry, Snooze, Suspended
from .options.retry import Backoff
from .schedules.recurrence import Cron, Every, cron, every
from .schedules.schedule import ScheduleRow, run_now, schedule, schedules, unschedule
from .schema import configure, schema_in_use
from .states import State
from .steps.values import StepKind, StepRow
from .steps.verbs import forget_steps, signal, steps
from .task import AsyncTask, Task, task
from .verbs import cancel, get, jobs, requeue
from .wires.registry import register
from .wires.wire import AsyncWire, Query, Standing, Wire

if TYPE_CHECKING:
    from .app import AsyncChancy, Chancy, Queue, SyncChancy
    from .batches.batch import Batch, batch, batch_progress, callback
    from .batches.values import BatchCounts, BatchProgress, Callback
    from .history.retention import Keep, days
    from .migrations.migrate import migrate
    from .migrations.roles import grants

_ROOMS = {
    "AsyncChancy": "app",
    "Batch": "batches.batch",
    "BatchCounts": "batches.values",
    "BatchProgress": "batches.values",
    "Callback": "batches.values",
    "Chancy": "app",
    "Keep": "history.retention",
    "Queue": "app",
    "SyncChancy": "app",
    "batch": "batches.batch",
    "batch_progress": "batches.batch",
    "callback": "batches.batch",
    "days": "history.retention",
    "grants": "migrations.roles",
    "migrate": "migrations.migrate",
}

__all__ = [
    "AsyncChancy",
    "AsyncTask",
    "AsyncWire",
    "AttemptError",
    "AttemptStopped",
    "Backoff",
    "Batch",
    "BatchCounts",
    "BatchProgress",
    "Callback",
    "Chancy",
    "ChancyError",
    "Cron",
    "CurrentJob",
    "Decision",
    "DevelopmentSchema",
    "Discard",
    "DuplicateJob",
    "Every",
    "Found",
    "InvalidArguments",
    "InvalidConnection",
    "InvalidDSN",
    "InvalidModule",
    "InvalidOption",
    "InvalidResult",
    "InvalidTask",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobRow",
    "Keep",
    "LeaseLost",
    "Limit",
    "LogEntry",
    "MemoryLimitExceeded",
    "MissingRights",
    "NewJob",
    "NotCommitted",
    "NotSignalled",
    "Outcome",
    "ProcessDied",
    "Progress",
    "Query",
    "Queue",
    "ResultExpired",
    "Retry",
    "SchedulePaused",
    "ScheduleRow",
    "SchemaOutdated",
    "Secret",
    "SharedLimit",
    "Snooze",
    "Standing",
    "State",
    "StepKind",
    "StepRow",
    "Submit",
    "SubmitOutcome",
    "Suspended",
    "SyncChancy",
    "Task",
    "TimeLimitExceeded",
    "Unique",
    "UnknownBatch",
    "UnknownJob",
    "UnknownSchedule",
    "UnsupportedDatabase",
    "Wire",
    "WithJob",
    "around_submit",
    "batch",
    "batch_progress",
    "callback",
    "cancel",
    "configure",
    "cron",
    "current_job",
    "days",
    "every",
    "forget_steps",
    "get",
    "grants",
    "jobs",
    "logs",
    "meta",
    "migrate",
    "outcome_of",
    "register",
    "requeue",
    "result_of",
    "run_now",
    "schedule",
    "schedules",
    "schema_in_use",
    "signal",
    "steps",
    "submit_many",
    "task",
    "unschedule",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_ROOMS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
