"""How long each look takes at ten million finished jobs and a million that wait.

    hatch run looks                      fills a database (some minutes, 4 GB) in a temporary folder, and measures
    hatch run looks --keep FOLDER        the same, in a folder that is found again: filled once, measured often
    hatch run looks --finished 1000000   smaller

Postgres runs with the settings that it ships with: jit on, 128 MB of shared buffers. Each look is made once to warm it,
and then five times; the table has the median in milliseconds. Nothing else may run beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

import chancy
import chancy_ops
from chancy import State, task
from chancy.migrations.migrate import functions
from chancy.run import send
from chancy.schema import named
from chancy.states import LIVE
from chancy_ops import JobFilter
from chancy_ops.jobs import chosen
from chancy_testing.server.postgres import Postgres

DAYS = 14
RUNS = 5
MOST_MS, MOST_MS_IN_VAIN = 50, 600
IN_VAIN = "in vain:"
NAMES = """
    welcome thumbnail track_click push_contact sync_account send_receipt resize export geocode reindex
    invoice charge_card refund import_rows sweep digest report backup train yearly
"""
TASKS = [f"shop.tasks.{name}" for name in NAMES.split()]
QUEUES = ["mail", "images", "clicks", "crm", "reports"]

# Of 20 tasks the first has a fifth of the jobs, the last a thousandth; 3 of 100 jobs do not succeed, and have 800 bytes
# of traceback. A day is made, and the others are its copies.
FINISHED = """
    INSERT INTO chancy.history (id, task, queue, priority, state, attempt, max_attempts, claims, crashes, worker,
        run_at, submitted_at, started_at, finished_at, arguments, result, errors, error_kind, fingerprint)
    SELECT id, task, queue, 0, state::chancy.state, 1, 3, 1, 0, 1 + h %% 8, at - interval '2 s', at - interval '2 s',
        at - interval '1 s', at,
        format('{"user_id":%%s,"order":"A-%%s","copies":[1,2,%%s]}', h %% 100000, id, h %% 7)::json,
        CASE WHEN state = 'succeeded' THEN 'null'::json END,
        CASE WHEN kind IS NOT NULL THEN json_build_array(json_build_object('attempt', 1, 'kind', kind,
            'message', format('user %%s: order A-%%s is gone', h %% 100000, id),
            'traceback', repeat('line of code ', 60), 'worker', 'web-1:77',
            'fingerprint', left(md5(kind || task), 12))) END,
        kind, CASE WHEN kind IS NOT NULL THEN left(md5(kind || task), 12) END
    FROM (
        SELECT *, (%(tasks)s::text[])[1 + t] AS task, (%(queues)s::text[])[1 + t %% 5] AS queue,
            CASE state WHEN 'failed' THEN
                (ARRAY['SMTPServerDisconnected', 'TimeLimitExceeded', 'ValueError', 'IntegrityError', 'WorkerDied']
                )[1 + h %% 5]
                WHEN 'discarded' THEN 'Discard' END AS kind
        FROM (
            SELECT *, CASE WHEN h %% 1000 < 970 THEN 'succeeded' WHEN h %% 1000 < 993 THEN 'failed'
                WHEN h %% 1000 < 997 THEN 'discarded' ELSE 'cancelled' END AS state
            FROM (
                SELECT id, abs(hashint8(id)) AS h,
                    floor(20 * power(abs(hashint8(id + 99)) %% 100003 / 100003.0, 2.2))::integer AS t,
                    %(since)s::timestamptz + (id - %(first)s::bigint) * %(apart)s::interval AS at
                FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS id
            ) AS drawn
        ) AS ended
    ) AS described
"""
A_DAY_LATER = """
    INSERT INTO chancy.history (id, task, queue, priority, state, attempt, max_attempts, claims, crashes, worker,
        run_at, submitted_at, started_at, finished_at, arguments, result, errors, error_kind, fingerprint)
    SELECT id + %(jobs)s, task, queue, priority, state, attempt, max_attempts, claims, crashes, worker,
        run_at + %(later)s, submitted_at + %(later)s, started_at + %(later)s, finished_at + %(later)s,
        arguments, result, errors, error_kind, fingerprint
    FROM chancy.history
    WHERE finished_at >= %(since)s AND finished_at < %(until)s AND finished_at + %(later)s <= now()
"""
WAITING = """
    INSERT INTO chancy.job (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments, errors)
    SELECT (%(tasks)s::text[])[1 + t], (%(queues)s::text[])[1 + t %% 5], (ARRAY[0,0,0,0,0,0,10,-10,50,0])[1 + h %% 10],
        'ready', 3, at, least(at, now()), format('{"user_id":%%s,"order":"B-%%s"}', h %% 100000, n)::json,
        CASE WHEN h %% 100 = 0 THEN json_build_array(json_build_object('attempt', 1, 'kind', 'ValueError',
            'message', 'no', 'traceback', repeat('line of code ', 60),
            'fingerprint', left(md5('ValueError' || t), 12))) END
    FROM (
        SELECT n, abs(hashint8(n)) AS h,
            floor(20 * power(abs(hashint8(n + 99)) %% 100003 / 100003.0, 2.2))::integer AS t,
            CASE WHEN n %% 10 = 0 THEN now() + n * interval '1 s'
                ELSE now() - interval '2 hours' + n * interval '7 ms' END AS at
        FROM generate_series(1, %(jobs)s::bigint) AS n
    ) AS drawn
"""
RUNNING = """
    WITH worker AS (
        INSERT INTO chancy.worker (name, started_at, expires_at, clock_ahead)
        SELECT 'web-' || n || ':77', now() - interval '5 h', now() + interval '30 d', 0.002
        FROM generate_series(1, 8) AS n
        RETURNING id
    ),
    offer AS (
        INSERT INTO chancy.offer (worker, queues, tasks, version, listens)
        SELECT id, %(queues)s::text[], %(tasks)s::text[], '0.1.0', true FROM worker
    )
    INSERT INTO chancy.job (task, queue, priority, state, attempt, claims, worker, max_attempts, run_at, submitted_at,
        started_at, arguments, progress)
    SELECT 'shop.tasks.import_rows', 'reports', 0, 'running', 1, 1, worker.id, 3, now() - interval '1 min',
        now() - interval '1 min', now() - n * interval '3 s', '{"file":"a.csv"}', '{"fraction":0.5,"note":"row 17"}'
    FROM worker, generate_series(1, 25) AS n
"""


@task(name="shop.tasks.sync_account", queue="crm", limits=[chancy.Limit.concurrency(2, key=lambda customer: customer)])
def sync_account(customer: int) -> None:
    """Waits for a place."""


@task(name="shop.tasks.export", queue="reports", group=lambda tenant: tenant)
def export(tenant: str) -> None:
    """Waits for its turn."""


# Many more queues, small ones, as tenants have them; and what workers would have counted, in bells of nine buckets.
SMALL_QUEUES = """
    INSERT INTO chancy.job (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments)
    SELECT 'shop.tasks.welcome', 'tenant-' || n, 0, 'ready', 3, now(), now(), '{}'
    FROM generate_series(1, 195) AS n, generate_series(1, 5)
"""
TALLY = """
    INSERT INTO chancy.{table}
    SELECT at, 'mail', task, outcome, jobs, jobs * 0.05, jobs * 0.2,
        ARRAY(SELECT generate_series(60, 68))::smallint[], ARRAY(SELECT 1 + jobs / 9 FROM generate_series(1, 9)),
        ARRAY(SELECT generate_series(68, 76))::smallint[], ARRAY(SELECT 1 + jobs / 9 FROM generate_series(1, 9))
    FROM generate_series(date_trunc('{span}', now() - %(back)s::interval, 'UTC'), now(), interval '1 {span}') AS at,
        unnest(%(tasks)s::text[]) AS task, unnest(ARRAY['succeeded', 'failed']) AS outcome,
        LATERAL (SELECT (CASE outcome WHEN 'failed' THEN 2 ELSE 98 END)::bigint AS jobs) AS number
"""
TALLIES = {"minute": "2 days", "hour": "35 days", "day": "400 days"}
DEPTH = """
    INSERT INTO chancy.depth (at, queue, ready, waiting, scheduled, running, blocked, oldest)
    SELECT at, 'mail', 10000, 0, 10000, 40, 0, 12
    FROM generate_series(now() - interval '2 days', now(), interval '1 min') AS at
"""


def fill(conn: psycopg.Connection[Any], finished: int, live: int) -> None:
    """Jobs, in a database that has nothing yet."""
    chancy.migrate(conn)
    # A scan that begins where another one is would turn the days around: jobs finish in the order of time.
    conn.execute("SET synchronous_commit = off; SET synchronize_seqscans = off")
    now = datetime.now(UTC)
    begin = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS)
    conn.execute("SELECT chancy.make_partitions(%s, %s)", [begin.date(), now.date() + timedelta(days=2)])
    names = {"tasks": TASKS, "queues": QUEUES}
    a_day = finished // DAYS
    day = {"since": begin, "until": begin + timedelta(days=1), "first": 1, "last": a_day}
    conn.execute(FINISHED, names | day | {"apart": timedelta(days=1) / a_day})
    for later in range(1, DAYS + 1):
        conn.execute(A_DAY_LATER, day | {"later": timedelta(days=later), "jobs": a_day * later})
    finished = a_day * (DAYS + 1)
    conn.execute("SELECT setval('chancy.job_id_seq', %s)", [finished + 1000])
    conn.execute(WAITING, names | {"jobs": int(live * 0.9)})
    conn.execute(RUNNING, names)
    with conn.transaction():
        chancy.submit_many(conn, [sync_account.bind(n % 500) for n in range(int(live * 0.04))])
        chancy.submit_many(conn, [export.bind(f"t{n % 40}") for n in range(int(live * 0.01))])
    with chancy.batch(conn) as made:
        made.submit_many([sync_account.using(limits=[]).bind(n) for n in range(int(live * 0.05))])
    conn.execute(
        "UPDATE chancy.history SET batch = %s WHERE id BETWEEN %s AND %s",
        [made.id, finished // 2, finished // 2 + int(live * 0.05)],
    )
    chancy_ops.pause(conn, "clicks")
    chancy_ops.limit(conn, "reports", concurrency=300)
    conn.execute("VACUUM (ANALYZE) chancy.history")


def fill_the_rest(conn: psycopg.Connection[Any]) -> None:
    """What else a large installation has."""
    conn.execute("SET synchronous_commit = off")
    conn.execute(SMALL_QUEUES)
    for span, back in TALLIES.items():
        made = TALLY.replace("{table}", f"tally_{span}").replace("{span}", span)
        conn.execute(made, {"tasks": TASKS, "back": back})
    conn.execute(DEPTH)
    conn.execute("VACUUM (ANALYZE)")


def looks(conn: psycopg.Connection[Any], newest: int) -> dict[str, Callable[[], Any]]:
    """Every verb that only looks, in each of its uses."""
    search, count = chancy_ops.search, chancy_ops.count
    day, hour = (datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) - timedelta(hours=1))
    failed = State.FAILED
    found = chancy_ops.failures(conn, limit=1)
    bug = found[0].fingerprint if found else ""
    last = chancy.jobs(conn, state=failed, limit=1)[0].id
    parked = chancy.jobs(conn, task=sync_account, state=State.READY, limit=1)[0].id
    running = chancy.jobs(conn, state=State.RUNNING, limit=1)[0].id
    common, rare = TASKS[0], TASKS[-1]
    return {
        "jobs()": lambda: chancy.jobs(conn, limit=50),
        **{f"jobs(state={state})": partial(chancy.jobs, conn, state=state, limit=50) for state in State},
        "jobs(before=)": lambda: chancy.jobs(conn, before=newest // 2, limit=50),
        "jobs(task=) a fifth of all": lambda: chancy.jobs(conn, task=common, limit=50),
        "jobs(task=) a thousandth": lambda: chancy.jobs(conn, task=rare, limit=50),
        "jobs(task=, state=failed)": lambda: chancy.jobs(conn, task=rare, state=failed, limit=50),
        "jobs(queue=)": lambda: chancy.jobs(conn, queue="reports", limit=50),
        "jobs(queue=, state=ready)": lambda: chancy.jobs(conn, queue="reports", state=State.READY, limit=50),
        "jobs(batch=)": lambda: chancy.jobs(conn, batch=1, limit=50),
        "jobs(batch=, state=failed)": lambda: chancy.jobs(conn, batch=1, state=failed, limit=50),
        "search()": lambda: search(conn, limit=50),
        **{f"search({state})": partial(search, conn, JobFilter(state=state), limit=50) for state in State},
        "search(failed, before=)": lambda: search(conn, JobFilter(state=failed), before=last, limit=50),
        "search(failed, fingerprint=)": lambda: search(conn, JobFilter(state=failed, fingerprint=bug), limit=50),
        "search(failed, error=)": lambda: search(conn, JobFilter(state=failed, error="ValueError"), limit=50),
        "search(failed, since=)": lambda: search(conn, JobFilter(state=failed, since=day), limit=50),
        "search(error=)": lambda: search(conn, JobFilter(error="ValueError"), limit=50),
        "search(words=), a hundred of a million": lambda: search(conn, words='"user_id":777,', limit=50),
        "count()": lambda: count(conn),
        **{f"count({state})": partial(count, conn, JobFilter(state=state)) for state in State},
        "count(queue=)": lambda: count(conn, JobFilter(queue="mail")),
        "count(queue=, failed)": lambda: count(conn, JobFilter(queue="mail", state=failed)),
        "count(task=, failed)": lambda: count(conn, JobFilter(task=rare, state=failed)),
        "count(failed, error=)": lambda: count(conn, JobFilter(state=failed, error="ValueError")),
        "count(failed, fingerprint=)": lambda: count(conn, JobFilter(state=failed, fingerprint=bug)),
        "count(failed, since=hour)": lambda: count(conn, JobFilter(state=failed, since=hour)),
        "count(since=hour)": lambda: count(conn, JobFilter(since=hour)),
        "count(batch=)": lambda: count(conn, JobFilter(batch=1)),
        "failures()": lambda: chancy_ops.failures(conn),
        "failures(since=day)": lambda: chancy_ops.failures(conn, since=day),
        "failures(task=)": lambda: chancy_ops.failures(conn, task=TASKS[3]),
        "queues()": lambda: chancy_ops.queues(conn),
        "workers()": lambda: chancy_ops.workers(conn),
        "get() of a finished job": lambda: chancy.get(conn, last),
        "get() of a live job": lambda: chancy.get(conn, running),
        "why() of a finished job": lambda: chancy_ops.why(conn, last),
        "why() of a running job": lambda: chancy_ops.why(conn, running),
        "why() of one in a lane": lambda: chancy_ops.why(conn, newest - 300_000),
        "why() of one that waits for a limit": lambda: chancy_ops.why(conn, parked),
        "batch_progress()": lambda: chancy.batch_progress(conn, 1),
        f"{IN_VAIN} jobs(task=unknown)": lambda: chancy.jobs(conn, task="unknown", limit=50),
        f"{IN_VAIN} jobs(task=unknown, ready)": lambda: chancy.jobs(conn, task="unknown", state=State.READY, limit=50),
        f"{IN_VAIN} jobs(task=unknown, failed)": lambda: chancy.jobs(conn, task="unknown", state=failed, limit=50),
        f"{IN_VAIN} jobs(queue=unknown)": lambda: chancy.jobs(conn, queue="unknown", limit=50),
        f"{IN_VAIN} search(words=)": lambda: search(conn, words="nowhere to be found", limit=50),
        f"{IN_VAIN} search(words=, failed)": lambda: search(conn, JobFilter(state=failed), words="nowhere", limit=50),
        f"{IN_VAIN} count(task=unknown)": lambda: count(conn, JobFilter(task="unknown")),
    }


def choices(conn: psycopg.Connection[Any]) -> dict[str, Callable[[], Any]]:
    """What verbs about many jobs look up before they change anything: all that fit, a hundred thousand at a time."""
    bug = chancy_ops.failures(conn, limit=1)[0].fingerprint

    def choose(which: JobFilter) -> Callable[[], Any]:
        name = "choose_live" if which.states <= LIVE else "choose_finished"
        return lambda: send(conn, chosen(name, which, which.states, 0), "chancy")

    return {
        "all that failed": choose(JobFilter(state=State.FAILED)),
        "all of a fingerprint that failed": choose(JobFilter(state=State.FAILED, fingerprint=bug)),
        "all that wait of a queue": choose(JobFilter(state=State.READY, queue="reports")),
    }


def measured(cases: dict[str, Callable[[], Any]]) -> Iterator[tuple[str, float, str]]:
    """Of each its name, the median in milliseconds, and what it found."""
    for name, look in cases.items():
        took = []
        answer = look()
        for _ in range(RUNS):
            began = time.perf_counter()
            answer = look()
            took.append((time.perf_counter() - began) * 1000)
        yield name, statistics.median(took), described(answer)


def described(answer: Any) -> str:
    """In a few words."""
    back_to = getattr(answer, "looked_back_to", None)
    if isinstance(answer, list):
        return f"{len(answer):,}" + (f", back to {back_to:%m-%d %H:%M}" if back_to else "")
    if isinstance(answer, dict):
        return ", ".join(f"{number:,} {state}" for state, number in answer.items())
    return str(answer)[:60] if isinstance(answer, chancy_ops.Why) else ""


@contextlib.contextmanager
def filled(folder: Path | None, finished: int, live: int) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database that has them."""
    with contextlib.ExitStack() as stack:
        where = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Postgres(where, settings={}))
        conn = stack.enter_context(psycopg.connect(server.dsn, autocommit=True))
        if not is_true(conn, "to_regclass('chancy.job') IS NOT NULL"):
            fill(conn, finished, live)
        if not is_true(conn, "EXISTS (SELECT FROM chancy.depth)"):
            fill_the_rest(conn)
        conn.execute(named(functions(), "chancy"))  # a kept one has those of then
        conn.execute("SET synchronous_commit = on")
        yield conn


def is_true(conn: psycopg.Connection[Any], what: str) -> bool:
    """Whether Postgres says so."""
    return bool(conn.execute(f"SELECT {what}").fetchall()[0][0])  # type: ignore[arg-type]


def arguments(about: str | None) -> argparse.Namespace:
    """What the command line says of the database."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the database is, or will be, and stays")
    parser.add_argument("--finished", type=int, default=10_000_000)
    parser.add_argument("--live", type=int, default=1_000_000)
    return parser.parse_args()


def main() -> None:
    """Print the table; what takes longer than it may has a star."""
    args = arguments(__doc__)
    with filled(args.keep, args.finished, args.live) as conn:
        ((newest,),) = conn.execute("SELECT max(id) FROM chancy.job").fetchall()
        print("| look | ms | found |\n|---|---|---|")
        for name, took, found in measured(looks(conn, newest)):
            most = MOST_MS_IN_VAIN if name.startswith(IN_VAIN) else MOST_MS
            print(f"| {name} | {took:.1f}{'*' if took > most else ''} | {found} |", flush=True)
        print("\n| looked up by a verb about many | ms | found |\n|---|---|---|")
        for name, took, found in measured(choices(conn)):
            print(f"| {name} | {took:.0f} | {found} |", flush=True)


if __name__ == "__main__":
    main()
