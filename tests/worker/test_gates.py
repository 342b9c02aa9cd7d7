"""Limits over all workers, and groups that take turns, with real workers on real Postgres."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import timedelta

import gate_tasks as tasks
import psycopg
import pytest
import worker_tasks
from worker_help import FAST, all_finished, eventually, states, working

import chancy
import chancy_ops
from chancy import Backoff, Limit, State
from chancy.current import CurrentJob
from chancy.run import send
from chancy_worker import WorkerConfig
from chancy_worker.attempts.verdict import Completion, cancelled, released, succeeded
from chancy_worker.claims.gates import Ending, Gatekeeper, _Place, ending_of, reach
from chancy_worker.claims.plans import plans_of_gates
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import START, Circle, Flow, Wanted
from chancy_worker.life.lease import Offer, register
from chancy_worker.life.rescue import declare_dead, take_back
from chancy_worker.metrics.looks import look


@pytest.fixture(autouse=True)
def clean():
    for kept in (tasks.now_running, tasks.most, tasks.began):
        kept.clear()


@pytest.fixture
def worker(site):
    return send(site.conn, register("w", 60), site.schema)


def play(site, worker, verdicts=(), *, want=100, spot="", goes_round=True, suspects=0, conn=None):
    """A round of a worker that has to do with gates."""
    wanted = Wanted({"default": want} if want else {}, gated={"default": Circle(goes_round, spot, suspects=suspects)})
    return send(conn or site.conn, play_round(worker, list(verdicts), wanted), site.schema)


def hand_on(site, worker, *jobs, want=100, marks=None, looking=(), without=()):
    """A round that hands on the slots of these, which have succeeded, and does no more than that."""
    wanted = Wanted(
        {"default": want} if want else {}, looking=looking, without=without,
        gated={"default": Circle(marks=marks or {}, hands_on=True, leaving=len(jobs))},
        places={job.id: job.slot_at for job in jobs if job.slot_at is not None},
    )  # fmt: skip
    assert wanted.hands_on
    return send(site.conn, play_round(worker, [succeeded(job, b"1") for job in jobs], wanted), site.schema)


def due_in(keeper):
    """Seconds until it is worth a try: 0 is now."""
    now = time.monotonic()
    return 0 if keeper.due(now) else keeper.next_at(now) - now


def end(site, worker, *jobs):
    """Their claims are over, and their slots left as they are: by a round that knows of no gates."""
    send(site.conn, play_round(worker, [succeeded(job, b"null") for job in jobs], Wanted()), site.schema)


def ids(answer):
    return [job.id for job in answer.claimed]


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
        await eventually(lambda: site.count("running") == 3)
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


def oldest(site):
    """As `chancy queues` and as a scrape has it."""
    (row,) = chancy_ops.queues(site.conn, schema=site.schema)
    seen = send(site.conn, look(["default", "none"], sampled=True), site.schema).oldest
    assert seen.keys() == ({"default"} if row.oldest_at else set())
    return row.oldest_at


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize(
    "new",
    [
        tasks.three.bind(),
        tasks.one_a_customer_of_three.bind("c"),
        tasks.five_in_half_a_second.bind(),
        tasks.in_turn.bind("t", 1),
    ],
    ids=lambda new: new.task,
)
def test_what_no_limit_and_no_turn_keeps_waiting_has_an_age_as_jobs_without_them(site, new, paused):
    if paused:
        chancy_ops.pause(site.conn, "default", schema=site.schema)
    job, _ = site.submit(new, new)
    assert oldest(site) == site.row(job).run_at


def test_what_waits_for_a_limit_has_no_age_until_that_has_room(site, worker):
    site.submit(*[tasks.five_in_half_a_second.bind() for _ in range(6)])
    jobs = site.submit(*[tasks.three.bind() for _ in range(5)])
    claimed = play(site, worker).claimed
    assert len(claimed) == 8
    assert oldest(site) is None
    three = next(job for job in claimed if job.task == tasks.three.name)
    chancy_ops.pause(site.conn, "default", schema=site.schema)
    play(site, worker, [succeeded(three, b"null")], want=0)
    assert oldest(site) == site.row(jobs[3]).run_at


def test_behind_a_full_limit_the_next_key_is_looked_at_and_the_oldest_counts(site, worker):
    *_, with_room = site.submit(*[tasks.two_a_customer.bind(customer) for customer in "aaabbc"])
    assert len(play(site, worker, want=4).claimed) == 4
    _, earlier = site.submit(tasks.two_a_customer.bind("d"), tasks.two_a_customer.bind("e"))
    site.rows("UPDATE {}.job SET run_at = run_at - interval '1 h' WHERE id = %s RETURNING 1", earlier.id)
    assert oldest(site) == site.row(earlier).run_at
    site.rows("UPDATE {}.job SET run_at = run_at + interval '9 h' WHERE id = %s RETURNING 1", earlier.id)
    assert oldest(site) == site.row(with_room).run_at


def test_a_dead_workers_slots_are_given_back_by_the_rescue(site, worker):
    jobs = site.submit(*[tasks.three.bind() for _ in range(5)])
    dead = send(site.conn, register("dead", 60), site.schema)
    assert ids(play(site, dead)) == [job.id for job in jobs[:3]]
    assert ids(play(site, worker)) == []
    send(site.conn, declare_dead(worker=dead), site.schema)
    assert ids(play(site, worker)) == []  # they may still run
    assert send(site.conn, take_back(), site.schema)[:2] == (3, 0)
    assert ids(play(site, worker)) == [job.id for job in jobs[3:]]
    assert ids(play(site, worker, suspects=1)) == [jobs[0].id]


def test_a_suspect_that_waits_for_a_limit_is_claimed_alone_and_only_when_one_may_come(site, worker):
    lone, *company = site.submit(*[tasks.three.bind() for _ in range(3)])
    dead = send(site.conn, register("dead", 60), site.schema)
    assert len(play(site, dead).claimed) == 3
    send(site.conn, declare_dead(worker=dead), site.schema)
    assert send(site.conn, take_back(), site.schema)[:2] == (3, 0)
    site.rows("UPDATE {}.job SET crashes = 2 WHERE id = %s RETURNING 1", lone.id)
    assert ids(play(site, worker)) == []
    assert [ids(play(site, worker, suspects=1)) for _ in range(3)] == [[company[0].id], [company[1].id], []]
    assert ids(play(site, worker, suspects=2)) == [lone.id]


def test_a_claim_that_was_lost_keeps_no_slot_from_the_next(site, worker):
    """A released job is claimed again with another slot, or with its own, and has no second one."""
    site.submit(tasks.alone.bind(), tasks.alone.bind())
    for _ in range(4):
        (job,) = play(site, worker).claimed
        send(site.conn, play_round(worker, [released(job, "")], Wanted()), site.schema)
    assert site.one("SELECT count(*) FROM {}.slot") == 1


@pytest.mark.parametrize("ending", [cancelled, lambda job: succeeded(job, b"1"), lambda job: released(job, "")])
@pytest.mark.parametrize("knows", [True, False])
def test_whoever_waits_gets_the_place_of_a_job_that_ends(site, worker, ending, knows):
    """In the round that writes the verdict; or in the next one, if that has no room or knows nothing of gates."""
    first, second = site.submit(tasks.alone.bind(), tasks.alone.bind())
    (job,) = play(site, worker).claimed
    assert ids(play(site, worker)) == []
    if knows:
        answer = play(site, worker, [ending(job)], goes_round=False)
    else:
        send(site.conn, play_round(worker, [ending(job)], Wanted()), site.schema)
        answer = play(site, worker)
    assert ids(answer) == [first.id if ending(job).refund else second.id]
    assert site.one("SELECT count(*) FROM {}.slot") == 1


def test_a_place_that_a_round_cannot_hand_on_is_free(site, worker):
    site.submit(tasks.alone.bind(), tasks.alone.bind())
    (job,) = play(site, worker).claimed
    answer = play(site, worker, [succeeded(job, b"1")], want=0)
    assert (ids(answer), [each.again for each in answer.admissions]) == ([], [True])
    assert site.rows("SELECT opens_at = '-infinity' FROM {}.slot") == [(True,)]
    assert len(play(site, worker).claimed) == 1


def test_a_job_that_completes_in_its_own_transaction_has_given_up_its_place(site, worker):
    site.submit(tasks.alone.bind(), tasks.alone.bind())
    (job,) = play(site, worker).claimed
    current = CurrentJob(job.id, job.task, "default", 1, 3, fence=job.fence, lease=job.lease, schema=site.schema)
    with site.conn.transaction():
        current.complete(site.conn, b"null")
    assert len(play(site, worker).claimed) == 1


def test_a_requeued_job_waits_for_its_limit_again(site, worker):
    first, second = site.submit(tasks.alone.bind(), tasks.alone.bind())
    first.cancel(site.conn)
    (job,) = play(site, worker).claimed
    chancy.requeue(site.conn, first.id, schema=site.schema)
    assert ids(play(site, worker)) == []
    assert ids(play(site, worker, [succeeded(job, b"1")])) == [first.id]
    assert site.row(second).state is State.SUCCEEDED


@pytest.mark.parametrize("slots", ["new", "free"])
def test_two_that_claim_at_a_time_never_claim_more_than_the_limit_and_neither_waits(site, worker, slots):
    site.submit(*[tasks.three.bind() for _ in range(10)])
    if slots == "free":
        end(site, worker, *play(site, worker, want=3).claimed)
        assert len(site.rows("UPDATE {}.slot SET opens_at = '-infinity' RETURNING n")) == 3
    other = send(site.conn, register("other", 60), site.schema)
    site.conn.execute("SET lock_timeout = '1ms'")
    with psycopg.connect(site.dsn) as one:
        assert len(play(site, worker, want=2, conn=one).claimed) == 2
        meanwhile = play(site, other)
        assert (len(meanwhile.claimed), meanwhile.admissions[0].again) == ((1, False) if slots == "free" else (0, True))
        one.commit()
    after = play(site, other)
    assert len(meanwhile.claimed) + len(after.claimed) == 1
    assert site.count("running") == 3


@pytest.mark.parametrize(("before", "after", "more"), [(3, 5, 2), (5, 2, 0)])
def test_a_limit_counts_as_the_waiting_job_says_it(site, worker, before, after, more):
    site.submit(*[tasks.three.using(limits=[Limit.concurrency(before, key="it")]).bind() for _ in range(9)])
    assert len(play(site, worker).claimed) == before
    say(site, before, after)
    assert len(play(site, worker).claimed) == more


def say(site, before, after):
    """The jobs that wait have another limit, as after a deploy."""
    site.rows(
        "UPDATE {}.job SET gates = replace(gates::text, %s, %s)::json WHERE state = 'ready' RETURNING 1",
        f'"most":{before}',
        f'"most":{after}',
    )


def test_a_place_is_not_handed_on_to_a_job_with_a_lower_limit_before_there_is_room(site, worker):
    site.submit(*[tasks.three.using(limits=[Limit.concurrency(5, key="it")]).bind() for _ in range(9)])
    jobs = play(site, worker).claimed
    say(site, 5, 2)
    claimed = [len(play(site, worker, [succeeded(job, b"1")]).claimed) for job in jobs]
    assert claimed == [0, 0, 0, 1, 1]


def test_who_hands_on_gives_each_place_to_the_next_under_the_same_key_the_most_urgent_first(site, worker):
    jobs = site.submit(*[tasks.two_a_customer.bind(f"c{n % 3}") for n in range(18)])
    (urgent,) = site.submit(tasks.two_a_customer.using(priority=5).bind("c1"))
    (low,) = site.submit(tasks.two_a_customer.using(priority=-5).bind("c2"))
    by_key = {f"c{n}": [job.id for job in jobs[n::3]] for n in range(3)}
    by_key["c1"].insert(0, urgent.id)
    by_key["c2"].append(low.id)
    begun = play(site, worker).claimed
    while begun:
        assert site.count("running") == len(begun)
        for key, waiting in by_key.items():
            mine = [job.id for job in begun if json.loads(job.arguments)["customer"] == key]
            assert mine == waiting[: len(mine)], key
            del waiting[: len(mine)]
        places = len(begun)
        answer = hand_on(site, worker, *begun)
        assert {job.parked for job in answer.claimed} <= {job.parked for job in begun}
        begun = sorted(answer.claimed, key=lambda job: (-job.priority, job.id))
        (said,) = answer.admissions
        assert (said.admitted, said.more, said.again) == (len(begun), len(begun) < places, False)
    assert by_key == {"c0": [], "c1": [], "c2": []}
    owners = site.rows("SELECT gate, n, opens_at = '-infinity' FROM {}.slot ORDER BY 1, 2")
    assert [(n, is_free) for _, n, is_free in owners] == [(1, True), (2, True)] * 3


def test_a_place_that_is_handed_on_belongs_to_the_claim_that_has_got_it(site, worker):
    site.submit(*[tasks.three.bind() for _ in range(9)])
    first = play(site, worker).claimed
    second = hand_on(site, worker, *first[:2]).claimed
    running = site.rows("SELECT id, claims, slots[1] FROM {}.job WHERE state = 'running' ORDER BY 3")
    assert [n for _, _, n in running] == [1, 2, 3]
    assert site.rows("SELECT job, fence, n FROM {}.slot WHERE opens_at IS NULL ORDER BY 3") == running
    assert ids(play(site, worker)) == []
    assert len(second) == 2
    assert len(hand_on(site, worker, *second, first[2]).claimed) == 3


def test_who_hands_on_finds_a_slot_where_it_was_left_and_one_that_has_moved_is_free_all_the_same(site, worker):
    site.submit(*[tasks.three.bind() for _ in range(12)])
    begun = hand_on(site, worker, *play(site, worker).claimed).claimed
    places = site.rows("SELECT job, ctid::text FROM {}.slot ORDER BY 1")
    assert sorted((job.id, job.slot_at) for job in begun) == places
    assert [job.slot_at is None for job in hand_on(site, worker, *begun[:1]).claimed] == [False]
    site.conn.execute(f"INSERT INTO {site.schema}.slot SELECT 'other', n FROM generate_series(1, 500) AS n")
    site.conn.execute(f"UPDATE {site.schema}.slot SET n = n WHERE job = {begun[1].id}")  # as VACUUM FULL would
    answer = hand_on(site, worker, *begun[1:])
    assert len(answer.claimed) == 1
    assert len(play(site, worker).claimed) == 1
    assert site.count("running") == 3


def test_who_hands_on_goes_on_behind_the_marks(site, worker):
    site.submit(*[tasks.three.bind() for _ in range(9)])
    first = play(site, worker)
    answer = hand_on(site, worker, *first.claimed, marks=first.gate_marks["default"])
    assert len(answer.claimed) == 3
    behind = {lane: (at, id_ + 1) for lane, (at, id_) in answer.gate_marks["default"].items()}
    assert ids(hand_on(site, worker, *answer.claimed, marks=behind)) == [answer.claimed[-1].id + n for n in (2, 3)]


def test_nobody_is_handed_a_place_of_a_limit_that_he_says_is_lower(site, worker):
    site.submit(*[tasks.three.using(limits=[Limit.concurrency(5, key="it")]).bind() for _ in range(9)])
    jobs = play(site, worker).claimed
    say(site, 5, 2)
    assert [len(hand_on(site, worker, job).claimed) for job in jobs] == [0] * 5
    assert len(play(site, worker).claimed) == 2


def test_nobody_is_handed_a_place_on_while_shares_leave_no_room_for_it(site, worker):
    submit_of_twenty(site, 60)
    by_share(site, send(site.conn, register("other", 60), site.schema), want=4)
    site.rows("UPDATE {}.share SET most = 10 RETURNING 1")
    jobs = play(site, worker).claimed
    site.rows("UPDATE {}.share SET most = 10 RETURNING 1")  # as no worker would: more than is left
    assert (len(jobs), ids(hand_on(site, worker, *jobs))) == (16, [])


@pytest.mark.parametrize(
    "stranger",
    [
        pytest.param("crashes = 1, attempt = 1", id="a suspect"),
        pytest.param(
            "arguments = json_build_object('s', (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 300) AS n))",
            id="a large one",
        ),
        pytest.param("gates = replace(gates::text, '\"most\":3', '\"most\":4')::json", id="one of another limit"),
    ],
)
def test_a_place_is_handed_on_to_none_but_a_usual_job_under_the_same_limit(site, worker, stranger):
    site.submit(*[tasks.three.bind() for _ in range(6)])
    jobs = play(site, worker).claimed
    assert len(site.rows("UPDATE {}.job SET " + stranger + " WHERE state = 'ready' RETURNING 1")) == 3
    answer = hand_on(site, worker, *jobs)
    assert (ids(answer), answer.admissions[0].more) == ([], True)
    assert len(play(site, worker, suspects=2).claimed) == (1 if "crashes" in stranger else 3)


def test_where_jobs_without_limits_wait_no_place_is_handed_on_past_them(site, worker):
    site.submit(*[tasks.three.bind() for _ in range(3)])
    jobs = play(site, worker).claimed
    (plain,) = site.submit(worker_tasks.add.bind(1, 2))
    site.submit(*[tasks.three.bind() for _ in range(3)])
    answer = hand_on(site, worker, *jobs, looking=("default",))
    assert (ids(answer), [job.parked for job in answer.claimed]) == ([plain.id], [None])
    assert (answer.admissions[0].admitted, answer.admissions[0].more) == (0, True)
    assert len(play(site, worker).claimed) == 3


def test_who_hands_on_takes_no_more_than_it_has_room_for_and_tells_others_of_the_rest(site, worker):
    site.submit(*[tasks.three.bind() for _ in range(9)])
    jobs = play(site, worker).claimed
    answer = hand_on(site, worker, *jobs, want=1)
    assert (len(answer.claimed), answer.admissions[0].again) == (1, True)
    assert site.rows("SELECT count(*)::int FROM {}.slot WHERE opens_at = '-infinity'") == [(2,)]
    assert len(play(site, worker).claimed) == 2


def test_who_was_declared_dead_hands_on_to_nobody_and_the_place_is_free(site, worker):
    site.submit(*[tasks.three.bind() for _ in range(6)])
    jobs = play(site, worker).claimed
    send(site.conn, declare_dead(worker=worker), site.schema)
    answer = hand_on(site, worker, *jobs)
    assert (answer.settled, answer.holding, answer.claimed) == (3, False, [])
    assert site.rows("SELECT DISTINCT opens_at = '-infinity' FROM {}.slot") == [(True,)]


def test_a_place_is_handed_on_only_to_a_task_that_has_room_and_is_known(site):
    knows = offering(site, tasks.shared_one, tasks.shared_two)
    site.submit(*[tasks.shared_one.bind() for _ in range(4)], *[tasks.shared_two.bind() for _ in range(2)])
    jobs = play(site, knows).claimed
    answer = hand_on(site, knows, *jobs, without=(tasks.shared_one.name,))
    assert [job.task for job in answer.claimed] == [tasks.shared_two.name] * 2
    other = offering(site, tasks.three)
    assert ids(hand_on(site, other, *answer.claimed)) == []


def test_two_that_hand_on_under_one_key_pass_each_other_by(site, worker):
    site.submit(*[tasks.three.bind() for _ in range(9)])
    jobs = play(site, worker).claimed
    site.conn.execute("SET lock_timeout = '1ms'")
    wanted = Wanted({"default": 9}, gated={"default": Circle(hands_on=True, leaving=1)})
    with psycopg.connect(site.dsn) as one:
        first = send(one, play_round(worker, [succeeded(jobs[0], b"1")], wanted), site.schema)
        second = hand_on(site, worker, *jobs[1:])
        one.commit()
    assert [len(answer.claimed) for answer in (first, second)] == [1, 2]
    assert not set(ids(first)) & set(ids(second))
    assert site.count("running") == 3


def ended(keeper, queue, jobs, state=State.SUCCEEDED):
    return keeper.wish({queue: 100}, {queue: ending_of([(job.parked, state) for job in jobs])})


def test_a_worker_hands_on_without_looking_further_as_long_as_all_places_find_somebody(site, worker):
    site.submit(*[tasks.two_a_customer.bind(f"c{n % 5}") for n in range(35)])
    keeper, free = Gatekeeper(), {"default": 100}
    keeper.looked(["default"], ["default"])
    begun, wish = [], keeper.wish(free, {})
    hands_on = []
    while True:
        wanted = Wanted(free, gated=wish)
        hands_on.append(wanted.hands_on)
        answer = send(site.conn, play_round(worker, [succeeded(job, b"1") for job in begun], wanted), site.schema)
        keeper.learn(wish, free, answer, 0.0)
        begun = answer.claimed
        if not begun:
            break
        assert len(begun) <= 10
        wish = ended(keeper, "default", begun)
    assert hands_on == [False, False, True, True, False]  # 10, 10 handed on after a circle, 10, 5, and none
    assert site.count("succeeded") == 35


@pytest.mark.parametrize("other", ["it goes back", "a group", "two limits"])
def test_what_goes_back_or_has_passed_more_than_one_limit_is_seen_to_by_who_looks_further(site, worker, other):
    limited = {"a group": tasks.in_turn.bind("a", 1), "two limits": tasks.one_a_customer_of_three.bind("c")}
    site.submit(limited.get(other, tasks.three.bind()))
    keeper = Gatekeeper()
    (job,) = play(site, worker).claimed
    keeper.wish({}, {"default": Ending()})
    keeper._places["default"].hands_on = True
    state = State.READY if other == "it goes back" else State.SUCCEEDED
    assert not Wanted({"default": 1}, gated=ended(keeper, "default", [job], state)).hands_on


def test_admission_goes_round_in_a_circle(site, worker):
    site.submit(*[tasks.in_turn.bind(f"t{n % 4}", n) for n in range(12)])
    (first,) = play(site, worker, want=3).admissions
    assert (first.admitted, first.more, first.stopped_at) == (3, True, "group(t2) ")
    (second,) = play(site, worker, want=3, spot=first.stopped_at).admissions
    left = site.rows("SELECT parked, count(*)::int FROM {}.job WHERE state = 'ready' GROUP BY 1 ORDER BY 1")
    assert left == [("group(t0)", 1), ("group(t1)", 1), ("group(t2)", 2), ("group(t3)", 2)]
    (rest,) = play(site, worker, spot=second.stopped_at).admissions
    assert (rest.admitted, rest.more, rest.next_in) == (6, False, None)


def test_a_place_that_has_been_given_up_goes_to_the_highest_priority_that_waits_for_it(site, worker):
    first, _, urgent = site.submit(
        tasks.alone.bind(),
        tasks.alone.bind(),
        tasks.alone.using(priority=5).bind(),
    )
    (job,) = play(site, worker, want=1).claimed
    assert job.id == urgent.id
    answer = play(site, worker, [succeeded(job, b"1")], goes_round=False)
    assert (ids(answer), answer.admissions[0].stopped_at) == ([first.id], None)  # without having gone round
    (higher,) = site.submit(tasks.alone.using(priority=9).bind())
    assert ids(play(site, worker, [succeeded(answer.claimed[0], b"1")], goes_round=False)) == [higher.id]


def test_a_place_of_a_limit_that_others_share_is_given_on_in_a_circle(site, worker):
    site.submit(*[tasks.one_a_customer_of_three.bind("a") for _ in range(2)])
    site.rows("UPDATE {}.job SET gates = replace(gates::text, '\"most\":3', '\"most\":1')::json RETURNING 1")
    (job,) = play(site, worker).claimed
    (urgent,) = site.submit(tasks.one_a_customer_of_three.using(priority=5).bind("b"))
    site.rows("UPDATE {}.job SET gates = replace(gates::text, '\"most\":3', '\"most\":1')::json RETURNING 1")
    assert ids(play(site, worker, [succeeded(job, b"1")], goes_round=False)) == [urgent.id]


def test_a_parked_job_that_is_scheduled_says_when_it_is_due(site, worker):
    site.submit(tasks.alone.using(delay=timedelta(seconds=50)).bind())
    left = "SELECT extract(epoch FROM run_at - clock_timestamp())::float8 FROM {}.job"
    most = site.one(left)
    (answer,) = play(site, worker).admissions
    assert (answer.admitted, site.one(left) <= answer.next_in <= most <= 50) == (0, True)


TWENTY = "concurrency(twenty)"


def submit_of_twenty(site, number):
    site.submit(*[tasks.three.using(limits=[Limit.concurrency(20, key="twenty")]).bind() for _ in range(number)])


def by_share(site, worker, verdicts=(), *, want, conn=None):
    """A round that claims of a limit by the worker's share of it."""
    gates = site.one("SELECT gates::text FROM {}.job LIMIT 1")
    wanted = Wanted({"default": want}, flow=Flow("default", TWENTY, gates, {0: START}))
    return send(conn or site.conn, play_round(worker, list(verdicts), wanted), site.schema)


def test_what_runs_by_shares_and_by_slots_is_never_more_than_the_limit(site, worker):
    submit_of_twenty(site, 60)
    other = send(site.conn, register("other", 60), site.schema)
    first = by_share(site, worker, want=4).claimed
    assert [job.share for job in first] == [TWENTY] * 4  # and it has twice that
    second = play(site, other).claimed
    assert len(second) == 16  # what the share's owner does not use is taken from it
    assert by_share(site, worker, want=4).claimed == []
    assert play(site, other).claimed == []
    third = by_share(site, worker, [succeeded(job, b"1") for job in first], want=9).claimed
    assert len(third) == 4
    send(site.conn, play_round(other, [succeeded(job, b"1") for job in second], Wanted()), site.schema)
    assert len(play(site, other).claimed) == 16
    assert site.count("running") == 20


def test_half_of_a_limit_at_most_is_shared_out(site, worker):
    submit_of_twenty(site, 60)
    assert len(by_share(site, worker, want=30).claimed) == 10
    assert len(play(site, worker).claimed) == 10


def test_what_a_dead_worker_ran_by_its_share_counts_until_it_is_taken_back(site, worker):
    submit_of_twenty(site, 60)
    dead = send(site.conn, register("dead", 60), site.schema)
    assert len(by_share(site, dead, want=8).claimed) == 8
    send(site.conn, declare_dead(worker=dead), site.schema)
    assert len(play(site, worker).claimed) == 12
    assert send(site.conn, take_back(), site.schema)[:2] == (8, 0)
    assert len(play(site, worker).claimed) == 8
    site.one("SELECT {}.sweep_slots(1)")
    assert site.one("SELECT count(*) FROM {}.share") == 0


def test_nothing_is_taken_from_the_share_of_a_worker_that_is_just_claiming(site, worker):
    submit_of_twenty(site, 60)
    other = send(site.conn, register("other", 60), site.schema)
    by_share(site, worker, want=1)  # of a share of two
    with psycopg.connect(site.dsn) as one:
        assert len(by_share(site, worker, want=1, conn=one).claimed) == 1
        assert len(play(site, other).claimed) == 18
        one.commit()
    assert site.count("running") == 20


def test_who_reaches_for_a_share_waits_for_whoever_is_just_at_it_and_gets_one(site, worker):
    submit_of_twenty(site, 60)
    gates = site.one("SELECT gates::text FROM {}.job LIMIT 1")
    key = site.one("SELECT parked FROM {}.job LIMIT 1")
    first, second = worker, send(site.conn, register("second", 60), site.schema)
    with psycopg.connect(site.dsn) as one, psycopg.connect(site.dsn, autocommit=True) as other:
        assert send(one, reach(first, {("gate", key): (3, gates)}), site.schema) == {("gate", key): 3}
        reached = []
        thread = threading.Thread(
            target=lambda: reached.append(send(other, reach(second, {("gate", key): (3, gates)}), site.schema))
        )
        thread.start()
        waits = "SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND NOT granted"
        while not site.one(waits, other.info.backend_pid):
            time.sleep(0.01)
        one.commit()
        thread.join()
    assert reached == [{("gate", key): 3}]


def test_plans_are_made_of_what_finds_and_changes_nothing(site, worker):
    submit_of_twenty(site, 3)
    for statement in plans_of_gates():
        send(site.conn, statement, site.schema)
    assert [site.one("SELECT count(*) FROM {}." + table) for table in ("share", "slot", "job")] == [0, 0, 3]


def test_jobs_with_and_without_limits_are_claimed_in_one_order(site, worker):
    """By priority, then by their time: those that wait for a limit do not push in, and are not kept waiting."""
    made = [
        site.submit(make.using(priority=priority).bind(*arguments))[0].id
        for make, priority, arguments in [
            (tasks.three, 0, ()), (worker_tasks.add, 0, (1, 2)), (tasks.three, 0, ()), (worker_tasks.add, 0, (1, 2)),
            (tasks.three, 3, ()), (worker_tasks.add, 5, (1, 2)), (worker_tasks.add, 3, (1, 2)),
        ]
    ]  # fmt: skip
    order = [made[n] for n in (5, 4, 6, 0, 1, 2, 3)]
    for n in (1, 2, 3, 1):
        wanted = Wanted({"default": n}, looking=("default",), gated={"default": Circle(True)})
        claimed = ids(send(site.conn, play_round(worker, [], wanted), site.schema))
        assert sorted(claimed) == sorted(order[:n])
        order = order[n:]


def offering(site, *offered):
    return send(site.conn, register("w", 60, Offer(["default"], [task.name for task in offered])), site.schema)


def test_a_worker_admits_no_job_of_a_task_that_only_others_know(site):
    """One that it cannot run would hold a place that others wait for."""
    offering(site, tasks.shared_one)
    site.submit(*[tasks.shared_one.bind() for _ in range(3)])
    site.submit(*[tasks.shared_two.bind() for _ in range(3)])
    knows = offering(site, tasks.shared_two)
    answer = play(site, knows)
    assert [job.task for job in answer.claimed] == [tasks.shared_two.name] * 2
    again = play(site, knows, [succeeded(job, b"1") for job in answer.claimed], goes_round=False)
    assert [job.task for job in again.claimed] == [tasks.shared_two.name]


def refused(job):
    return Completion(job.id, job.fence, State.READY, delay=timedelta(seconds=30), refund=True, refusal=True)


@pytest.mark.parametrize("task", [tasks.once_an_hour, tasks.shared_one])
def test_a_job_of_a_task_that_nobody_knows_is_refused_and_its_place_goes_back(site, task):
    """As one without limits, so that it fails in the end; a rate counts what has begun."""
    knows = offering(site, tasks.shared_two)
    site.submit(*[task.bind("c") if task is tasks.once_an_hour else task.bind() for _ in range(3)])
    answer = play(site, knows, want=2)
    places = len(answer.claimed)
    assert places in {1, 2}
    again = play(site, knows, [refused(job) for job in answer.claimed])
    assert again.claimed
    assert not set(ids(again)) & set(ids(answer))


def test_a_worker_admits_no_job_of_a_task_that_it_has_no_room_for_now(site, worker):
    site.submit(*[tasks.shared_one.bind() for _ in range(3)], tasks.shared_two.bind())
    wanted = Wanted({"default": 9}, without=(tasks.shared_one.name,), gated={"default": Circle(True)})
    answer = send(site.conn, play_round(worker, [], wanted), site.schema)
    assert [job.task for job in answer.claimed] == [tasks.shared_two.name]


def test_a_worker_that_was_declared_dead_admits_nobody_and_takes_no_slot(site, worker):
    site.submit(*[tasks.three.bind() for _ in range(3)])
    (job,) = play(site, worker, want=1).claimed
    send(site.conn, declare_dead(worker=worker), site.schema)
    answer = play(site, worker, [succeeded(job, b"1")])
    assert (answer.settled, answer.holding, answer.claimed) == (1, False, [])
    assert site.rows("SELECT DISTINCT opens_at = '-infinity' FROM {}.slot") == [(True,)]


async def test_a_queue_is_limited_at_run_time_and_the_limit_is_changed_and_lifted(site):
    gate = tasks.gate = asyncio.Event()
    chancy_ops.limit(site.conn, "default", concurrency=2, schema=site.schema)
    site.submit(*[tasks.at_gate.bind() for _ in range(30)])
    async with working(site.app(concurrency=8)), working(site.app(concurrency=8)):
        await eventually(lambda: site.count("running") == 2)
        chancy_ops.limit(site.conn, "default", concurrency=5, schema=site.schema)
        await eventually(lambda: tasks.now_running.get("gate") == 5)
        chancy_ops.limit(site.conn, "default", concurrency=1, schema=site.schema)
        gate.set()
        await eventually(lambda: site.count("succeeded") >= 6)
        assert (site.count("running") <= 1, tasks.most) == (True, {"gate": 5})
        chancy_ops.limit(site.conn, "default", concurrency=None, schema=site.schema)
        await all_finished(site, 10)


def claim(site, worker, want, conn=None):
    wanted = Wanted({"default": want}, looking=("default",))
    return send(conn or site.conn, play_round(worker, [], wanted), site.schema)


def test_two_that_claim_at_a_time_claim_no_more_than_the_queues_limit_and_neither_waits(site, worker):
    chancy_ops.limit(site.conn, "default", concurrency=3, schema=site.schema)
    site.submit(*[worker_tasks.add.bind(1, 2) for _ in range(10)])
    other = send(site.conn, register("other", 60), site.schema)
    site.conn.execute("SET lock_timeout = '1ms'")
    with psycopg.connect(site.dsn) as one:
        first = claim(site, worker, 2, one)
        meanwhile = claim(site, other, 2)
        one.commit()
    second = claim(site, other, 2)
    third = claim(site, worker, 2)
    assert [len(answer.claimed) for answer in (first, meanwhile, second, third)] == [2, 0, 1, 0]
    assert [answer.at_limit for answer in (first, meanwhile, second, third)] == [[], *[["default"]] * 3]


def test_slots_that_are_nobodys_are_swept_up_and_the_others_stay(site, worker):
    site.submit(*[tasks.two_a_customer.bind(f"c{n}") for n in range(6)], tasks.once_an_hour.bind("c"))
    jobs = play(site, worker).claimed
    assert len(jobs) == 7
    end(site, worker, *[job for job in jobs if job.task == tasks.two_a_customer.name][:4])
    assert [site.one("SELECT {}.sweep_slots(3)") for _ in range(3)] == [3, 1, 0]
    assert site.one("SELECT count(*) FROM {}.slot") == 3


def test_of_the_slots_of_a_gate_those_behind_the_last_that_is_taken_are_swept_up(site, worker):
    """The numbers of a gate have no gap: there would be nobody to fill it."""
    site.submit(*[tasks.three.bind() for _ in range(3)])
    jobs = play(site, worker).claimed
    end(site, worker, jobs[0], jobs[2])
    assert site.one("SELECT {}.sweep_slots(100)") == 1
    assert site.rows("SELECT n FROM {}.slot ORDER BY n") == [(1,), (2,)]
    with psycopg.connect(site.dsn) as busy:
        busy.execute(f"SELECT FROM {site.schema}.slot WHERE n = 2 FOR UPDATE")  # somebody is just taking it
        end(site, worker, jobs[1])
        assert site.one("SELECT {}.sweep_slots(100)") == 0
    assert site.one("SELECT {}.sweep_slots(100)") == 2


async def test_many_keys_that_are_used_up_are_gone_through_once_and_left_alone_until_time_opens_one(site, worker):
    keys = [tasks.once_an_hour.bind(f"c{n:04}") for n in range(1300)]
    site.submit(*keys)
    site.rows(
        "INSERT INTO {0}.slot (gate, n, job, fence, opens_at) "
        "SELECT gates->'gates'->0->>'name', 1, id, 0, now() + interval '1 h' FROM {0}.job RETURNING 1"
    )
    keeper = Gatekeeper()
    keeper.looked(["default"], ["default"])
    free = {"default": 5}

    async def ask():
        await asyncio.sleep(max(due_in(keeper), 0))
        wish = keeper.wish(free, {})
        answer = send(site.conn, play_round(worker, [], Wanted(free, gated=wish)), site.schema)
        keeper.learn(wish, free, answer, 0.0)
        return answer.claimed

    calls = 0
    while due_in(keeper) < 10:
        assert await ask() == []
        calls += 1
        assert calls < 10
    assert (calls, 3500 < due_in(keeper) <= 3600) == (3, True)
    keeper.opened()
    site.rows("UPDATE {0}.slot SET opens_at = now() WHERE gate LIKE '%%c0777%%' RETURNING 1")
    while not (claimed := await ask()):
        calls += 1
        assert calls < 10
    assert [json.loads(job.arguments)["who"] for job in claimed] == ["c0777"]


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
    place = _Place(origin)
    assert [place.turn(spot) for spot in spots] == rounds
