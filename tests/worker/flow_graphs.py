"""Random graphs whose results can be computed beside: of each node what it comes to, or that it cannot come to anything."""

from __future__ import annotations

import hashlib
import random
import time
from dataclasses import dataclass
from pathlib import Path

from worker_tasks import write_line

from chancy import Backoff, Discard, NewJob, current_job, outcome_of, result_of, task
from chancy.flows.later import Outcome

SOON = Backoff(base=0.05, factor=1)


def digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=6).hexdigest()


@task(name="flow_graphs.node", max_attempts=200, retry=SOON)
async def node(path: str, number: int, parts: list[str], kind: str = "", width: int = 0) -> str:
    """Fails at first, or for ever, or returns a graph of so many."""
    began = time.time()
    if kind == "flaky" and current_job().attempt == 1:
        raise ValueError(number)
    if kind == "lost":
        raise Discard(str(number))
    if kind == "graph":
        leaves = [part.bind(number, nth) for nth in range(width)]
        return result_of(gather.bind(number, parts, [result_of(leaf) for leaf in leaves]))
    write_line(path, f"{number} {began} {time.time()}")
    return digest(number, *parts)


@task(name="flow_graphs.told", max_attempts=200, retry=SOON)
def told(path: str, number: int, outcome: Outcome[str]) -> str:
    """However that has ended."""
    began = time.time()
    write_line(path, f"{number} {began} {time.time()}")
    return digest(number, str(outcome.state), outcome.result)


@task(name="flow_graphs.part", max_attempts=200)
def part(number: int, nth: int) -> str:
    return digest(number, nth)


@task(name="flow_graphs.gather", max_attempts=200)
async def gather(number: int, parts: list[str], more: list[str]) -> str:
    return digest(number, *parts, *more)


@dataclass
class Node:
    number: int
    kind: str
    needs: list[int]
    width: int
    job: NewJob[str]
    result: str | None
    """None is that it cannot succeed."""
    state: str


def graph(path: str, first: int, size: int, chance: random.Random) -> list[Node]:
    """So many nodes with 0 to 5 needs among those before them."""
    nodes: list[Node] = []
    for number in range(first, first + size):
        lately = nodes[-40:]
        needs = chance.sample(lately, min(len(lately), chance.choice([0, 1, 1, 2, 2, 3, 5])))
        kind = chance.choices(["", "flaky", "lost", "graph", "told"], [70, 12, 1, 10, 7])[0]
        if kind == "told" and len(needs) != 1:
            kind = ""
        width = chance.randint(0, 8)
        given = [need.result for need in needs]
        if kind == "told":
            (need,) = needs
            job = told.bind(path, number, outcome_of(need.job))
            result = digest(number, need.state, need.result)
        else:
            job = node.bind(path, number, [result_of(need.job) for need in needs], kind, width)
            more = [digest(number, nth) for nth in range(width)] if kind == "graph" else []
            result = None if kind == "lost" or None in given else digest(number, *given, *more)
        state = "succeeded" if result is not None else "cancelled" if None in given else "discarded"
        nodes.append(Node(number, kind, [need.number for need in needs], width, job, result, state))
    return nodes


def began_before_their_needs(path: str, nodes: list[Node]) -> list[int]:
    """By the clocks of the handlers themselves."""
    began: dict[int, float] = {}
    ended: dict[int, float] = {}
    with Path(path).open(encoding="utf-8") as file:
        for line in file:
            number, start, end = line.split()
            began[int(number)] = min(began.get(int(number), float(start)), float(start))
            ended[int(number)] = min(ended.get(int(number), float(end)), float(end))
    return [
        node.number
        for node in nodes
        for need in node.needs
        if node.number in began and need in ended and began[node.number] < ended[need]
    ]
