"""Workers under a hail of faults, and then what the rows say.

    hatch run soak [--minutes 10] [--seed N] [--keep]

Four workers of the real command on a Postgres with full durability, a stream of jobs of all kinds, and faults by a
schedule that the seed decides: see faults.py. When all is drained, every invariant of invariants.py is checked on the
rows. Exit code 1 if one is violated; then the folder with the logs is kept, and named.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import psycopg
from faults import Mischief, schedule
from fleet import Fleet
from invariants import INVARIANTS, Evidence, gather, restarts
from producer import Producer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import chancy
from chancy_testing.server.postgres import DURABLE, Postgres

DRAIN_SECONDS = 120.0
STOP_SECONDS = 60.0
LEAK_SECONDS = 5.0
"""How long what has lost its worker may take to end."""
TICK_SECONDS = 0.05


def main() -> int:
    """0 if every invariant holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs anyway")
    options = parser.parse_args()
    console = Console()
    console.print(f"seed {options.seed}, {options.minutes:g} minutes")
    folder = Path(tempfile.mkdtemp(prefix="chancy-soak-"))
    with Postgres(settings={**DURABLE, "max_connections": "200"}) as server:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn, schema="chancy")
            conn.execute("CREATE TABLE effect (job bigint NOT NULL, fence integer NOT NULL)")
            conn.execute("CREATE TABLE step_effect (job bigint NOT NULL, name text NOT NULL)")
        fleet, producer = Fleet(server.dsn, folder), Producer(server.dsn, options.seed)
        mischief = Mischief(fleet, server, lambda: producer.poison.append("poison"))
        try:
            with Progress(console=console) as progress:
                violations = misbehave(mischief, producer, options.seed, options.minutes, progress)
        finally:
            fleet.end()
        seen = gather(producer.record, server.dsn, fleet.lines)
        violations = {sentence: check(seen) for sentence, check in INVARIANTS.items()} | violations
        report(console, seen, mischief, violations)
        (folder / "postgres.log").write_text(server._log())
    violated = any(violations.values())
    if violated or options.keep:
        console.print(f"logs and lines are in {folder}; the schedule was that of --seed {options.seed}")
    else:
        shutil.rmtree(folder)
    return int(violated)


def misbehave(
    mischief: Mischief, producer: Producer, seed: int, minutes: float, progress: Progress
) -> dict[str, list[object]]:
    """Make every fault at its time, drain, stop; returns what only the living can show."""
    fleet = mischief.fleet
    with ThreadPoolExecutor(1) as pool:
        producing = pool.submit(producer.run)
        try:
            wreck(mischief, producing, seed, minutes, progress)
        finally:
            mischief.undo(at_once=True)  # the producer has to ask Postgres about its last commit
            producer.over.set()
    producing.result()
    bar = progress.add_task("drain", total=DRAIN_SECONDS)
    began = time.monotonic()
    while (took := time.monotonic() - began) < DRAIN_SECONDS and count(mischief.server.dsn, "FROM chancy.job"):
        fleet.keep()
        progress.update(bar, completed=took)
        time.sleep(0.5)
    progress.update(bar, completed=DRAIN_SECONDS, description=f"drained in {took:.0f} s")
    codes = fleet.stop(STOP_SECONDS)
    connections = "FROM pg_stat_activity WHERE application_name LIKE 'chancy %'"
    return {
        "no worker ended unless it was killed or told to": fleet.ended_by_themselves(),
        "no worker logged a traceback": fleet.tracebacks(),
        "every worker stopped orderly in the end": [f"exit code {code}" for code in codes if code],
        "no process outlives its worker": leaked(lambda: [process.pid for process in fleet.processes()]),
        "no connection outlives its worker": leaked(lambda: ["connection"] * count(mischief.server.dsn, connections)),
    }


def wreck(mischief: Mischief, producing: Future[None], seed: int, minutes: float, progress: Progress) -> None:
    """The schedule, from its begin to its end."""
    faults = schedule(seed, minutes)
    total = len(faults)
    bar = progress.add_task("faults", total=60 * minutes)
    began = time.monotonic()
    while (passed := time.monotonic() - began) < 60 * minutes or faults:
        mischief.fleet.keep()
        mischief.undo()
        if faults and faults[0].at <= passed:
            mischief.make(faults.pop(0))
        else:
            time.sleep(TICK_SECONDS)
        if producing.done():
            producing.result()
        progress.update(bar, completed=passed, description=f"{total - len(faults)} of {total} faults")


def count(dsn: str, of: str) -> int:
    with psycopg.connect(dsn, connect_timeout=10) as conn:
        found = conn.execute(f"SELECT count(*) {of}").fetchone()
        return found[0] if found else 0


def leaked(look: Callable[[], list[object]]) -> list[object]:
    """What is still there after a while."""
    deadline = time.monotonic() + LEAK_SECONDS
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def report(console: Console, seen: Evidence, mischief: Mischief, violations: dict[str, list[object]]) -> None:
    """What was done, what became of the jobs, what held, and how soon it went on."""
    faults = Table("fault", "made", title="Faults")
    for kind, made in sorted(mischief.made.items()):
        faults.add_row(kind, str(made))
    jobs = Table("jobs of kind", "state", "", "attempts", title="Jobs")
    tally = Counter((row.kind, row.state) for row in seen.rows)
    for (kind, state), number in sorted(tally.items()):
        most = max(row.attempt for row in seen.rows if (row.kind, row.state) == (kind, state))
        jobs.add_row(kind, state, f"{number:,}", f"up to {most}")
    held = Table("invariant", "", title="Invariants")
    for sentence, offenders in violations.items():
        few = ", ".join(map(str, offenders[:10]))
        held.add_row(sentence, f"VIOLATED by {len(offenders)}: {few}" if offenders else "ok")
    for table in (faults, jobs, held):
        console.print(table)
    record = seen.record
    console.print(
        f"{len(record.committed):,} jobs committed, {len(record.rolled_back):,} rolled back, {record.asked} commits in "
        f"doubt, {len(record.cancelled)} cancelled, {record.requeues.total()} requeued; "
        f"{sum(line.event == 'begin' for line in seen.lines):,} attempts began"
    )
    again = restarts(seen, mischief.kills)
    delays = Table("from kill -9 of", "to the next attempt of", "", "p50", "max", title="Restarts")
    for whose, supervised in {"a supervised worker": True, "a plain worker": False}.items():
        found = [took for kind, took in again if kind == supervised]
        for what, took in {
            "its first job": [min(took) for took in found],
            "each of its jobs": [*chain(*found)],
        }.items():
            if took:
                row = f"{len(took)}", f"{statistics.median(took):.1f} s", f"{max(took):.1f} s"
                delays.add_row(whose, what, *row)
    console.print(delays)


if __name__ == "__main__":
    sys.exit(main())
