"""Whatever happens to jobs that need others, in whatever order: when somebody has looked at all of them, the rows say what
the page of plain code at the top says. And so does what there is in memory.

CHANCY_FLOW_EXAMPLES=200 tries more than there is time for on each commit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from dataclasses import dataclass, field

import psycopg
import pytest
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg import sql

import chancy
import chancy_ops
from chancy import Discard, InvalidResult, LeaseLost, Outcome, outcome_of, result_of, task
from chancy.current import CurrentJob
from chancy.flows.statements import tell_all
from chancy.run import send, walk
from chancy_testing import eager
from chancy_worker.attempts.verdict import judged, since_now, succeeded
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import register

pytestmark = pytest.mark.long

FINISHED = {"succeeded", "failed", "discarded", "cancelled"}


HANDLERS = []
"""What the function is to do when it is called next, in memory."""


@task(name="flow_model.node")
def node(results: list[int], outcomes: list[Outcome[int]]) -> int:
    return HANDLERS.pop()()


@dataclass
class Job:
    state: str = "ready"
    fence: int = 0
    needs: dict[int, str] = field(default_factory=dict)
    """Whom it waits for, and how: 's' for a result, 'a' for a success, 'e' for an end, 'r' to become it."""
    doomed: dict[int, str] = field(default_factory=dict)
    """Whom it waited for when it was ended before its needs were met."""
    becomes: int | None = None
    by_a_need: bool = False
    """It was ended because of one."""
    stopping: bool = False


class Page:
    """What must be."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}

    def state(self, job: int) -> str:
        return self.jobs[job].state if job in self.jobs else "gone"

    def is_live(self, job: int) -> bool:
        return self.state(job) not in FINISHED | {"gone"}

    def is_in_vain(self, need: int, kind: str) -> bool:
        state = self.state(need)
        return state == "gone" or (kind != "e" and state in FINISHED - {"succeeded"})

    def look(self) -> None:
        """Until nothing changes any more."""
        while any(self.look_at(job) for job in self.jobs.values() if job.state == "blocked"):
            pass

    def look_at(self, job: Job) -> bool:
        certain = [need for need, kind in job.needs.items() if kind != "e" and self.is_in_vain(need, kind)]
        over = not any(self.is_live(need) for need in job.needs)
        if certain or (over and any(self.is_in_vain(*need) for need in job.needs.items())):
            job.state = "cancelled" if job.becomes is None else "failed"
            job.doomed, job.needs, job.by_a_need = job.needs, {}, True
        elif over:
            job.state, job.needs = "ready" if job.becomes is None else "succeeded", {}
        return bool(certain) or over

    def above(self, jobs: Collection[int]) -> set[int]:
        """These, and whom they wait for or would when they came back, and whom those do."""
        found, left = set[int](), set(jobs)
        while left:
            found |= left
            known = [self.jobs[job] for job in left if job in self.jobs]
            left = {need for job in known for need in job.needs | job.doomed} - found
        return found

    def cancel(self, job: int) -> None:
        """It, and what it was to become."""
        this = self.jobs[job]
        if this.state == "running":
            this.stopping = True
        elif self.is_live(job):
            this.doomed, this.needs, this.state, this.by_a_need = this.needs or this.doomed, {}, "cancelled", False
            if this.becomes is not None and self.is_live(this.becomes):
                self.cancel(this.becomes)

    def requeue(self, job: int) -> None:
        this = self.jobs[job]
        if not this.doomed:
            self.run_again(this)
        blamed = {job}
        while (
            more := {
                need
                for each in blamed & self.jobs.keys()
                for need, kind in self.jobs[each].doomed.items()
                if kind != "e" and self.state(need) in FINISHED - {"succeeded"} | {"gone"}
            }
            - blamed
        ):
            blamed |= more
        back = set(blamed)
        while more := {
            id_ for id_, each in self.jobs.items() if each.by_a_need and back & each.doomed.keys()
        } - back:  # fmt: skip
            back |= more
        for each in (self.jobs[id_] for id_ in back & self.jobs.keys()):
            if each.state in FINISHED and each.doomed:
                each.state, each.needs, each.doomed, each.by_a_need = "blocked", each.doomed, {}, False
            elif each.state in FINISHED:
                self.run_again(each)

    def run_again(self, job: Job) -> None:
        job.state, job.becomes, job.by_a_need, job.stopping = "ready", None, False, False


def one_in(*states):
    """Any job, where there is none in these."""
    return st.runner().flatmap(
        lambda life: st.sampled_from(
            [id_ for id_, job in life.page.jobs.items() if job.state in states] or sorted(life.page.jobs)
        )
    )


def in_state(*states):
    return precondition(lambda self: any(job.state in states for job in self.page.jobs.values()))


ANY = ("blocked", "ready", "running", *FINISHED)
ENDINGS = {
    "succeeded": lambda job: succeeded(job, b"1"),
    "failed": lambda job: judged(job, OSError(), since_now("model"), lambda *_: None),
    "discarded": lambda job: judged(job, Discard(), since_now("model"), None),
}
ROWS = """
    SELECT coalesce((SELECT json_object_agg(id, state) FROM {0}.any_job), '{{}}'),
        (SELECT coalesce(json_agg(json_build_array(job, needs, kind) ORDER BY job, needs), '[]') FROM {0}.need
         WHERE doomed_at IS NULL)
"""


COUNT_FROM_ONE = """
    SELECT setval(oid, 1, false) FROM pg_class WHERE relnamespace = %s::text::regnamespace AND relkind = 'S'
"""


class Flows(RuleBasedStateMachine):
    """What is alike wherever jobs are. `rows` are the states by their ids, and who needs whom and how."""

    def __init__(self, conn):
        super().__init__()
        self.conn = conn
        self.page = Page()
        self.handles = {}
        self.quiet = False
        """Nobody has looked since something ended."""

    def look(self):
        self.page.look()
        self.quiet = False

    @initialize()
    def begin(self):
        self.submit([])
        self.submit([])

    @precondition(lambda self: len(self.page.jobs) < 9)
    @rule(needs=st.lists(st.tuples(one_in(*ANY), st.sampled_from("saae")), max_size=3, unique_by=lambda need: need[0]))
    def submit(self, needs):
        of = {kind: [self.handles[need] for need, each in needs if each == kind] for kind in "sae"}
        job = node.using(max_attempts=1, after=of["a"]).submit(
            self.conn, [result_of(job) for job in of["s"]], [outcome_of(job) for job in of["e"]]
        )
        self.handles[job.id] = job
        self.page.jobs[job.id] = Job("blocked" if needs else "ready", needs=dict(needs))
        self.look()

    @precondition(lambda self: len(self.page.jobs) < 9)
    @rule(width=st.integers(1, 2))
    def submit_a_graph(self, width):
        parts = [node.using(max_attempts=1).bind([], []) for _ in range(width)]
        join = node.using(max_attempts=1).bind([result_of(part) for part in parts], [])
        made = chancy.submit_many(self.conn, [*parts, join])
        for job in made:
            self.handles[job.id] = job
            self.page.jobs[job.id] = Job()
        self.page.jobs[made[-1].id] = Job("blocked", needs={part.id: "s" for part in made[:-1]})

    @rule(job=one_in("blocked", "ready", "running"))
    def cancel(self, job):
        self.look()
        assert chancy.cancel(self.conn, job) == self.page.is_live(job)
        self.page.cancel(job)
        self.look()

    @in_state(*FINISHED)
    @rule(job=one_in(*FINISHED))
    def requeue(self, job):
        self.look()
        if self.page.is_live(job):
            assert chancy.requeue(self.conn, job, attempts=1) is False
            return
        assert chancy.requeue(self.conn, job, attempts=1)
        self.page.requeue(job)
        self.look()

    @in_state(*FINISHED)
    @rule(job=one_in(*FINISHED, "blocked"))
    def delete(self, job):
        self.look()
        running = self.page.state(job) == "running"
        assert chancy_ops.delete(self.conn, job) is not running
        if not running:
            del self.page.jobs[job]
        if not self.page.jobs:
            self.submit([])
        self.look()

    @rule()
    def look_at_all(self):
        self.look()

    @invariant()
    def the_rows_say_what_the_page_says(self):
        states, needs = self.rows()
        assert states == {id_: job.state for id_, job in self.page.jobs.items()}
        edges = [[id_, *need] for id_, job in self.page.jobs.items() for need in job.needs.items()]
        assert needs == sorted(edges)
        assert all(id_ not in self.page.above(job.needs | job.doomed) for id_, job in self.page.jobs.items())
        if not self.quiet:
            for job in self.page.jobs.values():
                assert job.state != "blocked" or any(self.page.is_live(need) for need in job.needs)


class InPostgres(Flows):
    def __init__(self, schema, conn, other):
        super().__init__(conn)
        self.schema, self.other = schema, other
        self.claims = {}
        for table in ("need", "job", "history", "worker"):
            conn.execute(sql.SQL("DELETE FROM {}.{}").format(sql.Identifier(schema), sql.Identifier(table)))
        # Numbers begin anew as well: in which order sets of them are gone through has to be the same each time.
        conn.execute(COUNT_FROM_ONE, [schema])
        self.worker = self.send(register("model", 3600))

    def send(self, statement):
        return send(self.conn, statement, self.schema)

    def rows(self):
        ((states, needs),) = self.conn.execute(sql.SQL(ROWS).format(sql.Identifier(self.schema))).fetchall()
        return {int(id_): state for id_, state in states.items()}, needs

    def look(self):
        walk(tell_all(), self.send)
        super().look()

    @in_state("ready")
    @rule(free=st.integers(1, 2))
    def claim(self, free):
        ready = [id_ for id_, job in self.page.jobs.items() if job.state == "ready"]
        claimed = self.send(play_round(self.worker, [], Wanted({"default": free}, looking=("default",)))).claimed
        assert len(claimed) == min(free, len(ready))
        for claim in claimed:
            job = self.page.jobs[claim.id]
            assert job.state == "ready"
            job.state, job.fence = "running", claim.fence
            self.claims[claim.id] = claim

    @in_state("running")
    @rule(job=one_in("running"), ending=st.sampled_from(sorted(ENDINGS)), quiet=st.booleans())
    def end(self, job, ending, quiet):
        this = self.page.jobs[job]
        if this.state == "running":
            answer = self.send(play_round(self.worker, [ENDINGS[ending](self.claims[job])], Wanted()))
            assert answer.settled == 1
            this.state, this.quiet = ending, True
            if any(job in each.needs for each in self.page.jobs.values()):
                assert answer.needed == [job]
            self.quiet = True
            if not quiet:
                self.look()

    @in_state("running")
    @rule(job=one_in("running"), other=one_in(*ANY), commit=st.booleans())
    def become(self, job, other, commit):
        self.look()
        this = self.page.jobs[job]
        if this.state != "running" or other == job:
            return
        claim = self.claims[job]
        current = CurrentJob(
            job, node.name, "default", 1, 1, fence=claim.fence, lease=claim.lease, schema=self.schema
        )  # fmt: skip
        cycle = job in self.page.above({other})
        refused = pytest.raises(LeaseLost) if this.stopping else pytest.raises(InvalidResult, match="could ever begin")
        with contextlib.suppress(LeaseLost, InvalidResult), self.other.transaction(force_rollback=not commit):
            with refused if this.stopping or cycle else contextlib.nullcontext():
                current.complete(self.other, result_of(self.handles[other]))
        if commit and not this.stopping and not cycle:
            this.state, this.becomes, this.needs, this.doomed = "blocked", other, {other: "r"}, {}
        self.look()


def ending(how):
    """What a function does that ends so."""

    def handler():
        if how == "discarded":
            raise Discard
        if how == "failed":
            raise OSError
        return 1

    return handler


class InMemory(Flows):
    """Nothing runs longer than a call."""

    def __init__(self, backend):
        super().__init__(backend.conn)
        self.backend = backend
        HANDLERS.clear()

    def rows(self):
        (memory,) = self.backend._memories.values()
        needs = [[job, need, kind] for job, kinds in memory.needs.items() for need, kind in kinds.items()]
        return {job.id: str(job.state) for job in self.backend.jobs}, sorted(needs)

    @in_state("ready")
    @rule(job=one_in("ready"), how=st.sampled_from(sorted(ENDINGS)))
    def end(self, job, how):
        if self.page.state(job) == "ready":
            HANDLERS.append(ending(how))
            self.backend.perform(self.handles[job])
            self.page.jobs[job].state = how
            self.look()

    @in_state("ready")
    @rule(job=one_in("ready"), other=one_in(*ANY))
    def become(self, job, other):
        this = self.page.jobs[job]
        if this.state != "ready" or other == job:
            return
        HANDLERS.append(lambda: result_of(self.handles[other]))
        self.backend.perform(self.handles[job])
        if job in self.page.above({other}):
            this.state = "failed"  # neither could ever begin
        else:
            this.state, this.becomes, this.needs, this.doomed = "blocked", other, {other: "r"}, {}
        self.look()


def play(flows, part, examples):
    """So many lives, each of 40 things that happen."""
    run_state_machine_as_test(
        seed(part)(flows) if "CI" in os.environ else flows,
        settings=settings(
            max_examples=int(os.environ.get("CHANCY_FLOW_EXAMPLES", examples)),
            stateful_step_count=40,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
        ),
    )


@pytest.mark.parametrize("part", range(3))
@pytest.mark.timeout(600)  # what it finds it makes small first
def test_whatever_happens_to_jobs_that_need_others_the_rows_say_what_the_page_says(chancy_dsn, chancy_schema, part):
    with (
        psycopg.connect(chancy_dsn, autocommit=True) as conn,
        psycopg.connect(chancy_dsn, autocommit=True) as other,
    ):
        play(lambda: InPostgres(chancy_schema, conn, other), part, 8)


@pytest.mark.parametrize("part", range(2))
@pytest.mark.timeout(600)
def test_and_so_does_what_there_is_in_memory(part):
    with contextlib.ExitStack() as last:

        def flows():
            last.close()
            return InMemory(last.enter_context(eager("collect", raise_errors=False)))

        play(flows, part, 40)
