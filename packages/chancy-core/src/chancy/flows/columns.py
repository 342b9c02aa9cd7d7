"""The jobs of a flow as the database is told of them: an array a column, as of jobs without needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from chancy.wires.literals import JsonColumn, of_numbers, of_texts

from .flow import Node

FLOW = """ROW(
        %(tasks)s::text[], %(queues)s::text[], %(priorities)s::smallint[], %(max_attempts)s::smallint[],
        %(run_at)s::timestamptz[], %(delays)s::interval[], %(arguments)s::json[], %(retries)s::json[],
        %(limits)s::json[], %(gates)s::json[], %(metas)s::json[], %(needs)s::text[], %(kinds)s::text[],
        %(needed)s::boolean[])::{schema}.flow"""
"""For `{flow}` in a statement: these columns."""


def columns_of(nodes: Sequence[Node]) -> dict[str, Any]:
    """The parameters of `FLOW`."""
    return {
        "tasks": of_texts(node.task for node in nodes),
        "queues": of_texts(node.queue for node in nodes),
        "priorities": of_numbers(node.priority for node in nodes),
        "max_attempts": of_numbers(node.max_attempts for node in nodes),
        "run_at": _texts(node.run_at for node in nodes),
        "delays": _texts(node.delay for node in nodes),
        "arguments": JsonColumn(node.arguments.encode() for node in nodes),
        "retries": _jsons(node.retry for node in nodes),
        "limits": _jsons(node.limits for node in nodes),
        "gates": _jsons(node.gates for node in nodes),
        "metas": _jsons(node.meta for node in nodes),
        "needs": _texts(None if node.needs is None else of_numbers(node.needs) for node in nodes),
        "kinds": _texts(node.kinds or None for node in nodes),
        "needed": _texts("true" if node.needed else None for node in nodes),
    }


def _texts(values: Iterable[object]) -> str:
    """Where none has any it is an empty array, whose every place is null: that is shorter."""
    values = list(values)
    return of_texts(values) if any(values) else "{}"


def _jsons(values: Iterable[str | None]) -> JsonColumn:
    values = list(values)
    return JsonColumn(None if value is None else value.encode() for value in values) if any(values) else JsonColumn()
