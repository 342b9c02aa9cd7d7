"""Everything that Chancy raises at a caller, in one tree. Each error has fields, and names the remedy.

ChancyError
├── InvalidTask         the decorated function cannot be a task
├── InvalidArguments    arguments or options that do not fit; raised before any SQL is sent
├── InvalidOption       an option of a verb that does not fit; a ValueError, raised before any SQL is sent
├── InvalidConnection   not a connection that Chancy can write to, or not in the state that a verb needs
├── InvalidModule       a module that a command cannot import
├── InvalidDSN          a connection string that cannot be read
├── SchemaOutdated      the database lacks migrations that this version needs
├── DevelopmentSchema   the schema was made before the first release
├── UnsupportedDatabase its encoding is not UTF-8
├── MissingRights       the worker's role of the database may not do what it has to
├── UnknownJob          no such job, live or finished
├── UnknownBatch        no such batch
├── UnknownSchedule     no schedule has this name
├── SchedulePaused      a paused schedule cannot be run now
├── DuplicateJob        another job has the key of this one
├── NotCommitted        waiting for a job that this very transaction has not committed
├── JobFailed           raised by `result`: attempts used up, or discarded
├── JobCancelled        raised by `result`: stopped from outside
├── InvalidResult       a result that cannot be stored, or that is not what the task promises
├── ResultExpired       raised by `result`: the job succeeded, and its result is kept no longer
├── LeaseLost           raised by `current_job().complete` and `.step`: another worker may have the job now
├── NotSignalled        raised by `current_job().wait`: nobody has told the job in time; a TimeoutError
└── AttemptStopped      never raised inside a handler: passed to `retry=` functions, and the kind on the job's row
    ├── TimeLimitExceeded
    ├── MemoryLimitExceeded
    └── ProcessDied     the child process that ran the job ended, and the worker had not stopped it

The outcomes that a handler raises on purpose (`Retry`, `Snooze`, `Discard`) are not errors and are not here.
"""

from __future__ import annotations

from typing import ClassVar


class ChancyError(Exception):
    """The root of the tree. `except ChancyError` never swallows an outcome."""


class InvalidTask(ChancyError):
    """A function cannot be a task, or cannot be submitted to a database."""

    def __init__(self, task: str, reason: str) -> None:
        self.task = task
        self.reason = reason
        super().__init__(f"{task} cannot be a task: {reason}")


class InvalidArguments(ChancyError):
    """Arguments or options do not fit the task. Nothing was sent; the caller's transaction is still usable."""

    def __init__(self, task: str, argument: str | None, reason: str) -> None:
        self.task = task
        self.argument = argument
        self.reason = reason
        where = f"argument {argument!r} of task {task}" if argument else f"arguments of task {task}"
        super().__init__(f"{where}: {reason}")


class InvalidOption(ChancyError, ValueError):
    """An option that no row, no column and no clock could take, or of another kind than it says. Nothing was sent; the
    caller's transaction is still usable.
    """

    def __init__(self, option: str, reason: str) -> None:
        self.option = option
        self.reason = reason
        super().__init__(f"{option}: {reason}")


class InvalidConnection(ChancyError):
    """The object given as a connection cannot be used for this verb."""


class InvalidModule(ChancyError):
    """A module of the user's that a command has to import and cannot."""

    def __init__(self, module: str, reason: str) -> None:
        self.module = module
        super().__init__(reason)


class InvalidDSN(ChancyError):
    """A connection string that libpq cannot read. The message does not repeat it."""

    def __init__(self, hint: str) -> None:
        self.hint = hint
        super().__init__(
            f"the connection string (--dsn, CHANCY_DSN, or the app's) cannot be read: {hint}. It is not shown here, "
            "because it may hold a password"
        )


class SchemaOutdated(ChancyError):
    """The schema in the database is older than this version of Chancy, or is not there at all."""

    remedy: ClassVar[str] = "run `python -m chancy migrate --schema {schema}` (or start the worker with --migrate)"
    """What to do, in this process: a program that migrates in another way has that said here."""

    def __init__(
        self,
        schema: str,
        found: int | None = None,
        needed: int | None = None,
        *,
        was: str | None = None,
        lacks: str | None = None,
    ) -> None:
        self.schema = schema
        self.found = found
        """The number of its newest migration; None where a statement has met with something that is not there."""
        self.needed = needed
        self.was = was
        """Its name when it was migrated."""
        if lacks is not None:
            state = f"lacks what this version of Chancy needs ({lacks})"
        elif found and was not in (None, schema):
            state = f"was {was!r} when it was migrated, and its functions still name that"
        else:
            state = f"is at migration {found}" if found else "has not been migrated"
            state += f", this version of Chancy needs migration {needed}"
        super().__init__(f"schema {schema!r} {state}: {self.remedy.format(schema=schema)}")


class DevelopmentSchema(ChancyError):
    """The schema was made before the first release, by a version whose tables nothing can bring up to date."""

    def __init__(self) -> None:
        super().__init__(
            "the schema was made by a development version of Chancy, which no release can bring up to date: "
            "drop it (DROP SCHEMA … CASCADE, its jobs with it), or choose another with --schema, and migrate again"
        )


class UnsupportedDatabase(ChancyError):
    """The database cannot hold what jobs carry."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        super().__init__(
            f"this database's encoding is {encoding}, and Chancy needs UTF8, which alone holds every text: "
            "move to a database that was made with ENCODING 'UTF8' TEMPLATE template0"
        )


class MissingRights(ChancyError):
    """The role of this connection may not do what a worker has to, or a migration."""


class UnknownJob(ChancyError):
    """No job with this id exists, live or finished."""

    def __init__(self, job_id: int, schema: str) -> None:
        self.job_id = job_id
        self.schema = schema
        super().__init__(
            f"job {job_id} is not in schema {schema!r}: its transaction was rolled back, "
            f"or it finished and its history was dropped by the retention, or its queue keeps none"
        )


class UnknownBatch(ChancyError):
    """No batch with this id exists."""

    def __init__(self, batch_id: int, schema: str) -> None:
        self.batch_id = batch_id
        self.schema = schema
        super().__init__(
            f"batch {batch_id} is not in schema {schema!r}: its transaction was rolled back or is not committed, "
            f"or it finished longer ago than the retention"
        )


class UnknownSchedule(ChancyError):
    """No schedule of the schema has this name."""

    def __init__(self, name: str, schema: str) -> None:
        self.name = name
        self.schema = schema
        super().__init__(
            f"schedule {name!r} is not in schema {schema!r}: `chancy.schedules(conn)` lists those that are; one that "
            f"a task declares is there once a worker with that task has started"
        )


class SchedulePaused(ChancyError):
    """The schedule is paused, so none of its ticks gets a job. Nothing was changed."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"schedule {name!r} is paused: resume it first, or submit its task by itself")


class DuplicateJob(ChancyError):
    """Another job has the unique key. Nothing was added or changed; the caller's transaction is still usable."""

    def __init__(self, task: str, key: str, job_id: int | None) -> None:
        self.task = task
        self.key = key
        self.job_id = job_id
        """The job that has it; None where two jobs of one call have the same."""
        held = "is given twice in this call" if job_id is None else f"belongs to job {job_id}"
        super().__init__(
            f"the unique key {key!r} of task {task} {held}: wait for that job or cancel it, "
            f'or submit with on_conflict="existing" or "replace"'
        )


class NotCommitted(ChancyError):
    """This transaction waits for a job that no worker can see, or that it could never see finish."""

    def __init__(self, job_id: int, reason: str) -> None:
        self.job_id = job_id
        super().__init__(f"cannot wait for job {job_id} here: {reason}")


class JobFailed(ChancyError):
    """The job ended without a result. `kind` and `message` are those of its last error."""

    def __init__(
        self, job_id: int, task: str, state: str, attempt: int, kind: str, message: str, traceback: str
    ) -> None:
        self.job_id = job_id
        self.task = task
        self.state = state
        self.attempt = attempt
        self.kind = kind
        self.message = message
        self.traceback = traceback
        text = f"job {job_id} ({task}) {state} in attempt {attempt}: {kind}: {message}"
        super().__init__(f"{text}\n\n{traceback}" if traceback else text)


class JobCancelled(ChancyError):
    """The job was stopped from outside and has no result."""

    def __init__(self, job_id: int, task: str) -> None:
        self.job_id = job_id
        self.task = task
        super().__init__(f"job {job_id} ({task}) was cancelled; `chancy.requeue(conn, {job_id})` makes it ready again")


class InvalidResult(ChancyError):
    """The value that a task returned, or that is stored, is not what its signature promises."""

    def __init__(self, task: str, reason: str) -> None:
        self.task = task
        self.reason = reason
        super().__init__(f"result of task {task}: {reason}")


class ResultExpired(ChancyError):
    """The job succeeded, and its result is not kept any more."""

    def __init__(self, job_id: int, task: str) -> None:
        self.job_id = job_id
        self.task = task
        super().__init__(
            f"job {job_id} ({task}) succeeded, but its queue keeps results for a shorter time than jobs, and that of "
            f"this one is over: `chancy.requeue(conn, {job_id})` runs it again; Keep(results=…) keeps them longer"
        )


class LeaseLost(ChancyError):
    """This attempt no longer owns its job, so nothing that it says counts: let the transaction fail."""

    def __init__(self, job_id: int, task: str) -> None:
        self.job_id = job_id
        self.task = task
        super().__init__(
            f"job {job_id} ({task}) no longer belongs to this attempt: its worker was believed dead, or it is "
            f"completed already. Roll back; whoever has the job now does this work"
        )


class NotSignalled(ChancyError, TimeoutError):
    """The job has waited for a signal as long as it was to. It is too late for one now, in each attempt to come."""

    def __init__(self, job_id: int, task: str, name: str) -> None:
        self.job_id = job_id
        self.task = task
        self.name = name
        super().__init__(f"job {job_id} ({task}) was not told {name!r} in time: its wait is over, and no signal counts")


class AttemptStopped(ChancyError):
    """An attempt was ended from outside of its function."""


TIME_IS_OVER = "its time limit is over"
"""What `CurrentJob.stopped` says then."""


class TimeLimitExceeded(AttemptStopped):
    """The attempt ran longer than its limit. Both in seconds."""

    def __init__(self, limit: float, elapsed: float) -> None:
        self.limit = limit
        self.elapsed = elapsed
        super().__init__(f"stopped after {elapsed:.2f} s; its time limit is {limit:g} s")


class MemoryLimitExceeded(AttemptStopped):
    """The attempt's process, with those that it has started, used more memory than its limit, or asked for more.

    Both in bytes.
    """

    def __init__(self, limit: int, peak: int) -> None:
        self.limit = limit
        self.peak = peak
        how = "which is above" if peak > limit else "and was refused more than fits into"
        super().__init__(f"it had {_mebibytes(peak)}, {how} its memory limit of {_mebibytes(limit)}")


class ProcessDied(AttemptStopped):
    """The child process that ran the attempt ended by itself, or was killed by somebody else than its worker."""

    def __init__(self, how: str) -> None:
        super().__init__(f"the process that ran it {how}; nothing else ran in it")


def _mebibytes(size: int) -> str:
    return f"{-(-size // 1024**2):,} MiB"  # rounded up: what is above a limit of so many says so
