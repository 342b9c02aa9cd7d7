"""Who did what: whoever acts for a person notes it, in the transaction of the act.

The verbs themselves write nothing of the kind: code that calls them is no person. The command, the dashboard and
Django's admin do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from chancy.arguments.codec import encode_json
from chancy.errors import InvalidOption
from chancy.model import Rows, Statement
from chancy.options.plain import LARGEST_ID, beginning, number, shown, text
from chancy.verb import verb

LONGEST = 200
"""Characters of a name."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One act of a person. Instants are UTC."""

    id: int
    at: datetime
    """When its transaction began."""
    who: str
    via: str
    """What acted for him: `command`, `dashboard`, `django admin`."""
    verb: str
    what: Mapping[str, Any]
    """Whom it was done to, and how: `{"job": 7}`, or of many what they had in common."""
    changed: int | None
    """How many jobs, or other things. Of a sweep how many so far."""
    fits: int | None = None
    """Of a sweep how many fitted when it began; None of anything else, as the rest."""
    skipped: int | None = None
    """Jobs that it has come to and left as they were."""
    seen_at: datetime | None = None
    """When its last batch began."""
    stop_at: datetime | None = None
    """Since when somebody wants it to stop."""
    done_at: datetime | None = None
    note: str = ""
    """Why it ended before its end."""
    is_running: bool = False
    """It is a sweep, and has been seen in the last minute. One neither running nor done has lost its process."""


NOTE = """
    WITH noted AS (
        INSERT INTO {schema}.audit (at, who, via, verb, what, changed, done_at)
        VALUES ({schema}.clock(), %(who)s::text, %(via)s::text, %(verb)s::text, %(what)s::json, %(changed)s::bigint,
            {schema}.clock())
    )
    SELECT true
"""


@verb
def note(
    did: str, what: Mapping[str, Any], /, *, who: str, via: str, changed: int | None = 1, schema: str | None = None
) -> Statement[None]:
    """Write down that `who` did this, by way of `via`. One round trip, in the transaction of what was done.

    `what` is an object that JSON can say. Of names the first 200 characters are kept. Raises `InvalidOption`.
    """
    params = author(did, what, who, via) | {"changed": None if changed is None else number("changed", changed, 0)}
    return Statement(NOTE, params, lambda rows: None, name="note")


def author(did: str, what: Mapping[str, Any], who: str, via: str) -> dict[str, Any]:
    """Who did what, as parameters. Raises `InvalidOption`."""
    if not isinstance(what, Mapping):
        raise InvalidOption("what", f"expected an object, got {shown(what)}")
    try:
        said = encode_json(what)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOption("what", f"expected what JSON can say: {error}") from None
    return {
        "who": _named("who", who),
        "via": _named("via", via),
        "verb": _named("did", did),
        "what": msgspec.Raw(said),
    }


def _named(option: str, value: object) -> str:
    return text(option, beginning(option, value, LONGEST).replace("\0", "\\x00"))


AUDIT = """
    SELECT id, at, convert_to(who, 'UTF8'), convert_to(via, 'UTF8'), convert_to(verb, 'UTF8'),
        convert_to(what::text, 'UTF8'), changed, fits, skipped, seen_at, stop_at, done_at, convert_to(note, 'UTF8'),
        done_at IS NULL AND seen_at > {schema}.clock() - interval '1 minute'
    FROM {schema}.audit
    WHERE (%(who)s::text IS NULL OR who = %(who)s::text) AND (%(verb)s::text IS NULL OR verb = %(verb)s::text)
        AND (%(id)s::bigint IS NULL OR id = %(id)s::bigint)
        AND id < coalesce(%(before)s::bigint, 9223372036854775807)
    ORDER BY id DESC
    LIMIT %(limit)s::bigint
"""


@verb
def audit(
    *,
    who: str | None = None,
    did: str | None = None,
    limit: int = 100,
    before: int | None = None,
    schema: str | None = None,
) -> Statement[list[AuditRow]]:
    """What people did, the newest first: of one of them, of one verb, or all. One round trip.

    For the next page give the last row's id as `before`. Rows are kept for 400 days. Raises `InvalidOption`.
    """
    asked = {
        "who": None if who is None else text("who", who),
        "verb": None if did is None else text("did", did),
        "before": None if before is None else number("before", before, 0, LARGEST_ID),
        "limit": number("limit", limit, 0),
    }
    return acts(**asked)


def acts(**asked: Any) -> Statement[list[AuditRow]]:
    """The rows that fit all that is asked for: `who`, `verb`, `id`, `before`, `limit`."""
    params = {"who": None, "verb": None, "id": None, "before": None, "limit": 100} | asked
    return Statement(AUDIT, params, _parse_acts, name="audit")


def _parse_acts(rows: Rows) -> list[AuditRow]:
    return [
        AuditRow(
            id=id_,
            at=at.astimezone(UTC),
            who=who.decode(),
            via=via.decode(),
            verb=did.decode(),
            what=msgspec.json.decode(what),
            changed=changed,
            fits=fits,
            skipped=skipped,
            seen_at=seen_at and seen_at.astimezone(UTC),
            stop_at=stop_at and stop_at.astimezone(UTC),
            done_at=done_at and done_at.astimezone(UTC),
            note=(said or b"").decode(),
            is_running=bool(is_running),
        )
        for id_, at, who, via, did, what, changed, fits, skipped, seen_at, stop_at, done_at, said, is_running in rows
    ]
