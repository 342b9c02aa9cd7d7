"""What `doctor` finds, on an installation that is well and on those that are not."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import worker_tasks
from psycopg import sql
from worker_help import ONLY_WOKEN, blocking_until, eventually, working

import chancy
import chancy_ops
from chancy import Limit, Queue, State
from chancy.model import Pause, Statement
from chancy.run import perform, send
from chancy_ops import Severity
from chancy_ops.diagnosis import fleet as fleet_checks
from chancy_ops.diagnosis import server as server_checks
from chancy_ops.diagnosis.findings import Patience
from chancy_worker import WorkerConfig
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import Offer, register
from chancy_worker.life.rescue import declare_dead

CHECKS = {
    "schema", "rights", "workers", "queues", "tasks", "waiting", "doorbell", "listeners", "clocks", "pauses", "schedules", "claims", "slots", "waits", "needs", "held",
    "partitions", "retention", "bloat", "xmin", "notifications", "pooler",
}  # fmt: skip
STEADY = WorkerConfig(grace=1)
AT_ONCE = Patience(timedelta(0), timedelta(days=1))


def examined(site, conn=None):
    return chancy_ops.doctor(conn or site.conn, schema=site.schema)


def wrong(site):
    """What is not well, by check."""
    return {found.check: found for found in examined(site) if found.severity is not Severity.OK}


def hand(site, *, lease=60, listens=False, queues=("default",), tasks=("worker_tasks.add",)):
    """A worker as the database knows it."""
    return send(
        site.conn, register("host:1", lease, Offer(queues, tasks, ["" for _ in tasks], listens=listens)), site.schema
    )


def aged(site, table, column, by):
    """As if it had been so for longer."""
    query = sql.SQL("UPDATE {}.{} SET {} = {} - %s::interval").format(
        sql.Identifier(site.schema), sql.Identifier(table), sql.Identifier(column), sql.Identifier(column)
    )
    site.conn.execute(query, [by])


async def test_an_installation_that_is_well_is_told_so_by_every_check(site):
    async with working(site.app(queues=[Queue("default"), Queue("mail"), Queue("other")]), STEADY):
        await eventually(lambda: site.workers())
        site.submit(worker_tasks.add.bind(1, 2))
        await eventually(lambda: site.count("succeeded") == 1)
        found = await asyncio.to_thread(examined, site)  # the worker runs in this loop
        assert {each.check for each in found} == CHECKS
        assert len(found) == len(CHECKS)
        assert [each for each in found if each.severity is not Severity.OK or each.remedy or not each.message] == []
        async with await psycopg.AsyncConnection.connect(site.dsn) as conn:
            inside = {each.check for each in await chancy_ops.doctor(conn, schema=site.schema)}
        assert inside == CHECKS - {"listeners"}
        messages = {each.check: each.message for each in found}
        assert messages["workers"] == "1 worker alive."
        assert messages["doorbell"] == "1 idle worker, at the doorbell of all their queues."


def test_a_fleet_that_has_stopped_is_an_error_and_so_is_each_queue_with_work(site):
    site.submit(worker_tasks.add.bind(1, 2), *[worker_tasks.add.using(queue="mail").bind(n, 2) for n in range(2)])
    bad = [each for each in examined(site) if each.severity is Severity.ERROR]
    assert [(each.check, each.message, each.remedy) for each in bad] == [
        ("workers", "no worker is alive: nothing runs.", "Start one: `chancy-worker MODULE`."),
        (
            "queues",
            "no worker takes queue 'default', in which 1 job waits.",
            "Start one that does: `chancy-worker MODULE --queue default`.",
        ),
        (
            "queues",
            "no worker takes queue 'mail', in which 2 jobs wait.",
            "Start one that does: `chancy-worker MODULE --queue mail`.",
        ),
    ]


def test_a_lease_that_is_about_to_run_out_or_has_run_out_is_told(site):
    hand(site, lease=3)
    found = wrong(site)["workers"]
    assert found.severity is Severity.WARNING
    assert "worker host:1 has not extended its lease, which runs out in" in found.message
    aged(site, "worker", "expires_at", "10 hours")
    last = [each for each in examined(site) if each.check == "workers"][-1]
    assert "the lease of worker host:1 ran out 10 h ago, and no worker has taken its jobs back." in last.message


def test_a_task_that_no_worker_of_its_queue_knows_is_named(site):
    hand(site)
    hand(site, queues=["mail"], tasks=["app.nobody"])
    for _ in range(2):
        site.one("SELECT {}.submit('app.nobody')")
    site.submit(worker_tasks.add.bind(1, 2))
    found = wrong(site)
    assert found.keys() == {"tasks"}
    assert found["tasks"].severity is Severity.ERROR
    message = "no worker of queue 'default' knows task app.nobody, of which 2 jobs wait."
    assert found["tasks"].message == message
    assert found["tasks"].remedy.startswith("Deploy the code that has it")


@pytest.mark.parametrize(("age", "severity"), [("6 minutes", Severity.WARNING), ("2 hours", Severity.ERROR)])
def test_the_oldest_job_that_could_run_is_named_with_its_age(site, age, severity):
    hand(site)
    old, other, paused, parked = site.submit(
        worker_tasks.add.bind(1, 2),
        worker_tasks.add.bind(1, 2),
        worker_tasks.add.using(queue="paused").bind(1, 2),
        worker_tasks.add.using(limits=[Limit.concurrency(1)]).bind(1, 2),
    )
    hand(site, queues=["paused"])
    chancy_ops.pause(site.conn, "paused", schema=site.schema)
    site.one(
        "INSERT INTO {}.slot (gate, n, opens_at) VALUES ('concurrency(worker_tasks.add)', 1, 'infinity') RETURNING n"
    )
    aged(site, "job", "run_at", age)
    site.one("UPDATE {}.job SET run_at = run_at + interval '1 s' WHERE id = %s RETURNING id", other.id)
    site.one("UPDATE {}.job SET run_at = run_at - interval '1 h' WHERE id = %s RETURNING id", paused.id)
    site.one("UPDATE {}.job SET run_at = run_at - interval '1 h' WHERE id = %s RETURNING id", parked.id)
    found = wrong(site)
    assert found.keys() == {"waiting"}
    assert found["waiting"].severity is severity
    assert f": job {old.id} of task worker_tasks.add in queue 'default'." in found["waiting"].message
    assert found["waiting"].remedy == f"Ask `chancy why {old.id}`; if the workers are busy, start more."


def test_a_job_whose_limits_and_group_have_room_is_one_that_could_run(site):
    hand(site)
    limited, grouped = site.submit(
        worker_tasks.add.using(limits=[Limit.concurrency(1)]).bind(1, 2), worker_tasks.add.using(group="g").bind(1, 2)
    )
    aged(site, "job", "run_at", "6 minutes")
    for job in (limited, grouped):
        site.one("UPDATE {}.job SET run_at = run_at - interval '1 minute' WHERE id = %s RETURNING id", job.id)
        assert f": job {job.id} of task worker_tasks.add" in wrong(site)["waiting"].message
        site.one("UPDATE {}.job SET run_at = run_at + interval '1 minute' WHERE id = %s RETURNING id", job.id)
    chancy_ops.pause(site.conn, task=worker_tasks.add, schema=site.schema)
    assert "waiting" not in wrong(site)


def test_a_worker_whose_clock_is_wrong_is_named(site):
    worker = hand(site)
    for ahead, severity, words in [
        (0.2, Severity.OK, "the workers' clocks are within 200 ms of the database's."),
        (-1.5, Severity.WARNING, "the clock of worker host:1 is 1.5 s behind."),
        (45, Severity.ERROR, "the clock of worker host:1 is 45.0 s ahead."),
    ]:
        site.one("UPDATE {}.worker SET clock_ahead = %s WHERE id = %s RETURNING id", ahead, worker)
        (found,) = [each for each in examined(site) if each.check == "clocks"]
        assert (found.severity, found.message) == (severity, words)
        assert found.remedy.startswith("Set it by NTP") == (severity is not Severity.OK)


async def test_an_idle_worker_that_is_not_at_the_doorbell_is_noticed(site):
    deaf = hand(site, listens=True, queues=["default", "mail"])
    found = [each for each in examined(site) if each.check == "doorbell"]
    assert [(each.severity, each.message) for each in found] == [
        (Severity.WARNING, "no idle worker is at the doorbell of queue 'default': its jobs start up to 5 s late."),
        (Severity.WARNING, "no idle worker is at the doorbell of queue 'mail': its jobs start up to 5 s late."),
    ]
    assert found[0].remedy
    site.one("SELECT pg_advisory_lock_shared(%s::regnamespace::oid::integer, {}.bell_key('mail'))", site.schema)
    assert len([each for each in examined(site) if each.check == "doorbell"]) == 2  # so does who rings
    site.submit(worker_tasks.add.using(queue="mail").bind(1, 2))
    assert wrong(site) == {}  # it may be about to look
    send(site.conn, declare_dead(worker=deaf), site.schema)
    hand(site, listens=True)
    held = """
        SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted
            AND classid = %s::regnamespace AND objid = {}.bell_key('default')::oid
    """
    async with working(site.app(), STEADY):
        await eventually(lambda: site.one(held, site.schema))
        assert "doorbell" not in await asyncio.to_thread(wrong, site)


async def test_an_idle_worker_is_rung_for_and_it_is_told_how_soon_it_looked(site):
    async with working(site.app(), WorkerConfig(timing=ONLY_WOKEN, grace=1)):
        (job,) = site.submit(worker_tasks.add.bind(1, 2))
        await eventually(lambda: site.row(job).state is State.SUCCEEDED)
        found = {each.check: each for each in await asyncio.to_thread(examined, site)}["listeners"]
    assert found.severity is Severity.OK
    assert re.fullmatch(r"1 worker heard the doorbell, within \d+\.\d ms\.", found.message)


async def test_an_idle_worker_whose_session_does_not_stir_is_deaf(site):
    hand(site, listens=True)
    query = f'SELECT 1 FROM "{site.schema}".worker'
    with psycopg.connect(site.dsn, application_name="chancy claim", autocommit=True) as conn:
        conn.execute(query)
        (found,) = [each for each in examined(site) if each.check == "listeners"]
    assert (found.severity, found.message) == (
        Severity.WARNING,
        "1 idle worker did not look when it was rung for: jobs start up to 5 s late.",
    )
    assert found.remedy


def test_nobody_is_rung_for_inside_a_transaction(site):
    with psycopg.connect(site.dsn) as conn:
        assert "listeners" not in {found.check for found in chancy_ops.doctor(conn, schema=site.schema)}


def test_a_moment_without_anybody_at_the_doorbell_is_none():
    now = datetime(2026, 11, 25, tzinfo=UTC)
    steps = fleet_checks.doorbell(fleet_checks.Fleet(now, [], [], []))
    assert isinstance(next(steps), Statement)
    for silent in [{"a", "b"}, {"b"}, {"b", "c"}]:
        assert isinstance(steps.send((2, silent)), Pause)
        assert isinstance(steps.send(None), Statement)
    with pytest.raises(StopIteration) as ended:
        steps.send((2, {"a", "c"}))  # none of them in every look
    (found,) = ended.value.value
    assert found.severity is Severity.OK


def test_who_looks_for_work_by_the_clock_is_not_missed_at_the_doorbell(site):
    hand(site, listens=False)
    assert wrong(site) == {}


def test_a_pause_that_somebody_may_have_forgotten_is_told(site):
    hand(site)
    chancy_ops.pause(site.conn, "mail", schema=site.schema)
    chancy_ops.pause(site.conn, task="app.t", schema=site.schema)
    assert wrong(site) == {}
    aged(site, "pause", "paused_at", "3 days")
    found = [each for each in examined(site) if each.check == "pauses"]
    assert [(each.severity, each.message, each.remedy) for each in found] == [
        (
            Severity.WARNING,
            f"{what} has been paused for 3 d, until somebody resumes it.",
            f"If nobody needs that: `chancy resume {remedy}`.",
        )
        for what, remedy in [("queue mail", "mail"), ("task app.t", "--task app.t")]
    ]


def test_schedules_that_nobody_sees_to_are_told(site):
    hand(site)
    chancy.schedule(site.conn, "s", worker_tasks.add.bind(1, 2), chancy.every(hours=1), schema=site.schema)
    chancy.schedule(site.conn, "t", worker_tasks.nap.bind(1), chancy.every(hours=1), schema=site.schema)
    chancy_ops.pause(site.conn, schedule="t", schema=site.schema)
    assert wrong(site) == {}  # a worker may see to it yet
    site.one("UPDATE {}.schedule SET since = since - interval '2 min' RETURNING name")
    found = wrong(site)["schedules"]
    assert found.severity is Severity.ERROR
    assert found.message.startswith("schedule 's' is due since ")
    assert found.message.endswith("and gets no jobs (1 late).")
    assert found.remedy == "See the workers' logs for `schedule`."
    site.one("UPDATE {}.offer SET tasks = '{{}}' RETURNING worker")
    assert wrong(site)["schedules"].remedy.startswith("No live worker knows its task worker_tasks.add: start one")


def test_running_jobs_that_nobody_answers_for_are_told_and_the_remedy_helps(site):
    hand(site)
    gone = hand(site)
    (job,) = site.submit(worker_tasks.add.bind(1, 2))
    send(site.conn, play_round(gone, [], Wanted({"default": 1}, looking=("default",))), site.schema)
    assert wrong(site) == {}
    site.one("DELETE FROM {}.worker WHERE id = %s RETURNING id", gone)
    assert wrong(site) == {}  # it may have been claimed just now
    aged(site, "job", "started_at", "31 s")
    found = wrong(site)["claims"]
    assert found.severity is Severity.ERROR
    assert found.message == f"job {job.id}: said to run on a worker of which nothing is known any more."
    site.conn.execute(found.remedy.partition("`")[2].rstrip("`."))
    assert wrong(site) == {}
    aged(site, "dead_worker", "died_at", "31 s")
    assert (
        wrong(site)["claims"].message == f"job {job.id}: ran on a worker that is dead, and nobody has taken that back."
    )


def test_places_that_are_nobodys_are_counted(site):
    hand(site)
    site.one(
        "INSERT INTO {}.slot (gate, n, job, fence) SELECT 'g', n, n, 0 FROM generate_series(1, 5) AS n RETURNING n"
    )
    (found,) = [each for each in examined(site) if each.check == "slots"]
    message = "5 places of limits, of which 5 are nobody's and wait to be swept."
    assert (found.severity, found.message) == (Severity.OK, message)


def waits(site, since, name="approved"):
    """A job that waits for a signal since then."""
    (job,) = site.submit(worker_tasks.add.using(delay=timedelta(days=9999)).bind(1, 2))
    site.rows("UPDATE {}.job SET submitted_at = submitted_at - %s::interval WHERE id = %s RETURNING 1", since, job.id)
    site.rows(
        "INSERT INTO {}.step (job, name, kind, at, attempt, kept_at) "
        "SELECT id, %s, 'wait', submitted_at, 0, now() FROM {}.job WHERE id = %s RETURNING 1".replace("{}", "{0}"),
        name, job.id,
    )  # fmt: skip
    return job


def test_a_job_that_waits_for_a_word_that_nobody_may_ever_say_is_named(site):
    hand(site)
    job = waits(site, "29 days")
    (found,) = [each for each in examined(site) if each.check == "waits"]
    assert (found.severity, found.message) == (
        Severity.OK,
        "1 job waits to be told something, nobody for too long.",
    )
    chancy.signal(site.conn, job.id, "aproved", 1, schema=site.schema)
    found = wrong(site)["waits"]
    assert found.message.endswith("and was told 'aproved', which it has not come to.")
    assert f"`chancy signal {job.id} approved` tells it" in found.remedy
    chancy.signal(site.conn, job.id, "approved", 1, schema=site.schema)
    assert "waits" not in wrong(site)
    first, _ = waits(site, "40 days"), waits(site, "31 days")
    found = wrong(site)["waits"]
    assert found.message.startswith(f"job {first.id} (worker_tasks.add) has waited for the signal 'approved' since ")
    assert found.message.endswith("(40 d ago), without an end; 1 more.")


def dropped(site, days):
    day = site.one("SELECT to_char((now() AT TIME ZONE 'UTC')::date + %s, 'YYYYMMDD')", days)
    site.conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(site.schema, f"history_{day}")))


def test_partitions_that_history_lacks_are_told_and_the_remedy_makes_them(site):
    hand(site)
    dropped(site, 3)
    found = wrong(site)["partitions"]
    assert found.severity is Severity.WARNING
    assert "history lacks 1 partition of the days from today" in found.message
    assert found.message.endswith("the first in 3 days.")
    dropped(site, 0)
    found = wrong(site)["partitions"]
    assert found.severity is Severity.ERROR
    assert "lacks 2 partitions" in found.message
    assert found.message.endswith("the first for today.")
    site.conn.execute("SET TIME ZONE 'Pacific/Kiritimati'")  # where it is tomorrow from ten o'clock UTC on
    site.conn.execute(found.remedy[found.remedy.index("SELECT") :].rstrip("`."))
    assert wrong(site) == {}


def test_partitions_that_should_have_been_dropped_are_told(site):
    hand(site)
    site.one("SELECT {}.make_partitions('2020-01-01', '2020-01-02')")
    found = wrong(site)["retention"]
    assert found.severity is Severity.WARNING
    words = "6 partitions of history should have been dropped, the oldest history_20200101: jobs are kept for 14 days by default."
    assert found.message == words


def test_a_session_that_keeps_dead_rows_is_named(site):
    hand(site)
    with psycopg.connect(site.dsn, application_name="report") as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.execute("SELECT 'since lunch'")
        conn.execute("SELECT 'now'")

        def found():
            (found,) = perform(site.conn, server_checks.pins(AT_ONCE), site.schema)
            return found if str(conn.info.backend_pid) in found.message else None

        pin = blocking_until(found)  # somebody else's may be older, for a moment
        assert pin.severity is Severity.WARNING
        assert f"session {conn.info.backend_pid} (report, user " in pin.message
        assert "idle in transaction) has been open for " in pin.message
        assert "'now'" not in pin.message, "a query may hold what nobody else is to read"
        assert f"`SELECT query FROM pg_stat_activity WHERE pid = {conn.info.backend_pid}`" in pin.remedy
        assert f"`SELECT pg_terminate_backend({conn.info.backend_pid})`" in pin.remedy
        (found,) = perform(site.conn, server_checks.pins(), site.schema)
        assert found.severity is Severity.OK
        (found,) = perform(conn, server_checks.pins(AT_ONCE), site.schema)
        assert f"session {conn.info.backend_pid} " not in found.message  # it looks at others


def test_what_else_keeps_dead_rows_is_named_with_its_remedy():
    rows = [
        ("prepared", "tx'1", 3600.0, None, b"ana", b"", ""),
        ("slot", "old", None, 2_000_000, b"", b"", "inactive"),
        ("standby", "77", None, 5, b"rep", b"walreceiver", "streaming"),
        ("hidden", None, None, 3, b"", b"", ""),
    ]
    found = server_checks.pins().parse(rows)
    assert [(each.severity, each.message) for each in found] == [
        (
            Severity.ERROR,
            "the prepared transaction 'tx'1' of ana has been open for 60 min: nothing that died since is removed.",
        ),
        (
            Severity.WARNING,
            "the replication slot old (inactive) has been behind for 2,000,000 transactions: nothing that died since is removed.",
        ),
    ]
    assert "ROLLBACK PREPARED 'tx''1'" in found[0].remedy
    assert "SELECT pg_drop_replication_slot('old')" in found[1].remedy
    (found,) = server_checks.pins().parse(rows[2:])
    assert found.message == (
        "nothing keeps dead rows for long; the longest: the standby walreceiver (streaming) has had a query open for "
        "5 transactions (3 sessions of others cannot be seen: GRANT pg_read_all_stats)."
    )


@pytest.mark.parametrize(("used", "severity"), [(0.01, "ok"), (0.1, "warning"), (0.5, "error")])
def test_a_queue_of_notifications_that_fills_up_is_told(used, severity):
    (found,) = server_checks.notifications().parse([(used,)])
    assert (found.severity, found.message) == (severity, f"the queue of notifications is {used:.0%} full.")
    assert bool(found.remedy) == (severity != "ok")


def test_dead_rows_and_indexes_of_air_are_told():
    names, sizes = ["c.job_ready", "c.job_pkey"], [3 * 1024**3, 8192]
    well, dead, air = (
        server_checks._parse_bloat([(live, dead, None, 5 * 1024**2, names, [size, 8192])])
        for live, dead, size in [(70_000, 60_000, 8192), (100, 60_000, 8192), (100, 0, sizes[0])]
    )
    figures = "the table job has 70,000 live rows and 60,000 dead in 5 MB, not vacuumed yet; largest indexes:"
    assert well[0].message == f"{figures} c.job_ready 8 kB, c.job_pkey 8 kB."
    assert [(each.severity, each.remedy) for each in (*well, *air)] == [
        (Severity.OK, ""),
        (Severity.WARNING, "`REINDEX INDEX CONCURRENTLY c.job_ready`"),
    ]
    assert (len(dead), dead[0].severity) == (1, Severity.WARNING)
    assert "`VACUUM`" in dead[0].remedy


def test_a_schema_that_is_older_is_all_that_is_told(site):
    newest = site.one("SELECT max(number) FROM {}.migration")
    before = site.one("UPDATE {}.migration SET number = number - 1000000 RETURNING number")
    (found,) = examined(site)
    assert (found.check, found.severity) == ("schema", Severity.ERROR)
    assert (
        found.message
        == f"schema '{site.schema}' is at migration {before}, this version of Chancy needs migration {newest}."
    )
    assert found.remedy.startswith(f"Run `python -m chancy migrate --schema {site.schema}`")


def test_a_database_without_the_schema_says_what_to_do(site):
    (found,) = chancy_ops.doctor(site.conn, schema="nowhere")
    assert found.message.startswith("schema 'nowhere' has not been migrated")


def test_a_schema_that_is_newer_is_told_and_the_rest_is_looked_at(site):
    hand(site)
    site.one("INSERT INTO {}.migration (number, name) VALUES (9999, '9999_next') RETURNING number")
    found = wrong(site)
    assert found.keys() == {"schema"}
    assert (found["schema"].severity, len(examined(site))) == (Severity.WARNING, len(CHECKS))
    assert "is at migration 9999, newer than this version of Chancy" in found["schema"].message


def test_a_pooler_in_between_is_a_note(site):
    (found,) = perform(site.conn, server_checks.pooler(0), site.schema)
    assert (found.severity, "there is a pooler such as PgBouncer" in found.message) == (Severity.OK, True)


def test_on_a_latin_connection_and_in_an_open_transaction_it_answers_as_well(site):
    hand(site)
    with psycopg.connect(site.dsn, client_encoding="latin1") as conn:
        assert {each.severity for each in examined(site, conn)} == {Severity.OK}


def test_the_guide_has_every_check():
    guide = (Path(__file__).parents[2] / "docs/guides/why-and-doctor.md").read_text(encoding="utf-8")
    assert [check for check in CHECKS if f"\n| `{check}` |" not in guide] == []


def test_a_blocked_job_that_nobody_looks_after_is_named(site):
    need = worker_tasks.add.bind(1, 2)
    job, first = site.submit(worker_tasks.add.using(after=[need]).bind(3, 4), need)
    site.rows("DELETE FROM {}.job WHERE id = %s RETURNING id", first.id)
    assert "needs" not in wrong(site)
    site.rows("UPDATE {}.job SET submitted_at = submitted_at - interval '2 min' WHERE id = %s RETURNING id", job.id)
    assert wrong(site)["needs"].message == f"1 blocked job waits for nothing that is live: job {job.id}."
