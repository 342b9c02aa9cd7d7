"""Chancy: a task queue whose only infrastructure is the Postgres that you already run.

Decorate a typed function with `@task`, submit it on your own connection, and run `chancy-worker`.
"""

from .app import AsyncChancy, Chancy, Queue, SyncChancy
from .arguments.meta import meta
from .batches.batch import Batch, batch, batch_progress, callback
from .batches.values import BatchCounts, BatchProgress, Callback
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
from .history.retention import Keep, days
from .job import Job, NewJob, submit_many
from .keys.unique import SubmitOutcome, Unique
from .logs import LogEntry, logs
from .migrations.migrate import migrate
from .migrations.roles import grants
from .model import AttemptError, Found, JobRow, Progress
from .options.limits import Limit, SharedLimit
from .options.outcomes import Discard, Outcome, Retry, Snooze
from .options.retry import Backoff
from .schedules.recurrence import Cron, Every, cron, every
from .schedules.schedule import ScheduleRow, run_now, schedule, schedules, unschedule
from .schema import configure, schema_in_use
from .states import State
from .task import AsyncTask, Task, task
from .verbs import cancel, get, jobs, requeue
from .wires.registry import register
from .wires.wire import AsyncWire, Query, Standing, Wire

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
    "SharedLimit",
    "Snooze",
    "Standing",
    "State",
    "SubmitOutcome",
    "SyncChancy",
    "Task",
    "TimeLimitExceeded",
    "Unique",
    "UnknownBatch",
    "UnknownJob",
    "UnknownSchedule",
    "UnsupportedDatabase",
    "Wire",
    "batch",
    "batch_progress",
    "callback",
    "cancel",
    "configure",
    "cron",
    "current_job",
    "days",
    "every",
    "get",
    "grants",
    "jobs",
    "logs",
    "meta",
    "migrate",
    "register",
    "requeue",
    "run_now",
    "schedule",
    "schedules",
    "schema_in_use",
    "submit_many",
    "task",
    "unschedule",
]
