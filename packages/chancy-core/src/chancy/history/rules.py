"""How long finished jobs of a queue are kept: its rules, as rows."""

from __future__ import annotations

from collections.abc import Mapping

from chancy.model import Statement
from chancy.wires.literals import of_numbers, of_texts

from .retention import Keep

KEEP_QUEUES = """
    SELECT {schema}.keep_queues(
        %(queues)s::text[], %(rule_queues)s::text[], %(whats)s::text[], %(days)s::smallint[])::text
"""


def keep_queues(wishes: Mapping[str, Keep | None]) -> Statement[None]:
    """Set the rules of these queues, None lifts them, and make the partitions that they need.

    Where anything changes, it waits for whoever makes partitions, 5 s at most.
    """
    rules = [(queue, what, days) for queue, keep in wishes.items() if keep for what, days in keep.rules.items()]
    params = {
        "queues": of_texts(wishes),
        "rule_queues": of_texts(queue for queue, _, _ in rules),
        "whats": of_texts(what for _, what, _ in rules),
        "days": of_numbers(days for _, _, days in rules),
    }
    return Statement(KEEP_QUEUES, params, lambda rows: None, name="keep_queues")
