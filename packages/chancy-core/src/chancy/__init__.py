"""Chancy: a task queue whose only infrastructure is the Postgres that you already run.

Decorate a typed function with `@task`, submit it on your own connection, and run `chancy-worker`.
"""

from .app import AsyncChancy, Chancy, SyncChancy
from .batch import Batch, Callback, batch, batch_progress, callback
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
    SchemaOutdated,
    TimeLimitExceeded,
    UnknownBatch,
    UnknownJob,
)
from .limits import Limit, SharedLimit
from .migrate import migrate
from .model import AttemptError, BatchCounts, BatchProgress, JobRow, NewJob, Progress, Queue
from .outcomes import Discard, Outcome, Retry, Snooze
from .retry import Backoff
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
    "Batch",
    "BatchCounts",
    "BatchProgress",
    "Callback",
    "Chancy",
    "ChancyError",
    "CurrentJob",
    "Discard",
    "DuplicateJob",
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
    "SchemaOutdated",
    "SharedLimit",
    "Snooze",
    "State",
    "SubmitOutcome",
    "SyncChancy",
    "Task",
    "TimeLimitExceeded",
    "Unique",
    "UnknownBatch",
    "UnknownJob",
    "batch",
    "batch_progress",
    "callback",
    "cancel",
    "configure",
    "current_job",
    "get",
    "jobs",
    "limit",
    "migrate",
    "requeue",
    "schema_in_use",
    "submit_many",
    "task",
]
