"""Jobs that were running when their worker died: how many run at a time then, and what each death costs whom."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import replace

import limit_tasks
from worker_help import FAST, MORTAL, SOON_MISSED, all_finished, eventually, states, working
from worker_tasks import (
    add,
    count_neighbours,
    gates,
    kill_my_worker,
    nap,
    note,
    notes,
    pass_gate,
    see_running,
    wait_for_file,
)

import chancy
import chancy_ops
from chancy import Queue, State
from chancy.run import send
from chancy_worker import Timing, WorkerConfig
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.connection.link import Link
from chancy_worker.life.lease import register
from chancy_worker.life.rescue import DECLARE_DEAD, TAKE_BACK, declare_dead
from chancy_worker.life.suspects import FIRST, MOST

NEVER_HARMLESS = WorkerConfig(timing=Timing(harmless=3600), grace=1)


def make_suspects(site, *, crashes=1, attempt=1, max_attempts=3):
    """All jobs that wait have lost a worker, or more."""
    site.rows(
        "UPDATE {}.job SET crashes = %s, attempt = %s, max_attempts = %s RETURNING id", crashes, attempt, max_attempts
    )


def claims(site):
    return site.one("SELECT sum(claims) FROM {}.any_job")


async def begun(site, number):
    """So many run and no more are begun: what was submitted after them has been claimed and performed."""
    await eventually(lambda: site.count("running") == number)
    (after,) = site.submit(note.bind("after"))
    await eventually(lambda: site.row(after).state is State.SUCCEEDED)
    assert site.count("running") == number


async def test_suspects_run_in_company_that_grows_as_they_end_and_each_is_claimed_once(site):
    jobs = site.submit(*[count_neighbours.bind(50) for _ in range(150)])
    make_suspects(site)
    async with working(site.app(), NEVER_HARMLESS):
        await all_finished(site)
    rows = sorted((site.row(job) for job in jobs), key=lambda row: row.started_at)
    beside = [int(row.result) for row in rows]
    assert max(beside[:FIRST]) <= FIRST
    assert FIRST < max(beside) <= MOST
    for n, row in enumerate(rows):
        ended = sum(other.finished_at <= row.started_at for other in rows)
        assert n - ended < FIRST + ended, f"{n} begun, {ended} ended"
    assert claims(site) == 150


async def test_a_suspect_that_runs_for_long_without_harm_lets_others_begin_beside_it(site):
    site.submit(*[pass_gate.bind("long") for _ in range(12)])
    make_suspects(site)
    async with working(site.app(), WorkerConfig(timing=Timing(harmless=0.1), grace=1)):
        await begun(site, 12)
        gates["long"].set()
        await all_finished(site)


async def test_until_then_no_more_than_the_first_begin(site):
    site.submit(*[pass_gate.bind("long") for _ in range(12)])
    make_suspects(site)
    async with working(site.app(), NEVER_HARMLESS):
        await begun(site, FIRST)
        gates["long"].set()
        await all_finished(site)


async def test_no_more_run_beside_each_other_than_the_most_however_harmless_they_are(site):
    site.submit(*[pass_gate.bind("long") for _ in range(MOST + 5)])
    make_suspects(site)
    async with working(site.app(), WorkerConfig(timing=Timing(harmless=0.05), grace=1)):
        await begun(site, MOST)
        gates["long"].set()
        await all_finished(site)


async def test_a_suspect_with_one_attempt_left_runs_without_another_one_beside_it(site):
    jobs = site.submit(*[see_running.bind() for _ in range(4)])
    make_suspects(site, max_attempts=2)
    async with working(site.app(), WorkerConfig(timing=Timing(harmless=0.01), grace=1)):
        await all_finished(site)
    assert [site.row(job).result for job in jobs] == [b"1"] * 4
    assert claims(site) == 4


async def test_so_does_one_that_has_met_two_deaths_however_many_attempts_it_has_left(site):
    jobs = site.submit(*[see_running.bind() for _ in range(4)])
    make_suspects(site, crashes=2, attempt=2, max_attempts=20)
    async with working(site.app(), WorkerConfig(timing=Timing(harmless=0.01), grace=1)):
        await all_finished(site)
    assert [site.row(job).result for job in jobs] == [b"1"] * 4


async def test_those_that_can_run_in_company_come_first_and_nobody_is_beside_those_that_cannot(site):
    lone = site.submit(*[see_running.bind() for _ in range(3)])
    make_suspects(site, max_attempts=2)
    company = site.submit(*[pass_gate.bind("company") for _ in range(5)])
    site.rows("UPDATE {}.job SET crashes = 1, attempt = 1 WHERE crashes = 0 RETURNING id")
    async with working(site.app(), WorkerConfig(timing=Timing(harmless=0.1), grace=1)):
        await begun(site, 5)
        assert {site.row(job).state for job in company} == {State.RUNNING}
        gates["company"].set()
        await all_finished(site)
    assert [site.row(job).result for job in lone] == [b"1"] * 3


async def test_other_jobs_go_on_beside_a_suspect_that_has_to_be_alone(site):
    site.submit(pass_gate.bind("alone"), pass_gate.bind("alone"))
    make_suspects(site, max_attempts=2)
    async with working(site.app()):
        await begun(site, 1)
        others = site.submit(*[add.bind(1, n) for n in range(50)])
        await eventually(lambda: all(site.row(job).state is State.SUCCEEDED for job in others))
        assert site.count("running") == 1
        gates["alone"].set()
        await all_finished(site)


async def test_suspects_come_before_others_of_their_priority_and_after_those_of_a_higher_one(site):
    site.submit(*[note.bind("plain") for _ in range(20)])
    site.submit(*[note.using(priority=5).bind("high") for _ in range(3)])
    suspects = site.submit(*[note.bind("suspect") for _ in range(2)])
    site.rows("UPDATE {}.job SET crashes = 1, attempt = 1 WHERE id = ANY (%s) RETURNING id", [j.id for j in suspects])
    async with working(site.app(concurrency=1), NEVER_HARMLESS):
        await all_finished(site)
    assert Counter(notes) == {"plain": 20, "high": 3, "suspect": 2}
    assert notes[:3] == ["high"] * 3
    assert notes[3:10].count("suspect") == 2  # a round claims one ahead, and has no order within


async def test_suspects_of_several_queues_share_what_a_worker_allows(site):
    queues = ["a", "b", "c"]
    jobs = site.submit(*[count_neighbours.using(queue=queue).bind(20) for queue in queues for _ in range(15)])
    make_suspects(site)
    async with working(site.app(queues=[Queue(queue, 20) for queue in queues]), NEVER_HARMLESS):
        await all_finished(site)
    rows = sorted((site.row(job) for job in jobs), key=lambda row: row.started_at)
    assert {row.state for row in rows} == {State.SUCCEEDED}
    for n, row in enumerate(rows):
        ended = sum(other.finished_at <= row.started_at for other in rows)
        assert n - ended < FIRST + ended


async def test_suspects_of_a_paused_task_or_queue_hold_up_no_others(site):
    site.submit(*[add.bind(1, 1) for _ in range(5)], *[note.using(queue="still").bind("x") for _ in range(5)])
    others = site.submit(*[note.bind("runs") for _ in range(5)])
    make_suspects(site)
    chancy_ops.pause(site.conn, task=add, schema=site.schema)
    chancy_ops.pause(site.conn, "still", schema=site.schema)
    async with working(site.app(queues=[Queue("default"), Queue("still")])):
        await eventually(lambda: all(site.row(job).state is State.SUCCEEDED for job in others))
        assert states(site) == {"ready": 10, "succeeded": 5}
        chancy_ops.resume(site.conn, task=add, schema=site.schema)
        chancy_ops.resume(site.conn, "still", schema=site.schema)
        await all_finished(site)


async def test_suspects_whose_executor_is_full_wait_and_run_when_it_is_not(site):
    site.submit(*[limit_tasks.pid_slowly.bind() for _ in range(12)])
    make_suspects(site)
    async with working(site.app(), WorkerConfig(timing=FAST, grace=1, children=1)):
        await all_finished(site)
    assert states(site) == {"succeeded": 12}


async def test_a_child_that_dies_makes_no_suspect(site):
    (job,) = site.submit(limit_tasks.die.using(max_attempts=1).bind("SIGKILL"))
    async with working(site.app()):
        await all_finished(site)
    assert (site.row(job).crashes, site.row(job).errors[-1].kind) == (0, "ProcessDied")


async def test_suspects_whose_workers_lease_is_lost_begin_anew_under_the_next(site):
    jobs = site.submit(*[pass_gate.bind("lease") for _ in range(6)])
    make_suspects(site)
    running = "SELECT DISTINCT worker FROM {}.job WHERE state = 'running'"
    async with working(site.app(), WorkerConfig(timing=replace(MORTAL, harmless=3600), grace=1)):
        await begun(site, FIRST)
        ((first,),) = site.rows(running)
        site.rows("DELETE FROM {}.worker RETURNING id")
        await eventually(lambda: site.rows(running) not in ([], [(first,)]))
        await begun(site, FIRST)
        gates["lease"].set()
        await all_finished(site)
    assert {(site.row(job).state, site.row(job).attempt, site.row(job).crashes) for job in jobs} == {
        (State.SUCCEEDED, 2, 1)
    }


async def test_the_jobs_of_a_killed_worker_are_claimed_once_more_each(site, tmp_path):
    gate = tmp_path / "gate"
    first = site.spawn(concurrency=30)
    jobs = site.submit(*[wait_for_file.bind(str(gate)) for _ in range(30)])
    await eventually(lambda: site.count("running") == 30)
    first.end()
    gate.touch()
    site.spawn(concurrency=30)
    await all_finished(site)
    rows = [site.row(job) for job in jobs]
    assert {(row.state, row.attempt, row.crashes) for row in rows} == {(State.SUCCEEDED, 2, 1)}
    assert {error.kind for row in rows for error in row.errors} == {"WorkerDied"}
    assert claims(site) == 60


async def test_a_job_with_a_single_attempt_is_over_with_its_worker(site):
    first = site.spawn()
    jobs = site.submit(*[nap.using(max_attempts=1).bind(60) for _ in range(3)])
    await eventually(lambda: site.count("running") == 3)
    first.signal(signal.SIGKILL)
    site.spawn()
    await all_finished(site)
    assert {(site.row(job).state, site.row(job).errors[-1].kind) for job in jobs} == {(State.FAILED, "WorkerDied")}


async def test_a_rescue_says_failed_of_what_failed_and_cancelled_of_what_was_to_stop(site, caplog):
    caplog.set_level("INFO", "chancy.worker")
    dead = send(site.conn, register("dead", 60), site.schema)
    failed, stopped, again = site.submit(nap.using(max_attempts=1).bind(0), nap.bind(0), nap.bind(0))
    send(site.conn, play_round(dead, [], Wanted({"default": 3}, looking=("default",))), site.schema)
    chancy.cancel(site.conn, stopped.id, schema=site.schema)
    send(site.conn, declare_dead(worker=dead), site.schema)
    async with working(site.app(), SOON_MISSED):
        await all_finished(site)
    states = [site.row(job).state for job in (failed, stopped, again)]
    assert states == [State.FAILED, State.CANCELLED, State.SUCCEEDED]
    said = [
        (record.levelname, record.getMessage()) for record in caplog.records if "dead workers" in record.getMessage()
    ]
    assert said == [
        ("WARNING", "took back 1 jobs of dead workers"),
        ("ERROR", "1 jobs of dead workers had no attempt left, and have failed"),
        ("INFO", "1 jobs of dead workers had been asked to stop, and are cancelled"),
    ]


async def test_a_poison_job_takes_nobodys_last_attempt_where_everybody_has_two(site):
    two = {"max_attempts": 2}
    innocent = site.submit(*[nap.using(**two).bind(0.02) for _ in range(30)])
    (poison,) = site.submit(kill_my_worker.using(**two).bind())
    innocent += site.submit(*[nap.using(**two).bind(0.02) for _ in range(30)])
    lives = replace(MORTAL, lease=4)  # but for those that are killed, on a busy machine, too
    workers = [site.spawn(timing=lives), site.spawn(timing=lives)]

    def keep_two_alive():
        for index, worker in enumerate(workers):
            if worker.code is not None:
                workers[index] = site.spawn(timing=lives)
        return site.one("SELECT count(*) FROM {}.job") == 0

    await eventually(keep_two_alive, 80)
    row = site.row(poison)
    assert (row.state, row.attempt, row.errors[-1].kind) == (State.FAILED, 2, "WorkerDied")
    assert {site.row(job).state for job in innocent} == {State.SUCCEEDED}


async def test_a_rescue_goes_on_at_once_while_there_is_more_to_take_back(site, monkeypatch):
    looks = []
    unwatched = Link.send

    async def told(link, statement):
        answer = await unwatched(link, statement)
        if statement.sql == DECLARE_DEAD and statement.params["worker"] is None:
            looks.append("look")
        if statement.sql == TAKE_BACK:
            looks.append(answer[0])
        return answer

    monkeypatch.setattr(Link, "send", told)
    site.submit(*[add.using(queue="elsewhere").bind(1, n) for n in range(1_700)])
    site.rows("""
        INSERT INTO {0}.worker (name, started_at, expires_at)
        SELECT 'gone:' || n, now(), now() - interval '1 s' FROM generate_series(1, 7) AS n RETURNING id
    """)
    site.rows("""
        UPDATE {0}.job SET state = 'running', attempt = 1, claims = 1, started_at = now(),
            worker = (SELECT min(id) FROM {0}.worker) + id %% 7 RETURNING id
    """)
    async with working(site.app(), SOON_MISSED):
        await eventually(lambda: looks[-1:] == [0])
    while looks[0] == "look" and looks[1] in ("look", 0):
        looks = looks[1:]
    assert looks[: looks.index(0) + 1] == ["look", 500, 500, 500, 200, 0]


async def test_a_lease_that_nobody_extends_is_seen_to_run_out_between_two_looks(site):
    (job,) = site.submit(add.bind(1, 2))
    gone = send(site.conn, register("gone", 4), site.schema)
    site.rows(
        "UPDATE {}.job SET state = 'running', worker = %s, attempt = 1, claims = 1, started_at = now() RETURNING id",
        gone,
    )
    rare = Timing(lease=1.5, extend=0.5, rescue=3600)
    async with working(site.app(), WorkerConfig(timing=rare, grace=1)):
        await eventually(lambda: site.row(job).state is State.SUCCEEDED)
    assert site.row(job).attempt == 2
