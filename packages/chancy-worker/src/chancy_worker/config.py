"""How a worker behaves: plain values, checked once, in one place."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Pooler: TypeAlias = Literal["auto", "session", "transaction"]
"""How a connection pooler before Postgres works: "auto" finds out whether there is one, and takes it for the worse."""


KNOWN_BY = "CHANCY_WORKER_KNOWN_BY"
"""The environment variable by which a parent tells a child what it is known by."""
KNOWN_TO_PARENT_BY = os.environ.pop(KNOWN_BY, "")
"""Empty without a parent. Taken out of the environment, which the programs that jobs start inherit."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The clockwork of a worker, in seconds. Nobody has to tune it; tests make it faster."""

    lease: float = 15.0
    """How long a worker that says nothing is believed alive."""
    extend: float = 5.0
    rescue: float = 3.0
    """How often to look for workers whose lease ran out."""
    look: float = 5.0
    """The fallback look of an idle worker; every wakeup may be lost."""
    unheard: float = 10.0
    """Jobs claimed in our name longer ago than this, which we do not hold, come from a round whose reply was lost."""
    harmless: float = 10.0
    """A suspect that has run for so long is taken for one that kills nobody."""
    round: float = 8.0
    """The deadline of one call to the database, after which its connection is cut; below `unheard`."""
    upkeep: float = 3600.0
    """How often to make and drop history partitions; the first time within five seconds of the start."""
    tally: float = 10.0
    """How often to write down what was counted; a worker that is killed has not said the rest."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """One worker process."""

    threads: int = 40
    """How many sync functions run at a time."""
    children: int = field(default_factory=lambda: len(os.sched_getaffinity(0)) if sys.platform == "linux" else 2)
    """How many child processes at most; by default as many as there are cores."""
    recycle: int = 1000
    """After so many jobs a child is replaced by a fresh one."""
    memory_budget: int | None = None
    """Bytes: the memory limits of the jobs that run at a time fit into it."""
    health_port: int | None = None
    """Where `/live` and `/ready` are answered over HTTP."""
    health_host: str = "0.0.0.0"  # noqa: S104 - probes come from outside of a container
    grace: float = 30.0
    """Seconds that running jobs get to finish after the first signal; then they are released."""
    pooler: Pooler = "auto"
    """What stands between this worker and Postgres; "session" also where nothing does."""
    timing: Timing = field(default_factory=Timing)
    name: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    """For people. Several workers may have the same: in containers host names and process ids are often equal."""
