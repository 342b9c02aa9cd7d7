"""What is done to one job."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from starlette.responses import Response

import chancy
import chancy_ops
from chancy import State
from chancy.errors import InvalidOption
from chancy.wires.connections import PsycopgAsyncConn
from chancy_ops.overview import clock
from chancy_ops.web.visit import Visit

from .doing import fenced, leads, noted, number_of, text_of, when_of


def _id(visit: Visit) -> int:
    return int(visit.request.path_params["id"])


async def cancel(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Stop it, or ask its worker to."""
    form, job_id = visit.posted(), _id(visit)
    row = await fenced(visit, conn, job_id, form.get("seen"))
    done = await chancy.cancel(conn, job_id, schema=visit.schema)
    if done:
        await noted(visit, conn, "cancel", job=job_id)
    said = "left" if not done else "stopping" if row.state is State.RUNNING else "cancelled"
    return leads(visit, form, said, f"jobs/{job_id}")


async def requeue(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Make it ready again."""
    form, job_id = visit.posted(), _id(visit)
    await fenced(visit, conn, job_id, form.get("seen"))
    attempts = number_of(form, "attempts")
    done = await chancy.requeue(conn, job_id, attempts=attempts, schema=visit.schema)
    if done:
        await noted(visit, conn, "requeue", job=job_id, attempts=attempts)
    return leads(visit, form, "requeued" if done else "left", f"jobs/{job_id}")


async def edit(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Change when it is due, or its priority."""
    form, job_id = visit.posted(), _id(visit)
    await fenced(visit, conn, job_id, form.get("seen"))
    priority, when = number_of(form, "priority"), when_of(form, "run_at")
    if priority is None and when is None:
        raise InvalidOption("run_at", "say what to change: when it is due, or its priority")
    due = await clock(conn, schema=visit.schema) + when if isinstance(when, timedelta) else when
    done = await chancy_ops.edit(conn, job_id, priority=priority, run_at=due, schema=visit.schema)
    if done:
        await noted(visit, conn, "edit", job=job_id, priority=priority, run_at=due)
    return leads(visit, form, "edited" if done else "left", f"jobs/{job_id}")


async def delete(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """As if it had never been there."""
    form, job_id = visit.posted(), _id(visit)
    await fenced(visit, conn, job_id, form.get("seen"))
    if not await chancy_ops.delete(conn, job_id, schema=visit.schema):
        return leads(visit, form, "left", f"jobs/{job_id}")
    await noted(visit, conn, "delete", job=job_id)
    return visit.go("jobs", did="deleted")


async def signal(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Tell it what it waits for."""
    form, job_id = visit.posted(), _id(visit)
    name = text_of(form, "name")
    try:
        value = msgspec.json.decode(form.get("value", "").strip() or "null")
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidOption("value", f'it is no JSON ({error}); a text has quotes of its own, as in "yes"') from None
    told = await chancy.signal(conn, job_id, name, value, schema=visit.schema)
    if told:
        await noted(visit, conn, "signal", job=job_id, name=name)
    return leads(visit, form, "told" if told else "untold", f"jobs/{job_id}")


async def forget(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Have it do its steps again in its next attempt."""
    form, job_id = visit.posted(), _id(visit)
    gone = await chancy.forget_steps(conn, job_id, schema=visit.schema)
    if gone:
        await noted(visit, conn, "forget_steps", job=job_id, changed=gone)
    return leads(visit, form, "forgotten" if gone else "left", f"jobs/{job_id}")
