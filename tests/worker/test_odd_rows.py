"""Whatever a row holds, it ends alone: rows of old versions, of other languages, of a broken disk.

The borders that would refuse most of them are taken down first, as if they had never been.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import psycopg
import pytest
from worker_help import SOON_MISSED, all_finished, eventually, states, working
from worker_tasks import add, gates, pass_gate

from chancy import State
from chancy.run import send
from chancy_worker import Timing, WorkerConfig
from chancy_worker.attempts.verdict import Claimed
from chancy_worker.claims import sifting
from chancy_worker.claims.portions import Portion
from chancy_worker.claims.sifting import Candidate, Sieve
from chancy_worker.claims.wanted import Wanted
from chancy_worker.connection.link import Link
from chancy_worker.life.lease import register
from chancy_worker.parts import reports
from chancy_worker.parts.schedules import look_at_schedules


def without_borders(site):
    for domain in ("instant", "pause_end", "arguments", "fields", "gates"):
        for (name,) in site.rows(
            "SELECT conname FROM pg_constraint WHERE contypid = %s::regtype", f'"{site.schema}".{domain}'
        ):
            site.conn.execute(f'ALTER DOMAIN "{site.schema}".{domain} DROP CONSTRAINT {name}')


def lose_what_is_stored_apart(site, job):
    """As a broken disk does: the row is there, and whoever reads its arguments is told that parts of them are missing."""
    site.conn.execute(TRIGGER.format(schema=site.schema, id=job.id, code="XX001"))
    site.conn.execute(BROKEN.format(schema=site.schema, id=job.id))


TRIGGER = """
    CREATE FUNCTION "{schema}".objects() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.state = 'running' AND ({id} = 0 OR NEW.id = {id}) THEN
            RAISE EXCEPTION 'missing chunk number 0' USING ERRCODE = '{code}';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER objects BEFORE UPDATE ON "{schema}".job FOR EACH ROW EXECUTE FUNCTION "{schema}".objects();
"""
BROKEN = """
    CREATE FUNCTION "{schema}".broken() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.id = {id} AND NEW.arguments::text <> '{{}}' THEN
            RAISE EXCEPTION 'missing chunk number 0' USING ERRCODE = 'XX001';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER broken BEFORE INSERT ON "{schema}".history FOR EACH ROW EXECUTE FUNCTION "{schema}".broken();
"""


POISONS = {
    "an attempt above every other": "attempt = 32767",
    "a fence above every other": "claims = 2147483647",
    "limits that are no list": """gates = '{"key": "a", "gates": 7}', parked = 'a'""",
    "a limit that is no number": """gates = '{"key": "a", "gates": [{"name": "a", "most": "x", "to": 1}]}', parked = 'a'""",
    "a name that is no text": """gates = '{"key": "a", "gates": [{"name": "a\\u0000b", "most": 1, "to": 1}]}', parked = 'a'""",
}


@pytest.mark.parametrize("what", POISONS)
async def test_a_row_that_cannot_be_claimed_ends_alone_with_the_reason(site, what, caplog):
    without_borders(site)
    before = site.submit(*[add.bind(i, 0) for i in range(5)])
    (odd,) = site.submit(add.bind(0, 0))
    behind = site.submit(*[add.bind(i, 1) for i in range(20)])
    site.conn.execute(f'UPDATE "{site.schema}".job SET {POISONS[what]} WHERE id = {odd.id}')
    async with working(site.app(concurrency=10)):
        await all_finished(site, 20)
        (late,) = site.submit(add.bind(1, 2))
        await all_finished(site, 20)
    assert [site.row(job).result for job in (*before, *behind, late)] == [
        *(str(i).encode() for i in range(5)), *(str(i + 1).encode() for i in range(20)), b"3",
    ]  # fmt: skip
    assert {site.row(job).attempt for job in (*before, *behind)} == {1}
    row = site.row(odd)
    assert (row.state, row.errors[-1].kind) == (State.FAILED, "InvalidJob")
    assert "no worker can take this job" in row.errors[-1].message
    assert f"job {odd.id} fails" in caplog.text


KEYS = {
    "a key that is no text": """gates = '{"key": "a\\u0000b"}'""",
    "a key in what is no JSON of ours": """gates = '{"key": "\\ud800"}'""",
}


@pytest.mark.parametrize("what", KEYS)
async def test_a_row_with_a_key_that_nobody_can_read_and_nobody_waits_for_runs(site, what):
    without_borders(site)
    odd, *others = site.submit(*[add.bind(i, 0) for i in range(5)])
    site.conn.execute(f'UPDATE "{site.schema}".job SET {KEYS[what]} WHERE id = {odd.id}')
    async with working(site.app()):
        await all_finished(site)
    assert {site.row(job).state for job in (odd, *others)} == {State.SUCCEEDED}


async def test_a_result_that_goes_out_with_a_claim_that_fails_is_written(site):
    gates["result"] = asyncio.Event()
    async with working(site.app()):
        jobs = site.submit(*[pass_gate.bind("result") for _ in range(3)])
        await eventually(lambda: site.count("running") == 3)
        with site.conn.transaction():  # it is seen with this in it, and the gate opens then
            (odd,) = site.submit(add.bind(0, 0))
            site.conn.execute(f'UPDATE "{site.schema}".job SET attempt = 32767 WHERE id = {odd.id}')
            gates["result"].set()
        await all_finished(site)
    assert {site.row(job).result for job in jobs} == {b'"result"'}
    assert site.row(odd).state is State.FAILED


@pytest.mark.parametrize("instant", ["infinity", "-infinity", "294276-12-31 UTC", "4713-01-01 UTC BC"])
async def test_a_job_due_at_no_time_that_python_knows_holds_up_no_other(site, instant):
    without_borders(site)
    gates["time"] = asyncio.Event()
    async with working(site.app(concurrency=5)):
        (running,) = site.submit(pass_gate.bind("time"))
        await eventually(lambda: site.count("running") == 1)
        with site.conn.transaction():
            (odd,) = site.submit(add.bind(0, 0))
            site.conn.execute(f"UPDATE \"{site.schema}\".job SET run_at = '{instant}' WHERE id = {odd.id}")
        jobs = site.submit(*[add.bind(i, 1) for i in range(20)])
        await eventually(lambda: all(site.row(job).state is State.SUCCEEDED for job in jobs))
        gates["time"].set()
        await eventually(lambda: site.row(running).state is State.SUCCEEDED)
    assert {site.row(job).attempt for job in jobs} == {1}
    past = instant.startswith("-") or instant.endswith("BC")
    assert states(site) == ({"succeeded": 22} if past else {"succeeded": 21, "scheduled": 1})
    if past:  # and whoever looks at it afterwards can read it
        assert site.row(odd).run_at.year == 1


async def test_a_job_whose_arguments_are_lost_ends_without_them(site):
    (odd,) = site.submit(add.bind(0, 0))
    lose_what_is_stored_apart(site, odd)
    jobs = site.submit(*[add.bind(i, 1) for i in range(20)])
    async with working(site.app(concurrency=10)):
        await all_finished(site, 20)
    assert {site.row(job).state for job in jobs} == {State.SUCCEEDED}
    row = site.row(odd)
    assert (row.state, row.arguments, row.errors[-1].kind) == (State.FAILED, b"{}", "InvalidJob")
    assert "missing chunk" in row.errors[-1].message


async def test_a_verdict_that_cannot_be_moved_even_bare_ends_its_job_without_what_it_held(site, caplog):
    gates["moved"] = asyncio.Event()
    async with working(site.app()):
        odd, *jobs = site.submit(*[pass_gate.bind("moved") for _ in range(10)])
        await eventually(lambda: site.count("running") == 10)
        lose_what_is_stored_apart(site, odd)
        gates["moved"].set()
        await all_finished(site, 20)
        (late,) = site.submit(add.bind(1, 2))
        await all_finished(site, 20)
    assert {site.row(job).result for job in jobs} == {b'"moved"'}
    assert site.row(late).result == b"3"
    row = site.row(odd)
    assert (row.state, row.arguments, row.attempt, row.errors[-1].kind) == (State.FAILED, b"{}", 1, "InvalidJob")
    said = Counter(record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    assert len(said) < 10, said


@pytest.mark.long
async def test_while_one_job_cannot_be_claimed_for_a_reason_of_the_servers_the_others_are(site):
    (odd,) = site.submit(add.bind(0, 0))
    site.conn.execute(TRIGGER.format(schema=site.schema, id=odd.id, code="58030"))
    jobs = site.submit(*[add.bind(i, 1) for i in range(30)])
    async with working(site.app(concurrency=10)):
        await eventually(lambda: all(site.row(job).finished_at for job in jobs))
    assert {site.row(job).state for job in jobs} == {State.SUCCEEDED}
    assert site.row(odd).state is State.READY


async def test_while_nothing_can_be_claimed_verdicts_are_written_and_claims_are_ever_further_apart(site, monkeypatch):
    gates["written"] = asyncio.Event()
    asked = []
    original = Link.send

    async def counted(link, statement):
        if link.purpose == "claim":
            asked.append(statement)
        return await original(link, statement)

    async with working(site.app()):
        (running,) = site.submit(pass_gate.bind("written"))
        await eventually(lambda: site.count("running") == 1)
        site.conn.execute(TRIGGER.format(schema=site.schema, id=0, code="58030"))
        jobs = site.submit(*[add.bind(i, 1) for i in range(3)])
        monkeypatch.setattr(Link, "send", counted)
        await asyncio.sleep(2)
        gates["written"].set()
        await eventually(lambda: site.row(running).state is State.SUCCEEDED)
        assert len(asked) < 60, len(asked)
        site.conn.execute(f'DROP TRIGGER objects ON "{site.schema}".job')
        await all_finished(site, 20)
    assert {(site.row(job).state, site.row(job).attempt) for job in jobs} == {(State.SUCCEEDED, 1)}


async def test_an_answer_that_python_cannot_read_fails_the_job_that_it_cannot_read(site, monkeypatch):
    """As of a text that was not UTF-8: Postgres has claimed the job when Python sees it."""
    gates["read"] = asyncio.Event()
    original, odd = Link.send, 0

    async def unreadable(link, statement):
        answer = await original(link, statement)
        claimed = getattr(answer, "claimed", answer)
        if isinstance(claimed, list) and any(isinstance(job, Claimed) and job.id == odd for job in claimed):
            raise UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "unexpected end of data")
        return answer

    monkeypatch.setattr(Link, "send", unreadable)  # now: a round that is on its way goes on with what was there before
    config = WorkerConfig(timing=Timing(unheard=60), grace=1)  # whose heartbeat compares after a minute
    async with working(site.app(concurrency=10), config):
        (running,) = site.submit(pass_gate.bind("read"))
        await eventually(lambda: site.count("running") == 1)
        jobs = [add.bind(i, 1) for i in range(9)]
        unread, *jobs = site.submit(add.bind(0, 0), *jobs)
        odd = unread.id
        gates["read"].set()
        await all_finished(site)
    assert site.row(running).result == b'"read"'
    assert {(site.row(job).state, site.row(job).attempt) for job in jobs} == {(State.SUCCEEDED, 1)}
    row = site.row(unread)
    assert (row.state, row.errors[-1].kind) == (State.FAILED, "InvalidJob")
    assert "can't decode byte" in row.errors[-1].message


async def test_a_rescue_reads_errors_that_are_no_list_and_counts_no_further_than_it_can(site, tmp_path):
    dead = send(site.conn, register("dead", 60), site.schema)
    jobs = site.submit(*[add.bind(i, 1) for i in range(4)])
    site.conn.execute(
        f"UPDATE \"{site.schema}\".job SET state = 'running', worker = {dead}, started_at = now(), claims = 1, attempt = 1"
    )
    site.conn.execute(f'UPDATE "{site.schema}".job SET errors = \'{{"a": 1}}\' WHERE id = {jobs[0].id}')
    site.conn.execute(f"UPDATE \"{site.schema}\".job SET errors = '7', attempt = 3 WHERE id = {jobs[1].id}")
    site.conn.execute(f'UPDATE "{site.schema}".job SET crashes = 32767 WHERE id IN ({jobs[2].id}, {jobs[1].id})')
    site.conn.execute(f'UPDATE "{site.schema}".worker SET expires_at = now() WHERE id = {dead}')
    async with working(site.app(), SOON_MISSED):
        await all_finished(site, 20)
    found = {(row.state, row.errors[0].kind) for row in map(site.row, jobs)}
    assert found == {(State.SUCCEEDED, "WorkerDied"), (State.FAILED, "WorkerDied")}


async def test_one_schedule_that_cannot_be_read_hides_no_other(site):
    without_borders(site)
    for name in ("bad", "good"):
        site.conn.execute(
            f'INSERT INTO "{site.schema}".schedule (name, task, arguments, changes, recurrence, declared, since, next_at) '
            "VALUES (%s, 't', '{}', '{}', '{}', false, now(), now() - interval '1 minute')",
            [name],
        )
    site.conn.execute(f"UPDATE \"{site.schema}\".schedule SET since = '-infinity', next_at = '-infinity', "
                      "paused_until = '4713-01-01 UTC BC' WHERE name = 'bad'")  # fmt: skip
    seen = send(site.conn, look_at_schedules(["t"], []), site.schema)
    assert {due.name for due in seen.due} == {"bad", "good"}


async def test_a_job_whose_progress_is_refused_keeps_no_other_from_being_seen(site, monkeypatch):
    link = Link(site.dsn, site.schema, "reports", deadline=8)
    await link.connect()
    worker = send(site.conn, register("w", 60), site.schema)
    jobs = site.submit(*[add.bind(i, 1) for i in range(5)])
    site.conn.execute(f"UPDATE \"{site.schema}\".job SET state = 'running', worker = {worker}, claims = 1")
    site.conn.execute(f'ALTER TABLE "{site.schema}".job ADD CHECK (progress IS NULL OR id <> {jobs[2].id})')
    told = {(job.id, 1, worker): reports.Progress(0.5) for job in jobs}
    await reports._write_progress(link, told)
    await link.close()
    assert list(told) == [(jobs[2].id, 1, worker)]  # to be tried again
    assert [site.row(job).progress is not None for job in jobs] == [True, True, False, True, True]


class Stubborn:
    """A link to a database in which this job cannot be claimed, for a reason that is not its own as far as one can see."""

    def __init__(self, odd):
        self.odd = odd
        self.ended = []

    def is_broken(self, error):
        return False

    async def send(self, statement):
        if "fence" not in statement.params:
            return [Candidate(id_, 0) for id_ in (1, 2, 3)]
        if "reason" in statement.params:
            self.ended.append(statement.params["id"])
            return 1
        if statement.params["id"] in self.odd:
            raise psycopg.errors.InternalError_("cache lookup failed")
        return [Claimed(statement.params["id"], "t", "q", 1, 3, 1, 0, b"{}", None, None, None)]


async def test_a_job_that_alone_fails_again_and_again_is_taken_for_the_culprit_in_the_end(monkeypatch):
    monkeypatch.setattr(sifting, "STRUCK_SECONDS", 0)
    sieve, link, begun = Sieve(), Stubborn({2}), []
    ended = [await sieve.sift(link, 1, Wanted({"q": 3}), begun.append, lambda: False) for _ in range(5)]
    assert ended == [0, 0, 0, 0, 1]
    assert link.ended == [2]
    assert {job.id for job in begun} == {1, 3}


async def test_where_every_job_fails_alike_none_is_taken_for_the_culprit():
    sieve, link = Sieve(), Stubborn({1, 2, 3})
    for _ in range(9):
        with pytest.raises(psycopg.errors.InternalError_):
            await sieve.sift(link, 1, Wanted({"q": 3}), print, lambda: False)
    assert link.ended == []


def test_a_claim_that_was_cut_asks_for_half_and_grows_again():
    portion = Portion()
    wanted = Wanted({"a": 60, "b": 40})
    asked = []
    for cut in (True, True, True, True, True, True, True, False, False, False, False, False, False, False, False):
        now = portion.of(wanted, {})
        asked.append(sum(now.free.values()))
        if cut:
            portion.cut(now)
        else:
            portion.grow()
    assert asked[0] == 100
    assert asked[7] == 1
    assert all(later <= sooner for sooner, later in pairwise(asked[:8]))
    assert asked[-1] == 100


@pytest.mark.parametrize("limits", ['[{"type": "gpu", "value": 1}]', "[1]", "{}", '"none"', '[{"type": "time"}]'])
async def test_limits_that_this_version_cannot_read_are_a_failed_attempt_of_their_job_alone(site, limits):
    """As a newer version may write them, that knows of one more."""
    odd, *others = site.submit(add.using(max_attempts=1).bind(1, 2), *[add.bind(i, 1) for i in range(3)])
    site.one("UPDATE {}.job SET limits = %s WHERE id = %s RETURNING id", limits, odd.id)
    async with working(site.app()):
        await all_finished(site)
        (after,) = site.submit(add.bind(1, 2))
        await all_finished(site)
    row = site.row(odd)
    assert (row.state, [error.kind for error in row.errors]) == (State.FAILED, ["UnreadableLimits"])
    assert {(site.row(job).state, site.row(job).attempt) for job in [*others, after]} == {(State.SUCCEEDED, 1)}
