"""Submits, cancels and requeues jobs, and keeps its own record of what was committed."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg
import soak_tasks

import chancy

TICK_SECONDS = 0.1
WEIGHTS = {
    "noop": 40, "nap": 12, "nap_in_thread": 12, "nap_in_process": 6, "linger": 4, "linger_in_thread": 4,
    "fail_always": 3, "fail_first": 5, "snooze": 4, "hog": 1, "hang": 1, "hang_in_process": 1,
    "effect": 8, "effect_in_thread": 8, "in_steps": 8, "flow": 6, "limited": 10, "rated": 5, "in_turn": 10, "only": 10,
    "large": 2, "large_in_process": 1, "fork_in_process": 2, "fork_in_thread": 1, "exit_in_subtask": 1,
}  # fmt: skip
QUEUES = {"default": 6, "two": 2, "one": 1}
"""Which queues jobs go to, and how often; workers take the queue `empty`, too."""
PAYLOADS = [10_000, 100_000, 1_000_000]
"""The sizes of large arguments, in bytes."""
MAY_BE_CANCELLED = [f"soak_tasks.{kind}" for kind in {*soak_tasks.PLAIN, *soak_tasks.EFFECTS}]
MAY_BE_REQUEUED = [f"soak_tasks.{kind}" for kind in soak_tasks.PLAIN]  # an effect would be there twice
REQUEUED_ATTEMPTS = 3


@dataclass
class Record:
    """What the producer knows, whatever the rows say. Jobs are known by a key of ours: a crash may reuse an id."""

    committed: dict[int, str] = field(default_factory=dict)
    """The kind of each job."""
    rolled_back: set[int] = field(default_factory=set)
    asked: int = 0
    """How many commits were in doubt, so that the database had to be asked."""
    cancelled: dict[int, tuple[str, int]] = field(default_factory=dict)
    """By job id, its state and its fence as the cancel left them."""
    requeues: Counter[int] = field(default_factory=Counter)
    """By job id, how often it was tried."""
    found: set[int] = field(default_factory=set)
    """Ids of jobs that submits were told to have the key already."""
    too_many: list[tuple[str, int]] = field(default_factory=list)
    """Gates that were seen with more running jobs than they let in, and keys with more than one live job."""


class Producer:
    """Works in a thread of its own until `over`; a lost connection is made anew."""

    def __init__(self, dsn: str, seed: int) -> None:
        self.dsn = dsn
        self.record = Record()
        self.over = threading.Event()
        self.poison: deque[str] = deque()
        self._chance = random.Random(seed)
        self._keys = 0
        self._in_doubt: dict[int, str] = {}
        self._untouchable: set[int] = set()

    def run(self) -> None:
        """Raises what is not the database's."""
        while not self.over.wait(TICK_SECONDS) or self._in_doubt:
            with contextlib.suppress(psycopg.Error), self._connect() as conn:
                self._ask(conn)
                while not self.over.wait(TICK_SECONDS):
                    self._submit(conn)
                    self._count(conn)
                    if self._chance.random() < 0.2:
                        self._cancel(conn, self._chance.choice(("ready", "running")))
                    if self._chance.random() < 0.05:
                        self._requeue(conn)

    def _connect(self) -> psycopg.Connection:
        # A frozen worker's handler may hold a row for as long as it is frozen.
        return psycopg.connect(
            self.dsn, connect_timeout=5, application_name="soak producer", options="-c lock_timeout=1s"
        )

    def _submit(self, conn: psycopg.Connection) -> None:
        kinds = self._chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=self._chance.randint(1, 15))
        while self.poison:
            kinds.append(self.poison.popleft())
        keys = {(key := self._keys + i): kind for i, kind in enumerate(kinds)}
        self._keys = key + 1
        jobs = [
            soak_tasks.EVERY[kind].using(
                priority=self._chance.choice((0, 0, 0, 5, -5)),
                delay=timedelta(seconds=self._chance.choice((0, 0, 0, 0, 3))),
                queue=self._chance.choices(list(QUEUES), list(QUEUES.values()))[0],
            ).bind(key=key, **({"payload": "x" * self._chance.choice(PAYLOADS)} if kind.startswith("large") else {}))
            for key, kind in keys.items()
        ]  # fmt: skip
        poisoned = "poison" in kinds
        try:
            handles = chancy.submit_many(conn, jobs)
            found = [
                (key, handle.id)
                for key, handle in zip(list(keys), handles, strict=True)
                if handle.outcome == "existing"
            ]
            for key, _ in found:
                del keys[key]
            if self._chance.random() < 0.2 and not poisoned:
                conn.rollback()
                self.record.rolled_back |= keys.keys()
                return
        except psycopg.Error:
            self.record.rolled_back |= keys.keys()
            self.poison.extend(["poison"] * poisoned)
            raise
        self._in_doubt = keys
        conn.commit()
        self._settle(committed=True)
        self.record.found |= {id_ for _, id_ in found}

    def _count(self, conn: psycopg.Connection) -> None:
        """By the rows, since the handler of a worker that was frozen or believed dead goes on for a while."""
        query = """
            SELECT gates->>'key', count(*) FROM chancy.job
            WHERE state = 'running' AND starts_with(gates->>'key', 'concurrency') GROUP BY 1 HAVING count(*) > %s
        """
        self.record.too_many += conn.execute(query, [soak_tasks.MOST]).fetchall()
        query = (
            "SELECT unique_key, count(*) FROM chancy.job WHERE unique_key IS NOT NULL GROUP BY 1 HAVING count(*) > 1"
        )
        self.record.too_many += conn.execute(query).fetchall()
        conn.commit()

    def _settle(self, *, committed: bool) -> None:
        if committed:
            self.record.committed |= self._in_doubt
        else:
            self.record.rolled_back |= self._in_doubt.keys()
        self._in_doubt = {}

    def _ask(self, conn: psycopg.Connection) -> None:
        """Whether the commit that broke the last connection went through."""
        if self._in_doubt:
            query = "SELECT EXISTS (SELECT FROM chancy.any_job WHERE (arguments->>'key')::bigint = ANY (%s))"
            found = conn.execute(query, [list(self._in_doubt)]).fetchone()
            self.record.asked += 1
            self._settle(committed=bool(found and found[0]))
            conn.rollback()

    def _cancel(self, conn: psycopg.Connection, state: str) -> None:
        # Not those that hang in a frozen worker, of which there would soon be none left.
        query = """
            SELECT id FROM chancy.job
            WHERE state::text = %s AND task = ANY (%s) AND coalesce(started_at, 'infinity') > now() - interval '3 s'
            ORDER BY random() LIMIT 1
        """
        for (id_,) in conn.execute(query, [state, MAY_BE_CANCELLED]).fetchall():
            self._untouchable.add(id_)
            if chancy.cancel(conn, id_):
                query = "SELECT state::text, claims FROM chancy.any_job WHERE id = %s"
                left = conn.execute(query, [id_]).fetchone()
                assert left is not None
                conn.commit()
                self.record.cancelled[id_] = left
        conn.commit()

    def _requeue(self, conn: psycopg.Connection) -> None:
        query = """
            SELECT id FROM chancy.history WHERE task = ANY (%s) AND id <> ALL (%s) ORDER BY finished_at DESC LIMIT 20
        """
        found = conn.execute(query, [MAY_BE_REQUEUED, list(self._untouchable)]).fetchall()
        if found:
            (id_,) = self._chance.choice(found)
            self.record.requeues[id_] += 1
            with contextlib.suppress(chancy.DuplicateJob):
                chancy.requeue(conn, id_, attempts=REQUEUED_ATTEMPTS)
        conn.commit()
