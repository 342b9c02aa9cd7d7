"""`chancy graph`: what a job needs, as a tree, or for who draws it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import click

import chancy_ops
from chancy.options.phrases import one_line
from chancy_ops.graphs import Graph, GraphNode, branches
from chancy_ops.terminal.screen import document
from chancy_ops.terminal.site import Site, command


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
    for branch in branches(found):
        yield f"{branch.lead}{_named(branch.group)}  {'above' if branch.again else branch.states}"


def _named(group: Sequence[GraphNode]) -> str:
    task = one_line(group[0].task)
    return f"{group[0].id}  {task}" if len(group) == 1 else f"{len(group):,} x {task}"


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
