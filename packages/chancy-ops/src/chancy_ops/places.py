"""The limits over all workers: how many places each has, and which jobs have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from chancy.keys.gates import Gate
from chancy.model import Rows, Statement, Steps
from chancy.options.plain import number, text
from chancy.verb import verb

from .reasons.context import Places, places_of

MOST_LIMITS = 1_000

# From one name to the next, by the key: a limit with many places costs no more than one with few.
LIMITS = """
    WITH RECURSIVE gate AS (
        (SELECT slot.gate AS name FROM {schema}.slot AS slot
         WHERE slot.gate > coalesce(%(after)s::text, '') ORDER BY slot.gate LIMIT 1)
        UNION ALL
        SELECT following.name FROM gate CROSS JOIN LATERAL (
            SELECT slot.gate AS name FROM {schema}.slot AS slot
            WHERE slot.gate > gate.name ORDER BY slot.gate LIMIT 1) AS following
    ),
    named AS (
        (SELECT name FROM gate LIMIT %(limit)s::integer)
        UNION
        SELECT share.name FROM {schema}.share AS share
        WHERE share.kind = 'gate' AND share.name > coalesce(%(after)s::text, '')
    )
    SELECT name,
        coalesce((SELECT slot.n FROM {schema}.slot AS slot WHERE slot.gate = name ORDER BY slot.n DESC LIMIT 1), 0)
    FROM named
    ORDER BY name COLLATE "C"
    LIMIT %(limit)s::integer
"""
DECLARED = """
    SELECT convert_to(gates::text, 'UTF8') FROM {schema}.task WHERE gates IS NOT NULL ORDER BY name
"""


@dataclass(frozen=True, slots=True)
class LimitRow:
    """One limit, for one key if it has any."""

    name: str
    """With its kind, the task or the name of the limit, and the key: `concurrency(shop.charge account=7)`."""
    most: int
    """How many places there are: jobs that may run at a time, or begin within `per`."""
    per: float | None
    """Seconds, of a rate."""
    taken: int
    """How many of them are."""
    jobs: Sequence[int]
    """The first three that have a place. Of a rate they may have finished."""
    opens_at: datetime | None
    """UTC: when the next place of a rate is free by time alone."""
    kept: int
    """Places in the shares of workers that do not use them now."""

    @property
    def full(self) -> bool:
        """Whether a job has to wait for it."""
        return self.taken >= self.most


@verb
def limits(*, after: str | None = None, limit: int = 100, schema: str | None = None) -> Steps[list[LimitRow]]:
    """The limits that jobs have come to, by name. Three round trips.

    How many a limit lets run, and in which time, is what a task declares that a worker knows; where none does any more,
    the highest place that was ever taken. For the next page give the last name as `after`. Raises `InvalidOption`.
    """
    params: dict[str, Any] = {
        "after": None if after is None else text("after", after),
        "limit": number("limit", limit, 1, MOST_LIMITS),
    }
    return _limits(Statement(LIMITS, params, list, name="limits"))


def _limits(named: Statement[list[tuple[str, int]]]) -> Steps[list[LimitRow]]:
    rows: list[tuple[str, int]] = yield named
    if not rows:
        return []
    declared: list[_Declared] = yield Statement(DECLARED, {}, _parse_declared, name="declared_limits")
    gates = [_gate(name, highest, declared) for name, highest in rows]
    places: list[Places] = yield places_of(gates)
    return [_row(gate, each) for gate, each in zip(gates, places, strict=True)]


class _Declared(msgspec.Struct, frozen=True):
    """A limit, as a task declares it; without a number it is a group."""

    start: str
    names: Sequence[str] | None = None
    most: int | None = None
    per: float | None = None


_read = msgspec.json.Decoder(list[_Declared]).decode


def _parse_declared(rows: Rows) -> list[_Declared]:
    return [part for (gates,) in rows for part in _read(gates) if part.most is not None]


def _gate(name: str, highest: int, declared: Sequence[_Declared]) -> Gate:
    fitting = [each for each in declared if name == each.start or (each.names and name.startswith(each.start))]
    best = max(fitting, key=lambda each: len(each.start), default=_Declared(name, most=highest))
    return Gate(name, best.most or 0, len(name), best.per)


def _row(gate: Gate, places: Places) -> LimitRow:
    opens_at = places.opens_at and places.opens_at.astimezone(UTC)
    return LimitRow(gate.name, gate.most, gate.per, places.count, places.jobs, opens_at, places.kept)
