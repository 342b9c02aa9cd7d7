"""Limits over all workers, and groups that take turns, with real workers on real Postgres."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import gate_tasks as tasks
import psycopg
import pytest
import worker_tasks
from worker_help import FAST, all_finished, eventually, states, working

import chancy
from chancy import Backoff, Limit, State
from chancy.run import send
from chancy_worker import WorkerConfig
from chancy_worker.claims import Wanted, play_round
from chancy_worker.gatekeeper import Gatekeeper, _Circle, admit
from chancy_worker.leases import declare_dead, register, take_back
from chancy_worker.verdict import released


@pytest.fixture(autouse=True)
def clean():
    for kept in (tasks.now_running, tasks.most, tasks.began):
        kept.clear()


def admitted(site, queue="default", want=100, spot=""):
    (answer,) = send(site.conn, admit({queue: want}, {queue: spot}), site.schema)
    return answer


async def test_no_more_run_at_a_time_than_the_limit_says(site):
    site.submit(*[tasks.three.bind() for _ in range(40)])
    async with working(site.app()), working(site.app()):
        await all_finished(site)
    assert (tasks.most, states(site)) == ({"three": 3}, {"succeeded": 40})


async def test_each_key_has_a_limit_of_its_own(site):
    site.submit(*[tasks.two_a_customer.bind(f"c{n % 7}") for n in range(70)])
    async with working(site.app()), working(site.app()):
        await all_finished(site)
    assert tasks.most == {f"c{n}": 2 for n in range(7)}


async def test_a_job_waits_for_each_of_its_limits(site):
    site.submit(*[tasks.one_a_customer_of_three.bind(f"c{n % 5}") for n in range(50)])
    async with working(site.app()), working(site.app()):
        await all_finished(site)
    assert tasks.most == {f"c{n}": 1 for n in range(5)} | {"all": 3}


async def test_a_rate_is_kept_in_every_window_and_used_up(site):
    site.submit(*[tasks.five_in_half_a_second.bind() for _ in range(25)])
    async with working(site.app()), working(site.app()):
        await all_finished(site)
    starts = [at for (at,) in site.rows("SELECT started_at FROM {}.any_job ORDER BY started_at")]
    windows = [(late - early).total_seconds() for early, late in zip(starts, starts[5:], strict=False)]
    assert min(windows) >= 0.5
    assert (starts[-1] - starts[0]).total_seconds() < 10  # 2 s, and 20 if each place were found by the fallback look


async def test_groups_take_turns(site):
    site.submit(*[tasks.in_turn.bind("many", n) for n in range(300)])
    site.submit(tasks.in_turn.bind("one", 0))
    site.submit(*[tasks.in_turn.bind("some", n) for n in range(20)])
    async with working(site.app(concurrency=4)):
        await all_finished(site)
    order = [group for group, _ in tasks.began]
    assert order.index("one") < 10
    assert 38 <= len(order) - order[::-1].index("some") <= 60


async def test_what_waits_for_a_full_limit_keeps_nobody_waiting(site):
    blocked = site.submit(*[tasks.three.bind(60) for _ in range(2000)])
    free = site.submit(
        *[tasks.in_turn.bind("t", n) for n in range(10)], *[worker_tasks.add.bind(1, 2) for _ in range(10)]
    )
    async with working(site.app(), WorkerConfig(timing=FAST, grace=0)):
        await eventually(lambda: site.count("succeeded") == 20)
        assert site.count("running") == 3
    assert {site.row(job).state for job in free} == {State.SUCCEEDED}
    assert site.row(blocked[0]).attempt == 0  # interrupted, and refunded


async def test_a_slot_is_free_again_after_a_retry_a_failure_and_a_release(site):
    (failing,) = site.submit(tasks.alone.using(retry=Backoff(base=timedelta(hours=1))).bind(fail=True))
    async with working(site.app()):
        await eventually(lambda: site.row(failing).attempt == 1 and site.row(failing).state is State.SCHEDULED)
        site.submit(*[tasks.alone.bind() for _ in range(5)])
        await eventually(lambda: site.count("succeeded") == 5)
    assert tasks.most == {"alone": 1}
    assert site.rows("SELECT parked FROM {}.job") == [("concurrency(gate_tasks.alone)",)]


def test_a_dead_workers_slots_are_given_back_by_the_rescue(site):
    jobs = site.submit(*[tasks.three.bind() for _ in range(5)])
    assert admitted(site).admitted == 3
    dead = send(site.conn, register("dead", 60), site.schema)
    claim = Wanted({"default": 100}, looking=("default",))
    answer = send(site.conn, play_round(dead, [], claim), site.schema)
    assert [job.id for job in answer.claimed] == [job.id for job in jobs[:3]]
    assert admitted(site).admitted == 0
    send(site.conn, declare_dead(worker=dead), site.schema)
    assert send(site.conn, take_back(), site.schema) == (3, 0)
    assert admitted(site).admitted == 3
    assert site.one("SELECT count(*) FROM {}.job WHERE parked IS NULL") == 3


def test_a_claim_that_was_lost_keeps_no_slot_from_the_next(site):
    """A released job is admitted again under another slot, and its old one is nobody's."""
    site.submit(tasks.alone.bind(), tasks.alone.bind())
    worker = send(site.conn, register("w", 60), site.schema)
    for _ in range(4):
        assert admitted(site).admitted == 1
        (job,) = send(
            site.conn, play_round(worker, [], Wanted({"default": 9}, looking=("default",))), site.schema
        ).claimed
        send(site.conn, play_round(worker, [released(job, "")], Wanted()), site.schema)
    assert site.one("SELECT count(*) FROM {}.slot") == 1


def test_a_cancelled_job_gives_up_what_it_was_admitted_to(site):
    first, _ = site.submit(tasks.alone.bind(), tasks.alone.bind())
    assert (admitted(site).admitted, admitted(site).admitted) == (1, 0)
    first.cancel(site.conn)
    assert admitted(site).admitted == 1


def test_a_requeued_job_waits_for_its_limit_again(site):
    first, second = site.submit(tasks.alone.bind(), tasks.alone.bind())
    first.cancel(site.conn)
    assert admitted(site).admitted == 1
    chancy.requeue(site.conn, first.id, schema=site.schema)
    assert admitted(site).admitted == 0
    second.cancel(site.conn)
    assert admitted(site).admitted == 1


async def test_two_that_admit_at_a_time_admit_no_more_than_the_limit(site):
    """Each waits for the other's commit, and sees it."""
    site.submit(*[tasks.three.bind() for _ in range(10)])
    with psycopg.connect(site.dsn) as one, psycopg.connect(site.dsn, autocommit=True) as two:
        assert send(one, admit({"default": 2}, {}), site.schema)[0].admitted == 2
        waiting = asyncio.create_task(asyncio.to_thread(send, two, admit({"default": 9}, {}), site.schema))
        await eventually(
            lambda: site.one(
                "SELECT count(*) FROM pg_locks, (SELECT {}.clock()) AS x WHERE locktype = 'advisory' AND NOT granted AND pid = %s",
                two.info.backend_pid,
            )
        )
        one.commit()
        assert (await waiting)[0].admitted == 1


@pytest.mark.parametrize(("before", "after", "more"), [(3, 5, 2), (5, 2, 0)])
def test_a_limit_counts_as_the_waiting_job_says_it(site, before, after, more):
    site.submit(*[tasks.three.using(limits=[Limit.concurrency(before, key="it")]).bind() for _ in range(9)])
    assert admitted(site).admitted == before
    site.rows(
        "UPDATE {}.job SET gates = replace(gates::text, %s, %s)::json RETURNING 1",
        f'"most":{before}',
        f'"most":{after}',
    )
    assert admitted(site).admitted == more


def test_admission_goes_round_in_a_circle(site):
    site.submit(*[tasks.in_turn.bind(f"t{n % 4}", n) for n in range(12)])
    first = admitted(site, want=3)
    assert (first.admitted, first.more, first.stopped_at) == (3, True, "group(t2) ")
    second = admitted(site, want=3, spot=first.stopped_at)
    left = site.rows("SELECT parked, count(*)::int FROM {}.job WHERE parked IS NOT NULL GROUP BY 1 ORDER BY 1")
    assert left == [("group(t0)", 1), ("group(t1)", 1), ("group(t2)", 2), ("group(t3)", 2)]
    rest = admitted(site, spot=second.stopped_at)
    assert (rest.admitted, rest.more, rest.next_in) == (6, False, None)


def test_a_place_that_has_been_given_up_goes_to_the_highest_priority_that_waits_for_it(site):
    first, second, urgent = site.submit(
        tasks.alone.bind(),
        tasks.alone.bind(),
        tasks.alone.using(priority=5).bind(),
    )
    assert admitted(site, want=1).admitted == 1
    assert site.rows("SELECT id FROM {}.job WHERE parked IS NULL") == [(urgent.id,)]
    urgent.cancel(site.conn)
    key = "concurrency(gate_tasks.alone)"
    (answer,) = send(site.conn, admit({"default": 9}, {}, [("default", key)]), site.schema)
    assert (answer.admitted, answer.stopped_at) == (1, None)  # without having gone round
    assert site.rows("SELECT id FROM {}.job WHERE parked IS NULL") == [(first.id,)]
    first.cancel(site.conn)
    (higher,) = site.submit(tasks.alone.using(priority=9).bind())
    send(site.conn, admit({"default": 9}, {}, [("default", key)]), site.schema)
    assert site.rows("SELECT id FROM {}.job WHERE parked IS NULL") == [(higher.id,)]
    assert site.row(second).state is State.READY


def test_a_place_of_a_limit_that_others_share_is_given_on_in_a_circle(site):
    first, _ = site.submit(*[tasks.one_a_customer_of_three.bind("a") for _ in range(2)])
    (urgent,) = site.submit(tasks.one_a_customer_of_three.using(priority=5).bind("b"))
    site.rows("UPDATE {}.job SET gates = replace(gates::text, '\"most\":3', '\"most\":1')::json RETURNING 1")
    site.rows("UPDATE {}.job SET parked = NULL WHERE id = %s RETURNING 1", first.id)
    key = site.one("SELECT gates->>'key' FROM {}.job WHERE id = %s", first.id)
    first.cancel(site.conn)
    (answer,) = send(site.conn, admit({"default": 9}, {}, [("default", key)]), site.schema)
    assert answer.admitted == 1
    assert site.rows("SELECT id FROM {}.job WHERE parked IS NULL") == [(urgent.id,)]


def test_a_parked_job_that_is_scheduled_says_when_it_is_due(site):
    site.submit(tasks.alone.using(delay=timedelta(seconds=50)).bind())
    answer = admitted(site)
    assert (answer.admitted, 49 < answer.next_in <= 50) == (0, True)


async def test_a_queue_is_limited_at_run_time_and_the_limit_is_changed_and_lifted(site):
    gate = tasks.gate = asyncio.Event()
    chancy.limit(site.conn, "default", concurrency=2, schema=site.schema)
    site.submit(*[tasks.at_gate.bind() for _ in range(30)])
    async with working(site.app(concurrency=8)), working(site.app(concurrency=8)):
        await eventually(lambda: site.count("running") == 2)
        chancy.limit(site.conn, "default", concurrency=5, schema=site.schema)
        await eventually(lambda: site.count("running") == 5)
        chancy.limit(site.conn, "default", concurrency=1, schema=site.schema)
        gate.set()
        await eventually(lambda: site.count("succeeded") >= 6)
        assert (site.count("running") <= 1, tasks.most) == (True, {"gate": 5})
        chancy.limit(site.conn, "default", concurrency=None, schema=site.schema)
        await all_finished(site, 10)


def test_two_that_claim_at_a_time_claim_no_more_than_the_queues_limit(site):
    chancy.limit(site.conn, "default", concurrency=3, schema=site.schema)
    site.submit(*[worker_tasks.add.bind(1, 2) for _ in range(10)])
    worker = send(site.conn, register("w", 60), site.schema)
    claim = play_round(worker, [], Wanted({"default": 2}, looking=("default",)))
    with psycopg.connect(site.dsn) as one:
        first = send(one, claim, site.schema)
        site.conn.execute("SET lock_timeout = '20ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            send(site.conn, claim, site.schema)
        one.commit()
    second = send(site.conn, claim, site.schema)
    third = send(site.conn, claim, site.schema)
    assert [len(answer.claimed) for answer in (first, second, third)] == [2, 1, 0]
    assert [answer.at_limit for answer in (first, second, third)] == [[], ["default"], ["default"]]


def test_slots_that_are_nobodys_are_swept_up_and_the_others_stay(site):
    site.submit(*[tasks.two_a_customer.bind(f"c{n}") for n in range(6)], tasks.five_in_half_a_second.bind())
    assert admitted(site).admitted == 7
    for job in chancy.jobs(site.conn, task=tasks.two_a_customer.name, limit=4, schema=site.schema):
        chancy.cancel(site.conn, job.id, schema=site.schema)
    assert site.one("SELECT {}.sweep_slots(3)") == 3
    assert site.one("SELECT {}.sweep_slots(3)") == 1
    assert site.one("SELECT count(*) FROM {}.slot") == 3


def test_an_old_slot_of_a_job_that_has_another_one_now_is_free(site):
    first, second = site.submit(*[tasks.two_a_customer.bind("c") for _ in range(2)])
    worker = send(site.conn, register("w", 60), site.schema)
    assert admitted(site).admitted == 2
    claimed = send(site.conn, play_round(worker, [], Wanted({"default": 9}, looking=("default",))), site.schema).claimed
    send(site.conn, play_round(worker, [released(job, "") for job in claimed], Wanted()), site.schema)
    site.rows("UPDATE {}.job SET priority = 5 WHERE id = %s RETURNING id", second.id)
    assert admitted(site, want=1).admitted == 1
    assert site.rows("SELECT n, job FROM {}.slot ORDER BY n") == [(1, second.id), (2, second.id)]
    assert admitted(site, want=1).admitted == 1
    assert site.rows("SELECT n, job FROM {}.slot ORDER BY n") == [(1, second.id), (2, first.id)]


async def test_many_keys_that_are_used_up_are_gone_through_once_and_left_alone_until_time_opens_one(site):
    keys = [tasks.once_an_hour.bind(f"c{n:04}") for n in range(1300)]
    site.submit(*keys)
    site.rows(
        "INSERT INTO {0}.slot (gate, n, job, fence, per, opens_at) "
        "SELECT gates->'gates'->0->>'name', 1, id, 0, interval '1 h', now() + interval '1 h' FROM {0}.job RETURNING 1"
    )
    keeper = Gatekeeper()
    keeper.looked(["default"], ["default"])
    calls = 0
    while keeper.due_in < 10:
        await asyncio.sleep(max(keeper.due_in, 0))
        assert not keeper.learn(send(site.conn, keeper.wish({"default": 5}), site.schema))
        calls += 1
        assert calls < 10
    assert (calls, 3500 < keeper.due_in <= 3600) == (3, True)
    keeper.opened()
    site.rows("UPDATE {0}.slot SET opens_at = now() WHERE gate LIKE '%%c0777%%' RETURNING 1")
    while not keeper.learn(send(site.conn, keeper.wish({"default": 5}), site.schema)):
        calls += 1
        assert calls < 10
    assert site.rows("SELECT arguments->>'who' FROM {0}.job WHERE parked IS NULL") == [("c0777",)]


@pytest.mark.parametrize(
    ("origin", "spots", "rounds"),
    [
        ("", ["b", "d", ""], [False, False, True]),
        ("", ["b", "d", "a"], [False, False, True]),
        ("c", ["d", "a", "b", "c"], [False, False, False, True]),
        ("c", ["d", "a", "e"], [False, False, True]),
        ("c", ["c"], [False]),
    ],
)
def test_a_circle_has_come_round_when_it_passes_where_it_began(origin, spots, rounds):
    circle = _Circle(origin)
    assert [circle.turn(spot) for spot in spots] == rounds
