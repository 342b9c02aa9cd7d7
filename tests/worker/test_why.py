"""Why a job does not run: each reason made for real, and told in the whole sentence."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import gate_tasks
import limit_tasks
import psycopg
import pytest
import step_tasks
import worker_tasks
from worker_help import FAST, all_finished, eventually, working

import chancy
import chancy_ops
from chancy import Backoff, Queue, State
from chancy.options.phrases import argument, counted, jobs_named, one_line, sized, span
from chancy.run import send
from chancy_ops import Reason
from chancy_worker import Timing, WorkerConfig
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import Offer, register
from chancy_worker.life.rescue import declare_dead, take_back

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
AT_NOON = "2026-11-25 12:00:00 UTC"
QUIET = WorkerConfig(timing=Timing(lease=7200, look=60, harmless=7200), grace=0, name="w:1")
"""It comes to work by the doorbell alone, and is believed alive however a test moves the clock. Its suspects stay such."""


@pytest.fixture(autouse=True)
def clock(site, chancy_clock):
    """It stands still, so that what is told is always the same."""
    chancy_clock.set(NOON)
    yield chancy_clock
    for gate in worker_tasks.gates.values():
        gate.set()


def why(site, job):
    return chancy_ops.why(site.conn, job if isinstance(job, int) else job.id, schema=site.schema)


def told(site, job, reason, sentence, until=None):
    """It says that, of this job."""
    found = why(site, job)
    assert str(found) == f"Job {job.id} ({job.task}) {sentence}"
    assert (found.reason, found.until) == (reason, until)


async def running(site, *binds):
    jobs = site.submit(*binds)
    await eventually(lambda: all(site.row(job).state is State.RUNNING for job in jobs))
    return jobs


def hand(site, name="gone", **offer):
    """A worker as the database knows it."""
    return send(
        site.conn,
        register(name, 60, Offer(**{"queues": ["default"], "tasks": ["worker_tasks.pass_gate"]} | offer)),
        site.schema,
    )


def claimed(site, worker, number=1):
    """So many jobs, in the name of this worker."""
    jobs = site.submit(*[worker_tasks.pass_gate.bind(f"g{n}") for n in range(number)])
    answer = send(site.conn, play_round(worker, [], Wanted({"default": number}, looking=("default",))), site.schema)
    assert len(answer.claimed) == number
    return jobs


def test_a_scheduled_job_says_when(site):
    (job,) = site.submit(worker_tasks.add.using(delay=timedelta(minutes=4)).bind(1, 2))
    until = NOON + timedelta(minutes=4)
    told(site, job, Reason.SCHEDULED, "is scheduled for 2026-11-25 12:04:00 UTC (in 4 min).", until)


async def test_a_job_that_is_tried_again_says_when_and_after_which_error(site):
    later = Backoff(base=timedelta(minutes=5), factor=1, jitter=0)
    (job,) = site.submit(
        worker_tasks.raise_with.using(max_attempts=3, retry=later).bind("no\n way\x1b[31m " + "x" * 999)
    )
    async with working(site.app(), QUIET):
        await eventually(lambda: site.row(job).state is State.SCHEDULED)
    error = "ValueError: no way\\x1b[31m " + "x" * (199 - len("ValueError: no way\\x1b[31m ")) + "…"
    sentence = f"is tried again at 2026-11-25 12:05:00 UTC (in 5 min): attempt 1 of 3 failed with {error}."
    told(site, job, Reason.RETRY, sentence, NOON + timedelta(minutes=5))


def test_a_job_of_a_paused_queue_says_since_when_and_how_to_go_on(site, clock):
    (job,) = site.submit(worker_tasks.add.bind(1, 2))
    chancy_ops.pause(site.conn, "default", schema=site.schema)
    clock.move(timedelta(hours=2))
    since = f"waits because queue 'default' was paused at {AT_NOON} (2 h ago)"
    told(site, job, Reason.QUEUE_PAUSED, f"{since} until somebody resumes it: `chancy resume default`.")
    chancy_ops.pause(site.conn, "default", until=timedelta(minutes=30), schema=site.schema)
    until = NOON + timedelta(hours=2, minutes=30)
    sentence = f"{since} until 2026-11-25 14:30:00 UTC (in 30 min): `chancy resume default`."
    told(site, job, Reason.QUEUE_PAUSED, sentence, until)


def test_a_job_of_a_paused_task_says_so(site):
    (job,) = site.submit(worker_tasks.add.bind(1, 2))
    chancy_ops.pause(site.conn, task=worker_tasks.add, schema=site.schema)
    sentence = (
        f"waits because task worker_tasks.add was paused at {AT_NOON} (0 s ago) until somebody resumes it: "
        f"`chancy resume --task worker_tasks.add`."
    )
    told(site, job, Reason.TASK_PAUSED, sentence)


async def test_a_job_whose_queue_nobody_takes_says_which_queues_are_taken(site):
    (job,) = site.submit(worker_tasks.add.using(queue="mail").bind(1, 2))
    sentence = "waits because no worker takes queue 'mail': no live worker at all; start one that takes it."
    told(site, job, Reason.NO_WORKER, sentence)
    async with working(site.app(queues=[Queue("a"), Queue("b")]), QUIET):
        await eventually(lambda: site.workers())
        sentence = "waits because no worker takes queue 'mail': 1 live worker, for 'a', 'b'; start one that takes it."
        told(site, job, Reason.NO_WORKER, sentence)
        site.one(
            "INSERT INTO {}.worker (name, started_at, expires_at) VALUES ('old', now(), now() + interval '1 hour') RETURNING id"
        )
        sentence = (
            "waits because no worker takes queue 'mail': 2 live workers, 1 of an older version that did not say, "
            "for 'a', 'b'; start one that takes it."
        )
        told(site, job, Reason.NO_WORKER, sentence)


async def test_a_job_whose_task_no_worker_knows_says_so(site):
    async with working(site.app(), QUIET), working(site.app(), WorkerConfig(timing=FAST, grace=0)):
        await eventually(lambda: len(site.workers()) == 2)
        job = chancy.Job(site.one("SELECT {}.submit('app.nobody')"), "app.nobody", "default", site.schema)
        sentence = (
            "waits because no worker of queue 'default' knows its task (2 live workers): deploy the code that has it, "
            "or name its module where they are started."
        )
        # Each claims it once, to see that it does not know it.
        found = await eventually(lambda: (w := why(site, job)).reason is Reason.UNKNOWN_TASK and w)
        assert str(found) == f"Job {job.id} (app.nobody) {sentence}"


async def test_a_job_at_a_full_limit_says_by_which_jobs(site):
    async with working(site.app(), QUIET):
        first = await running(site, gate_tasks.three.bind(60), gate_tasks.three.bind(60), gate_tasks.three.bind(60))
        second, third = site.submit(gate_tasks.three.bind(60), gate_tasks.three.bind(60))
        full = (
            "waits because its limit concurrency(gate_tasks.three) of 3 is full: "
            f"jobs {first[0].id}, {first[1].id} and {first[2].id} have the places; "
        )
        told(site, second, Reason.LIMIT, f"{full}nothing that waits for the same comes before it.")
        told(site, third, Reason.LIMIT, f"{full}1 job that waits for the same comes before it.")
        (over,) = site.submit(gate_tasks.three.using(priority=1).bind(60))
        told(site, third, Reason.LIMIT, f"{full}2 jobs that wait for the same come before it.")
        told(site, over, Reason.LIMIT, f"{full}nothing that waits for the same comes before it.")


async def test_a_limit_of_a_key_names_the_key(site):
    async with working(site.app(), QUIET):
        await running(site, gate_tasks.two_a_customer.bind("ACME\n", 60))
        (held,) = await running(site, gate_tasks.two_a_customer.bind("ACME\n", 60))
        (job,) = site.submit(gate_tasks.two_a_customer.bind("ACME\n"))
        (other,) = site.submit(gate_tasks.two_a_customer.bind("other"))
        await eventually(lambda: site.row(other).state is State.SUCCEEDED)
        sentence = (
            "waits because its limit concurrency(gate_tasks.two_a_customer customer=ACME ) of 2 is full: "
            f"jobs {held.id - 1} and {held.id} have the places; nothing that waits for the same comes before it."
        )
        told(site, job, Reason.LIMIT, sentence)


def test_a_job_whose_limit_is_in_the_shares_of_other_workers_says_so(site):
    workers = [send(site.conn, register(name, 60, Offer(["default"], [])), site.schema) for name in ("a", "b")]
    site.rows("UPDATE {}.offer SET tasks = %s RETURNING 1", [worker_tasks.add.name, gate_tasks.three.name])
    chancy_ops.limit(site.conn, "default", concurrency=5, schema=site.schema)
    (job,) = site.submit(worker_tasks.add.bind(1, 2))
    share = "INSERT INTO {}.share (kind, name, worker, most, revision) VALUES (%s, %s, %s, %s, '0') RETURNING 1"
    for worker, most in zip(workers, (2, 3), strict=True):
        site.rows(share, "queue", "default", worker, most)
    sentence = (
        "waits because the limit of queue 'default' of 5 running jobs is divided among workers: 5 more may run in the "
        "shares of workers that do not need them now; whoever needs one gets it within a second."
    )
    told(site, job, Reason.LIMIT, sentence)
    chancy_ops.limit(site.conn, "default", concurrency=None, schema=site.schema)
    (job,) = site.submit(gate_tasks.three.bind())
    site.rows(share, "gate", "concurrency(gate_tasks.three)", workers[0], 3)
    sentence = (
        "waits because its limit concurrency(gate_tasks.three) of 3 is divided among workers: 3 more may run in the "
        "shares of workers that do not need them now; whoever needs one gets it within a second."
    )
    told(site, job, Reason.LIMIT, sentence)


async def test_a_job_of_a_queue_at_its_limit_says_so(site):
    chancy_ops.limit(site.conn, "default", concurrency=1, schema=site.schema)
    async with working(site.app(), QUIET):
        (first,) = await running(site, worker_tasks.pass_gate.bind("g"))
        (job,) = site.submit(worker_tasks.add.bind(1, 2))
        sentence = (
            f"waits because queue 'default' has a limit of 1 running job, and job {first.id} runs: "
            f"`chancy limit default none` lifts it."
        )
        told(site, job, Reason.LIMIT, sentence)
        worker_tasks.gates["g"].set()
        chancy_ops.limit(site.conn, "default", concurrency=0, schema=site.schema)
        await eventually(lambda: site.row(first).state is State.SUCCEEDED)
        (job,) = site.submit(worker_tasks.add.bind(1, 2))
        sentence = (
            "waits because queue 'default' has a limit of 0 running jobs, which lets nothing begin: "
            "`chancy limit default none` lifts it."
        )
        told(site, job, Reason.LIMIT, sentence)


async def test_a_job_above_its_rate_says_when_the_next_place_is_free(site, clock):
    async with working(site.app(), QUIET):
        site.submit(gate_tasks.once_an_hour.bind("x"))
        await all_finished(site)
        clock.move(timedelta(minutes=20))
        first, second = site.submit(gate_tasks.once_an_hour.bind("x"), gate_tasks.once_an_hour.bind("x"))
        used = (
            "waits because its limit rate/3600s(gate_tasks.once_an_hour who=x) of 1 is used up; "
            "the next place is free at 2026-11-25 13:00:00 UTC (in 40 min), and "
        )
        until = NOON + timedelta(hours=1, milliseconds=50)
        told(site, first, Reason.RATE, f"{used}nothing that waits for the same comes before it.", until)
        told(site, second, Reason.RATE, f"{used}1 job that waits for the same comes before it.", until)


async def test_a_job_of_a_group_says_how_many_groups_wait_and_how_many_of_its_own(site):
    async with working(site.app(concurrency=1), QUIET):
        await running(site, worker_tasks.pass_gate.bind("g"))
        jobs = site.submit(
            *[gate_tasks.in_turn.bind("a", n) for n in range(3)],
            *[gate_tasks.in_turn.bind(tenant, n) for n in range(3) for tenant in ("b", "c")],
            *[gate_tasks.in_turn.using(delay=timedelta(hours=1)).bind("d", n) for n in range(3)],
            gate_tasks.three.bind(),
        )
        wait = "waits for the turn of group(a): in queue 'default' 2 other groups wait too, and of its own"
        told(site, jobs[2], Reason.TURN, f"{wait} 2 jobs come first.")
        told(site, jobs[1], Reason.TURN, f"{wait} 1 job comes first.")
        told(site, jobs[0], Reason.TURN, f"{wait} 0 jobs come first.")


async def test_a_job_that_was_running_when_a_worker_died_waits_for_others_of_its_kind(site):
    gone = hand(site)
    jobs = claimed(site, gone, 3)
    site.rows("UPDATE {}.job SET max_attempts = 2 WHERE id = %s RETURNING id", jobs[-1].id)
    send(site.conn, declare_dead(worker=gone), site.schema)
    send(site.conn, take_back(), site.schema)
    async with working(site.app(), QUIET):
        await eventually(lambda: site.count("running") == 2)
        *runs, waits = jobs
        now = f": now jobs {runs[0].id} and {runs[1].id}."
        sentence = (
            "waits because a worker died while it ran it, and a worker runs such a job, when it has one attempt "
            f"left, without another one beside it{now}"
        )
        await eventually(lambda: why(site, waits).reason is Reason.SUSPECT)
        told(site, waits, Reason.SUSPECT, sentence)
        site.rows("UPDATE {}.job SET max_attempts = 9, crashes = 2 WHERE id = %s RETURNING id", waits.id)
        told(
            site,
            waits,
            Reason.SUSPECT,
            f"waits because 2 workers died while they ran it, and a worker runs such a job without another one beside "
            f"it{now}",
        )
        site.rows("UPDATE {}.job SET crashes = 1 WHERE id = %s RETURNING id", waits.id)
        told(
            site,
            waits,
            Reason.SUSPECT,
            f"waits because a worker died while it ran it, and a worker runs few such jobs at a time at first, and "
            f"more as those end{now}",
        )
        hand(site, "free of suspects")
        assert why(site, waits).reason is not Reason.SUSPECT


async def test_a_job_for_which_there_is_no_room_says_how_many_come_first(site):
    async with working(site.app(concurrency=1), QUIET):
        await running(site, worker_tasks.pass_gate.bind("g"))
        jobs = site.submit(
            *[worker_tasks.add.bind(n, 1) for n in range(4)],
            *[worker_tasks.add.using(priority=5).bind(n, 1) for n in range(2)],
            worker_tasks.add.using(priority=9).bind(1, 1),
            *[worker_tasks.add.using(priority=9, delay=timedelta(hours=1)).bind(n, 1) for n in range(5)],
            *[worker_tasks.note.using(priority=9).bind("paused") for _ in range(5)],
        )
        chancy_ops.pause(site.conn, task=worker_tasks.note, schema=site.schema)
        site.one("SELECT {}.submit('app.nobody', priority => 9)")
        room = "waits for room: the worker of queue 'default' runs 1 job, and"
        told(site, jobs[3], Reason.BUSY, f"{room} 6 jobs come before it, 3 of them with a higher priority.")
        told(site, jobs[5], Reason.BUSY, f"{room} 2 jobs come before it, 1 of them with a higher priority.")


async def test_the_first_in_line_waits_for_room_as_well(site, clock):
    async with working(site.app(concurrency=1), QUIET):
        await running(site, worker_tasks.pass_gate.bind("g"))
        (job,) = site.submit(worker_tasks.add.bind(1, 1))
        clock.move(timedelta(seconds=20))
        told(
            site,
            job,
            Reason.BUSY,
            "waits for room: the worker of queue 'default' runs 1 job, and nothing comes before it.",
        )


def test_a_job_that_nothing_keeps_is_next(site, clock):
    hand(site, tasks=["worker_tasks.add"])
    (old,) = site.submit(worker_tasks.add.bind(1, 2))
    clock.move(timedelta(seconds=40))
    (job,) = site.submit(worker_tasks.add.bind(1, 2))
    sentence = (
        "is next: nothing comes before it, and a worker should start it in a moment; it was due 40 s ago, so if that "
        "does not happen within seconds, ask `chancy doctor`."
    )
    told(site, old, Reason.NEXT, sentence)
    told(site, job, Reason.NEXT, "is next: 1 job comes before it, and a worker should start it in a moment.")


async def test_a_running_job_says_where_since_when_and_how_far_it_is(site, clock, tmp_path):
    async with working(site.app(), QUIET):
        (job,) = await running(site, worker_tasks.wait_for_file_in_thread.bind(str(tmp_path / "gate")))
        clock.move(timedelta(seconds=90))
        told(site, job, Reason.RUNNING, "has been running on worker w:1 for 90 s, in attempt 1 of 3.")
        assert chancy.cancel(site.conn, job.id, schema=site.schema)
        clock.move(timedelta(minutes=9))
        told(
            site,
            job,
            Reason.RUNNING,
            "has been running on worker w:1 for 10 min, in attempt 1 of 3; it was asked to stop 9 min ago.",
        )
        (tmp_path / "gate").touch()
        await all_finished(site)
        (job,) = await running(site, limit_tasks.tell.bind(str(tmp_path / "other")))
        await eventually(lambda: site.row(job).progress)
        sentence = "has been running on worker w:1 for 0 s, in attempt 1 of 3; it says that it is 50% done (half)."
        told(site, job, Reason.RUNNING, sentence)
        (tmp_path / "other").touch()


async def test_a_job_whose_worker_is_gone_says_that_it_is_taken_back(site, clock):
    gone = hand(site)
    (job,) = claimed(site, gone)
    clock.move(timedelta(seconds=63))
    ran_out = "ran on worker gone, whose lease ran out 3 s ago;"
    told(site, job, Reason.WORKER_LOST, f"{ran_out} start a worker, which takes it back.")
    hand(site, "w2")
    told(site, job, Reason.WORKER_LOST, f"{ran_out} another one takes it back within seconds.")
    send(site.conn, declare_dead(), site.schema)
    clock.move(timedelta(seconds=4))
    ran_out = "ran on worker gone, whose lease ran out 4 s ago;"
    told(site, job, Reason.WORKER_LOST, f"{ran_out} another one takes it back within seconds.")
    site.conn.execute(f"DELETE FROM {site.schema}.dead_worker")
    sentence = (
        f"is said to run on worker {gone}, of which nothing is known any more, so nobody takes it back: "
        "`chancy doctor` says what to do."
    )
    told(site, job, Reason.WORKER_LOST, sentence)


async def test_a_finished_job_says_how_it_ended(site, clock):
    good, bad, dropped = site.submit(
        worker_tasks.add.bind(1, 2), worker_tasks.raise_with.bind("boom"), worker_tasks.discard.bind()
    )
    (stopped,) = site.submit(worker_tasks.add.using(delay=timedelta(hours=1)).bind(1, 2))
    chancy.cancel(site.conn, stopped.id, schema=site.schema)
    async with working(site.app(), QUIET):
        await all_finished(site)
    clock.move(timedelta(days=3))
    at = f"at {AT_NOON} (3 d ago)"
    told(site, good, Reason.FINISHED, f"succeeded {at} in attempt 1 of 3, and returned 3.")
    for job, sentence in [
        (bad, f"failed {at} in attempt 1 of 1 with ValueError: boom"),
        (dropped, f"was discarded {at} in attempt 1 of 3 with Discard: nobody needs it"),
        (stopped, f"was cancelled {at}"),
    ]:
        told(site, job, Reason.FINISHED, f"{sentence}; `chancy requeue {job.id}` makes it ready again.")


async def test_on_an_async_connection_it_is_the_same(site):
    (job,) = site.submit(worker_tasks.add.bind(1, 2))
    async with await psycopg.AsyncConnection.connect(site.dsn) as conn:
        assert await chancy_ops.why(conn, job.id, schema=site.schema) == why(site, job)


def test_a_job_that_there_is_not_is_told(site):
    with pytest.raises(chancy.UnknownJob, match="job 999 "):
        why(site, 999)


def test_what_comes_first_is_counted_up_to_a_bound(site):
    taker = hand(site, tasks=["worker_tasks.pass_gate", "worker_tasks.add"])
    claimed(site, taker)
    site.submit(*[worker_tasks.add.bind(n, 1) for n in range(10_001)])
    site.submit(*[worker_tasks.note.using(priority=1).bind("nobody knows it") for _ in range(10_001)])
    (job,) = site.submit(worker_tasks.add.bind(1, 2))
    room = "waits for room: the worker of queue 'default' runs 1 job, and"
    told(site, job, Reason.BUSY, f"{room} more than 10,000 jobs come before it.")
    (job,) = site.submit(worker_tasks.add.using(priority=1).bind(1, 2))
    told(site, job, Reason.BUSY, f"{room} of the first 10,000 jobs before it none could begin now.")


def test_lengths_of_time_are_said_in_one_unit():
    said = [span(timedelta(seconds=s)) for s in (-3, 0.4, 99, 100, 5_999, 6_000, 172_799, 172_800)]
    assert said == ["0 s", "0 s", "99 s", "2 min", "100 min", "2 h", "48 h", "2 d"]


def test_texts_of_others_cannot_break_the_line_nor_move_the_cursor():
    assert one_line("a\n\tb\x1b[2J\ud800\u202e") == "a b\\x1b[2J\\ud800\\u202e"
    assert len(one_line("x" * 10_000)) == len(one_line("\x00" * 150)) == 200
    assert one_line(" " * 700 + "x" * 300).endswith("…")


def test_a_name_in_a_remedy_is_one_word_of_a_shell(site):
    (job,) = site.submit(worker_tasks.add.using(queue="a; b").bind(1, 2))
    chancy_ops.pause(site.conn, "a; b", schema=site.schema)
    assert why(site, job).sentence.endswith("`chancy resume 'a; b'`.")


def test_numbers_are_said_with_their_nouns():
    assert [counted(n, "job", 5) for n in (0, 1, 5, 6)] == ["0 jobs", "1 job", "5 jobs", "more than 5 jobs"]
    assert [jobs_named([1, 2, 3][:n], n) for n in (1, 2, 3)] == ["job 1", "jobs 1 and 2", "jobs 1, 2 and 3"]
    assert jobs_named([1, 2, 3], 1_007) == "jobs 1, 2, 3 and 1,004 more"
    assert [sized(n) for n in (0, 8192, 5 * 1024**3, 50 * 1024**3)] == ["0 B", "8 kB", "5.0 GB", "50 GB"]


def test_the_guide_has_every_reason():
    guide = (Path(__file__).parents[2] / "docs/guides/why-and-doctor.md").read_text(encoding="utf-8")
    assert [reason for reason in Reason if f"`{reason}`" not in guide] == []


@pytest.mark.parametrize("name", [" ", "\n", "a b", "it's", "\x9b31m", "\u202e", "a\\b", "\U000e0001", "", "ä"])
def test_a_name_in_a_remedy_reaches_the_command_as_it_is(name):
    word = argument(name)
    assert "\n" not in word
    said = subprocess.run(
        ["bash", "-c", f"printf %s {word}"], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    ).stdout
    assert said.decode() == name


def test_a_blocked_job_waits_for_the_first_that_is_not_blocked(site):
    leaf = worker_tasks.add.bind(1, 2)
    middle = worker_tasks.add.using(after=[leaf]).bind(3, 4)
    end, first = site.submit(worker_tasks.add.using(after=[middle, worker_tasks.add.bind(5, 6)]).bind(7, 8), leaf)
    found = chancy_ops.why(site.conn, end.id, schema=site.schema)
    assert found.reason is Reason.NEEDS
    assert found.sentence.startswith(
        f"Job {end.id} (worker_tasks.add) waits for 2 jobs that it needs; first in its way is job {first.id} "
        f"(worker_tasks.add), which waits because no worker takes queue 'default'"
    )


def test_a_job_that_was_ended_by_a_need_says_which(site):
    need = worker_tasks.add.bind(1, 2)
    end, first = site.submit(worker_tasks.add.using(after=[need]).bind(3, 4), need)
    chancy.cancel(site.conn, first.id, schema=site.schema)
    found = chancy_ops.why(site.conn, end.id, schema=site.schema)
    assert f"because it needs job {first.id} (worker_tasks.add), which was cancelled" in found.sentence
    assert f"`chancy requeue {end.id}` runs what is to blame again" in found.sentence


def test_a_job_that_came_back_and_was_then_cancelled_blames_nobody(site):
    need = worker_tasks.add.bind(1, 2)
    end, first = site.submit(worker_tasks.add.using(after=[need]).bind(3, 4), need)
    chancy.cancel(site.conn, first.id, schema=site.schema)
    chancy.requeue(site.conn, end.id, schema=site.schema)
    chancy.cancel(site.conn, end.id, schema=site.schema)
    found = chancy_ops.why(site.conn, end.id, schema=site.schema)
    assert found.sentence.endswith(f"ago); `chancy requeue {end.id}` makes it ready again.")


async def test_for_what_a_job_sleeps_or_waits(site, clock):
    site.conn.execute(step_tasks.MAKE_EFFECTS)
    async with working(site.app(), QUIET):
        sleeps, waits = site.submit(step_tasks.sleeps_long.bind(site.dsn), step_tasks.waits.bind(site.dsn))
        await eventually(lambda: site.count("scheduled") == 2)
    year = NOON + timedelta(days=365)
    told(
        site,
        sleeps,
        Reason.SLEEPS,
        f"sleeps in step 'settle' until 2027-11-25 12:00:00 UTC (in 365 d), since {AT_NOON} (0 s ago).",
        year,
    )
    clock.set(NOON + timedelta(hours=2))
    waiting = f"waits for the signal 'word' since {AT_NOON} (2 h ago), without an end"
    tells = f"`chancy signal {waits.id} word` tells it."
    told(site, waits, Reason.WAITS, f"{waiting}: {tells}")
    chancy.signal(site.conn, waits.id, "wrod", 1, schema=site.schema)
    told(site, waits, Reason.WAITS, f"{waiting}; it was told 'wrod', which it has not come to: {tells}")
    chancy.signal(site.conn, waits.id, "word", 1, schema=site.schema)
    assert why(site, waits).reason is Reason.NO_WORKER
