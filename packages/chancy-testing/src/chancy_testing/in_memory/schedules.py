"""Schedules. Nothing ticks here: no time passes without a worker."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec

from chancy.model import WITHOUT_END
from chancy.schedules.schedule import ScheduleRow, decode_when

from .rows import now
from .store import Answer, Asked, Memory, Row


def _schedule(memory: Memory, asked: Asked) -> Iterator[Row]:
    params = asked.params
    name, when = params["name"], decode_when(bytes(params["when"]))
    former = memory.schedules.get(name)
    memory.schedules[name] = ScheduleRow(
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
        read_at=now(),
    )
    yield (name,)


def _unschedule(memory: Memory, asked: Asked) -> Iterator[Row]:
    yield (memory.schedules.pop(asked.params["name"], None) is not None,)


def _select_schedules(memory: Memory, asked: Asked) -> Iterator[Row]:
    for _, row in sorted(memory.schedules.items()):
        yield (
            row.name, row.task, msgspec.json.encode(row.when), row.arguments, row.declared, row.next_at,
            row.last_at, row.last_job, None, row.paused_until, now(),
        )  # fmt: skip


def _run_now(memory: Memory, asked: Asked) -> Iterator[Row]:
    row, at = memory.schedules.get(asked.params["name"]), now()
    told = row is not None and (row.paused_until is None or row.paused_until <= at)
    if row is not None and told:
        _change(memory, row, next_at=min(row.next_at or at, at))
    yield told, row is not None


def _pause_schedule(memory: Memory, asked: Asked) -> Iterator[Row]:
    if (row := memory.schedules.get(asked.params["name"])) is not None:
        until = asked.params["until"]
        if asked.params["duration"] is not None:
            until = now() + timedelta(seconds=float(asked.params["duration"].split()[0]))
        _change(memory, row, paused_until=until or WITHOUT_END)
        yield (row.name,)


def _resume_schedule(memory: Memory, asked: Asked) -> Iterator[Row]:
    row = memory.schedules.get(asked.params["name"])
    paused = row is not None and row.paused_until is not None
    if row is not None and paused:
        _change(memory, row, paused_until=None, next_at=None)
    yield (paused,)


def _change(memory: Memory, row: ScheduleRow, **changes: Any) -> None:
    memory.schedules[row.name] = msgspec.structs.replace(row, **changes)


ANSWERS: dict[str, Answer] = {
    "pause_schedule": _pause_schedule,
    "resume_schedule": _resume_schedule,
    "run_now": _run_now,
    "schedule": _schedule,
    "select_schedules": _select_schedules,
    "unschedule": _unschedule,
}
