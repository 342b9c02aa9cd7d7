"""What must hold when all is over, whatever was done to the workers: each a function from the evidence to offenders."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import soak_tasks
from producer import REQUEUED_ATTEMPTS, Record

FAULTS = {"WorkerDied", "ProcessDied"}
BY_ITS_OWN = {"fail_always": {"ValueError"}, "exit_in_subtask": {"SystemExit"}, "flow": {"NeedFailed"}}


@dataclass(frozen=True)
class Row:
    id: int
    key: int
    kind: str
    state: str
    attempt: int
    max_attempts: int
    fence: int
    errors: list[str]
    """Their kinds, oldest first."""
    started_at: float | None
    finished_at: float | None
    """Unix time, as are those of lines: one machine, one clock."""
    result: str | None


@dataclass(frozen=True)
class Node:
    """A job that another one has returned."""

    id: int
    of: int | None
    """The key of that one; None of one that was never released."""
    state: str


@dataclass(frozen=True)
class Line:
    id: int
    attempt: int
    fence: int
    event: str
    pid: int
    at: float


@dataclass(frozen=True)
class Evidence:
    record: Record
    rows: list[Row]
    lines: list[Line]
    effects: Counter[tuple[int, int]]
    """How many there are of each (job, fence)."""
    step_effects: Counter[tuple[int, str]]
    """How many there are of each (job, name of a step)."""
    nodes: list[Node]
    edges: list[tuple[int, int]]
    """Who still waits for whom."""


def gather(record: Record, dsn: str, lines: Path) -> Evidence:
    """Read the rows and the handlers' lines."""
    with psycopg.connect(dsn) as conn:
        query = """
            SELECT id, (arguments->>'key')::bigint, split_part(task, '.', 2), state::text, attempt, max_attempts, claims,
                coalesce(errors, '[]'), extract(epoch FROM started_at)::float8,
                extract(epoch FROM finished_at)::float8, result #>> '{}'
            FROM chancy.any_job WHERE task <> ALL (%s) ORDER BY id
        """
        found = conn.execute(query, [soak_tasks.NODES]).fetchall()
        rows = [
            Row(*columns, [error["kind"] for error in errors], began, ended, result)
            for *columns, errors, began, ended, result in found
        ]
        query = "SELECT id, (arguments->>'of')::bigint, state::text FROM chancy.any_job WHERE task = ANY (%s)"
        nodes = [Node(*node) for node in conn.execute(query, [soak_tasks.NODES]).fetchall()]
        edges = conn.execute("SELECT job, needs FROM chancy.need WHERE doomed_at IS NULL").fetchall()
        effects = Counter(conn.execute("SELECT job, fence FROM effect").fetchall())
        step_effects = Counter(conn.execute("SELECT job, name FROM step_effect").fetchall())
    words = (line.split() for line in lines.read_text().splitlines())
    return Evidence(
        record,
        rows,
        [Line(int(id_), int(n), int(fence), event, int(pid), float(at)) for id_, n, fence, event, pid, at in words],
        effects,
        step_effects,
        nodes,
        edges,
    )


def every_committed_job_is_finished(seen: Evidence) -> list[object]:
    finished = {row.key for row in seen.rows if row.finished_at}
    return [f"key {key}" for key in seen.record.committed if key not in finished]


def no_job_was_rolled_back(seen: Evidence) -> list[object]:
    return [row.id for row in seen.rows if row.key not in seen.record.committed]


def each_job_is_one_row(seen: Evidence) -> list[object]:
    ids, keys = Counter(row.id for row in seen.rows), Counter(row.key for row in seen.rows)
    return [row.id for row in seen.rows if ids[row.id] > 1 or keys[row.key] > 1]


def no_claim_began_twice(seen: Evidence) -> list[object]:
    begun = Counter((line.id, line.fence) for line in seen.lines if line.event == "begin")
    return [claim for claim, times in begun.items() if times > 1]


def success_is_of_the_last_claim(seen: Evidence) -> list[object]:
    """Not for effects, which may be committed by a handler that was killed before it returned."""
    returned = {(line.id, line.fence): line.at for line in seen.lines if line.event == "return"}
    return [
        row.id
        for row in seen.rows
        if row.kind in soak_tasks.PLAIN and row.state == "succeeded" and row.finished_at is not None
        if returned.get((row.id, row.fence), float("inf")) > row.finished_at
    ]


def effects_are_those_of_the_succeeded(seen: Evidence) -> list[object]:
    succeeded = Counter(
        (row.id, row.fence) for row in seen.rows if row.kind in soak_tasks.EFFECTS and row.state == "succeeded"
    )
    return [*(seen.effects - succeeded), *(succeeded - seen.effects)]


def what_a_step_has_written_is_there_once(seen: Evidence) -> list[object]:
    """Of each step of a job that has succeeded, however often it was tried or requeued; and of others at most once."""
    succeeded = [row.id for row in seen.rows if row.kind == "in_steps" and row.state == "succeeded"]
    names = [f"step {number}" for number in range(soak_tasks.STEPS)]
    missing = [(id_, name) for id_ in succeeded for name in names if not seen.step_effects[id_, name]]
    nodes = {node.id: node.state for node in seen.nodes}
    missing += [(id_, name) for id_, name in seen.step_effects if name == "part" and id_ not in nodes]
    return [*missing, *(effect for effect, times in seen.step_effects.items() if times > 1)]


def a_graph_comes_to_what_its_parts_come_to(seen: Evidence) -> list[object]:
    flows = [row for row in seen.rows if row.kind == "flow" and row.state == "succeeded"]
    return [row.id for row in flows if row.result != str(soak_tasks.comes_to(row.key))]


def a_graph_is_there_whole_or_not_at_all(seen: Evidence) -> list[object]:
    """Once for each time that its function has returned it and that was written, which is once but for requeues."""
    whole = soak_tasks.PARTS + 1
    nodes = Counter(node.of for node in seen.nodes if node.of is not None)
    flows = {row.key: row for row in seen.rows if row.kind == "flow"}
    wrong = []
    for key, number in nodes.items():
        row = flows.get(key)
        most = 0 if row is None else whole * (1 + seen.record.requeues[row.id])
        if number > most or (row is not None and row.state == "succeeded" and number % whole):
            wrong.append(f"{number} of key {key}")
    return wrong


def nobody_waits_for_what_is_over(seen: Evidence) -> list[object]:
    finished = {"succeeded", "failed", "discarded", "cancelled"}
    return [*(node.id for node in seen.nodes if node.state not in finished), *seen.edges]


def no_attempt_above_the_most(seen: Evidence) -> list[object]:
    above = []
    begun: defaultdict[int, int] = defaultdict(int)
    for line in seen.lines:
        begun[line.id] = max(begun[line.id], line.attempt)
    for row in seen.rows:
        allowed = soak_tasks.EVERY[row.kind].options.max_attempts
        allowed += REQUEUED_ATTEMPTS * seen.record.requeues[row.id]
        if row.max_attempts > allowed or max(row.attempt, begun[row.id]) > row.max_attempts:
            above.append(row.id)
    return above


def poison_is_stopped(seen: Evidence) -> list[object]:
    end = ("failed", 3, ["WorkerDied"] * 3)
    return [row.id for row in seen.rows if row.kind == "poison" and (row.state, row.attempt, row.errors) != end]


def limits_are_kept(seen: Evidence) -> list[object]:
    over = [row for row in seen.rows if row.kind in soak_tasks.OVER_A_LIMIT]
    end = soak_tasks.OVER_A_LIMIT
    return [row.id for row in over if (row.state, row.errors[-1:]) != ("failed", [end[row.kind]])]


def the_innocent_succeed_or_were_hit(seen: Evidence) -> list[object]:
    """A job that was not cancelled has succeeded, or its last attempt ended by a fault, or as its own kind does."""
    guilty = []
    for row in seen.rows:
        if row.kind in soak_tasks.PLAIN or row.kind in soak_tasks.EFFECTS:
            excused = FAULTS | BY_ITS_OWN.get(row.kind, set())
            hit = row.state == "failed" and bool(excused.intersection(row.errors[-1:]))
            stopped = row.state == "cancelled" and row.id in seen.record.cancelled
            if not (row.state == "succeeded" or hit or stopped):
                guilty.append(row.id)
    return guilty


def the_cancelled_never_ran_again(seen: Evidence) -> list[object]:
    begun: defaultdict[int, int] = defaultdict(int)
    for line in seen.lines:
        begun[line.id] = max(begun[line.id], line.fence)
    states = {row.id: row.state for row in seen.rows}
    again = []
    for id_, (state, fence) in seen.record.cancelled.items():
        ends = {"cancelled"} if state == "cancelled" else {"cancelled", "succeeded", "failed"}
        if begun[id_] > fence or states[id_] not in ends:
            again.append(id_)
    return again


def no_limit_was_exceeded(seen: Evidence) -> list[object]:
    return list(seen.record.too_many)


def no_window_was_exceeded(seen: Evidence) -> list[object]:
    """By the last claim of each job."""
    at = sorted(row.started_at for row in seen.rows if row.kind == "rated" and row.started_at)
    return [early for early, late in zip(at, at[soak_tasks.RATE :], strict=False) if late - early < 1]


def who_was_told_of_a_job_was_told_of_one_of_that_key(seen: Evidence) -> list[object]:
    return sorted(seen.record.found - {row.id for row in seen.rows if row.kind == "only"})


INVARIANTS: dict[str, Callable[[Evidence], list[object]]] = {
    "every committed job is finished": every_committed_job_is_finished,
    "no job of a rolled-back transaction exists": no_job_was_rolled_back,
    "each job is one row, live or finished": each_job_is_one_row,
    "no claim began twice": no_claim_began_twice,
    "a succeeded job had returned under its last fence": success_is_of_the_last_claim,
    "the effects are those of the succeeded jobs": effects_are_those_of_the_succeeded,
    "what a step has written is there once": what_a_step_has_written_is_there_once,
    "a graph comes to what its parts come to": a_graph_comes_to_what_its_parts_come_to,
    "a graph is there whole, and once": a_graph_is_there_whole_or_not_at_all,
    "nobody waits for what is over": nobody_waits_for_what_is_over,
    "no attempt above max_attempts": no_attempt_above_the_most,
    "poison failed as WorkerDied after 3 attempts": poison_is_stopped,
    "memory and time limits ended their jobs": limits_are_kept,
    "innocent jobs succeeded, or a fault hit them": the_innocent_succeed_or_were_hit,
    "cancelled jobs never ran again": the_cancelled_never_ran_again,
    "never more of a key than its limit, or than one": no_limit_was_exceeded,
    "a job that has the key is one that there is": who_was_told_of_a_job_was_told_of_one_of_that_key,
    "never more in a window than its rate": no_window_was_exceeded,
}


def restarts(seen: Evidence, kills: list[tuple[float, int, bool]]) -> list[tuple[bool, list[float]]]:
    """Of each kill of a worker that ran jobs: whether it was supervised, and the seconds until they were begun again.

    Suspects begin a few at a time, so the first says how soon the dead are found, and the last how long the others took.
    """
    begun: defaultdict[int, list[Line]] = defaultdict(list)
    by_pid: defaultdict[int, list[Line]] = defaultdict(list)
    ended = {(line.id, line.fence) for line in seen.lines if line.event != "begin"}
    for line in seen.lines:
        if line.event == "begin":
            begun[line.id].append(line)
            by_pid[line.pid].append(line)
    found = []
    for at, pid, supervised in kills:
        took: list[float] = []
        for lost in by_pid[pid]:
            if (lost.id, lost.fence) not in ended:
                took += [line.at - at for line in begun[lost.id] if line.fence > lost.fence][:1]
        if took:
            found.append((supervised, took))
    return found
