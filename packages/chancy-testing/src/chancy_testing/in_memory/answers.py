"""Which function answers which statement: by its name. No SQL is read here, and nothing is imported of chancy-ops.

What a statement means is told once more, in Python, a file a capability; tests/conformance holds the two together.
"""

from __future__ import annotations

from typing import Any

from chancy.model import Rows, Statement

from . import batches, flows, gates, jobs, logs, retention, schedules, steps, unique
from .store import Answer, Asked, Memory

ANSWERS: dict[str, Answer] = {
    **batches.ANSWERS,
    **flows.ANSWERS,
    **gates.ANSWERS,
    **jobs.ANSWERS,
    **logs.ANSWERS,
    **retention.ANSWERS,
    **schedules.ANSWERS,
    **steps.ANSWERS,
    **unique.ANSWERS,
}
ASKED_BY = {"around": "why", "ledger_exists": "doctor"}
"""Verbs whose first statement has a name that is not theirs. In memory they have no answer."""


def answer(memory: Memory, statement: Statement[Any], transaction: str | None) -> Rows:
    """The rows. `transaction` is the block that the caller is in, if any.

    Raises `NotImplementedError`, which names the verb, where nothing in memory could answer it.
    """
    if (found := ANSWERS.get(statement.name)) is None:
        verb = ASKED_BY.get(statement.name, statement.name)
        raise NotImplementedError(
            f"{f'`{verb}`' if verb else 'a statement without a name'} needs a database, and eager mode has none: "
            f"use the fixture chancy_conn, on a real Postgres"
        )
    return list(found(memory, Asked(statement.params, statement.adds, transaction)))
