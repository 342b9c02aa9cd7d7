"""`chancy cancel`, `requeue` and `delete`: jobs by their ids, or many by what they have in common; and `stop`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

import chancy
import chancy_ops
from chancy import DuplicateJob, State, UnknownJob
from chancy.options.phrases import counted, one_line
from chancy_ops import JobFilter, Sweep, Swept
from chancy_ops.sweeping import KINDS, SweepKind
from chancy_ops.terminal.bar import Bar
from chancy_ops.terminal.faults import DONE, NOT_DONE, STOPPED, Refusal
from chancy_ops.terminal.person import person
from chancy_ops.terminal.screen import answer, document
from chancy_ops.terminal.site import Site, command
from chancy_ops.terminal.times import instant_or_age, moment

from .jobs import SINCE, STATES

if TYPE_CHECKING:
    from chancy.wires.connections import PsycopgConn


NOT_DONE_SINCE = {
    "cancel": "is finished already",
    "requeue": "is not finished",
    "delete": "runs: cancel it first",
}
"""Why a verb leaves a job alone."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the command line says of which jobs are meant."""

    ids: tuple[int, ...]
    queue: str | None
    task: str | None
    state: str | None
    error: str | None
    fingerprint: str | None
    since: datetime | timedelta | None
    until: datetime | timedelta | None
    yes: bool

    @property
    def by_filter(self) -> bool:
        """Whether they are not named by their ids."""
        said = (self.queue, self.task, self.state, self.error, self.fingerprint, self.since, self.until)
        return any(given is not None for given in said)

    def checked(self, kind: SweepKind) -> Chosen:
        """The same, or an error for a choice that is none."""
        if bool(self.ids) == self.by_filter:
            raise click.UsageError("say which jobs: either their ids, or --queue, --task, --state and the like")
        if self.state is not None and self.state not in kind.fits:
            fits = ", ".join(state for state in State if state in kind.fits)
            raise click.UsageError(f"jobs that are {self.state} cannot be {kind.past}: --state is one of {fits}")
        return self

    def filter(self, now: datetime) -> JobFilter:
        """What they have in common."""
        return JobFilter(
            queue=self.queue,
            task=self.task,
            state=State(self.state) if self.state else None,
            error=self.error,
            fingerprint=self.fingerprint,
            since=moment(self.since, now),
            until=moment(self.until, now),
        )


def _choice(function: Callable[..., int]) -> Callable[..., int]:
    """The options that choose jobs, given to the function as one."""
    options = [
        click.argument("ids", metavar="[ID]...", type=int, nargs=-1),
        click.option("--queue", metavar="NAME", help="All jobs of this queue."),
        click.option("--task", metavar="NAME", help="All jobs of this task."),
        click.option("--state", type=STATES, help="All jobs in this state."),
        click.option("--error", metavar="KIND", help="All whose last error was of this kind: ValueError, WorkerDied."),
        click.option("--fingerprint", metavar="FINGERPRINT", help="All that failed like this: see `chancy failures`."),
        click.option(
            "--since",
            callback=instant_or_age,
            metavar="INSTANT|AGE",
            help=SINCE,
        ),
        click.option("--until", callback=instant_or_age, metavar="INSTANT|AGE", help="Before then."),
        click.option("--yes", is_flag=True, help="Do not ask."),
    ]

    @functools.wraps(function)
    def run(site: Site, **said: Any) -> int:
        chosen = Chosen(**{name: said.pop(name) for name in Chosen.__dataclass_fields__})
        return function(site, chosen, **said)

    for option in reversed(options):
        run = option(run)
    return run


@command("cancel", needs="operator")
@_choice
def cancel(site: Site, chosen: Chosen) -> int:
    """Stop jobs: those named, or all that fit everything that is said of them.

    Jobs that wait are cancelled; those that run are asked to stop.
    """
    return _sweep(site, chosen, "cancel")


@command("requeue", needs="operator")
@click.option(
    "--attempts",
    type=click.IntRange(1, 32_767),
    help="So many more attempts for each.  [default: what its task declares]",
)
@_choice
def requeue(site: Site, chosen: Chosen, attempts: int | None) -> int:
    """Make finished jobs ready again under their old ids: those named, or all that fit everything that is said of them.

    By a filter it needs a --state: failed, discarded, cancelled or succeeded. A --fingerprint alone means what failed
    or was discarded.
    """
    if chosen.by_filter and chosen.state is None and chosen.fingerprint is None:
        raise click.UsageError(
            "say which finished jobs: --state failed, discarded, cancelled or succeeded, or --fingerprint"
        )
    return _sweep(site, chosen, "requeue", attempts)


@command("delete", needs="operator")
@_choice
def delete(site: Site, chosen: Chosen) -> int:
    """Delete jobs that wait or are finished: those named, or all that fit everything that is said of them.

    Nothing is left of them. Jobs that run are left alone.
    """
    return _sweep(site, chosen, "delete")


@command("stop", needs="operator")
@click.argument("audit_id", metavar="ID", type=int)
def stop(site: Site, audit_id: int) -> int:
    """Stop what somebody does to many jobs, here or elsewhere, after its next batch. What is done stays done.

    ID is that of `chancy audit`.
    """
    with site.connect() as conn, conn.transaction():
        done = chancy_ops.stop_sweep(conn, audit_id, schema=site.schema)
        if done:
            site.note(conn, "stop", audit=audit_id)
    said = f"{audit_id} stops after its next batch" if done else f"{audit_id} has ended, or was never about many jobs"
    answer(site.json, {"id": audit_id, "stopping": done}, said)
    return DONE if done else NOT_DONE


def _sweep(site: Site, chosen: Chosen, did: str, attempts: int | None = None) -> int:
    kind = KINDS[did]
    chosen.checked(kind)
    with site.connect() as conn:
        if chosen.ids:
            more = {} if attempts is None else {"attempts": attempts}
            return _each(site, conn, chosen.ids, kind, functools.partial(kind.one, **more))
        return _all(site, conn, chosen, kind, attempts)


def _each(site: Site, conn: PsycopgConn, ids: Sequence[int], kind: SweepKind, change: Callable[..., Any]) -> int:
    """One after the other, each a transaction of its own; what fails does not keep the others."""
    answers: list[dict[str, Any]] = []
    for job_id in ids:
        try:
            with conn.transaction():
                done = bool(change(conn, job_id, schema=site.schema))
                if done:
                    site.note(conn, kind.name, job=job_id)
            said = kind.past if done else f"left alone: it {NOT_DONE_SINCE[kind.name]}"
            if done and kind.name == "cancel" and _runs(conn, job_id, site.schema):
                said = "asked to stop"
        except (UnknownJob, DuplicateJob) as error:
            done, said = False, str(error)
        answers.append({"id": job_id, "done": done, "message": said})
        if not site.json:
            click.echo(f"job {job_id}: {one_line(said, 400)}")
    if site.json:
        document({"jobs": answers})
    return DONE if all(each["done"] for each in answers) else NOT_DONE


def _runs(conn: PsycopgConn, job_id: int, schema: str) -> bool:
    try:
        return chancy.get(conn, job_id, schema=schema).state is State.RUNNING
    except UnknownJob:  # of a queue that keeps nothing
        return False


def _all(site: Site, conn: PsycopgConn, chosen: Chosen, kind: SweepKind, attempts: int | None) -> int:
    which = chosen.filter(site.now(conn))
    planned = chancy_ops.plan_sweep(conn, kind.name, which, attempts=attempts, schema=site.schema)
    total = planned.total
    if total and not chosen.yes:
        _ask(planned)
    seen = 0
    try:
        with Bar(kind.name, None if total.more else total) as bar:

            def told(gone_through: int) -> None:
                nonlocal seen
                seen = gone_through
                bar.move(gone_through)

            swept = Swept(0, 0)
            if total:
                swept = chancy_ops.sweep(conn, planned, who=person(), via="command", told=told, schema=site.schema)
    except KeyboardInterrupt:
        raise Refusal(f"stopped after {seen:,} of {total:,} jobs; those stay {kind.past}", STOPPED) from None
    if site.json:
        numbers = {state: int(number) for state, number in planned.counts.items()}
        more = [state for state, number in planned.counts.items() if number.more]
        document({"counted": numbers, "more": more, "changed": swept.changed, "left": swept.left})
    elif not total:
        click.echo("no job fits")
    else:
        left = f", {swept.left:,} left as they were" if swept.left else ""
        click.echo(f"{kind.past} {counted(swept.changed, 'job')}{left}")
    if swept.stopped:
        raise Refusal(f"somebody stopped it after {seen:,} of {total:,} jobs; the same command does the rest", NOT_DONE)
    return DONE


def _ask(planned: Sweep) -> None:
    name = planned.kind.name
    listed = ", ".join(f"{number:,} {state}" for state, number in planned.counts.items())
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refusal(f"{listed}: this is no terminal on which one could be asked; give --yes to {name} them")
    click.echo(f"{listed}", err=True)
    if not click.confirm(f"{name.capitalize()} {counted(planned.total, 'job')}?", err=True):
        raise Refusal("nothing was changed", NOT_DONE)
