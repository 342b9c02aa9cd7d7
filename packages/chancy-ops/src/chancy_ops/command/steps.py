"""`chancy steps`, `chancy signal` and `chancy forget-steps`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
import msgspec

import chancy
from chancy import StepRow
from chancy.options.phrases import one_line
from chancy_ops.terminal.faults import DONE, NOT_DONE
from chancy_ops.terminal.screen import Table, answer, document
from chancy_ops.terminal.site import Site, command

HEADINGS = ("STEP", "KIND", "ATTEMPT", "AT", "UNTIL", "RESULT")


@command("steps")
@click.argument("job_id", metavar="ID", type=int)
def steps(site: Site, job_id: int) -> None:
    """What a job has done of itself, for what it sleeps or waits, and what it was told."""
    with site.connect() as conn:
        found = chancy.steps(conn, job_id, schema=site.schema)
        if not found:
            chancy.get(conn, job_id, schema=site.schema)  # raises UnknownJob
    if site.json:
        return document({"id": job_id, "steps": [described(step) for step in found]})
    Table(HEADINGS, rows_of(found)).show()
    return None


def described(step: StepRow) -> dict[str, Any]:
    """The step as a JSON document, with its result as it is stored."""
    return msgspec.structs.asdict(step) | {"result": None if step.result is None else msgspec.Raw(step.result)}


def rows_of(found: Sequence[StepRow]) -> list[tuple[str | int | datetime | None, ...]]:
    """A line for each."""
    return [(step.name, step.kind, step.attempt or "", step.at, step.until, _result(step)) for step in found]


def _result(step: StepRow) -> str:
    return "" if step.result is None else one_line(step.result.decode("utf-8", "backslashreplace"), 60)


@command("signal", needs="operator")
@click.argument("job_id", metavar="ID", type=int)
@click.argument("name", metavar="NAME")
@click.argument("value", metavar="[JSON]", default="null")
def signal(site: Site, job_id: int, name: str, value: str) -> int:
    """Tell a job what it waits for, or that it need not sleep on.

    Ends with 1 when that changes nothing: the job is finished, was told before, or has waited long enough.
    """
    try:
        said = msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise click.UsageError(f"the value is no JSON ({error}); a text has quotes of its own, '\"yes\"'") from None
    with site.connect() as conn, conn.transaction():
        told = chancy.signal(conn, job_id, name, said, schema=site.schema)
        if told:
            site.note(conn, "signal", job=job_id, name=name)
    text = f"job {job_id} was told {name!r}"
    if not told:
        text = f"job {job_id} was not told {name!r}: it is finished, was told before, or has waited long enough"
    answer(site.json, {"id": job_id, "name": name, "told": told}, text)
    return DONE if told else NOT_DONE


@command("forget-steps", needs="operator")
@click.argument("job_id", metavar="ID", type=int)
@click.option("--step", "names", multiple=True, metavar="NAME", help="This one; may be given several times.")
def forget_steps(site: Site, job_id: int, names: tuple[str, ...]) -> None:
    """Forget what a job has done of itself, so that its next attempt does it again. One that runs is left alone."""
    with site.connect() as conn, conn.transaction():
        gone = chancy.forget_steps(conn, job_id, names=names or None, schema=site.schema)
        if gone:
            site.note(conn, "forget_steps", job=job_id, names=names or None, changed=gone)
    answer(
        site.json, {"id": job_id, "forgotten": gone}, f"{gone} step{'' if gone == 1 else 's'} of job {job_id} forgotten"
    )
