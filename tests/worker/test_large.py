"""Jobs with large arguments and large results: over slow lines, in little memory, and beside small ones."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from worker_help import FAST, Proxy, all_finished, eventually, states, working
from worker_tasks import add, gates, pass_gate, weigh

from chancy import Limit, Queue, State
from chancy.run import send
from chancy_worker import Timing, WorkerConfig
from chancy_worker.attempts.verdict import Claimed, Completion
from chancy_worker.claims import portions
from chancy_worker.claims.forms import ROUND, WEIGHED_ROUND
from chancy_worker.claims.portions import Portion
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Circle, Wanted
from chancy_worker.held.outbox import LARGE_VERDICT_BYTES, MOST_CUTS, Outbox
from chancy_worker.life.lease import register

pytestmark = pytest.mark.any_postgres

MIB = 1024**2


def random_text(size):
    return os.urandom(size // 2).hex()


class SlowLine(Proxy):
    """Carries so many bytes of answers in a second."""

    def __init__(self, dsn, rate):
        super().__init__(dsn)
        self.rate = rate

    async def _pipe(self, number, reader, writer, *, answers=False):
        free_at = time.monotonic()
        try:
            while data := await reader.read(65536):
                if answers:
                    free_at = max(free_at, time.monotonic()) + len(data) / self.rate
                    await asyncio.sleep(free_at - time.monotonic())
                writer.write(data)
                await writer.drain()
            writer.close()
        except (ConnectionError, RuntimeError):
            writer.transport.abort()


def claimed(site, text, **wanted):
    worker = send(site.conn, register("w", 60), site.schema)
    return send(
        site.conn,
        play_round(worker, [], Wanted({"default": 100}, looking=("default",), **wanted), text=text),
        site.schema,
    ).claimed


def test_a_claim_that_weighs_brings_eight_mebibytes_and_one_job_more(site):
    site.submit(*[weigh.bind(random_text(MIB)) for _ in range(12)])
    jobs = claimed(site, WEIGHED_ROUND)
    assert 8 <= len(jobs) <= 9
    assert [job.id for job in jobs] == sorted(job.id for job in jobs)
    assert jobs[0].size > MIB


@pytest.mark.long
def test_one_job_always_comes_however_large_it_is_unless_there_is_room_for_none(site):
    site.submit(*[weigh.bind(random_text(12 * MIB)) for _ in range(2)])
    assert claimed(site, WEIGHED_ROUND, large={"default": 0}) == []
    assert len(claimed(site, WEIGHED_ROUND, large={"default": 1})) == 1
    assert len(claimed(site, WEIGHED_ROUND)) == 1


def test_small_jobs_come_before_a_large_one_for_which_there_is_no_room_and_none_passes_it_by(site):
    small = site.submit(*[add.bind(i, 1) for i in range(5)])
    site.submit(weigh.bind(random_text(MIB)))
    site.submit(*[add.bind(i, 1) for i in range(5)])
    assert [job.id for job in claimed(site, WEIGHED_ROUND, large={"default": 0})] == [job.id for job in small]


def test_a_claim_that_does_not_weigh_leaves_the_arguments_of_large_jobs_behind(site):
    site.submit(weigh.bind(random_text(MIB)), add.bind(1, 2), weigh.bind(" " * MIB))
    assert [job.is_withheld for job in claimed(site, ROUND)] == [True, False, True]


@pytest.mark.long
async def test_large_and_small_jobs_each_run_once_and_none_loses_an_attempt(site):
    jobs = site.submit(
        *(weigh.bind(random_text(size)) for size in (100, 3_000, 5_000, 50_000, MIB, 3 * MIB) for _ in range(4)),
        *(weigh.bind(" " * size) for size in (5_000, 50_000, 3 * MIB) for _ in range(4)),
        *(add.bind(i, 1) for i in range(50)),
    )
    async with working(site.app()):
        await all_finished(site, 30)
    assert states(site) == {"succeeded": len(jobs)}
    assert {site.row(job).attempt for job in jobs} == {1}
    assert site.row(jobs[-51]).result == str(3 * MIB).encode()


async def test_large_jobs_that_wait_for_limits_come_with_their_arguments_beside_large_ones_that_do_not(site):
    limited = weigh.using(limits=[Limit.concurrency(3, key="few")])
    large = [random_text(20_000 + n) for n in range(20)]
    site.submit(*[(limited if n % 2 else weigh).bind(text) for n, text in enumerate(large)])
    async with working(site.app()):
        await all_finished(site)
    assert states(site) == {"succeeded": 20}
    assert site.rows("SELECT DISTINCT attempt FROM {}.any_job") == [(1,)]


def test_an_admission_brings_eight_mebibytes_and_one_job_more(site):
    site.submit(*[weigh.using(limits=[Limit.concurrency(99, key="k")]).bind(random_text(MIB)) for _ in range(12)])
    jobs = claimed(site, ROUND, gated={"default": Circle(True)})
    assert 8 * MIB <= sum(job.size for job in jobs) <= 9.1 * MIB
    assert not any(job.is_withheld for job in jobs)
    held = site.one("SELECT count(*) FROM {}.slot WHERE job IS NOT NULL")
    assert held == len(jobs)


async def test_jobs_whose_answer_takes_longer_than_the_deadline_come_in_smaller_portions(site, chancy_dsn):
    jobs = site.submit(*[weigh.bind(random_text(MIB)) for _ in range(9)])
    timing = Timing(lease=6, extend=0.5, rescue=0.3, look=1, unheard=2, round=1.5)
    async with SlowLine(chancy_dsn, 4 * MIB) as line:
        async with working(site.app(dsn=line.dsn), WorkerConfig(timing=timing, grace=5)):
            await all_finished(site, 60)
    assert states(site) == {"succeeded": 9}
    assert {site.row(job).attempt for job in jobs} == {1}


async def test_verdicts_that_together_take_longer_than_the_deadline_go_out_in_smaller_rounds(site):
    """Each moves its arguments to history, which takes its time."""
    site.conn.execute(f"""
        CREATE FUNCTION "{site.schema}".slowly() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END $$;
        CREATE TRIGGER slowly BEFORE INSERT ON "{site.schema}".history
            FOR EACH ROW EXECUTE FUNCTION "{site.schema}".slowly();
    """)
    gates["slow"] = asyncio.Event()
    timing = Timing(lease=6, extend=0.5, rescue=0.3, look=1, unheard=2, round=1.5)
    async with working(site.app(), WorkerConfig(timing=timing, grace=5)):
        jobs = site.submit(*[pass_gate.bind("slow") for _ in range(12)])
        await eventually(lambda: site.count("running") == 12)
        gates["slow"].set()
        await all_finished(site, 60)
    assert {(site.row(job).state, site.row(job).attempt) for job in jobs} == {(State.SUCCEEDED, 1)}


@pytest.mark.long
async def test_a_worker_holds_no_more_than_its_bytes_of_large_jobs_and_small_ones_go_on_beside_them(site, monkeypatch):
    monkeypatch.setattr(portions, "HELD_BYTES", 4 * MIB)
    seen = []
    came = Portion.came

    def watched(portion, jobs):
        came(portion, jobs)
        seen.append(sum(portion.held.values()))

    monkeypatch.setattr(Portion, "came", watched)
    name = random_text(MIB)  # a text that is stored as it is: of one that Postgres compresses the size is a guess
    gates[name] = asyncio.Event()
    queues = [Queue("default"), Queue("other")]
    async with working(site.app(queues=queues), WorkerConfig(timing=FAST, grace=5)):
        large = site.submit(*[pass_gate.bind(name) for _ in range(20)])
        await eventually(lambda: site.count("running") >= 4)
        small = site.submit(*(add.using(queue=queue).bind(i, 1) for i in range(30) for queue in ("default", "other")))
        others = [job for job in small if job.queue == "other"]
        await eventually(lambda: all(site.row(job).finished_at for job in others))
        (one,) = site.submit(weigh.using(queue="other").bind(random_text(MIB)))  # where none runs there is room for one
        await eventually(lambda: site.row(one).finished_at)
        assert site.count("running") <= 6
        gates[name].set()
        await all_finished(site, 30)
    assert max(seen) <= 4 * MIB + 2 * MIB + 100_000
    assert {site.row(job).attempt for job in large} == {1}


def finished(id_, result=b"null"):
    return Completion(id_, 1, State.SUCCEEDED, result)


def test_the_arguments_that_verdicts_move_count_in_a_round():
    large = {(id_, 1): 3 * MIB for id_ in range(10)}
    outbox = Outbox(large)
    for id_ in range(20):
        outbox.add(finished(id_))
    rounds = [[verdict.id for verdict in outbox.take()] for _ in range(5)]
    assert rounds == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9, *range(10, 20)]]


def test_a_round_over_which_the_connection_broke_goes_out_in_halves_and_grows_again():
    outbox = Outbox()
    for id_ in range(64):
        outbox.add(finished(id_))
    sizes = []
    for cut in (True, True, True, False, False, False):
        verdicts = outbox.take()
        sizes.append(len(verdicts))
        if cut:
            outbox.cut(verdicts, "cut")
        else:
            outbox.accepted()
    assert sizes == [64, 32, 16, 8, 16, 32]
    assert not outbox.is_searching  # claims may go with them


def test_a_large_verdict_over_which_the_connection_breaks_again_and_again_goes_without_its_data():
    outbox = Outbox()
    outbox.add(finished(1, b" " * (LARGE_VERDICT_BYTES + 1)))
    outbox.add(finished(2))
    for _ in range(MOST_CUTS):
        (verdict,) = outbox.take()[:1]
        assert verdict.state is State.SUCCEEDED
        outbox.cut([verdict], "timeout")
    (bare,) = outbox.take()
    assert (bare.id, bare.state, bare.result) == (1, State.FAILED, None)
    assert b"timeout" in bare.errors


def test_a_small_verdict_is_never_given_up_for_a_bad_line():
    outbox = Outbox()
    outbox.add(finished(1, b"1"))
    for _ in range(5 * MOST_CUTS):
        verdicts = outbox.take()
        outbox.cut(verdicts, "timeout")
    assert outbox.take() == [finished(1, b"1")]


def test_what_was_refused_with_a_claim_goes_alone_before_anything_is_blamed():
    outbox = Outbox()
    outbox.add(finished(1))
    outbox.alone(outbox.take())
    assert outbox.is_searching
    assert outbox.take() == [finished(1)]
    outbox.accepted()
    outbox.add(finished(2))
    assert not outbox.is_searching


def test_a_verdict_that_is_refused_bare_is_returned_and_waits_no_more():
    outbox = Outbox()
    outbox.add(finished(1))
    assert outbox.refused(outbox.take(), "odd") is None
    (bare,) = outbox.take()
    assert outbox.refused([bare], "odd") == bare
    assert not outbox


def test_large_jobs_of_a_queue_that_has_none_running_come_one_at_a_time_when_memory_is_full():
    portion = Portion()
    portion.came([Claimed(1, "t", "a", 1, 3, 1, 0, b" " * 200 * MIB, None, None, None)])
    wanted = portion.of(Wanted({"a": 9, "b": 9}), {"a": 1})
    assert wanted.large == {"a": 0, "b": 1}
    assert portion.let_go([(1, 1)])
    assert min(portion.of(Wanted({"a": 9, "b": 9}), {}).large.values()) > 1
