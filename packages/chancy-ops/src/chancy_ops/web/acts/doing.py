"""What all acts have in common: that they are noted, that they are about what somebody saw, and where they lead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

import chancy
import chancy_ops
from chancy import JobRow
from chancy.errors import InvalidOption
from chancy.wires.connections import PsycopgAsyncConn
from chancy_ops.pauses import is_known
from chancy_ops.terminal.times import read_age, read_instant
from chancy_ops.web.said import seen_of
from chancy_ops.web.visit import Visit

_OWN = re.compile(r"(?:[a-z]+(?:/[0-9]{1,19})?(?:/[a-z]+)?)?(?:\?[!-\[\]-~]*)?")
"""A page of ours, below the mount: nothing that begins with a slash, or names a scheme or a host."""


async def fenced(visit: Visit, conn: PsycopgAsyncConn, job_id: int, seen: str | None) -> JobRow:
    """The job, if it is as it was seen. Raises `HTTPException` 409 otherwise, and `UnknownJob`."""
    row = await chancy.get(conn, job_id, schema=visit.schema)
    if seen is None:
        raise InvalidOption("seen", "the form does not say how the job was: open its page again")
    if seen_of(row) != seen:
        was = seen.partition(":")[0].replace("waits", "waiting")
        raise HTTPException(
            409,
            f"Job {job_id} has gone on: it is {row.state} now (attempt {row.attempt}), and was {was} on the page. "
            f"Nothing was changed; look at it again.",
        )
    return row


async def noted(visit: Visit, conn: PsycopgAsyncConn, did: str, /, changed: int | None = 1, **what: Any) -> None:
    """Write down what the user did, in the transaction of that."""
    await chancy_ops.note(conn, did, what, who=visit.user.name, via="dashboard", changed=changed, schema=visit.schema)


def until_said(until: datetime | timedelta | None) -> object:
    """An end, as the audit says it: the instant, or how long from the act."""
    return f"for {until}" if isinstance(until, timedelta) else until


def leads(visit: Visit, form: Mapping[str, str], said: str, path: str, /, **asked: object) -> Response:
    """To the page that the form came from, if that is one of ours, or to `path`; with a word about what was done."""
    following = form.get("next", "")
    if not following or not _OWN.fullmatch(following):
        return visit.go(path, **asked, did=said)
    page, _, query = following.partition("?")
    kept = "&".join(part for part in query.split("&") if part and not part.startswith("did="))
    return RedirectResponse(f"{visit.root}{page}?{kept + '&' if kept else ''}did={said}", 303)


async def known_as(visit: Visit, conn: PsycopgAsyncConn, said: str, kind: str, name: str) -> str:
    """The same word about what was done; or, of a name that nobody knows, one that says so."""
    if await is_known(conn, kind, name, schema=visit.schema):
        return said
    return "strange" if said == "left" else "unknown"


def text_of(form: Mapping[str, str], name: str) -> str:
    """A field that has to be there, as it is. Raises `InvalidOption`."""
    if not (found := form.get(name, "")):
        raise InvalidOption(name, "the form does not say it")
    return found


def number_of(form: Mapping[str, str], name: str) -> int | None:
    """A whole number, or None where nothing was typed. Raises `InvalidOption`."""
    text = form.get(name, "").strip()
    if not text:
        return None
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
        raise InvalidOption(name, f"expected a whole number, got {text[:40]!r}")
    return int(text)


def when_of(form: Mapping[str, str], name: str) -> datetime | timedelta | None:
    """An instant, or how long from now; None where nothing was typed. Raises `InvalidOption`."""
    text = form.get(name, "").strip()
    if not text:
        return None
    try:
        return read_age(text) if re.match(r"[\d.]+[smhdw]", text) else read_instant(text)
    except ValueError as error:
        raise InvalidOption(name, f"{error}; or how long from now, as 2h") from None
