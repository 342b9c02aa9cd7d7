"""How Postgres runs the hot statements on a deep table: which index, no sort, and no more blocks than the jobs ask for.

Blocks and not milliseconds: a bound on blocks a job holds on every machine and at any depth. What was seen stands
beside each bound, which is about three times that; a plan that reads the table breaks it many times over.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
import worker_tasks as tasks

import chancy
from chancy import State, Unique
from chancy.batches.statements import finish_batches, finish_unfinished
from chancy.job import submit_one
from chancy.keys.statements import submit_unique
from chancy.model import Statement
from chancy.run import send
from chancy.schema import fill
from chancy.statements import complete_job, insert_jobs, select_outcome
from chancy.verbs import cancel_jobs, requeue_jobs, select_job
from chancy.wires.cursors import ADAPTERS
from chancy_ops.reasons.context import around
from chancy_ops.reasons.why import _held_up
from chancy_worker.attempts.verdict import Claimed, Completion
from chancy_worker.claims.forms import PATIENT_ROUND, ROUND
from chancy_worker.claims.gates import reach
from chancy_worker.claims.settling import settle
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import START, Circle, Flow, Mark, Wanted
from chancy_worker.connection.link import Link
from chancy_worker.connection.sessions import LentSession, OwnSession
from chancy_worker.demand.marks import Marks
from chancy_worker.life.lease import Offer, extend, register
from chancy_worker.life.rescue import declare_dead, take_back
from chancy_worker.life.suspects import choose
from chancy_worker.parts.retention import sweep_windows

DEEP = """
ALTER TABLE {schema}.job SET (autovacuum_enabled = off);

CREATE FUNCTION {schema}.deepen(queue text, priority integer, jobs integer, first interval, worker bigint DEFAULT NULL)
    RETURNS void LANGUAGE sql AS $$
    INSERT INTO {schema}.job
        (task, queue, priority, state, worker, started_at, max_attempts, run_at, submitted_at, arguments)
    SELECT 'worker_tasks.add', queue, priority,
        CASE WHEN worker IS NULL THEN 'ready' ELSE 'running' END::{schema}.state, worker,
        CASE WHEN worker IS NOT NULL THEN at END, 3, at, at, '{}'
    FROM (SELECT now() + first + n * interval '1 ms' AS at FROM generate_series(1, jobs) AS n) AS new
$$;

CREATE FUNCTION {schema}.park(key text, jobs integer, queue text DEFAULT 'gated', most integer DEFAULT 2)
    RETURNS void LANGUAGE sql AS $$
    INSERT INTO {schema}.job
        (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments, gates, parked)
    SELECT 'worker_tasks.add', queue, 0, 'ready', 3, now() - interval '1 day' + n * interval '1 ms', now(), '{}',
        json_build_object('key', key, 'gates',
            json_build_array(json_build_object('name', key, 'most', most, 'to', length(key)))), key
    FROM generate_series(1, jobs) AS n
$$;
"""


@dataclass
class Deep:
    """The deep table, seen from the one worker that is at work on it."""

    schema: str
    worker: int
    running: list[Claimed]
    marks: dict[tuple[str, int], Mark]
    extended: datetime
    waiting: int
    finished: list[int]
    partitions: int


@pytest.fixture(scope="module")
def deep(chancy_dsn):
    """400,000 live and 200,000 finished jobs, and 300,000 dead rows that somebody's snapshot keeps in every index."""
    schema = f"chancy_test_{secrets.token_hex(6)}"

    def run(text, *params):
        cursor = conn.execute(fill(text, schema), params or None)
        return cursor.fetchall() if cursor.description else []

    with psycopg.connect(chancy_dsn) as conn:
        chancy.migrate(conn, schema=schema)
    with psycopg.connect(chancy_dsn, autocommit=True) as conn, psycopg.connect(chancy_dsn) as pin:
        try:
            conn.execute("SET TIME ZONE 'UTC'")
            run(DEEP)
            worker = send(conn, register("plans", 3600), schema)
            run("SELECT {schema}.deepen('default', 0, 200000, '-2 days')")
            run("SELECT {schema}.deepen('default', 0, 100000, '-2 days', %s)", worker)
            pin.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            pin.execute("SELECT")
            ((*mark,),) = run("SELECT run_at, id FROM {schema}.job ORDER BY run_at DESC, id DESC LIMIT 1")
            run("DELETE FROM {schema}.job")
            run("SELECT {schema}.deepen('default', 0, 150000, '-1 day')")
            run("SELECT {schema}.deepen('default', -5, 20000, '-1 day')")
            run("SELECT {schema}.deepen('default', 10, 100000, '1 day')")
            run("SELECT {schema}.deepen('tidy', 0, 30000, '-1 day')")
            run("SELECT {schema}.deepen('tidy', 10, 100000, '1 day')")
            run("SELECT {schema}.deepen('lost', 0, 8000, '-1 day')")
            run(
                "UPDATE {schema}.job SET attempt = 1, crashes = CASE WHEN id % 100 = 0 THEN 1 ELSE 2 END "
                "WHERE queue = 'lost'"
            )
            run("SELECT {schema}.park('concurrency(a)', 60000)")
            run("SELECT {schema}.park('concurrency(wide)', 20000, 'wide', 10000)")
            run("SELECT {schema}.park('concurrency(b=' || n || ')', 1000) FROM generate_series(1, 40) AS n")
            run("""
                INSERT INTO {schema}.job (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments,
                    unique_key, unique_until)
                SELECT 'worker_tasks.add', 'unique', 0, 'ready', 3, now() + interval '1 day', now(), '{}', n, 'finished'
                FROM generate_series(1, 50000) AS n
            """)
            run("""
                INSERT INTO {schema}.unique_window (task, key, job, expires_at)
                SELECT 'worker_tasks.add', n, n, now() + (n - 2000) * interval '1 hour'
                FROM generate_series(1, 50000) AS n
            """)
            run("SELECT {schema}.make_partitions(current_date - 3, current_date)")
            run("""
                INSERT INTO {schema}.history (id, task, queue, priority, state, attempt, max_attempts, claims, crashes,
                    run_at, submitted_at, started_at, finished_at, arguments, result, unique_key, unique_until)
                SELECT nextval('{schema}.job_id_seq'), 'worker_tasks.add', 'default', 0, 'succeeded', 1, 3, 1, 0,
                    now(), now(), now(), now() - n % 4 * interval '1 day', '{}', '1', n, 'finished'
                FROM generate_series(1, 200000) AS n
            """)
            # One worker is at work, and another one was.
            marks = {("default", 10): START, ("default", 0): tuple(mark), ("default", -5): START}
            wanted = Wanted({"default": 100}, marks)
            ((extended,),) = run("SELECT {schema}.clock()")
            ours = send(conn, play_round(worker, [], wanted), schema)
            marks |= ours.marks
            dead = send(conn, register("dead", 3600), schema)
            marks |= send(conn, play_round(dead, [], Wanted({"default": 100}, marks)), schema).marks
            send(conn, declare_dead(worker=dead), schema)
            yield Deep(
                schema,
                worker,
                ours.claimed,
                marks,
                extended,
                run("SELECT id FROM {schema}.job WHERE queue = 'tidy' ORDER BY id OFFSET 100 LIMIT 1")[0][0],
                [id_ for (id_,) in run("SELECT id FROM {schema}.history ORDER BY id OFFSET 90000 LIMIT 100")],
                run("SELECT count(*) FROM pg_inherits WHERE inhparent = '{schema}.history_default'::regclass")[0][0],
            )
        finally:
            pin.rollback()
            run("DROP SCHEMA {schema} CASCADE")


@pytest.fixture(scope="module", params=["never analyzed", "analyzed"])
def statistics(request, deep, chancy_dsn):
    """What the planner knows of the tables: both happen. Pytest takes the params one after the other."""
    with psycopg.connect(chancy_dsn, autocommit=True) as conn:
        if request.param == "analyzed":
            conn.execute(fill("ANALYZE {schema}.job, {schema}.history", deep.schema))
        known = conn.execute(
            "SELECT count(*) FROM pg_stats WHERE schemaname = %s AND tablename = 'job'", [deep.schema]
        ).fetchone()[0]
    assert bool(known) is (request.param == "analyzed")
    return request.param


@pytest.fixture(params=[OwnSession, LentSession], ids=lambda session: session.__name__)
async def link(request, deep, statistics, chancy_dsn):
    """A worker's connection to the deep table."""
    link = Link(chancy_dsn, deep.schema, "plans", deadline=60, session=request.param)
    await link.connect()
    yield link
    await link.close()


@pytest.fixture(params=["force_generic_plan", "force_custom_plan"])
async def caller(request, deep, statistics, chancy_dsn):
    """Somebody's connection, with the planner's own settings: either plan is one that it may come to."""
    link = Link(chancy_dsn, deep.schema, "plans", deadline=60)
    await link.connect()
    await link.conn.execute("RESET ALL")
    await link.conn.execute(f"SET plan_cache_mode = {request.param}")
    yield link
    await link.close()


@dataclass
class Seen:
    """A plan's nodes, each with the CTE that it is in, and the blocks that were asked for, by table or index."""

    nodes: list[tuple[str, dict[str, Any]]]
    blocks: Counter[str]

    def within(self, *ctes):
        return [node for cte, node in self.nodes if not ctes or cte in ctes]

    def indexes(self, *ctes):
        return {of_any_day(node["Index Name"]) for node in self.within(*ctes) if "Index Name" in node}

    def types(self, *ctes):
        return {node["Node Type"] for node in self.within(*ctes)}

    def written(self, cte):
        """How many rows a CTE has written: a bound says nothing of a statement that found nothing to do."""
        return next(node["Actual Rows"] for node in self.within(cte) if node["Node Type"] == "ModifyTable")

    def adrift(self):
        """Scans of a big index that start at no place of their own: they read it from its one end to the other."""
        return [
            node
            for node in self.within()
            if node.get("Index Name", "").startswith(("job", "history")) and " = " not in node.get("Index Cond", "")
        ]

    def read_whole(self):
        """Tables that were read from end to end and had rows: with none, that is the cheapest way to see it."""
        return {
            of_any_day(node["Relation Name"])
            for node in self.within()
            if node["Node Type"] == "Seq Scan" and node["Actual Rows"] + node.get("Rows Removed by Filter", 0) > 0
        }


class Written(psycopg.AsyncClientCursor):
    """EXECUTE takes no parameters: they are written into its text."""

    adapters = ADAPTERS


async def watch(link, statement):
    """Run a statement as this link would, take it back, and tell how it went."""
    conn = link.conn
    async with conn.transaction(force_rollback=True):
        if isinstance(link._session, LentSession):
            before = await blocks_of(conn, link.schema)
            explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + statement.sql
            ((answer,),) = await link.send(Statement(explain, statement.params, list))
        else:
            # As psycopg prepares it: in the plan parameters are parameters. They are numbered by name here, so that
            # it does not matter how the project numbers them.
            names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement.sql)))
            text = fill(statement.sql, link.schema).decode()
            text = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", text)
            await conn.execute(f"PREPARE asked AS {text}".encode(), prepare=False)
            execute = "EXECUTE asked" + f"({', '.join('%s' for _ in names)})" * bool(names)
            values = [statement.params[name] for name in names]
            cursor = Written(conn)
            await cursor.execute("EXPLAIN " + execute, values)  # makes the plan: a worker does that once
            before = await blocks_of(conn, link.schema)
            await cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + execute, values)
            ((answer,),) = await cursor.fetchall()
        blocks = await blocks_of(conn, link.schema) - before
        if not isinstance(link._session, LentSession):
            await conn.execute("DEALLOCATE asked", prepare=False)
    ((plan),) = json.loads(answer)
    return Seen(list(nodes_of(plan["Plan"])), blocks)


async def blocks_of(conn, schema):
    """What this session has asked for so far, in the buffers or not. EXPLAIN's own sums leave out triggers, and CTEs
    that run after the main query, which write history.
    """
    cursor = await conn.execute(
        "SELECT relname, pg_stat_get_xact_blocks_fetched(oid) FROM pg_class WHERE relnamespace = %s::regnamespace",
        [f'"{schema}"'],
    )
    blocks = Counter()
    for name, count in await cursor.fetchall():
        blocks[of_any_day(name)] += count
    return blocks


def of_any_day(name):
    """The name without the day: what holds for one partition holds for all."""
    return re.sub(r"^history_\d{8}", "history", name)


def nodes_of(node, cte=""):
    name = node.get("Subplan Name", "")
    cte = name.removeprefix("CTE ") if name.startswith("CTE ") else cte
    yield cte, node
    for child in node.get("Plans", []):
        yield from nodes_of(child, cte)


def verdicts_of(jobs):
    """Two of three have succeeded, the third is to be tried again."""
    error = b'[{"attempt": 1, "kind": "ValueError", "message": "not yet"}]'
    return [
        Completion(job.id, job.fence, State.READY, errors=error, delay=timedelta(seconds=3))
        if n % 3 == 0
        else Completion(job.id, job.fence, State.SUCCEEDED, b"3")
        for n, job in enumerate(jobs)
    ]


def assert_claims_by_its_index(seen):
    """A sort would lock rows in every lane, and any other index would read what is not ready."""
    assert seen.indexes("claimed", "in_use") == {"job_ready"}
    assert seen.indexes("lease") == {"worker_pkey"}
    assert not seen.types("claimed", "in_use") & {"Sort", "Incremental Sort", "Bitmap Heap Scan"}
    # What was chosen is found again by its place, not by its id.
    assert "Tid Scan" in seen.types("claimed")


def assert_bounded(seen, blocks):
    assert seen.read_whole() <= {"dead_worker", "worker"}  # a row for each worker
    assert seen.blocks.total() <= blocks, seen.blocks


def assert_every_scan_has_its_place(seen):
    assert seen.read_whole() <= {"dead_worker", "worker"}  # a row for each worker
    assert seen.adrift() == []


# Suspects.


@pytest.mark.long
async def test_suspects_are_chosen_by_an_index_that_has_no_other_jobs(link, deep):
    """Of the 8,000 that the queue has, 80 may run beside each other."""
    seen = await watch(link, choose(["lost"], [], 32, alone=True))
    assert seen.indexes() <= {"job_suspect", "pause_pkey"}
    assert_every_scan_has_its_place(seen)
    assert not seen.types("company", "lone") & {"Sort", "Incremental Sort", "Bitmap Heap Scan"}
    assert_bounded(seen, 4 * 32)  # 38


@pytest.mark.long
async def test_where_there_are_none_no_other_job_is_read(link, deep):
    seen = await watch(link, choose(["default", "tidy", "none"], [], 32, alone=True))
    assert seen.indexes() <= {"job_suspect", "pause_pkey"}
    assert_bounded(seen, 60)  # 14


async def test_chosen_suspects_are_found_by_their_ids_and_come_before_what_waits_with_them(link, deep):
    chosen = await link.send(choose(["lost"], [], 32, alone=True))
    wanted = Wanted({"lost": 100}, {("lost", 0): START}, suspects=chosen)
    seen = await watch(link, play_round(deep.worker, [], wanted))
    assert seen.written("claimed") == 32
    assert seen.indexes("suspects") == {"job_pkey"}
    assert_claims_by_its_index(seen)


@pytest.mark.parametrize("known", ["nothing is known", "known to be empty"])
async def test_suspects_are_chosen_as_well_by_a_plan_made_while_there_were_no_jobs(chancy_dsn, chancy_schema, known):
    link = Link(chancy_dsn, chancy_schema, "plans", deadline=60)
    await link.connect()
    if known == "known to be empty":
        await link.conn.execute(fill("VACUUM ANALYZE {schema}.job", chancy_schema))
    seen = await watch(link, choose(["default"], [], 32, alone=True))
    await link.close()
    assert {index for index in seen.indexes() if index.startswith("job")} == {"job_suspect"}
    assert not seen.types("company", "lone") & {"Sort", "Incremental Sort", "Bitmap Heap Scan"}
    assert seen.adrift() == []


# Parked jobs.


async def test_a_look_into_a_queue_of_parked_jobs_costs_what_one_into_an_empty_queue_does(link, deep):
    # The first look after an admission that was taken back, as those of other tests are, buries its index entries.
    for _ in range(2):
        parked = await watch(link, play_round(deep.worker, [], Wanted({"gated": 100}, looking=("gated",))))
    empty = await watch(link, play_round(deep.worker, [], Wanted({"none": 100}, looking=("none",))))
    assert parked.written("claimed") == 0
    assert parked.indexes("claimed", "in_use") == {"job_ready"}
    assert parked.blocks.total() <= empty.blocks.total() + 20


def admit(worker, want):
    return play_round(worker, [], Wanted({"gated": want}, gated={"gated": Circle(True)}))


async def test_an_admission_reads_one_job_a_key_and_those_that_it_admits(link, deep):
    seen = await watch(link, admit(deep.worker, 60))
    assert_every_scan_has_its_place(seen)
    assert seen.blocks["slot"] >= 60  # it did admit them
    assert seen.blocks.total() <= 60 * 72, seen.blocks  # 67 a job; 71 on Postgres 16


async def test_a_full_limit_costs_an_admission_one_look_however_many_wait(link, deep):
    async with link.conn.transaction(force_rollback=True):
        await link.send(admit(deep.worker, 82))  # two of each key
        seen = await watch(link, admit(deep.worker, 100))
    assert seen.blocks.total() <= 41 * 50, seen.blocks  # 17 a key


async def test_a_round_that_hands_slots_on_reads_what_ends_what_follows_and_their_slots(link, deep):
    async with link.conn.transaction(force_rollback=True):
        begun = (await link.send(admit(deep.worker, 82))).claimed  # two of each key
        wanted = Wanted({"gated": 100}, gated={"gated": Circle(hands_on=True, leaving=82)})
        verdicts = [Completion(job.id, job.fence, State.SUCCEEDED, b"3") for job in begun]
        seen = await watch(link, play_round(deep.worker, verdicts, wanted))
    assert seen.written("claimed") == 82
    places = [node["Actual Rows"] for node in seen.within("handed_on") if node["Node Type"] == "Tid Scan"]
    assert places == [82]
    assert seen.indexes("following") == {"job_parked"}
    assert seen.indexes("left_slot") == {"slot_pkey"}
    assert seen.indexes("vacant") == {"slot_pkey", "share_pkey"}
    assert not seen.types("following", "claimed", "handed_on") & {"Sort", "Incremental Sort", "Bitmap Heap Scan"}
    assert_every_scan_has_its_place(seen)
    assert seen.blocks.total() <= 82 * 90, seen.blocks


async def test_a_round_that_claims_by_a_share_of_a_limit_reads_what_it_claims_and_one_row_of_its_share(link, deep):
    wide = "concurrency(wide)"
    found = fill("SELECT gates::text FROM {schema}.job WHERE queue = 'wide' LIMIT 1", deep.schema)
    ((gates,),) = await (await link.conn.execute(found)).fetchall()
    async with link.conn.transaction(force_rollback=True):
        await link.send(reach(deep.worker, {("gate", wide): (300, gates)}))
        wanted = Wanted({"wide": 100}, flow=Flow("wide", wide, gates, {0: START}), holds={})
        seen = await watch(link, play_round(deep.worker, [], wanted))
    assert seen.written("claimed") == 100
    assert "job_parked" in seen.indexes("claimed")
    assert seen.blocks["share"] + seen.blocks["share_pkey"] <= 10, seen.blocks
    assert seen.blocks.total() <= 45 * 100, seen.blocks


async def test_a_claim_within_a_share_of_a_queues_limit_costs_what_it_does_without(link, deep):
    wanted = Wanted({"default": 100}, deep.marks, holds={})
    async with link.conn.transaction(force_rollback=True):
        limit = "INSERT INTO {schema}.queue_limit (queue, concurrency) VALUES ('default', 200000)"
        await link.conn.execute(fill(limit, deep.schema))
        await link.send(reach(deep.worker, {("queue", "default"): (300, None)}))
        seen = await watch(link, play_round(deep.worker, [], wanted))
    assert seen.written("claimed") == 100
    assert_claims_by_its_index(seen)
    assert seen.blocks["share"] + seen.blocks["share_pkey"] <= 10, seen.blocks
    assert_bounded(seen, 42 * 100)


# A round.


@pytest.mark.parametrize("text", [ROUND, PATIENT_ROUND], ids=["quick", "patient"])
async def test_a_round_finds_its_verdicts_by_id_and_its_jobs_by_the_claims_index(link, deep, text):
    verdicts = verdicts_of(deep.running)
    seen = await watch(link, play_round(deep.worker, verdicts, Wanted({"default": 100}, deep.marks), text=text))
    assert [seen.written(cte) for cte in ("finished", "returned", "dropped", "claimed")] == [66, 34, 0, 100]
    assert_claims_by_its_index(seen)
    assert seen.indexes("finished", "returned") == {"job_pkey", "retention_pkey"}
    assert_bounded(seen, 42 * 200)  # 13 a verdict or claim; the patient form 14


async def test_a_round_without_claims_reads_nothing_but_the_rows_of_its_verdicts(link, deep):
    seen = await watch(link, play_round(deep.worker, verdicts_of(deep.running), Wanted()))
    assert (seen.written("finished"), seen.written("returned"), seen.written("claimed")) == (66, 34, 0)
    assert seen.indexes("finished", "returned") == {"job_pkey", "retention_pkey"}
    assert_bounded(seen, 45 * 100)  # 15
    assert seen.blocks["job_running"] + seen.blocks["job_cancelling"] <= 30  # 9, of the planner's own


async def test_a_verdict_of_a_job_that_was_to_stop_is_found_by_its_id(link, deep):
    seen = await watch(link, play_round(deep.worker, verdicts_of(deep.running), Wanted()))
    assert not seen.indexes() & {"job_cancelling", "job_running"}
    assert_every_scan_has_its_place(seen)


async def test_a_look_skips_through_the_lanes_without_reading_them(link, deep):
    verdicts = verdicts_of(deep.running)
    seen = await watch(link, play_round(deep.worker, verdicts, Wanted({"tidy": 100}, looking=("tidy",))))
    assert seen.written("claimed") == 100
    assert_claims_by_its_index(seen)
    assert_bounded(seen, 42 * 200)  # 13
    assert seen.blocks["job_ready"] <= 400  # 121, of which 100 are for what is ready again


async def test_a_claim_never_reads_the_future_rows_of_a_higher_priority(link, deep):
    assert deep.marks["default", 10] == START
    seen = await watch(link, play_round(deep.worker, [], Wanted({"default": 100}, deep.marks)))
    assert seen.written("claimed") == 100
    assert_bounded(seen, 35 * 100)  # 11
    assert seen.blocks["job_ready"] <= 20  # 6


async def test_a_claim_never_reads_the_dead_entries_behind_its_mark(link, deep):
    marked = await watch(link, play_round(deep.worker, [], Wanted({"default": 100}, deep.marks)))
    unmarked = await watch(
        link, play_round(deep.worker, [], Wanted({"default": 100}, deep.marks | {("default", 0): START}))
    )
    assert marked.written("claimed") == unmarked.written("claimed") == 100
    assert unmarked.blocks["job_ready"] > 50 * marked.blocks["job_ready"]  # 2,430 against 6
    assert unmarked.blocks["job"] > 5 * marked.blocks["job"]  # 9,000 against 700


async def test_what_became_of_verdicts_is_asked_by_id(link, deep):
    running, finished = verdicts_of(deep.running)[:50], deep.finished[:50]
    seen = await watch(
        link, settle(deep.worker, [*running, *(Completion(id_, 1, State.SUCCEEDED) for id_ in finished)], {})
    )
    assert seen.indexes() == {"job_pkey", "history_pkey", "retention_pkey"}
    assert_bounded(seen, (12 + 7 * deep.partitions) * 100)  # 4 for the live ones, and 2.3 a partition


# The heartbeat, and the dead.


BEAT = {"job_running", "job_cancelling", "worker_pkey", "batch_unfinished", "schedule_due_at", "need_needs"}


async def test_a_heartbeat_reads_only_what_was_claimed_since_the_last_one(link, deep):
    # This worker has had 100,000 jobs, whose entries are still in the index. Those of the claims that other tests have
    # taken back are marked as dead by whoever reads them first.
    await watch(link, extend(deep.worker, 15, deep.extended, 0))
    seen = await watch(link, extend(deep.worker, 15, deep.extended, 0))
    assert seen.indexes() == BEAT
    assert "Sort" not in seen.types()
    assert_bounded(seen, 130)  # 41, for 100 claims


async def test_the_jobs_of_the_dead_are_found_by_their_worker(link, deep):
    seen = await watch(link, take_back())
    assert seen.written("rescued") == 100
    assert seen.indexes("suspect") <= {"job_running", "dead_worker_pkey"}
    assert_every_scan_has_its_place(seen)
    assert_bounded(seen, 60 * 100)


async def test_a_look_for_the_dead_reads_only_the_leases(link, deep):
    await watch(link, declare_dead())  # marks the entries of suspects that other tests have made and taken back
    seen = await watch(link, declare_dead())
    # The two tables have a row for each worker.
    assert seen.indexes() == {"worker_pkey", "dead_worker_pkey", "job_suspect"}
    assert seen.read_whole() <= {"worker", "dead_worker"}
    assert seen.blocks.total() <= 25, seen.blocks  # 8


# What producers and operators say, on connections of their own.


async def test_a_submit_touches_the_indexes_at_one_place(caller, deep):
    seen = await watch(caller, submit_one(tasks.add.bind(1, 2), deep.schema))
    assert seen.indexes() == seen.read_whole() == set()
    assert seen.blocks.total() <= 33  # 11


async def test_a_thousand_jobs_cost_no_more_blocks_than_a_thousand_times_one(caller, deep):
    seen = await watch(caller, insert_jobs([tasks.add.bind(1, 2)] * 1000))
    assert seen.written("inserted") in (0, 1000)
    assert seen.indexes() == seen.read_whole() == set()
    assert seen.blocks.total() <= 18 * 1000  # 6.1


@pytest.mark.parametrize("ask", [select_job, select_outcome])
@pytest.mark.parametrize("which", ["live", "finished"])
async def test_one_job_is_read_by_its_id(caller, deep, ask, which):
    seen = await watch(caller, ask(deep.waiting if which == "live" else deep.finished[0]))
    assert seen.indexes() == {"job_pkey", "history_pkey"}
    assert seen.read_whole() == set()
    assert seen.blocks.total() <= 15 + 9 * deep.partitions  # 4, and 2 or 3 a partition


@pytest.mark.parametrize("which", ["waiting", "running"])
async def test_cancelling_a_job_reads_it_by_its_id(caller, deep, which):
    seen = await watch(caller, cancel_jobs([deep.waiting if which == "waiting" else deep.running[0].id]))
    assert seen.written("cancelled" if which == "waiting" else "asked") == 1
    assert seen.indexes() == {"job_pkey", "history_pkey", "need_pkey"}
    assert seen.read_whole() == set()
    assert seen.blocks.total() <= 75 + 9 * deep.partitions  # 26, and 2 or 3 a partition


async def test_completing_a_job_touches_only_its_row(caller, deep):
    job = deep.running[0]
    seen = await watch(caller, complete_job(job.id, job.fence, job.lease, b"3"))
    assert seen.written("completed") == 1
    assert seen.indexes() == {"job_pkey"}
    assert seen.read_whole() == set()
    assert seen.blocks.total() <= 42  # 14


# Unique jobs. What happens inside of a function no plan shows, but the blocks are counted.


def once(key, **options):
    return tasks.add.using(unique=Unique(key=str(key), **options)).bind(1, 2)


HELD, FREE = 25_000, 60_000


@pytest.mark.parametrize("on_conflict", ["existing", "replace", "raise"])
async def test_the_job_that_has_a_key_is_found_by_the_index_of_keys(caller, deep, on_conflict):
    seen = await watch(caller, submit_unique([once(HELD, on_conflict=on_conflict)]))
    assert seen.blocks["job_unique"] <= 21  # 7
    assert seen.blocks["job"] <= 24  # 8
    assert seen.blocks.total() <= 160  # 53


async def test_a_free_key_costs_a_place_in_one_more_index(caller, deep):
    seen = await watch(caller, submit_unique([once(FREE)]))
    assert seen.blocks.total() <= 60  # 20


async def test_a_time_is_found_by_its_key(caller, deep):
    seen = await watch(caller, submit_unique([once(HELD, within=timedelta(hours=1))]))
    assert seen.blocks["unique_window"] + seen.blocks["unique_window_pkey"] <= 39  # 13
    assert seen.blocks.total() <= 190  # 64


async def test_a_thousand_keys_cost_no_more_blocks_than_a_thousand_times_one(caller, deep):
    jobs = [once(HELD + n if n % 2 else FREE + n, within=timedelta(hours=1)) for n in range(1000)]
    seen = await watch(caller, submit_unique(jobs))
    assert seen.blocks.total() <= 120 * 1000  # 41


@pytest.mark.parametrize("which", ["free", "held"])
async def test_requeueing_a_job_looks_up_its_id_and_its_key(caller, deep, which):
    # The history has the keys from 1 to 200,000 beside its ids in this order.
    seen = await watch(caller, requeue_jobs([deep.finished[0] - (0 if which == "free" else 60_000)], None, {}))
    assert seen.written("requeued") == (which == "free")
    # What tasks declare is a row for each name, looked up or read whole.
    # Who needs whom is asked by the need, where anybody needs anything.
    assert seen.indexes() - {"task_pkey", "need_pkey"} == {"job_pkey", "history_pkey", "job_unique"}
    assert seen.read_whole() <= {"task"}
    assert seen.blocks.total() <= 90 + 45 * deep.partitions  # 32, and 18 a partition


async def test_times_that_have_run_out_are_found_by_when_they_did(link, deep):
    seen = await watch(link, sweep_windows())
    assert seen.written("swept") == 1000
    assert seen.indexes("swept") == {"unique_window_expires_at"}
    assert_bounded(seen, 12 * 1000)  # 4


@pytest.mark.parametrize("known", ["nothing is known", "known to be empty"])
async def test_the_plans_of_the_function_made_while_the_table_was_empty_serve_for_a_full_one(
    chancy_dsn, chancy_schema, known
):
    link = Link(chancy_dsn, chancy_schema, "plans", deadline=60)
    await link.connect()
    await link.conn.execute("RESET ALL")
    with psycopg.connect(chancy_dsn, autocommit=True) as conn:
        conn.execute(fill(DEEP, chancy_schema))
        if known == "known to be empty":
            conn.execute(fill("VACUUM ANALYZE {schema}.job, {schema}.unique_window", chancy_schema))
        hourly = {"within": timedelta(hours=1)}
        asked = [once("a", on_conflict="replace"), once("b", **hourly), once("c", **hourly, on_conflict="replace")]
        for _ in range(20):
            await link.send(submit_unique(asked))
        conn.execute(fill("SELECT {schema}.deepen('default', 0, 50000, '1 day')", chancy_schema))
        seen = [await watch(link, submit_unique([one])) for one in asked]
    await link.close()
    assert max(one.blocks["job"] for one in seen) <= 24  # 8


# In the course of time.


@pytest.mark.parametrize("text", [ROUND, PATIENT_ROUND], ids=["quick", "patient"])
@pytest.mark.parametrize("known", ["nothing is known", "known to be empty"])
@pytest.mark.parametrize("suspects", [(), ((1, 1), (2, 1))], ids=["plain", "with suspects"])
async def test_the_plan_of_a_round_made_while_the_table_was_empty_serves_for_a_full_one(
    chancy_dsn, chancy_schema, known, text, suspects
):
    # A worker that comes before its jobs keeps that plan until the table is analyzed.
    link = Link(chancy_dsn, chancy_schema, "plans", deadline=60)
    await link.connect()
    if known == "known to be empty":
        await link.conn.execute(fill("VACUUM ANALYZE {schema}.job", chancy_schema))
    wanted = Wanted({"default": 100}, {("default", 0): START}, looking=("default",), suspects=suspects)
    seen = await watch(link, play_round(1, [], wanted, text=text))
    await link.close()
    assert_claims_by_its_index(seen)
    assert seen.indexes("suspects") == ({"job_pkey"} if suspects else set())
    assert not seen.indexes() & {"job_cancelling", "job_running"}
    assert_every_scan_has_its_place(seen)


@pytest.mark.parametrize("known", ["nothing is known", "known to be empty"])
async def test_so_do_the_plans_of_what_else_a_worker_asks(chancy_dsn, chancy_schema, known):
    link = Link(chancy_dsn, chancy_schema, "plans", deadline=60)
    await link.connect()
    if known == "known to be empty":
        await link.conn.execute(fill("VACUUM ANALYZE {schema}.job, {schema}.history", chancy_schema))
    settling = await watch(link, settle(1, [], {}))
    beating = await watch(link, extend(1, 15, None, 0))
    await link.close()
    assert settling.indexes() == {"job_pkey", "history_pkey", "retention_pkey"}
    assert beating.indexes() == BEAT
    assert_every_scan_has_its_place(settling)
    assert_every_scan_has_its_place(beating)


@pytest.mark.long
async def test_while_a_snapshot_is_held_the_thousandth_claim_reads_no_more_than_the_tenth(chancy_dsn, chancy_schema):
    link = Link(chancy_dsn, chancy_schema, "plans", deadline=60)
    await link.connect()
    with psycopg.connect(chancy_dsn) as pin, psycopg.connect(chancy_dsn, autocommit=True) as conn:
        conn.execute(fill(DEEP, chancy_schema))
        conn.execute(fill("SELECT {schema}.deepen('default', 0, 101000, '-1 hour')", chancy_schema))
        pin.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        pin.execute("SELECT")
        worker = await link.send(register("plans", 3600))
        marks, claimed, seen = Marks(), [], {}
        marks.learn(await link.send(play_round(worker, [], Wanted(looking=("default",)))), ["default"], 0)
        for n in range(1, 1001):
            wanted = Wanted({"default": 100}, marks.lanes({"default": 100}))
            if n in (10, 1000):
                seen[n] = await watch(link, play_round(worker, [], wanted))
                assert seen[n].written("claimed") == 100
            answer = await link.send(play_round(worker, verdicts_of(claimed[1:]), wanted))
            marks.learn(answer, [], 0)
            claimed = answer.claimed
            assert len(claimed) == 100
        unmarked = await watch(link, play_round(worker, [], Wanted({"default": 100}, {("default", 0): START})))
    await link.close()
    assert seen[1000].blocks.total() <= 2 * seen[10].blocks.total()
    assert seen[1000].blocks["job_ready"] <= 2 * seen[10].blocks["job_ready"] + 20
    # Without the mark it grows with what has been done.
    assert unmarked.blocks["job_ready"] > 50 * seen[1000].blocks["job_ready"]  # 606 against 4
    assert unmarked.blocks["job"] > 3 * seen[1000].blocks["job"]  # 2,611 against 574


@pytest.mark.long
async def test_a_look_at_a_batch_of_which_most_has_finished_reads_no_more_than_one_at_its_begin(
    chancy_dsn, chancy_schema
):
    link = Link(chancy_dsn, chancy_schema, "plans", deadline=60)
    await link.connect()
    with psycopg.connect(chancy_dsn) as pin, psycopg.connect(chancy_dsn, autocommit=True) as conn:

        def run(text):
            conn.execute(fill(text, chancy_schema))

        run(DEEP)
        run("SELECT {schema}.deepen('default', 0, 60000, '-1 hour')")
        run("UPDATE {schema}.job SET batch = 1 + id % 2")
        run("""
            INSERT INTO {schema}.batch (id, total, created_at, witness)
            SELECT batch, count(*), now(), min(id) FROM {schema}.job GROUP BY batch
        """)
        early = await watch(link, finish_batches([1, 2]))
        pin.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        pin.execute("SELECT")
        run("DELETE FROM {schema}.job WHERE id < (SELECT max(id) - 100 FROM {schema}.job)")
        assert (await link.send(finish_batches([1, 2]))).ended == 0  # the witnesses move up
        late = await watch(link, finish_batches([1, 2]))
        every = await watch(link, finish_unfinished(0))
        await link.close()
    assert_bounded(early, 80)  # 24
    assert_bounded(late, 80)  # 24
    assert_bounded(every, 90)  # 28


@pytest.mark.parametrize(
    ("queue", "bound"), [("default", 34_000), ("gated", 500)]
)  # 11,140 for 10,001 jobs; from 79 to 258
async def test_why_counts_what_comes_before_a_job_by_the_indexes(caller, deep, queue, bound):
    last = "SELECT max(id) FROM {schema}.job WHERE queue = %(queue)s::text AND run_at < now()"
    job = await caller.send(select_job(await caller.send(Statement(last, {"queue": queue}, lambda rows: rows[0][0]))))
    taker = await caller.send(register("taker", 3600, Offer([queue], [job.task])))
    steps, blocks = _held_up(job, await caller.send(around(job))), Counter()
    statement = next(steps)
    with contextlib.suppress(StopIteration):
        while True:
            seen = await watch(caller, statement)
            assert "job" not in seen.read_whole()
            assert not [node for node in seen.adrift() if node["Index Name"] != "job_running"]
            blocks += seen.blocks
            statement = steps.send(await caller.send(statement))
    await caller.send(
        Statement("DELETE FROM {schema}.worker WHERE id = %(id)s::bigint RETURNING id", {"id": taker}, list)
    )
    assert 0 < blocks.total() <= bound, blocks
