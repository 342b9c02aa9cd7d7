"""A graph of jobs as it is now: what one needs, and what that needs in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from chancy.errors import UnknownJob
from chancy.model import Statement, Steps
from chancy.options.plain import identity
from chancy.schema import schema_in_use
from chancy.states import State
from chancy.verb import verb
from chancy.wires.literals import of_numbers

MOST_NODES = 20_000
"""Up to which a graph is read."""

SELECT_NODES = """
    SELECT job.id, job.task, job.state::text, job.needs, job.becomes
    FROM unnest(%(ids)s::bigint[]) AS wanted (id)
    CROSS JOIN LATERAL (
        SELECT id, task, state, needs, becomes FROM {schema}.any_job WHERE any_job.id = wanted.id LIMIT 1
    ) AS job
    ORDER BY job.id
"""


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One job of a graph."""

    id: int
    task: str
    state: State
    needs: Sequence[int]
    """The jobs that it was to wait for."""
    becomes: int | None
    """The job whose result is its own."""

    @property
    def above(self) -> Sequence[int]:
        """What it needs, or has become."""
        return self.needs if self.becomes is None else (*self.needs, self.becomes)


@dataclass(frozen=True, slots=True)
class Graph:
    """A job, and all that it needs, as far as it is kept."""

    root: int
    nodes: Mapping[int, GraphNode]
    """By their ids."""
    complete: bool
    """Whether all were read: of 20,000 jobs and more the rest is left out."""


def _nodes(ids: Sequence[int]) -> Statement[list[GraphNode]]:
    return Statement(
        SELECT_NODES,
        {"ids": of_numbers(ids)},
        lambda rows: [
            GraphNode(id_, task, State(state), tuple(needs or ()), becomes) for id_, task, state, needs, becomes in rows
        ],
        name="graph",
    )


@verb
def graph(job_id: int, /, *, schema: str | None = None) -> Steps[Graph]:
    """What the job needs, and what that needs, up to 20,000 jobs; one round trip for each step away from it. Jobs that
    are not kept any more are left out. Raises `UnknownJob`.
    """
    return _graph(identity("job_id", job_id), schema_in_use(schema))


def _graph(job_id: int, schema: str) -> Steps[Graph]:
    found: dict[int, GraphNode] = {}
    asked, left = {job_id}, [job_id]
    while left and len(found) < MOST_NODES:
        nodes: list[GraphNode] = yield _nodes(left[: MOST_NODES - len(found)])
        found |= {node.id: node for node in nodes}
        if job_id not in found:
            raise UnknownJob(job_id, schema)
        above = dict.fromkeys(need for node in nodes for need in node.above if need not in asked)
        left = [*left[MOST_NODES:], *above]
        asked.update(above)
    return Graph(job_id, found, not left)


@dataclass(frozen=True, slots=True)
class Branch:
    """A line of a graph that is told as a tree: a job, or all of one task that are needed side by side."""

    lead: str
    """What a tree has before it."""
    group: Sequence[GraphNode]
    again: bool
    """It was told above, with all that it needs."""

    @property
    def states(self) -> str:
        """Of one job its state, of several how many are in which."""
        if len(self.group) == 1:
            return self.group[0].state.value
        counts = Counter(node.state for node in self.group)
        return ", ".join(f"{counts[state]:,} {state}" for state in State if counts[state])


def branches(found: Graph) -> Iterator[Branch]:
    """The graph as a tree, from its root on, however deep it is."""
    told: set[int] = set()
    ahead: list[tuple[Sequence[GraphNode], str, str]] = [([found.nodes[found.root]], "", "")]
    while ahead:
        group, lead, rest = ahead.pop()
        again = group[0].id in told
        yield Branch(lead, group, again)
        if again:
            continue
        told.update(node.id for node in group)
        above = dict.fromkeys(need for node in group for need in node.above if need in found.nodes)
        by_task = sorted((found.nodes[need] for need in above), key=lambda node: (node.task, node.id))
        groups = [list(each) for _, each in groupby(by_task, key=lambda node: node.task)]
        below = [(each, rest + "├─ ", rest + "│  ") for each in groups[:-1]]
        ahead += reversed([*below, *((each, rest + "└─ ", rest + "   ") for each in groups[-1:])])
