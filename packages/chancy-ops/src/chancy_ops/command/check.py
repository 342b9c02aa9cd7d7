"""`chancy check`: whether the code can perform what waits in the database. For CI, before a deploy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import click

import chancy
from chancy import InvalidArguments
from chancy.model import Rows, Statement
from chancy.phrases import one_line
from chancy.registry import registered
from chancy.run import perform

from .faults import DONE, NOT_DONE, Refusal
from .modules import load
from .screen import Table, document
from .site import Site, command

if TYPE_CHECKING:
    from chancy.wires.connections import PsycopgConn

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


@command("check")
@click.argument("modules", metavar="MODULE...", nargs=-1, required=True)
@click.option(
    "--limit", type=click.IntRange(min=0), default=10_000, show_default=True, help="Arguments to read, of each task."
)
def check(site: Site, modules: tuple[str, ...], limit: int) -> int:
    """Compare a module's tasks with what waits in the database: what a deploy of this code would break.

    Jobs (ready, scheduled, running) and schedules of tasks that the code does not know, and jobs whose arguments do not
    fit the task's signature any more. Where several programs share a schema, name the modules of all of them.
    """
    for module in modules:
        load(module)
    if not registered():
        raise Refusal(f"{', '.join(modules)} has no task; decorate a function with @chancy.task")
    with site.connect() as conn:
        found = {
            name: Found(name, ready, scheduled, running, known=name in registered())
            for name, ready, scheduled, running in perform_rows(conn, WAITING, {}, site.schema)
        }
        _read_arguments(conn, found, limit, site.schema)
        _read_schedules(conn, found, site.schema)
    for task in registered().values():  # under aliases there is something only while old jobs wait
        found.setdefault(task.name, Found(task.name))
    results = [found[name] for name in sorted(found, key=lambda name: (found[name].fine, name))]
    if site.json:
        document({"fine": all(each.fine for each in results), "tasks": [_described(each) for each in results]})
    else:
        Table(
            ("TASK", "SEVERITY", "FOUND"),
            [(each.task, "ok" if each.fine else "error", each.sentence(limit)) for each in results],
            long="fold",
        ).show()
    return DONE if all(each.fine for each in results) else NOT_DONE


def _described(found: Found) -> dict[str, Any]:
    return {"task": found.task, "fine": found.fine} | asdict(found)


def _read_arguments(conn: PsycopgConn, found: dict[str, Found], limit: int, schema: str) -> None:
    """In pages by id, once through the table for all tasks together; a task of which enough were read is left out."""
    after, read = 0, Counter[str]()
    while open_ := [name for name, each in found.items() if each.known and read[name] < limit]:
        page = perform_rows(conn, ARGUMENTS, {"after": after, "tasks": open_, "most": PAGE}, schema)
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


def _read_schedules(conn: PsycopgConn, found: dict[str, Found], schema: str) -> None:
    for row in chancy.schedules(conn, schema=schema):
        each = found.setdefault(row.task, Found(row.task, known=row.task in registered()))
        each.schedules.append(row.name)
        if each.known:
            try:
                registered()[row.task].signature.decode_arguments(row.arguments)
            except InvalidArguments as error:
                each.problem = each.problem or one_line(f"schedule {row.name}: {error}")


def perform_rows(conn: PsycopgConn, sql: str, params: dict[str, Any], schema: str) -> Sequence[tuple[Any, ...]]:
    """One round trip; the rows as they come."""
    rows: Any = perform(conn, Statement(sql, params, _as_they_are), schema)
    return list(rows)


def _as_they_are(rows: Rows) -> Rows:
    return rows
