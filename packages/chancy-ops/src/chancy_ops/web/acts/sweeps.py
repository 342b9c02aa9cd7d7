"""What is done to many jobs: those that were ticked, or all that fit. A page with the number comes before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.exceptions import HTTPException
from starlette.responses import Response

import chancy_ops
from chancy import DuplicateJob, UnknownJob
from chancy.errors import InvalidOption
from chancy.options.plain import identity
from chancy.wires.connections import PsycopgAsyncConn
from chancy_ops import JobFilter, JobLine
from chancy_ops.overview import clock
from chancy_ops.searching import these_lines
from chancy_ops.sweeping import KINDS, SweepKind
from chancy_ops.web.access.users import Action
from chancy_ops.web.asked import FILTERS, filter_asked, read
from chancy_ops.web.connections import answer_of
from chancy_ops.web.pages.jobs import jobs
from chancy_ops.web.said import seen_of
from chancy_ops.web.sweeps import TooMany
from chancy_ops.web.visit import Visit

from .doing import leads, noted, number_of, text_of

SAMPLE = 10
MOST_TICKED = 200


def _kind(visit: Visit, name: str) -> SweepKind:
    if name not in KINDS:
        raise InvalidOption("verb", f"expected one of {', '.join(KINDS)}")
    if not visit.user.may(Action(name)):
        raise HTTPException(403, f"{visit.user.name} has no right to {name}.")
    return KINDS[name]


async def sweep_page(visit: Visit) -> Response:
    """How far one is; what would be done to the jobs that were ticked; or to all that fit."""
    if "id" in visit.asked:
        return await _progress(visit, read(visit.asked, "id", int) or 0)
    if "verb" not in visit.asked:
        return await jobs(visit)  # where jobs are chosen
    kind = _kind(visit, visit.asked["verb"])
    ticked = visit.request.query_params.getlist("job")
    if ticked or "ticked" in visit.asked:
        return await _ticked(visit, kind, ticked)
    if not visit.user.may(Action.SWEEP):
        raise HTTPException(403, f"{visit.user.name} has no right to {Action.SWEEP}.")
    async with visit.looking() as conn:
        now = await clock(conn, schema=visit.schema)
        attempts = read(visit.asked, "attempts", int)
        which = filter_asked(visit.asked, now)
        planned = await chancy_ops.plan_sweep(conn, kind.name, which, attempts=attempts, schema=visit.schema)
        sample = await chancy_ops.search(conn, planned.which, limit=SAMPLE, schema=visit.schema)
    return visit.page(
        "sweep.html", planned=planned, kind=kind, sample=[line for line in sample if line.state in planned.counts],
        now=now, fields=_fields(planned.which), attempts=attempts, back=_own_query(visit.asked),
    )  # fmt: skip


def _fields(which: JobFilter) -> dict[str, str]:
    """A filter as fields of a form, and as words."""
    said = {name: getattr(which, name) for name in FILTERS}
    return {
        name: value.isoformat() if name in ("since", "until") else str(value)
        for name, value in said.items()
        if value is not None
    }


def _own_query(asked: Mapping[str, str]) -> dict[str, str]:
    return {name: asked[name] for name in FILTERS if name in asked}


async def _progress(visit: Visit, audit_id: int) -> Response:
    if not (visit.user.may(Action.AUDIT) or visit.user.may(Action.SWEEP)):
        raise HTTPException(403, f"{visit.user.name} has no right to {Action.AUDIT}.")
    async with visit.looking() as conn:
        rows = await chancy_ops.audit(conn, before=audit_id + 1, limit=1, schema=visit.schema)
        now = await clock(conn, schema=visit.schema)
    if not rows or rows[0].id != audit_id or rows[0].fits is None:
        raise HTTPException(404)
    return visit.page("sweeping.html", row=rows[0], now=now, past=_past(rows[0].verb))


def _past(name: str) -> str:
    """What was done to a job. The row may be of a newer version, which knows more."""
    return KINDS[name].past if name in KINDS else name


async def _ticked(visit: Visit, kind: SweepKind, ticked: Sequence[str]) -> Response:
    chosen = [_tick(each) for each in ticked[:MOST_TICKED]]
    if not chosen:
        raise HTTPException(400, "No job was ticked. Go back, and tick some.")
    async with visit.looking() as conn:
        now = await clock(conn, schema=visit.schema)
        rows = await _lines(visit, conn, chosen)
    fit = [(row, seen) for row, seen in rows if row.state in kind.fits and seen_of(row) == seen]
    others = [row for row, seen in rows if row.state not in kind.fits or seen_of(row) != seen]
    return visit.page(
        "ticked.html", kind=kind, jobs=[row for row, _ in fit], others=others, gone=len(chosen) - len(rows), now=now,
        ticks=[f"{row.id}:{seen}" for row, seen in fit],
    )  # fmt: skip


async def _lines(visit: Visit, conn: PsycopgAsyncConn, chosen: Sequence[tuple[int, str]]) -> list[tuple[JobLine, str]]:
    """Those that are there, as they are now, and how they were seen. One round trip, however many."""
    seen = dict(chosen)
    lines = await answer_of(conn, these_lines(list(seen)), visit.schema)
    return [(line, seen[line.id]) for line in lines]


def _tick(text: str) -> tuple[int, str]:
    id_, _, seen = text.partition(":")
    if not (id_.isascii() and id_.isdecimal()) or len(id_) > 19:
        raise InvalidOption("job", f"expected a job and how it was seen, got {text[:40]!r}")
    return identity("job", int(id_)), seen


async def sweep(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Begin it, with the window that was counted. The page that it leads to shows how far it is."""
    form = visit.posted()
    kind = _kind(visit, text_of(form, "verb"))
    asked = {name: form[name] for name in FILTERS if form.get(name)}
    if "until" not in asked:
        raise InvalidOption("until", "the form does not say where the window ends: count again")
    which = filter_asked(asked, await clock(conn, schema=visit.schema))
    planned = await chancy_ops.plan_sweep(
        conn, kind.name, which, attempts=number_of(form, "attempts"), schema=visit.schema
    )
    try:
        audit_id = await visit.desk.sweeps.begin(planned, visit.user.name)
    except TooMany:
        raise HTTPException(
            409, "Two acts on many jobs go on already. Wait until one of them is done, or stop it; then press again."
        ) from None
    return visit.go("sweep", id=audit_id)


async def stop(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """After its next batch, whichever process performs it."""
    form = visit.posted()
    audit_id = number_of(form, "id") or 0
    done = audit_id > 0 and await chancy_ops.stop_sweep(conn, audit_id, schema=visit.schema)
    if done:
        await noted(visit, conn, "stop", audit=audit_id)
    return leads(visit, form, "stops" if done else "left", "sweep", id=audit_id)


async def ticked(visit: Visit, conn: PsycopgAsyncConn) -> Response:
    """Those that were ticked and shown, if they are as they were seen; in one transaction."""
    form = visit.posted()
    kind = _kind(visit, text_of(form, "verb"))
    chosen = [_tick(text) for name, text in visit.form if name == "job"][:MOST_TICKED]
    done, left = list[int](), 0
    as_seen = {line.id for line, seen in await _lines(visit, conn, chosen) if seen_of(line) == seen}
    for job_id in sorted(dict(chosen)):
        try:
            changed = job_id in as_seen and await kind.one(conn, job_id, schema=visit.schema)
        except (UnknownJob, DuplicateJob):
            changed = False
        if changed:
            done.append(job_id)
        else:
            left += 1
    if done:
        await noted(visit, conn, kind.name, changed=len(done), jobs=done)
    return visit.go("jobs", did="swept" if not left else "left" if not done else "some")
