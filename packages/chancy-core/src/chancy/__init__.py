"""Chancy: a task queue whose only infrastructure is the Postgres that you already run.

Decorate a typed function with `@task`, submit it on your own connection, and run `chancy-worker`.
"""

from .app import AsyncChancy, Chancy, SyncChancy
from .batch import Batch, Callback, batch, batch_progress, callback
from .bulk import JobFilter, Swept, cancel_many, count, delete_many, requeue_many
from .client import Job, cancel, get, jobs, requeue, submit_many
from .current import CurrentJob, current_job
from .doctor import doctor
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
from .findings import Finding, Severity
from .limits import Limit, SharedLimit
from .log import LogEntry, logs
from .migrate import migrate
from .model import AttemptError, BatchCounts, BatchProgress, JobRow, NewJob, Progress, Queue
from .outcomes import Discard, Outcome, Retry, Snooze
from .overview import QueueRow, WorkerRow, queues, workers
from .recurrence import Cron, Every, cron, every
from .retention import Keep, days
from .retry import Backoff
from .roles import grants
from .schedules import ScheduleRow, run_now, schedule, schedules, unschedule
from .schema import configure, schema_in_use
from .states import State
from .steering import delete, edit, keep, limit, pause, resume
from .task import AsyncTask, Task, task
from .unique import SubmitOutcome, Unique
from .why import Reason, Why, why

__all__ = [
    "AsyncChancy",
    "AsyncTask",
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
    "Finding",
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
    "JobFilter",
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
    "Queue",
    "QueueRow",
    "Reason",
    "ResultExpired",
    "Retry",
    "SchedulePaused",
    "ScheduleRow",
    "SchemaOutdated",
    "Severity",
    "SharedLimit",
    "Snooze",
    "State",
    "SubmitOutcome",
    "Swept",
    "SyncChancy",
    "Task",
    "TimeLimitExceeded",
    "Unique",
    "UnknownBatch",
    "UnknownJob",
    "UnknownSchedule",
    "UnsupportedDatabase",
    "Why",
    "WorkerRow",
    "batch",
    "batch_progress",
    "callback",
    "cancel",
    "cancel_many",
    "configure",
    "count",
    "cron",
    "current_job",
    "days",
    "delete",
    "delete_many",
    "doctor",
    "edit",
    "every",
    "get",
    "grants",
    "jobs",
    "keep",
    "limit",
    "logs",
    "migrate",
    "pause",
    "queues",
    "requeue",
    "requeue_many",
    "resume",
    "run_now",
    "schedule",
    "schedules",
    "schema_in_use",
    "submit_many",
    "task",
    "unschedule",
    "why",
    "workers",
]
