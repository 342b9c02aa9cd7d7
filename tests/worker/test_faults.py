"""What is true on the rows after the plug was pulled: worker, database, connection, data."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql
from worker_help import (
    FAST,
    MORTAL,
    SOON_MISSED,
    Proxy,
    Site,
    all_finished,
    eventually,
    kill_one_of_two,
    states,
    warm_up,
    working,
)
from worker_tasks import (
    add,
    end_badly,
    first_waits,
    gates,
    kill_my_worker,
    nap,
    note,
    notes,
    pass_gate,
    record,
    wait_for_file,
)

import chancy
from chancy import Queue, State
from chancy.run import send
from chancy_testing.server.postgres import Postgres
from chancy_worker import Timing, WorkerConfig, cli
from chancy_worker.claims.wanted import Wanted
from chancy_worker.connection import recovery
from chancy_worker.connection.link import Link
from chancy_worker.life.lease import register
from chancy_worker.life.rescue import NEVER, Rescuer
from chancy_worker.parts.retention import drop_overdue
from chancy_worker.processes import Processes
from chancy_worker.rounds import claimer


@pytest.mark.long
async def test_four_worker_processes_run_each_job_exactly_once(site, tmp_path):
    out = tmp_path / "ran"
    site.submit(*[record.bind(str(out)) for _ in range(5_000)])
    for _ in range(4):
        site.spawn()
    await all_finished(site, 60)
    ran = out.read_text().split()
    assert len(ran) == len(set(ran)) == 5_000
    assert states(site) == {"succeeded": 5_000}


async def test_the_jobs_of_a_killed_worker_run_again_and_its_neighbours_are_left_alone(site, tmp_path):
    gate, started = tmp_path / "gate", tmp_path / "started"
    first = site.spawn()
    await site.started(first)
    jobs = site.submit(*[wait_for_file.bind(str(gate), str(started)) for _ in range(5)])
    await eventually(lambda: site.count("running") == 5)
    site.spawn()
    first.signal(signal.SIGKILL)
    gate.touch()
    await all_finished(site)
    rows = [site.row(job) for job in jobs]
    assert {(row.state, row.attempt, row.crashes) for row in rows} == {(State.SUCCEEDED, 2, 1)}
    assert {error.kind for row in rows for error in row.errors} == {"WorkerDied"}


async def test_a_verdict_that_comes_after_the_rescue_changes_nothing(site):
    gates["late"] = asyncio.Event()
    async with working(site.app(), SOON_MISSED) as frozen:
        (job,) = site.submit(first_waits.bind("late"))
        await eventually(lambda: site.count("running") == 1)
        # Its lease is gone, as after a long freeze; another worker takes the job back and runs it.
        site.conn.execute(
            f'WITH gone AS (DELETE FROM "{site.schema}".worker RETURNING id, name) '
            f'INSERT INTO "{site.schema}".dead_worker SELECT id, name, now() FROM gone'
        )
        second = site.spawn()
        await site.started(second)
        await eventually(lambda: site.row(job).state is State.SUCCEEDED)
        before = site.row(job)
        await eventually(lambda: notes)  # it has heard that it was declared dead
        gates["late"].set()
        await eventually(lambda: not frozen.busy)
    assert site.row(job) == before
    assert before.attempt == 2
    assert job.result(site.conn) == "second"
    assert len(notes) >= 2  # stopped, once or again and again, and on its own
    assert all(notes)


@pytest.mark.long
async def test_one_poison_job_ends_failed_and_costs_its_neighbours_no_more_than_they_can_lose(site):
    innocent = site.submit(*[nap.bind(0.05) for _ in range(60)])
    (poison,) = site.submit(kill_my_worker.bind())
    more = site.submit(*[nap.bind(0.05) for _ in range(60)])
    workers = [site.spawn(), site.spawn()]

    def keep_two_alive():
        for index, worker in enumerate(workers):
            if worker.code is not None:
                workers[index] = site.spawn()
        return site.one("SELECT count(*) FROM {}.job") == 0

    await eventually(keep_two_alive, 80)
    row = site.row(poison)
    assert (row.state, row.attempt, row.errors[-1].kind) == (State.FAILED, 3, "WorkerDied")
    rows = [site.row(job) for job in innocent + more]
    assert {row.state for row in rows} == {State.SUCCEEDED}


async def test_sigterm_gives_back_what_does_not_finish_within_the_grace(site, tmp_path):
    worker = site.spawn(grace=0.3, timing=FAST)
    (job,) = site.submit(wait_for_file.bind(str(tmp_path / "never")))
    await eventually(lambda: site.count("running") == 1)
    worker.signal(signal.SIGTERM)
    await eventually(lambda: worker.code is not None)
    row = site.row(job)
    assert (worker.code, row.state, row.attempt, row.errors) == (0, State.READY, 0, ())
    assert site.workers() == {}


async def test_three_verdicts_that_cannot_be_stored_as_they_are_do_not_spoil_their_batch(site):
    gates["batch"] = asyncio.Event()
    good = site.submit(*[pass_gate.bind("batch") for _ in range(99)])
    bad = site.submit(*[end_badly.bind("batch", how) for how in ("nul", "surrogate", "result")])
    async with working(site.app(concurrency=102)):
        await eventually(lambda: site.count("running") == 102)
        gates["batch"].set()
        await all_finished(site)
    assert {(site.row(job).state, site.row(job).attempt) for job in good} == {(State.SUCCEEDED, 1)}
    errors = [site.row(job).errors[-1] for job in bad]
    assert [error.kind for error in errors] == ["ValueError", "ValueError", "InvalidResult"]
    assert [error.message for error in errors[:2]] == ["a\x00b", "a\\ud800b"]


@pytest.mark.parametrize("number", [1, 9])
async def test_a_claim_that_the_database_refuses_is_not_blamed_on_the_verdicts_of_its_round(site, monkeypatch, number):
    """An integer out of range in what is wanted: an error of data, like a verdict that cannot be stored."""
    gates["claim"] = asyncio.Event()
    async with working(site.app()) as worker:
        jobs = site.submit(*[pass_gate.bind("claim") for _ in range(number)])
        await eventually(lambda: site.count("running") == number)
        wanted = claimer.Claimer._wanted
        broken = Wanted({"default": -1}, {}, ("default",))
        monkeypatch.setattr(
            claimer.Claimer, "_wanted", lambda self, rests: wanted(self, rests) if self.outbox.is_searching else broken
        )
        gates["claim"].set()
        await eventually(lambda: site.count("succeeded") == number)
        monkeypatch.undo()
    assert {site.row(job).result for job in jobs} == {b'"claim"'}
    assert not worker.busy


async def test_a_missing_partition_loses_no_completion(site):
    partitions = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relname ~ '^history_[0-9]+$'"
    for (name,) in site.conn.execute(partitions, [site.schema]).fetchall():
        site.conn.execute(f'DROP TABLE "{site.schema}"."{name}"')
    app = site.app()
    (job,) = site.submit(add.bind(1, 2))
    async with working(app, SOON_MISSED):
        await eventually(lambda: site.row(job).state is State.SUCCEEDED)


async def test_a_row_that_somebody_has_locked_holds_up_only_its_own_job(site):
    gates["locked"] = asyncio.Event()
    async with working(site.app()):
        (locked,) = site.submit(pass_gate.bind("locked"))
        await eventually(lambda: site.count("running") == 1)
        with psycopg.connect(site.dsn) as other:
            other.execute(f'SELECT FROM "{site.schema}".job WHERE id = %s FOR UPDATE', [locked.id])
            gates["locked"].set()
            others = site.submit(*[add.bind(i, i) for i in range(200)])
            await eventually(lambda: site.count("succeeded") == 200)
            assert site.row(locked).state is State.RUNNING
        await eventually(lambda: site.row(locked).state is State.SUCCEEDED)
    assert {site.row(job).attempt for job in others} == {1}


async def test_jobs_of_a_claim_whose_answer_was_lost_start_soon_and_no_attempt_is_counted_twice(site, chancy_dsn):
    async with Proxy(chancy_dsn) as proxy, working(site.app(dsn=proxy.dsn)):
        await warm_up(site)
        proxy.mute_from = add.name.encode()
        jobs = site.submit(*[add.bind(i, 1) for i in range(10)])
        # The claim is committed, and its answer is not delivered.
        await eventually(lambda: proxy.mute and site.count("running") == 10)
        proxy.cut()
        proxy.mute, proxy.mute_from = False, None
        await eventually(lambda: site.count("succeeded") == 15, 20)
    assert {site.row(job).attempt for job in jobs} == {1}


async def test_a_verdict_that_is_written_while_the_heart_beats_is_not_taken_for_a_claim_that_was_not_heard(
    site, monkeypatch, caplog
):
    gates["beat"] = asyncio.Event()
    send = Link.send

    async def slowly(link, statement):
        answer = await send(link, statement)
        if claims := getattr(answer, "claims", None):
            gates["beat"].set()
            await eventually(lambda: site.row(claims[0][0]).finished_at)
            await asyncio.sleep(0.2)  # until the worker has heard of that, too
        return answer

    monkeypatch.setattr(Link, "send", slowly)
    async with working(site.app()):
        (job,) = site.submit(pass_gate.bind("beat"))
        await eventually(lambda: site.row(job).finished_at)
        await asyncio.sleep(0.5)
    assert "giving it back" not in caplog.text


async def test_a_job_whose_claim_is_answered_when_its_lease_is_lost_already_is_given_back_and_not_begun(
    site, monkeypatch
):
    send, told = Link.send, asyncio.Event()

    async def slowly(link, statement):
        answer = await send(link, statement)
        if getattr(answer, "claimed", None) and not told.is_set():
            told.set()
            site.conn.execute(f'DELETE FROM "{site.schema}".worker')  # as by somebody who looks for the dead
            await eventually(lambda: site.workers() and 1 not in site.workers())
        return answer

    monkeypatch.setattr(Link, "send", slowly)
    async with working(site.app()):
        (job,) = site.submit(note.bind("once"))
        await eventually(lambda: site.row(job).finished_at)
    assert notes == ["once"]
    assert (site.row(job).attempt, site.one("SELECT claims FROM {}.history")) == (1, 2)


async def test_a_verdict_of_before_a_failover_ends_no_job_that_has_got_its_id_since(site, caplog):
    """A standby that has not got the last transactions gives their ids, and their fences, to others."""
    gates["lost"], gates["new"] = asyncio.Event(), asyncio.Event()
    (lost,) = site.submit(pass_gate.bind("lost"))
    async with working(site.app()):
        await eventually(lambda: site.row(lost).state is State.RUNNING)
        site.conn.execute(f'DELETE FROM "{site.schema}".job')
        site.conn.execute(f'ALTER TABLE "{site.schema}".job ALTER id RESTART WITH {lost.id}')
        (new,) = site.submit(pass_gate.using(queue="other").bind("new"))
        assert new.id == lost.id
        async with working(site.app(queues=[Queue("other")])):
            await eventually(lambda: site.row(new).state is State.RUNNING)
            gates["lost"].set()
            await eventually(
                lambda: f"job {lost.id}: the verdict of this attempt (succeeded) came too late" in caplog.text
            )
            assert site.row(new).state is State.RUNNING
            gates["new"].set()
            await all_finished(site)
    assert (site.row(new).result, site.row(new).attempt) == (b'"new"', 1)


async def test_of_two_workers_of_one_name_only_the_one_that_has_died_is_declared_dead(site):
    """In containers, host names and process ids are often the same."""
    gates["go"] = asyncio.Event()
    config = WorkerConfig(name="web:7", timing=FAST, grace=1)
    async with working(site.app(), config):
        (job,) = site.submit(pass_gate.bind("go"))
        await eventually(lambda: site.row(job).state is State.RUNNING)
        (lease,) = site.workers()
        twin = send(site.conn, register(config.name, 300, process="the process of the twin"), site.schema)
        assert twin in site.workers()
        parent = Processes([], 1, site.dsn, site.schema)
        await parent._declare_dead("the process of the twin")
        assert list(site.workers()) == [lease]
        gates["go"].set()
        await all_finished(site)
    assert (site.row(job).state, site.row(job).attempt, site.row(job).crashes) == (State.SUCCEEDED, 1, 0)


LASTING = replace(FAST, lease=4)
"""Lives through an outage that is longer than its lease, and is not missed when a busy machine lets it wait."""


async def looks_for_the_dead(worker):
    """It has lost its patience, and has looked since."""
    await worker.begun.wait()
    (patience,) = [duty._patience for duty in worker._engine._living if isinstance(duty, Rescuer)]
    await eventually(lambda: patience.latest > NEVER)
    seen = patience._seen
    await eventually(lambda: patience._seen != seen)


async def test_no_living_worker_is_declared_dead_when_the_databases_clock_is_set_forward(site, chancy_clock, caplog):
    gates["jump"] = asyncio.Event()
    async with working(site.app(), WorkerConfig(timing=LASTING, grace=1)) as worker:
        await looks_for_the_dead(worker)
        (job,) = site.submit(pass_gate.bind("jump"))
        await eventually(lambda: site.count("running") == 1)
        chancy_clock.move(timedelta(minutes=5))
        await eventually(lambda: "clock has jumped" in caplog.text)
        await looks_for_the_dead(worker)
        assert list(site.workers()) == [1]
        gates["jump"].set()
        await all_finished(site)
    assert (site.row(job).attempt, site.row(job).crashes) == (1, 0)


@pytest.mark.long
async def test_no_living_worker_is_declared_dead_after_a_time_in_which_nobody_could_write(tmp_path, monkeypatch):
    monkeypatch.setattr(recovery, "LONGEST_SECONDS", LASTING.lease / 3)
    gates["dry"] = asyncio.Event()
    with Postgres() as server:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn, schema="chancy")
        site = Site(server.dsn, "chancy", tmp_path)
        site.conn.execute("SET default_transaction_read_only = off")
        try:
            async with working(site.app(), WorkerConfig(timing=LASTING, grace=1)) as worker:
                await looks_for_the_dead(worker)
                (job,) = site.submit(pass_gate.bind("dry"))
                await eventually(lambda: site.count("running") == 1)
                site.conn.execute("ALTER SYSTEM SET default_transaction_read_only = on")
                site.conn.execute("SELECT pg_reload_conf()")
                await asyncio.sleep(1.25 * LASTING.lease)
                site.conn.execute("ALTER SYSTEM RESET default_transaction_read_only")
                site.conn.execute("SELECT pg_reload_conf()")
                await eventually(lambda: site.one("SELECT expires_at > now() FROM {}.worker"))
                await looks_for_the_dead(worker)
                assert list(site.workers()) == [1]
                gates["dry"].set()
                await all_finished(site)
                assert (site.row(job).attempt, site.row(job).crashes) == (1, 0)
        finally:
            site.close()


async def test_a_verdict_whose_answer_was_lost_is_written_once_and_not_called_late(site, chancy_dsn, caplog):
    gates["answer"] = asyncio.Event()
    async with Proxy(chancy_dsn) as proxy, working(site.app(dsn=proxy.dsn)):
        await warm_up(site)
        (job,) = site.submit(pass_gate.bind("answer"))
        await eventually(lambda: site.count("running") == 1)
        proxy.mute_to = b"answer"  # the result, which nobody says but with the verdict
        gates["answer"].set()
        await eventually(lambda: site.row(job).state is State.SUCCEEDED)
        before = site.row(job)
        assert proxy.mute
        proxy.cut()
        proxy.mute, proxy.mute_to = False, None
        (after,) = site.submit(add.bind(1, 2))
        await eventually(lambda: site.row(after).state is State.SUCCEEDED, 20)
    assert site.row(job) == before
    assert "too late" not in caplog.text


@pytest.mark.long
async def test_workers_live_through_a_crash_of_postgres_and_every_job_finishes(tmp_path):
    with Postgres() as server:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn, schema="chancy")
        site = Site(server.dsn, "chancy", tmp_path)
        try:
            workers = [site.spawn(), site.spawn()]
            await site.started(*workers)
            site.submit(*[nap.bind(0.02) for _ in range(4_000)])
            await eventually(lambda: site.count("succeeded") > 200)
            server.stop(immediate=True)
            server.start()
            site.conn = psycopg.connect(server.dsn, autocommit=True)
            await all_finished(site, 60)
            assert states(site) == {"succeeded": 4_000}
            assert [worker.code for worker in workers] == [None, None]
        finally:
            site.close()


@pytest.mark.long
async def test_after_an_outage_longer_than_the_lease_no_job_of_a_living_worker_is_rescued(tmp_path):
    gate = tmp_path / "gate"
    with Postgres() as server:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn, schema="chancy")
        site = Site(server.dsn, "chancy", tmp_path)
        try:
            workers = [site.spawn(concurrency=3, timing=LASTING) for _ in range(2)]
            await site.started(*workers)
            jobs = site.submit(*[wait_for_file.bind(str(gate)) for _ in range(6)])
            await eventually(lambda: site.count("running") == 6)
            server.stop()
            await asyncio.sleep(1.25 * LASTING.lease)  # the outage itself
            server.start()
            site.conn = psycopg.connect(server.dsn, autocommit=True)
            await eventually(lambda: site.one("SELECT min(expires_at) > now() FROM {}.worker"))
            gate.touch()
            await all_finished(site)
            assert {(site.row(job).attempt, site.row(job).crashes) for job in jobs} == {(1, 0)}
        finally:
            site.close()


async def test_an_open_reader_of_history_stops_no_completion_while_partitions_are_made_and_dropped(site):
    site.conn.execute(f"SELECT \"{site.schema}\".make_partitions('2020-01-01', '2020-01-02')")
    with psycopg.connect(site.dsn) as reader:
        reader.execute(f'SELECT count(*) FROM "{site.schema}".history')
        link = Link(site.dsn, site.schema, "upkeep", deadline=60, lock_timeout="60s")
        await link.connect()
        dropping = asyncio.create_task(drop_overdue(link))
        async with working(site.app(), WorkerConfig(timing=Timing(upkeep=0.2), grace=1)):
            jobs = site.submit(*[add.bind(i, 1) for i in range(50)])
            await eventually(lambda: site.count("succeeded") == 50)
        reader.rollback()
        with contextlib.suppress(psycopg.Error):  # the worker's own upkeep was first
            await dropping
        await link.close()
    assert {site.row(job).attempt for job in jobs} == {1}


@pytest.mark.long
async def test_a_dead_child_of_processes_is_replaced_and_its_jobs_run_again_at_once(site, tmp_path):
    place = ["--dsn", site.dsn, "--schema", site.schema]
    parent = site.work("worker_tasks", "--processes", "2", *place)
    await kill_one_of_two(site, parent, tmp_path / "gate")


@pytest.mark.long
async def test_processes_outlive_a_child_that_cannot_be_replaced_while_postgres_is_away(tmp_path):
    with Postgres() as server:
        with psycopg.connect(server.dsn) as conn:
            chancy.migrate(conn, schema="chancy")
        site = Site(server.dsn, "chancy", tmp_path)
        try:
            parent = site.work("worker_tasks", "--processes", "2", "--dsn", server.dsn)
            await eventually(lambda: len(site.workers()) == 2, 20)
            victim = min(site.workers().values())
            server.stop()
            os.kill(victim, signal.SIGKILL)
            await eventually(lambda: "died with code 1" in parent.text, 20)
            server.start()
            site.conn = psycopg.connect(server.dsn, autocommit=True)
            await eventually(lambda: len(site.workers().keys() - {1, 2}) == 1, 20)
            assert parent.code is None
        finally:
            parent.signal(signal.SIGTERM)
            parent.popen.wait(20)
            site.close()


def ended(process):
    process.popen.wait(20)
    return process


def test_bad_input_gets_one_line_that_says_what_to_do_and_exit_code_2(site, tmp_path):
    (tmp_path / "empty_module.py").touch()
    for arguments, words in [
        (["no_such_module"], "there is no module 'no_such_module'"),
        (["json"], "has no task"),
        (["worker_tasks:nothing"], "is no Chancy object"),
        (["worker_tasks", "--queue", "a=b"], "NAME=NUMBER"),
        (["worker_tasks", "--dsn", "port=nonsense"], "--dsn"),
        (["worker_tasks", "--dsn", "host=127.0.0.1 port=1"], "--dsn"),
        (["worker_tasks", "--processes", "2", "--dsn", "host=127.0.0.1 port=1"], "--dsn"),
        (["worker_tasks", "--dsn", site.dsn, "--schema", "never_migrated"], "chancy migrate"),
    ]:
        is_about_imports = arguments == ["no_such_module"]  # a copy has other modules than a start
        process = ended(site.run("-m", "chancy_worker", *arguments) if is_about_imports else site.work(*arguments))
        assert process.code == 2, arguments
        assert words in process.text.splitlines()[-1]
        assert process.text.splitlines()[-1].startswith("chancy-worker: ")
        assert "Traceback" not in process.text


def test_the_line_that_a_command_ends_with_has_the_format_of_its_log(site):
    process = ended(site.work("json", "--log-format", "json"))
    last = json.loads(process.text.splitlines()[-1])
    assert process.code == 2
    assert (last["level"], "has no task" in last["message"]) == ("critical", True)


def test_what_postgres_refuses_at_the_start_is_told_without_advice_about_where_it_is(site):
    role = f"chancy_bare_{site.schema[-6:]}"
    site.conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    try:
        dsn = psycopg.conninfo.make_conninfo(site.dsn, user=role)
        for more, words in [
            ([], f"role {role} lacks what a worker needs (permission denied for schema {site.schema})"),
            (["--migrate"], f"role {role} may not migrate schema {site.schema}"),
        ]:
            process = ended(site.work("worker_tasks", "--dsn", dsn, "--schema", site.schema, *more))
            assert process.code == 2
            last = process.text.splitlines()[-1]
            assert words in last
            assert "--dsn" not in last
            assert ("--worker" in last) == (not more)
    finally:
        site.conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_a_queue_that_no_task_has_is_told_and_taken(caplog):
    options = cli.parser().parse_args(["worker_tasks", "--queue", "mial", "--queue", "default"])
    assert [queue.name for queue in cli.load(options).queues] == ["mial", "default"]
    assert [record.message for record in caplog.records] == [
        "queue 'mial' is no task's of module worker_tasks: only jobs that were given it when submitted are in it"
    ]


async def test_a_rescuer_whose_connection_is_cut_again_and_again_still_rescues(site, tmp_path):
    gate = tmp_path / "gate"
    first = site.spawn()
    (job,) = site.submit(wait_for_file.bind(str(gate)))
    await eventually(lambda: site.count("running") == 1)
    second = site.spawn()
    await site.started(second)
    first.signal(signal.SIGKILL)

    def rescued():
        site.conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'chancy life'"
        )
        time.sleep(MORTAL.lease / 3)
        return site.row(job).attempt == 2

    await eventually(rescued)
    gate.touch()
    await all_finished(site)
