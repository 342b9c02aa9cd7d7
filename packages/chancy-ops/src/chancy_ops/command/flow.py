"""`chancy graph`: what a job needs, as a tree, or for who draws it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal

import click

import chancy_ops
from chancy.options.phrases import one_line
from chancy.states import State
from chancy_ops.graphs import Graph, GraphNode
from chancy_ops.terminal.screen import document
from chancy_ops.terminal.site import Site, command

ORDER = list(State)


@command("graph")
@click.argument("job_id", metavar="ID", type=int)
@click.option("--mermaid", "form", flag_value="mermaid", help="As a flowchart of Mermaid.")
@click.option("--dot", "form", flag_value="dot", help="As a graph of Graphviz.")
def graph(site: Site, job_id: int, form: Literal["mermaid", "dot"] | None) -> None:
    """A job and what it needs, as a tree. Jobs of one task that are needed side by side are one line."""
    with site.connect() as conn:
        found = chancy_ops.graph(conn, job_id, schema=site.schema)
    if site.json:
        nodes = [
            {"id": node.id, "task": node.task, "state": node.state, "needs": node.needs, "becomes": node.becomes}
            for node in found.nodes.values()
        ]
        return document({"root": found.root, "complete": found.complete, "nodes": nodes})
    lines = {"mermaid": mermaid, "dot": dot, None: tree}[form](found)
    for line in lines:
        click.echo(line)
    if not found.complete:
        click.echo("… the rest of it is left out", err=True)
    return None


def tree(found: Graph) -> Iterator[str]:
    """A line a job, or a line for all of one task that are needed side by side; one that was told above says so."""
    told: set[int] = set()
    yield from _branch(found, [found.nodes[found.root]], "", "", told)


def _branch(found: Graph, group: Sequence[GraphNode], first: str, rest: str, told: set[int]) -> Iterator[str]:
    if group[0].id in told:
        yield f"{first}{_named(group)}  above"
        return
    told.update(node.id for node in group)
    yield f"{first}{_named(group)}  {_states(group)}"
    above = dict.fromkeys(need for node in group for need in node.above if need in found.nodes)
    by_task = sorted((found.nodes[need] for need in above), key=lambda node: (node.task, node.id))
    groups = [list(each) for _, each in groupby(by_task, key=lambda node: node.task)]
    for nth, each in enumerate(groups, 1):
        last = nth == len(groups)
        yield from _branch(found, each, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "), told)


def _named(group: Sequence[GraphNode]) -> str:
    task = one_line(group[0].task)
    return f"{group[0].id}  {task}" if len(group) == 1 else f"{len(group):,} x {task}"


def _states(group: Sequence[GraphNode]) -> str:
    if len(group) == 1:
        return group[0].state.value
    counts = Counter(node.state for node in group)
    return ", ".join(f"{counts[state]:,} {state}" for state in ORDER if counts[state])


def mermaid(found: Graph) -> Iterator[str]:
    """A flowchart, in the direction of the work."""
    yield "flowchart TD"
    for node in found.nodes.values():
        text = one_line(node.task).replace('"', "#quot;")
        yield f'    {node.id}["{node.id} {text}<br>{node.state}"]'
    for node in found.nodes.values():
        for need in node.above:
            yield f"    {need} {'-.->' if need == node.becomes else '-->'} {node.id}"


def dot(found: Graph) -> Iterator[str]:
    """A graph of Graphviz, in the direction of the work."""
    yield "digraph {"
    for node in found.nodes.values():
        text = one_line(node.task).replace("\\", "\\\\").replace('"', '\\"')
        yield f'    {node.id} [label="{node.id} {text}\\n{node.state}"];'
    for node in found.nodes.values():
        for need in node.above:
            yield f"    {need} -> {node.id}{' [style=dashed]' if need == node.becomes else ''};"
    yield "}"
