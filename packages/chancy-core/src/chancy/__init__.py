"""Chancy: a task queue whose only infrastructure is the Postgres that you already run.

Decorate a typed function with `@task`, submit it on your own connection, and run `chancy-worker`.
"""

from .app import AsyncChancy, Chancy, SyncChancy
from .client import Job, cancel, get, jobs, limit, requeue, submit_many
from .current import CurrentJob, current_job
from .errors import (
    AttemptStopped,
    ChancyError,
    DuplicateJob,
    InvalidArguments,
    InvalidConnection,
    InvalidResult,
    InvalidTask,
    JobCancelled,
    JobFailed,
    LeaseLost,
    MemoryLimitExceeded,
    NotCommitted,
    ProcessDied,
    SchedulePaused,
    SchemaOutdated,
    TimeLimitExceeded,
    UnknownJob,
    UnknownSchedule,
)
from .limits import Limit, SharedLimit
from .migrate import migrate
from .model import AttemptError, JobRow, NewJob, Progress, Queue
from .outcomes import Discard, Outcome, Retry, Snooze
from .recurrence import Cron, Every, cron, every
from .retry import Backoff
from .schedules import ScheduleRow, run_now, schedule, schedules, unschedule
from .schema import configure, schema_in_use
from .states import State
from .task import AsyncTask, Task, task
from .unique import SubmitOutcome, Unique

__all__ = [
    "AsyncChancy",
    "AsyncTask",
    "AttemptError",
    "AttemptStopped",
    "Backoff",
    "Chancy",
    "ChancyError",
    "Cron",
    "CurrentJob",
    "Discard",
    "DuplicateJob",
    "Every",
    "InvalidArguments",
    "InvalidConnection",
    "InvalidResult",
    "InvalidTask",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobRow",
    "LeaseLost",
    "Limit",
    "MemoryLimitExceeded",
    "NewJob",
    "NotCommitted",
    "Outcome",
    "ProcessDied",
    "Progress",
    "Queue",
    "Retry",
    "SchedulePaused",
    "ScheduleRow",
    "SchemaOutdated",
    "SharedLimit",
    "Snooze",
    "State",
    "SubmitOutcome",
    "SyncChancy",
    "Task",
    "TimeLimitExceeded",
    "Unique",
    "UnknownJob",
    "UnknownSchedule",
    "cancel",
    "configure",
    "cron",
    "current_job",
    "every",
    "get",
    "jobs",
    "limit",
    "migrate",
    "requeue",
    "run_now",
    "schedule",
    "schedules",
    "schema_in_use",
    "submit_many",
    "task",
    "unschedule",
]
