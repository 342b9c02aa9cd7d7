"""What others do with the steps of a job: look at them, tell it something that it waits for, have it do them again."""

from __future__ import annotations

from collections.abc import Iterable

from chancy.errors import InvalidOption, InvalidResult, UnknownJob
from chancy.model import Statement, Steps
from chancy.options.plain import identity, number, several
from chancy.options.plain import name as name_of
from chancy.schema import schema_in_use
from chancy.verb import verb
from chancy.verbs import select_job

from .results import of_type
from .statements import Forgotten, select_steps, tell
from .statements import forget_steps as forget
from .values import StepRow


@verb
def steps(job_id: int, /, *, limit: int = 1000, schema: str | None = None) -> Statement[list[StepRow]]:
    """What is kept of the steps of a job, live or finished: what it has done, for what it sleeps or waits, and what it
    was told, oldest first.

    One round trip, no lock. Empty for a job without any, and for an unknown one. Raises `InvalidOption`, a
    `ValueError`.
    """
    return select_steps(identity("job_id", job_id), number("limit", limit, 0))


@verb
def signal(job_id: int, name: str, value: object = None, /, *, schema: str | None = None) -> Steps[bool]:
    """Tell a job something by this name: `current_job().wait` gives the value there, now or when it gets to it, and a
    sleep of this name ends. Takes effect when the caller's transaction commits; the job is due then. One round trip.

    The first word of a name counts. Returns False where it changes nothing: the job is finished, was told something by
    this name already, or has waited long enough. Until the commit the job's row is locked, and workers pass it by; who
    tells several jobs in one transaction does so in the order of their ids.

    Raises `UnknownJob`, and `InvalidOption` for a name that no row can hold, and for a value that cannot be carried as
    JSON or is above 1 MiB.
    """
    job_id, name = identity("job_id", job_id), name_of("name", name)
    try:
        said = of_type(name, type(value), "value").encode(value)
    except InvalidResult as error:
        raise InvalidOption("value", error.reason) from None
    return _signal(job_id, name, said, schema_in_use(schema))


def _signal(job_id: int, name: str, said: bytes, schema: str) -> Steps[bool]:
    if (yield tell(job_id, name, said)):
        return True
    if (yield select_job(job_id)) is None:
        raise UnknownJob(job_id, schema)
    return False


@verb
def forget_steps(job_id: int, /, *, names: Iterable[str] | None = None, schema: str | None = None) -> Steps[int]:
    """Forget what a job has done, by these names or altogether: its next attempt does it again, sleeps again, waits for
    a new signal. One round trip. How many names are forgotten; 0 for a job that runs, which is left alone.

    Holds the row of a live job until the caller's transaction ends. Raises `UnknownJob`, and `InvalidOption`.
    """
    chosen = None if names is None else [name_of("names", each) for each in several("names", names, "names")]
    return _forget_steps(identity("job_id", job_id), chosen, schema_in_use(schema))


def _forget_steps(job_id: int, names: list[str] | None, schema: str) -> Steps[int]:
    seen: Forgotten = yield forget(job_id, names)
    if not seen.exists:
        raise UnknownJob(job_id, schema)
    return seen.count
