"""What Chancy promises about jobs, as cases that run on any backend: on Postgres, in memory, through every wire.

A case is a generator: it yields what a verb gives, and gets it back as a value, awaited where the ground's connection
is async. Its name is the promise. A capability has a file of its noun here.
"""

from . import (  # noqa: F401 - they add their cases
    arguments,
    attempts,
    batches,
    flows,
    flows_and_steps,
    gates,
    handlers,
    limits,
    logs,
    meta,
    names,
    operators,
    options,
    outcomes,
    results,
    schedules,
    steps,
    transactions,
    unique,
    verbs,
)
from .cases import CASES
from .grounds import Case, Ground, InMemory, OnPostgres, run

__all__ = ["CASES", "Case", "Ground", "InMemory", "OnPostgres", "run"]
