"""The schedules of one schema in a dict. Nothing ticks here: no time passes without a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from chancy.model import WITHOUT_END
from chancy.schedules.schedule import (
    PAUSE_SCHEDULE,
    RESUME_SCHEDULE,
    RUN_NOW,
    SCHEDULE,
    SELECT_SCHEDULES,
    UNSCHEDULE,
    ScheduleRow,
    decode_when,
)

Params = Mapping[str, Any]


class Schedules:
    """Rows by their names, and the answers to the statements about them."""

    def __init__(self) -> None:
        self.rows: dict[str, ScheduleRow] = {}
        self.answers: dict[str, Callable[[Params], Iterator[tuple[Any, ...]]]] = {
            SCHEDULE: self._schedule,
            UNSCHEDULE: lambda params: iter([(self.rows.pop(params["name"], None) is not None,)]),
            SELECT_SCHEDULES: self._select,
            RUN_NOW: self._run_now,
            PAUSE_SCHEDULE: self._pause,
            RESUME_SCHEDULE: self._resume,
        }

    def _schedule(self, params: Params) -> Iterator[tuple[Any, ...]]:
        name, when, now = params["name"], decode_when(bytes(params["when"])), datetime.now(UTC)
        former = self.rows.get(name)
        self.rows[name] = ScheduleRow(
            name=name,
            task=params["task"],
            when=when,
            arguments=bytes(params["arguments"]),
            declared=False,
            next_at=former.next_at if former is not None and former.when == when else None,
            last_at=None,
            last_job=None,
            note=None,
            paused_until=None if former is None else former.paused_until,
            read_at=now,
        )
        yield (name,)

    def _select(self, params: Params) -> Iterator[tuple[Any, ...]]:
        for _, row in sorted(self.rows.items()):
            yield (
                row.name, row.task, msgspec.json.encode(row.when), row.arguments, row.declared, row.next_at,
                row.last_at, row.last_job, None, row.paused_until, datetime.now(UTC),
            )  # fmt: skip

    def _run_now(self, params: Params) -> Iterator[tuple[Any, ...]]:
        row, now = self.rows.get(params["name"]), datetime.now(UTC)
        told = row is not None and (row.paused_until is None or row.paused_until <= now)
        if row is not None and told:
            self._change(row, next_at=min(row.next_at or now, now))
        yield told, row is not None

    def _pause(self, params: Params) -> Iterator[tuple[Any, ...]]:
        if (row := self.rows.get(params["name"])) is not None:
            until = params["until"]
            if params["duration"] is not None:
                until = datetime.now(UTC) + timedelta(seconds=float(params["duration"].split()[0]))
            self._change(row, paused_until=until or WITHOUT_END)
            yield (row.name,)

    def _resume(self, params: Params) -> Iterator[tuple[Any, ...]]:
        row = self.rows.get(params["name"])
        paused = row is not None and row.paused_until is not None
        if row is not None and paused:
            self._change(row, paused_until=None, next_at=None)
        yield (paused,)

    def _change(self, row: ScheduleRow, **changes: Any) -> None:
        self.rows[row.name] = msgspec.structs.replace(row, **changes)
