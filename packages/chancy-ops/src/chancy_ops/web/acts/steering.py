"""What is set for a queue or a task: pauses, the limit, how long finished jobs are kept."""

from __future__ import annotations

from starlette.responses import Response

import chancy_ops
from chancy import Keep, days
from chancy.registry import registered
from chancy.wires.connections import PsycopgAsyncConn
from chancy_ops.web.visit import Visit

from .doing import known_as, leads, noted, number_of, text_of, until_said, when_of


async def pause_queue(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Until it is resumed, or the time is over."""
    form = visit.posted()
    name, until = text_of(form, "name"), when_of(form, "until")
    await chancy_ops.pause(conn, name, until=until, schema=visit.schema)
    await noted(visit, conn, "pause", queue=name, until=until_said(until))
    return leads(visit, form, await known_as(visit, conn, "paused", "queue", name), "queue", name=name)


async def resume_queue(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Let its jobs begin again."""
    form = visit.posted()
    name = text_of(form, "name")
    was = await chancy_ops.resume(conn, name, schema=visit.schema)
    if was:
        await noted(visit, conn, "resume", queue=name)
    said = "resumed" if was else "left"
    return leads(visit, form, await known_as(visit, conn, said, "queue", name), "queue", name=name)


async def limit(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Over all workers; nothing typed lifts it."""
    form = visit.posted()
    name, most = text_of(form, "name"), number_of(form, "concurrency")
    await chancy_ops.limit(conn, name, concurrency=most, schema=visit.schema)
    await noted(visit, conn, "limit", queue=name, concurrency=most)
    said = "unlimited" if most is None else "limited"
    return leads(visit, form, await known_as(visit, conn, said, "queue", name), "queue", name=name)


async def keep(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Days, by how jobs end; where nothing is typed, as the schema has it."""
    form = visit.posted()
    name = text_of(form, "name")
    given = {name: number_of(form, name) for name in Keep.__struct_fields__}
    rules = {what: number for what, number in given.items() if number is not None}
    chosen = Keep(**{what: days(number) for what, number in rules.items()}) if rules else None
    await chancy_ops.keep(conn, name, chosen, schema=visit.schema)
    await noted(visit, conn, "keep", queue=name, days=rules)
    return leads(visit, form, await known_as(visit, conn, "kept", "queue", name), "queue", name=name)


async def pause_task(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """By all its names, where its code is here."""
    form = visit.posted()
    name, until = text_of(form, "name"), when_of(form, "until")
    await chancy_ops.pause(conn, task=registered().get(name, name), until=until, schema=visit.schema)
    await noted(visit, conn, "pause", task=name, until=until_said(until))
    return leads(visit, form, await known_as(visit, conn, "paused", "task", name), "task", name=name)


async def resume_task(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """By all its names, where its code is here."""
    form = visit.posted()
    name = text_of(form, "name")
    was = await chancy_ops.resume(conn, task=registered().get(name, name), schema=visit.schema)
    if was:
        await noted(visit, conn, "resume", task=name)
    said = "resumed" if was else "left"
    return leads(visit, form, await known_as(visit, conn, said, "task", name), "task", name=name)
