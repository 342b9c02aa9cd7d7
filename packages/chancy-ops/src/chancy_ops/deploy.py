"""Whether the code at hand can perform what waits in the database: what a deploy of it would break."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chancy.errors import InvalidArguments
from chancy.model import Statement, Steps
from chancy.options.phrases import one_line
from chancy.registry import registered
from chancy.schedules.schedule import ScheduleRow, select_schedules
from chancy.verb import verb

PAGE = 250

WAITING = """
    SELECT task,
        count(*) FILTER (WHERE state = 'ready' AND run_at <= {schema}.clock()),
        count(*) FILTER (WHERE state = 'ready' AND run_at > {schema}.clock()),
        count(*) FILTER (WHERE state = 'running')
    FROM {schema}.job GROUP BY task ORDER BY task
"""
ARGUMENTS = """
    SELECT id, task, convert_to(arguments::text, 'UTF8')
    FROM {schema}.job
    WHERE id > %(after)s::bigint AND task = ANY (%(tasks)s::text[])
    ORDER BY id
    LIMIT %(most)s::integer
"""


@dataclass(slots=True)
class Found:
    """What the code and the database say of one task."""

    task: str
    ready: int = 0
    scheduled: int = 0
    running: int = 0
    known: bool = True
    """In the code, by its name or an alias."""
    read: int = 0
    """Jobs whose arguments were looked at."""
    broken: int = 0
    """Those of them that do not fit the signature."""
    example: int | None = None
    """The first of those, and what is wrong with it."""
    problem: str | None = None
    schedules: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        """Whether a deploy of this code would break nothing."""
        return self.known and self.problem is None

    def sentence(self, limit: int) -> str:
        """What was found, for a person."""
        said = [f"schedule {name}" for name in self.schedules]
        said = [f"{number:,} {state}" for state, number in self.counts() if number] + said
        waits = ", ".join(said) or "nothing waits"
        if not self.known:
            return f"{waits}: the code has no task of this name; give its successor aliases=[{self.task!r}]"
        if self.broken:
            return f"{waits}; of {self.read:,} read {self.broken:,} do not fit: job {self.example}: {self.problem}"
        if self.problem:
            return f"{waits}: {self.problem}"
        return waits + (f"; the first {limit:,} were read" if self.read == limit else "")

    def counts(self) -> Iterator[tuple[str, int]]:
        """Live jobs by state."""
        yield from (("ready", self.ready), ("scheduled", self.scheduled), ("running", self.running))


@verb
def compare(limit: int, /, *, schema: str | None = None) -> Steps[list[Found]]:
    """What there is of each task that the code or the database knows: what does not fit first, then by name.

    Of each task the arguments of so many jobs are read.
    """
    return _compare(limit)


def _compare(limit: int) -> Steps[list[Found]]:
    rows: list[tuple[str, int, int, int]] = yield Statement(WAITING, {}, list, name="waiting")
    found = {
        name: Found(name, ready, scheduled, running, known=name in registered())
        for name, ready, scheduled, running in rows
    }
    yield from _read_arguments(found, limit)
    _add_schedules(found, (yield select_schedules()))
    for task in registered().values():  # under aliases there is something only while old jobs wait
        found.setdefault(task.name, Found(task.name))
    return [found[name] for name in sorted(found, key=lambda name: (found[name].fine, name))]


def _read_arguments(found: dict[str, Found], limit: int) -> Steps[None]:
    """In pages by id, once through the table for all tasks together; a task of which enough were read is left out."""
    after, read = 0, Counter[str]()
    while open_ := [name for name, each in found.items() if each.known and read[name] < limit]:
        params: dict[str, Any] = {"after": after, "tasks": open_, "most": PAGE}
        page: list[tuple[int, str, bytes]] = yield Statement(ARGUMENTS, params, list, name="arguments")
        for job_id, name, arguments in page:
            after = job_id
            if read[name] == limit:
                continue
            read[name] += 1
            found[name].read += 1
            try:
                registered()[name].signature.decode_arguments(arguments)
            except InvalidArguments as error:
                found[name].broken += 1
                if found[name].example is None:
                    found[name].example, found[name].problem = job_id, one_line(str(error))
        if len(page) < PAGE:
            return


def _add_schedules(found: dict[str, Found], rows: list[ScheduleRow]) -> None:
    for row in rows:
        each = found.setdefault(row.task, Found(row.task, known=row.task in registered()))
        each.schedules.append(row.name)
        if each.known:
            try:
                row.upcoming(1)  # whoever made it may have had nothing that reads cron expressions
                registered()[row.task].signature.decode_arguments(row.arguments)
            except (InvalidArguments, ValueError) as error:
                each.problem = each.problem or one_line(f"schedule {row.name}: {error}")
