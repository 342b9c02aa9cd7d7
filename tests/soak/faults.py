"""What is done to the workers and to Postgres, and when: the same seed, the same schedule."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg
from fleet import Fleet, Process

from chancy_testing.server.postgres import Postgres

T = TypeVar("T")

IN_TEN_MINUTES = {
    "kill a worker": 60,
    "kill a child": 200,
    "stop a worker": 30,
    "cut a connection": 200,
    "crash Postgres": 10,
    "freeze a worker": 15,
    "submit poison": 5,
    "make Postgres read only": 3,
}
FROZEN_SECONDS = 16.0, 30.0
"""Beyond the lease of 15 s: at least, and at most, by when its jobs run elsewhere."""
DOWN_SECONDS = 5.0
"""How long Postgres is away, at most."""
READ_ONLY_SECONDS = 40.0
"""How long it takes no writes, at most, as after a failover to a standby."""


@dataclass(frozen=True, order=True)
class Fault:
    at: float
    """Seconds from the begin."""
    kind: str
    pick: float
    """Which of the victims that there are then, as a fraction of their number."""


def schedule(seed: int, minutes: float) -> list[Fault]:
    """All faults, in their order. No two freezes at a time."""
    chance = random.Random(seed)
    faults = []
    for kind, often in IN_TEN_MINUTES.items():
        count = max(1, round(often * minutes / 10))
        window = 60 * minutes / count
        for i in range(count):
            at = chance.uniform(0, 60 * minutes)
            if kind == "freeze a worker":
                at = i * window + chance.uniform(0, max(0.0, window - FROZEN_SECONDS[1] - 1))
            faults.append(Fault(at, kind, chance.random()))
    return sorted(faults)


@dataclass
class Mischief:
    """Makes the faults, and remembers which."""

    fleet: Fleet
    server: Postgres
    submit_poison: Callable[[], None]
    made: Counter[str] = field(default_factory=Counter)
    kills: list[tuple[float, int, bool]] = field(default_factory=list)
    """When which worker was killed, and whether it had a supervisor."""
    frozen: tuple[float, int] | None = None
    """Until when which worker is."""
    down: float | None = None
    """Until when Postgres is."""
    read_only: float | None = None
    """Until when it takes no writes."""

    def make(self, fault: Fault) -> None:
        with contextlib.suppress(psycopg.OperationalError):  # there is no connection to be cut
            if getattr(self, "_" + fault.kind.lower().replace(" ", "_"))(fault.pick):
                self.made[fault.kind] += 1

    def undo(self, *, at_once: bool = False) -> None:
        """Thaw, and start Postgres again, when it is time."""
        now = float("inf") if at_once else time.monotonic()
        if self.frozen and now >= self.frozen[0]:
            _signal(self.frozen[1], signal.SIGCONT)
            self.frozen = None
        if self.down and now >= self.down:
            self.server.start()
            self.down = None
        if self.read_only and not self.down and now >= self.read_only:
            self._alter("RESET default_transaction_read_only")
            self.read_only = None

    def _alter(self, what: str) -> None:
        with psycopg.connect(self.server.dsn, autocommit=True, connect_timeout=10) as conn:
            conn.execute(f"ALTER SYSTEM {what}")
            conn.execute("SELECT pg_reload_conf()")

    def _kill_a_worker(self, pick: float) -> bool:
        workers = self.fleet.workers()
        victim = _of(workers, pick)
        if victim is None:
            return False
        supervised = any(other.is_worker and other.pid == victim.parent for other in self.fleet.processes())
        self.kills.append((time.time(), victim.pid, supervised))
        return _signal(victim.pid, signal.SIGKILL)

    def _kill_a_child(self, pick: float) -> bool:
        victim = _of(self.fleet.children(), pick)
        return victim is not None and _signal(victim.pid, signal.SIGKILL)

    def _stop_a_worker(self, pick: float) -> bool:
        victim = _of([process for process in self.fleet.processes() if process.is_worker], pick)
        return victim is not None and _signal(victim.pid, signal.SIGTERM)

    def _freeze_a_worker(self, pick: float) -> bool:
        victim: Process | None = _of(self.fleet.workers(), pick)
        if victim is None or self.frozen or not _signal(victim.pid, signal.SIGSTOP):
            return False
        least, most = FROZEN_SECONDS
        self.frozen = time.monotonic() + least + pick * (most - least), victim.pid
        return True

    def _cut_a_connection(self, pick: float) -> bool:
        """Anybody's: a worker's, a handler's, the producer's."""
        with psycopg.connect(self.server.dsn, autocommit=True) as conn:
            query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> %s ORDER BY pid"
            victim = _of([pid for (pid,) in conn.execute(query, [conn.info.backend_pid])], pick)
            return victim is not None and bool(conn.execute("SELECT pg_terminate_backend(%s)", [victim]).fetchone())

    def _crash_postgres(self, pick: float) -> bool:
        if self.down:
            return False
        self.server.stop(immediate=True)
        self.down = time.monotonic() + DOWN_SECONDS * pick
        return True

    def _make_postgres_read_only(self, pick: float) -> bool:
        if self.down or self.read_only:
            return False
        self._alter("SET default_transaction_read_only = on")
        self.read_only = time.monotonic() + READ_ONLY_SECONDS * pick
        return True

    def _submit_poison(self, pick: float) -> bool:
        self.submit_poison()
        return True


def _of(victims: Sequence[T], pick: float) -> T | None:
    return victims[int(pick * len(victims))] if victims else None


def _signal(pid: int, number: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False
