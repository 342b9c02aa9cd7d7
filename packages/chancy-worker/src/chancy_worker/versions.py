"""Which versions of a task there are, as far as its arguments go: what live workers take, and what nobody does."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from chancy.flows.holes import signature_names
from chancy.model import Rows, Statement
from chancy.registry import registered
from chancy.task import BaseTask
from chancy.wires.literals import of_numbers, of_texts

ORPHANS = """
    SELECT mine.task, NULL::bigint
    FROM unnest(%(tasks)s::text[], %(signatures)s::text[]) AS mine (task, signature)
    WHERE NOT EXISTS (
        SELECT FROM {schema}.offer AS offer
        JOIN {schema}.worker AS worker ON worker.id = offer.worker AND worker.expires_at > {schema}.clock()
        WHERE mine.task = ANY (offer.tasks) AND offer.queues OPERATOR(pg_catalog.&&) %(queues)s::text[]
            AND offer.signatures[array_position(offer.tasks, mine.task)] IS DISTINCT FROM mine.signature
    )
    UNION ALL
    SELECT NULL, given.id FROM unnest(%(jobs)s::bigint[]) AS sent (id)
    CROSS JOIN LATERAL (
        SELECT job.id FROM {schema}.job AS job WHERE job.id = sent.id AND job.needs IS NOT NULL LIMIT 1
    ) AS given
"""


class Orphans(NamedTuple):
    """What can be left to nobody."""

    tasks: frozenset[str] = frozenset()
    """Of which no live worker has another version."""
    given: frozenset[int] = frozenset()
    """Jobs that were given results of others."""


def orphans(signatures: Mapping[str, str], queues: Collection[str], jobs: Iterable[int]) -> Statement[Orphans]:
    """Of these tasks, those of which no live worker of these queues has another version than the one given; empty for
    one that is not known here. And of these jobs, those that need others.
    """
    params = {
        "tasks": of_texts(signatures),
        "signatures": of_texts(signatures.values()),
        "queues": of_texts(queues),
        "jobs": of_numbers(jobs),
    }
    return Statement(ORPHANS, params, _parse_orphans)


def _parse_orphans(rows: Rows) -> Orphans:
    return Orphans(
        frozenset(task for task, _ in rows if task is not None), frozenset(job for _, job in rows if job is not None)
    )


@functools.cache
def signature_of(task: BaseTask[..., Any]) -> str:
    """What tells versions of a task apart, as far as their arguments go: equal ones take the same.

    Found once a task, however many workers are in this process: its schema takes a quarter of a millisecond.
    """
    try:
        said = json.dumps(task.signature.schema(), sort_keys=True, default=repr)
    except Exception:  # of a type that has no schema
        said = ",".join(task.signature.struct.__struct_fields__)
    return hashlib.blake2b(said.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


def has_the_right_names(task_name: str, arguments: bytes) -> bool:
    """Whether these are all arguments that the task takes here, and no others."""
    task = registered().get(task_name)
    try:
        names = msgspec.json.decode(arguments, type=dict[str, msgspec.Raw]).keys()
    except msgspec.DecodeError:  # it is large, and was left behind
        return False
    return task is not None and names >= set(task.signature.required) and names <= signature_names(task.signature)
