"""Chancy: a task queue whose only infrastructure is the Postgres that you already run.

Decorate a typed function with `@task`, submit it on your own connection, and run `chancy-worker`.
"""

from .app import AsyncChancy, Chancy, SyncChancy
from .bulk import JobFilter, Swept, cancel_many, count, delete_many, requeue_many
from .client import Job, cancel, get, jobs, requeue, submit_many
from .current import CurrentJob, current_job
from .doctor import doctor
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
    UnknownJob,
)
from .findings import Finding, Severity
from .limits import Limit, SharedLimit
from .migrate import migrate
from .model import AttemptError, JobRow, NewJob, Progress, Queue
from .outcomes import Discard, Outcome, Retry, Snooze
from .overview import QueueRow, WorkerRow, queues, workers
from .retry import Backoff
from .schema import configure, schema_in_use
from .states import State
from .steering import delete, edit, limit, pause, resume
from .task import AsyncTask, Task, task
from .unique import SubmitOutcome, Unique
from .why import Reason, Why, why

__all__ = [
    "AsyncChancy",
    "AsyncTask",
    "AttemptError",
    "AttemptStopped",
    "Backoff",
    "Chancy",
    "ChancyError",
    "CurrentJob",
    "Discard",
    "DuplicateJob",
    "Finding",
    "InvalidArguments",
    "InvalidConnection",
    "InvalidResult",
    "InvalidTask",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobFilter",
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
    "QueueRow",
    "Reason",
    "Retry",
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
    "UnknownJob",
    "Why",
    "WorkerRow",
    "cancel",
    "cancel_many",
    "configure",
    "count",
    "current_job",
    "delete",
    "delete_many",
    "doctor",
    "edit",
    "get",
    "jobs",
    "limit",
    "migrate",
    "pause",
    "queues",
    "requeue",
    "requeue_many",
    "resume",
    "schema_in_use",
    "submit_many",
    "task",
    "why",
    "workers",
]
