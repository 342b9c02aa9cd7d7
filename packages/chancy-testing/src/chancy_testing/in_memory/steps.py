"""Steps: what jobs have done of themselves, for what they sleep or wait, and what they were told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from chancy.model import WITHOUT_END
from chancy.states import FINISHED, State

from .rows import Kept, KeptStep, now
from .store import Answer, Asked, Memory, Row


def end_rests(memory: Memory, job_id: int) -> None:
    """As if the time of each sleep and each wait had come."""
    ended = tuple(step.ending(now()) for step in memory.steps.get(job_id, ()))
    if ended:
        memory.steps[job_id] = ended


def _mine(memory: Memory, asked: Asked) -> Kept | None:
    """The job, if it is still this claim's."""
    kept = memory.jobs.get(asked.params["job"])
    if kept is None or kept.row.state is not State.RUNNING or kept.fence != asked.params["fence"]:
        return None
    return kept


def _add(memory: Memory, kept: Kept, name: str, kind: str, **more: Any) -> KeptStep:
    attempt = 0 if kind == "signal" else kept.row.attempt
    step = KeptStep(name=name, kind=kind, at=now(), attempt=attempt, **more)
    memory.steps[kept.row.id] = (*memory.steps.get(kept.row.id, ()), step)
    return step


def _find(memory: Memory, job_id: int, name: str, *kinds: str) -> KeptStep | None:
    return next((s for s in memory.steps.get(job_id, ()) if s.name == name and s.kind in kinds), None)


def _known_steps(memory: Memory, asked: Asked) -> Iterator[Row]:
    for step in memory.steps.get(asked.params["job"], ()):
        if step.kind == "step":
            small = step.result is not None and len(step.result) <= asked.params["large"]
            yield step.name, step.result if small else None


def _known_step(memory: Memory, asked: Asked) -> Iterator[Row]:
    if step := _find(memory, asked.params["job"], asked.params["name"], "step"):
        yield (step.result,)


def _keep_step(memory: Memory, asked: Asked) -> Iterator[Row]:
    if (kept := _mine(memory, asked)) is not None:
        _add(memory, kept, asked.params["name"], "step", result=bytes(asked.params["result"]))
        yield (True,)


def _rest(memory: Memory, asked: Asked) -> Iterator[Row]:
    yield _rested(memory, asked)


def _rested(memory: Memory, asked: Asked) -> Row:
    if (kept := _mine(memory, asked)) is None:
        return "lost", None, None, None
    job_id, name, kind = kept.row.id, asked.params["name"], asked.params["kind"]
    if word := _find(memory, job_id, name, "signal", "timeout"):
        return "signal" if word.kind == "signal" else "over", word.result, None, None
    rest = _find(memory, job_id, name, kind)
    if rest is None:
        delay = asked.params["delay"]
        rest = _add(memory, kept, name, kind, until=None if delay is None else now() + _interval(delay))
    if rest.until is not None and rest.until <= now():
        if kind == "wait":
            _add(memory, kept, name, "timeout")
        return "over", None, None, None
    until = min(rest.until or WITHOUT_END, WITHOUT_END)
    if kept.row.started_at is not None and kept.row.run_at > kept.row.started_at:
        until = min(until, kept.row.run_at)
    memory.jobs[job_id] = kept.with_row(run_at=until)
    return "rest", None, rest.until, None if rest.until is None else (rest.until - now()).total_seconds()


def _interval(text: str) -> timedelta:
    words = text.split()
    if len(words) == 2:
        return timedelta(seconds=float(words[0]))
    return timedelta(hours=int(words[0]), seconds=float(words[2]))


def _signal(memory: Memory, asked: Asked) -> Iterator[Row]:
    yield (_told(memory, asked.params["job"], asked.params["name"], bytes(asked.params["value"])),)


def _told(memory: Memory, job_id: int, name: str, value: bytes) -> bool:
    kept = memory.jobs.get(job_id)
    if kept is None or kept.row.state in FINISHED or _find(memory, job_id, name, "signal", "timeout"):
        return False
    _add(memory, kept, name, "signal", result=value)
    if _find(memory, job_id, name, "sleep", "wait"):
        runs, row = kept.row.state is State.RUNNING, kept.row
        since = row.started_at if runs and row.started_at is not None else now()
        if row.run_at > since:
            memory.jobs[job_id] = kept.with_row(run_at=max(now(), since + timedelta(microseconds=1)) if runs else now())
            if not runs:
                memory.due.append(job_id)
    return True


def _select_steps(memory: Memory, asked: Asked) -> Iterator[Row]:
    for step in memory.steps.get(asked.params["job"], ())[: asked.params["limit"]]:
        yield step.name, step.kind, step.at, step.attempt, step.until, step.result


def _forget_steps(memory: Memory, asked: Asked) -> Iterator[Row]:
    job_id, chosen = asked.params["job"], asked.params["names"]
    kept, there = memory.jobs.get(job_id), memory.steps.get(job_id, ())
    runs = kept is not None and kept.row.state is State.RUNNING
    names = {step.name for step in there} if chosen is None else set(chosen)
    gone = set() if runs else names & {step.name for step in there}
    memory.steps[job_id] = tuple(step for step in there if step.name not in gone)
    yield len(gone), runs, kept is not None


ANSWERS: dict[str, Answer] = {
    "forget_steps": _forget_steps,
    "keep_step": _keep_step,
    "known_step": _known_step,
    "known_steps": _known_steps,
    "rest": _rest,
    "select_steps": _select_steps,
    "signal": _signal,
}
