"""Graphs of bound jobs: found from their ends, and said as plain data, which goes to the database in one statement, and
as one JSON from a child process to its worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from chancy.arguments.codec import encode_json
from chancy.arguments.submits import around
from chancy.errors import InvalidArguments, InvalidOption
from chancy.model import MAX_PAYLOAD_BYTES
from chancy.wires.literals import in_seconds

from .later import MARK, Later

if TYPE_CHECKING:
    from chancy.job import NewJob


class Node(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One job of a flow."""

    task: str
    queue: str
    priority: int
    max_attempts: int
    arguments: str
    """Of a job with needs: its `Pieces`."""
    run_at: datetime | None = None
    delay: str | None = None
    retry: str | None = None
    limits: str | None = None
    gates: str | None = None
    meta: str | None = None
    needs: tuple[int, ...] | None = None
    """By their places in the flow, from 1; below zero by the ids of jobs that are there."""
    kinds: str = ""
    """Of its needs, a letter each."""
    needed: bool | None = None
    """Whether another one of the flow needs it, or is to become it."""


class Pieces(msgspec.Struct, frozen=True, omit_defaults=True):
    """The arguments of a blocked job."""

    pieces: tuple[str | int, ...]
    """Of their JSON; and between them the places of its needs, from 1, of which the results go there. Below zero it is
    their outcomes."""
    delay: str | None = None
    """After its needs are met."""


class Flow(msgspec.Struct, frozen=True):
    """Jobs to be submitted together, with what they need."""

    nodes: tuple[Node, ...]
    target: int = 0
    """The job that the one that runs is to become: its place, or below zero its id."""

    @property
    def others(self) -> list[int]:
        """The ids of jobs that were there before."""
        found = {-need for node in self.nodes for need in node.needs or () if need < 0}
        return sorted(found | ({-self.target} if self.target < 0 else set()))


class Order(NamedTuple):
    """The jobs of a flow, each behind what it needs, and their places by their identities."""

    jobs: list[NewJob[Any]]
    places: dict[int, int]


def order_of(ends: Iterable[NewJob[Any]]) -> Order:
    """These and all that they need which has not been submitted. One object is one job."""
    places: dict[int, int] = {}
    jobs: list[NewJob[Any]] = []
    waiting = [(job, False) for job in reversed(list(ends))]
    while waiting:
        job, is_done = waiting.pop()
        if id(job) in places:
            continue
        if is_done or not job.needs:
            jobs.append(job)
            places[id(job)] = len(jobs)
        else:
            waiting.append((job, True))
            waiting += [(need.job, False) for need in reversed(job.needs) if is_new(need.job)]
    return Order(jobs, places)


def is_new(job: Any) -> bool:
    """Whether it is a bound job, which is not there yet."""
    return not hasattr(job, "id")


def flow_of(order: Order, schema: str, target: Later | None = None) -> Flow:
    """What is said of them to the database. Raises `InvalidOption` for a unique job, and for one of another schema."""
    places = order.places
    needed = {places[id(need.job)] for job in order.jobs for need in job.needs if id(need.job) in places}
    goal = 0 if target is None else _place(target, order, schema)
    nodes = [_node(job, order, place in needed or place == goal, schema) for place, job in enumerate(order.jobs, 1)]
    return Flow(tuple(nodes), goal)


def _node(job: NewJob[Any], order: Order, needed: bool, schema: str) -> Node:
    if job.unique is not None:
        raise InvalidOption(
            "jobs",
            f"{job.task} is unique, and a job of it may be there already, with needs of its own: make the task that "
            f"returns the whole unique, or submit that one by itself and need what `submit` gives",
        )
    options = job.options
    delay = None if options.delay is None else in_seconds(options.delay)
    kinds = _kinds(job, order, schema) if job.needs else {}
    return Node(
        job.task,
        options.queue,
        options.priority,
        options.max_attempts,
        _pieces(job, kinds, order, schema, delay) if kinds else job.arguments.decode(),
        options.run_at,
        None if kinds else delay,
        None if options.retry is None else encode_json(options.retry).decode(),
        None if options.limits is None else encode_json(options.limits).decode(),
        None if job.gates is None else job.gates.decode(),
        None if job.meta is None else job.meta.decode(),
        tuple(kinds) if kinds else None,
        "".join(kinds.values()) if kinds else "",
        needed or None,
    )


def _kinds(job: NewJob[Any], order: Order, schema: str) -> dict[int, str]:
    """By place: the most that is needed of each."""
    kinds: dict[int, str] = {}
    for need in job.needs:
        place = _place(need, order, schema)
        if kinds.setdefault(place, need.kind) != need.kind:
            kinds[place] = min(kinds[place], need.kind, key="sae".index)
    return kinds


def _place(need: Later, order: Order, schema: str) -> int:
    job = need.job
    if (place := order.places.get(id(job))) is not None:
        return place
    if job.schema != schema:
        raise InvalidOption("jobs", f"job {job.id} ({job.task}) is in schema {job.schema!r}, and this is {schema!r}")
    return -int(job.id)


def _pieces(job: NewJob[Any], places: Iterable[int], order: Order, schema: str, delay: str | None) -> str:
    numbers = {place: number for number, place in enumerate(places, 1)}
    pieces: list[str | int] = []
    for nth, part in enumerate(job.arguments.split(MARK)):
        if nth % 2:
            need = job.needs[int(part)]
            number = numbers[_place(need, order, schema)]
            pieces.append(-number if need.kind == "e" else number)
        else:
            pieces.append(part.decode())
    said = encode_json(Pieces(tuple(pieces), delay))
    if len(said) > MAX_PAYLOAD_BYTES:
        raise InvalidArguments(
            job.task, None, f"{len(said):,} bytes with their needs, at most {MAX_PAYLOAD_BYTES:,} fit"
        )
    return said.decode()


def pieces_of(arguments: bytes, needs: Sequence[int]) -> Pieces | None:
    """Of a job that was never released; None of one that has its arguments."""
    if not needs or not arguments.startswith(b'{"pieces":['):
        return None
    try:
        found = msgspec.json.decode(arguments, type=Pieces)
    except msgspec.DecodeError:  # an argument of that name
        return None
    first, last = found.pieces[0] if found.pieces else 0, found.pieces[-1] if found.pieces else 0
    is_an_object = isinstance(first, str) and isinstance(last, str) and first.startswith("{") and last.endswith("}")
    places = (abs(piece) for piece in found.pieces if isinstance(piece, int))
    return found if is_an_object and all(1 <= place <= len(needs) for place in places) else None


def with_holes(arguments: bytes, needs: Sequence[int], say: Callable[[int, bool], bytes]) -> bytes:
    """The arguments of a job. Of one that was never released what is said of a job stands where the result of that one
    will be, or if so its outcome.
    """
    pieces = pieces_of(arguments, needs)
    if pieces is None:
        return arguments
    return b"".join(
        piece.encode() if isinstance(piece, str) else say(needs[abs(piece) - 1], piece < 0) for piece in pieces.pieces
    )


def returned(later: Later, schema: str) -> bytes:
    """What a handler has returned, as JSON. Raises `InvalidOption`."""
    if later.kind == "e":
        raise InvalidOption("result", f"{later!r} is returned: a task returns the result of a job, not its outcome")
    if not is_new(later.job):
        return encode_json(flow_of(order_of([]), schema, later))
    order = order_of([later.job])
    with around(order.jobs) as submit:
        return encode_json(flow_of(Order(list(submit.jobs), order.places), schema, later))


def cycle(job_id: int, other: int | None) -> str:
    """Why it cannot become that one."""
    return f"job {other} needs job {job_id}, directly or by way of others: neither could ever begin"


_decode = msgspec.json.Decoder(Flow).decode


def flow_in(payload: bytes) -> Flow:
    """The same from its JSON."""
    return _decode(payload)
