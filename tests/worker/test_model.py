"""Whatever happens to jobs, in whatever order: the rows say what the page of plain code at the top says.

Each step of `Life` is taken twice, on Postgres with the statements of worker and core, and on the model. A claim is
never forgotten, so its verdict may come before or after a rescue, another claim, the job's end and its second life.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import astuple, dataclass, replace
from datetime import timedelta

import msgspec
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
from worker_tasks import add

import chancy
from chancy import Discard, DuplicateJob, Limit, Snooze, Unique
from chancy.current import CurrentJob
from chancy.errors import LeaseLost
from chancy.run import send
from chancy_worker.attempts.verdict import Claimed, cancelled, judged, released, since_now, succeeded
from chancy_worker.claims.forms import PATIENT_ROUND, WAYS
from chancy_worker.claims.settling import settle
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Circle, Wanted
from chancy_worker.connection.sessions import OwnSession
from chancy_worker.life.lease import extend, register
from chancy_worker.life.rescue import declare_dead, take_back
from chancy_worker.life.suspects import choose

pytestmark = pytest.mark.long

WAITING = {"ready", "scheduled"}
LIVE = WAITING | {"running"}
FINISHED = {"succeeded", "failed", "discarded", "cancelled"}


@dataclass(frozen=True)
class Row:
    """What any_job says of a job."""

    state: str
    attempt: int
    max_attempts: int
    fence: int = 0
    crashes: int = 0
    worker: int | None = None
    cancelling: bool = False
    gated: bool = False
    """It shares a limit of one with the others that are."""
    key: str | None = None
    until: str = ""

    @property
    def holds_its_key(self):
        return self.key is not None and self.state in LIVE and self.wants_its_key

    @property
    def wants_its_key(self):
        return self.fence == 0 or self.until == "finished"

    @property
    def shown(self):
        return astuple(self)[:7]

    @property
    def has_a_slot(self):
        return self.gated and self.state == "running"

    def is_held_by(self, fence):
        return self.state == "running" and self.fence == fence

    def claimed(self, worker):
        return replace(self, state="running", attempt=self.attempt + 1, fence=self.fence + 1, worker=worker)

    def finished(self, state):
        return replace(self, state=state, cancelling=False)

    def again(self, delay, refund=0):
        if self.cancelling:
            return self.finished("cancelled")
        return replace(self, state=waiting(delay), attempt=self.attempt - refund, worker=None)

    def ended(self, ending, delay):
        if ending in ("snoozed", "released", "refused"):
            return self.again(delay, refund=1)
        if ending == "retried":
            return self.again(delay) if self.attempt < self.max_attempts else self.finished("failed")
        return self.finished(ending)

    def rescued(self):
        row = replace(self, crashes=self.crashes + 1)
        return row.again(NOW) if row.cancelling or row.attempt < row.max_attempts else row.finished("failed")

    def asked_to_stop(self):
        if self.state in WAITING:
            return self.finished("cancelled")
        return replace(self, cancelling=True) if self.state == "running" else self

    def requeued(self, attempts):
        most = self.attempt + attempts
        return replace(self, state="ready", max_attempts=most, worker=None)

    def fate(self, fence, ending):
        """What a worker is told that asks what became of its verdict."""
        if self.fence != fence:
            return "lost"
        if self.state == "running":
            return "busy"
        return "completed" if self.state == "succeeded" and ending != "succeeded" else "done"


def waiting(delay):
    return "scheduled" if delay else "ready"


NOW, LATER = timedelta(0), timedelta(hours=1)
SINCE = since_now("model")
ENDINGS = {
    "succeeded": lambda job, delay: succeeded(job, b"null"),
    "cancelled": lambda job, delay: cancelled(job),
    "discarded": lambda job, delay: judged(job, Discard(), SINCE, None),
    "failed": lambda job, delay: judged(job, OSError(), SINCE, lambda *_: None),
    "retried": lambda job, delay: judged(job, OSError(), SINCE, lambda *_: delay),
    "snoozed": lambda job, delay: judged(job, Snooze(delay), SINCE, None),
    "released": lambda job, delay: released(job, "model", delay or None),
    "refused": lambda job, delay: msgspec.structs.replace(released(job, "model", delay), refusal=True),
}

delays = st.sampled_from([NOW, LATER])
endings = st.sampled_from(sorted(ENDINGS))


def one_of(name):
    return st.runner().flatmap(lambda life: st.sampled_from(sorted(getattr(life, name))))


def a_job_in(states):
    """Any job, where there is none in these."""
    return st.runner().flatmap(lambda life: st.sampled_from(life.jobs_in(states) or list(life.rows)))


a_claim = one_of("claims") | one_of("claims_of_running_jobs")


THE_ROWS = """
    SELECT
        (SELECT coalesce(json_agg(json_build_array(
            id, state, attempt, max_attempts, claims, crashes, worker, cancel_at IS NOT NULL) ORDER BY id), '[]')
         FROM {0}.any_job),
        (SELECT coalesce(json_agg(json_build_array(id, parked IS NOT NULL) ORDER BY id), '[]') FROM {0}.job),
        ARRAY(SELECT id FROM {0}.worker UNION SELECT id FROM {0}.dead_worker)
"""


COUNT_FROM_ONE = """
    SELECT setval(oid, 1, false) FROM pg_class WHERE relnamespace = %s::text::regnamespace AND relkind = 'S'
"""


class Life(RuleBasedStateMachine):
    """A few jobs and a few workers, so that each job has many claims."""

    def __init__(self, schema, link, onlooker, holder):
        super().__init__()
        self.schema = schema
        self.link = link
        self.onlooker = onlooker
        self.holder = holder
        self.rows: dict[int, Row] = {}
        self.claims: dict[tuple[int, int], Claimed] = {}
        self.workers: dict[int, str] = {}
        self.alive: set[int] = set()
        self.expired: set[int] = set()
        self.asked: set[int] = set()
        for table in ("job", "history", "worker", "dead_worker", "slot", "share"):
            self.execute(f"DELETE FROM {{}}.{table}")
        # Numbers begin anew as well: in which order a set of jobs is gone through is decided by their ids, and whoever
        # takes the same steps again has to come to the same jobs.
        self.onlooker.execute(COUNT_FROM_ONE, [self.schema])
        for name in ("left", "right"):
            self.register(name)

    def send(self, statement):
        return send(self.link, statement, self.schema)

    def execute(self, query, *params, conn=None):
        return (conn or self.onlooker).execute(sql.SQL(query).format(sql.Identifier(self.schema)), params)

    def jobs_in(self, states):
        return [job for job, row in self.rows.items() if row.state in states]

    @property
    def claims_of_running_jobs(self):
        running = self.jobs_in({"running"})
        return [claim for claim in self.claims if claim[0] in running] or self.claims

    @contextlib.contextmanager
    def somebody_locking(self, job):
        with self.holder.transaction():
            self.execute("SELECT FROM {}.job WHERE id = %s FOR UPDATE", job, conn=self.holder)
            yield

    @contextlib.contextmanager
    def out_of_patience(self):
        """Who is sure to meet a lock does not wait for it; else Postgres' own locks may take as long as they like."""
        self.link.execute("SET lock_timeout = '1ms'")
        yield
        self.link.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")

    def register(self, name):
        worker = self.send(register(name, LATER.total_seconds(), process=name))
        self.workers[worker] = name
        self.alive.add(worker)

    @initialize(
        first=st.integers(1, 3), others=st.lists(st.tuples(st.integers(1, 3), delays, st.booleans()), max_size=3)
    )
    def submit_and_claim_one(self, first, others):
        new = [(first, NOW, False), *others]
        jobs = [
            add.using(max_attempts=most, delay=delay, limits=[Limit.concurrency(1, key="one")] if gated else []).bind(
                1, 2
            )
            for most, delay, gated in new
        ]
        for job, (most, delay, gated) in zip(chancy.submit_many(self.onlooker, jobs), new, strict=True):
            self.rows[job.id] = Row(waiting(delay), 0, most, gated=gated)
        self.claim(min(self.alive), 1, patient=False, weighed=False)

    def holder_of(self, key):
        return next((job for job, row in self.rows.items() if row.key == key and row.holds_its_key), None)

    @precondition(lambda self: len(self.rows) < 6)
    @rule(key=st.sampled_from("ab"), until=st.sampled_from(["started", "finished"]), delay=delays)
    def submit_a_unique_job(self, key, until, delay):
        unique = Unique(key=key, until=until)
        job = add.using(unique=unique, delay=delay, max_attempts=2).submit(self.onlooker, 1, 2)
        holder = self.holder_of(key)
        assert (job.outcome, holder in (None, job.id)) == ("inserted" if holder is None else "existing", True)
        if holder is None:
            self.rows[job.id] = Row(waiting(delay), 0, 2, key=key, until=until)

    @precondition(lambda self: self.jobs_in({"ready"}))
    @rule(
        worker=one_of("alive") | one_of("workers"), free=st.integers(1, 3), patient=st.booleans(), weighed=st.booleans()
    )
    def claim(self, worker, free, patient, weighed):
        self.play(worker, [], free, set(self.rows), patient, weighed, None)

    @rule(claim=a_claim, ending=endings, delay=delays, patient=st.booleans())
    def end(self, claim, ending, delay, patient):
        self.play(min(self.alive), [(claim, ending, delay)], 0, set(), patient, False, None)

    @rule(
        worker=one_of("alive") | one_of("workers"),
        said=st.lists(
            st.tuples(a_claim, endings, delays),
            min_size=1,
            max_size=4,
            unique_by=lambda said: said[0],
        ),
        free=st.integers(0, 3),
        chosen=st.sets(one_of("rows"), max_size=3),
        patient=st.booleans(),
        weighed=st.booleans(),
        locked=st.none() | one_of("rows"),
    )
    def play(self, worker, said, free, chosen, patient, weighed, locked):
        verdicts = [ENDINGS[ending](self.claims[claim], delay) for claim, ending, delay in said]
        under = self.claims[said[0][0]].lease if said else worker
        holding = [
            (job, ending, delay)
            for (job, fence), ending, delay in said
            if self.rows[job].is_held_by(fence) and self.rows[job].worker == under
        ]
        written = [verdict for verdict in holding if verdict[0] != locked]
        ready = {job: row for job, row in self.rows.items() if row.state == "ready" and not row.gated}
        due = {job for job, row in ready.items() if job != locked and (job in chosen or not row.crashes)}
        wanted = Wanted(
            free={"default": free},
            looking=("default",),
            suspects=[(job, self.rows[job].fence) for job in sorted(chosen)],
        )
        played = play_round(worker, verdicts, wanted, under=under, text=WAYS[patient, weighed])
        with self.somebody_locking(locked):
            if written != holding and not patient:
                with self.out_of_patience(), pytest.raises(psycopg.errors.LockNotAvailable):
                    self.send(played)
                return
            answer = self.send(played)
        assert answer.settled == len(written)
        for job, ending, delay in written:
            self.rows[job] = self.rows[job].ended(ending, delay)
        assert answer.holding == (worker in self.alive)
        assert len(answer.claimed) == (min(free, len(due)) if answer.holding else 0)
        assert {claim.id for claim in answer.claimed} <= due
        for claim in answer.claimed:
            row = self.rows[claim.id] = self.rows[claim.id].claimed(worker)
            assert (claim.attempt, claim.max_attempts, claim.fence, claim.crashes) == astuple(row)[1:5]
            self.claims[claim.id, claim.fence] = claim
        fates = {(job, fence): self.rows[job].fate(fence, ending) for (job, fence), ending, _ in said}
        assert self.send(settle(under, verdicts, self.claims)) == fates

    @rule(together=st.integers(1, 3), alone=st.booleans())
    def choose_suspects(self, together, alone):
        ready = {job: row for job, row in self.rows.items() if row.state == "ready" and not row.gated and row.crashes}
        company = {job for job, row in ready.items() if row.crashes == 1 and row.max_attempts - row.attempt > 1}
        chosen = self.send(choose(["default"], [], together, alone))
        assert {(job, self.rows[job].fence) for job, _ in chosen} == set(chosen)
        assert {job for job, _ in chosen} <= (company or set(ready))
        assert len(chosen) == (min(together, len(company)) if company else alone and len(ready) > 0)

    @precondition(lambda self: any(row.gated for row in self.rows.values()))
    @rule(
        worker=one_of("alive") | one_of("workers"),
        said=st.none() | st.tuples(a_claim, endings, delays),
        want=st.integers(0, 2),
        locked=st.none() | one_of("rows"),
    )
    def admit(self, worker, said, want, locked):
        """A round that has to do with the limit: it ends a job, with a slot or without, and claims one that waits."""
        verdicts, ours, under = [], False, worker
        if said is not None:
            (job, fence), ending, delay = said
            verdicts, under = [ENDINGS[ending](self.claims[job, fence], delay)], self.claims[job, fence].lease
            ours = self.rows[job].is_held_by(fence) and self.rows[job].worker == under and job != locked
        wanted = Wanted({"default": want} if want else {}, gated={"default": Circle(True, suspects=2)})
        with self.somebody_locking(locked):
            answer = self.send(play_round(worker, verdicts, wanted, under=under, text=PATIENT_ROUND))
        assert answer.settled == ours
        leaves = ours and self.rows[job].has_a_slot
        if ours:
            self.rows[job] = self.rows[job].ended(ending, delay)
        line = self.waiting_in_line()
        if worker not in self.alive or want == 0 or any(row.has_a_slot for row in self.rows.values()):
            line = []
        admitted = self.next_in(line, locked, handed_on=leaves)
        assert [claim.id for claim in answer.claimed] == [job for job in [admitted] if job is not None]
        if line and admitted is None:  # whoever is next is locked by somebody
            assert [done.again for done in answer.admissions] == [True]
        for claim in answer.claimed:
            row = self.rows[claim.id] = self.rows[claim.id].claimed(worker)
            assert (claim.attempt, claim.max_attempts, claim.fence, claim.crashes) == astuple(row)[1:5]
            self.claims[claim.id, claim.fence] = claim

    def waiting_in_line(self):
        """Who waits for the limit, the first first; a claim does not move anybody."""
        ids = [job for (job,) in self.execute("SELECT id FROM {}.job ORDER BY run_at, id")]
        return [job for job in ids if self.rows[job].state == "ready" and self.rows[job].gated]

    def next_in(self, line, locked, handed_on):
        """Who of these is let in, where there is room for one. The first of all says of which kind it is, even if
        somebody has its row: a suspect, which is that one, or one that is none. A slot that is left goes to the first
        whose row is free, if that is no suspect.
        """
        free = [job for job in line if job != locked]
        if handed_on and free and not self.rows[free[0]].crashes:
            return free[0]
        if line and self.rows[line[0]].crashes:
            return line[0] if line[0] != locked else None
        return next((job for job in free if not self.rows[job].crashes), None)

    @precondition(lambda self: any(row.gated for row in self.rows.values()))
    @rule(
        worker=one_of("alive") | one_of("workers"),
        said=st.tuples(a_claim, endings, delays),
        want=st.integers(0, 2),
        locked=st.none() | one_of("rows"),
    )
    def hand_on(self, worker, said, want, locked):
        """A round that hands on the slot of a job that is over, and does nothing else for the limit."""
        (job, fence), ending, delay = said
        verdict, under = ENDINGS[ending](self.claims[job, fence], delay), self.claims[job, fence].lease
        ours = self.rows[job].is_held_by(fence) and self.rows[job].worker == under and job != locked
        wanted = Wanted({"default": want} if want else {}, gated={"default": Circle(hands_on=True, leaving=1)})
        with self.somebody_locking(locked):
            answer = self.send(play_round(worker, [verdict], wanted, under=under, text=PATIENT_ROUND))
        assert answer.settled == ours
        leaves = ours and self.rows[job].gated and verdict.state in FINISHED
        if ours:
            self.rows[job] = self.rows[job].ended(ending, delay)
        waiting = {
            job
            for job, row in self.rows.items()
            if row.state == "ready" and row.gated and not row.crashes and job != locked
        }
        assert len(answer.claimed) == (leaves and worker in self.alive and want > 0 and bool(waiting))
        for claim in answer.claimed:
            assert claim.id in waiting
            row = self.rows[claim.id] = self.rows[claim.id].claimed(worker)
            assert (claim.attempt, claim.max_attempts, claim.fence, claim.crashes) == astuple(row)[1:5]
            self.claims[claim.id, claim.fence] = claim

    @rule(claim=a_claim, commit=st.booleans())
    def complete_in_the_handlers_transaction(self, claim, commit):
        job, fence = claim
        lease = self.claims[claim].lease
        current = CurrentJob(job, "add", "default", 1, 1, fence=fence, schema=self.schema, lease=lease)
        ours = self.rows[job].is_held_by(fence)
        with self.holder.transaction(force_rollback=not commit):
            with contextlib.nullcontext() if ours else pytest.raises(LeaseLost):
                current.complete(self.holder, b"null")
        if ours and commit:
            self.rows[job] = self.rows[job].finished("succeeded")

    @rule(job=a_job_in({"running"}))
    def cancel(self, job):
        row = self.rows[job]
        assert chancy.cancel(self.onlooker, job) == (row.state in LIVE)
        self.rows[job] = row.asked_to_stop()
        if row.state == "running":
            self.asked.add(job)

    @precondition(lambda self: self.jobs_in(FINISHED))
    @rule(job=a_job_in(FINISHED) | one_of("rows"), attempts=st.integers(1, 2))
    def requeue(self, job, attempts):
        row = self.rows[job]
        finished = row.state in FINISHED
        if finished and row.wants_its_key and self.holder_of(row.key) is not None:
            with pytest.raises(DuplicateJob):
                chancy.requeue(self.onlooker, job, attempts=attempts)
            return
        assert chancy.requeue(self.onlooker, job, attempts=attempts) == finished
        if finished:
            self.rows[job] = self.rows[job].requeued(attempts)
            self.asked.discard(job)

    @rule(extending=st.lists(one_of("workers"), max_size=2))
    def hours_pass(self, extending):
        self.execute("UPDATE {}.job SET run_at = run_at - interval '2 hours'")
        self.execute("UPDATE {}.worker SET expires_at = expires_at - interval '2 hours'")
        self.execute("UPDATE {}.dead_worker SET died_at = died_at - interval '2 hours'")
        self.expired = set(self.alive)
        for job, row in self.rows.items():
            if row.state == "scheduled":
                self.rows[job] = replace(row, state="ready")
        for worker in extending:
            extension = self.send(extend(worker, LATER.total_seconds(), None, 0))
            running = {job: row for job, row in self.rows.items() if row.state == "running" and row.worker == worker}
            assert extension.holding == (worker in self.alive)
            assert set(extension.claims) == {(job, row.fence) for job, row in running.items()}
            assert set(extension.cancelled) == {job for job, row in running.items() if row.cancelling}
            self.expired.discard(worker)

    @rule(worker=st.none() | one_of("alive"), by_process=st.booleans())
    def declare_dead(self, worker, by_process):
        name = self.workers.get(worker)
        if worker is None:
            dying, statement = self.expired, declare_dead()
        elif by_process:
            dying, statement = {id_ for id_ in self.alive if self.workers[id_] == name}, declare_dead(process=name)
        else:
            dying, statement = {worker} & self.alive, declare_dead(worker)
        names = self.send(statement).names
        assert sorted(names) == sorted(self.workers[worker] for worker in dying)
        self.alive -= dying
        self.expired -= dying
        for name in names:  # whoever was not dead takes a new lease
            self.register(name)

    @precondition(lambda self: len(self.workers) > len(self.alive))
    @rule(locked=st.none() | one_of("rows"))
    def take_back(self, locked):
        with self.somebody_locking(locked):
            rescued, over, _ = self.send(take_back())
        suspects = [
            job
            for job, row in self.rows.items()
            if row.state == "running" and row.worker not in self.alive and job != locked
        ]
        for job in suspects:
            self.rows[job] = self.rows[job].rescued()
        assert rescued == sum(self.rows[job].state == "ready" for job in suspects)
        assert rescued + over == len(suspects)

    # What takes several steps to come to, and would be rare by chance.

    @precondition(lambda self: self.jobs_in({"running"}))
    @rule(data=st.data())
    def a_worker_dies_over_its_jobs(self, data):
        busy = {self.rows[job].worker for job in self.jobs_in({"running"})} & self.alive
        if busy:
            self.declare_dead(data.draw(st.sampled_from(sorted(busy))), by_process=False)
            self.take_back(None)

    @precondition(lambda self: any(row.gated and row.state == "ready" for row in self.rows.values()))
    @rule(worker=one_of("alive"))
    def a_parked_job_is_admitted(self, worker):
        self.admit(worker, None, 1, None)

    @invariant()
    def the_rows_say_what_the_model_says(self):
        (rows, parked, believed) = self.execute(THE_ROWS).fetchone()
        shown = [[job, *row.shown] for job, row in self.rows.items()]
        assert rows == shown  # so none is live and finished at once
        assert parked == [[job, row.gated] for job, row in self.rows.items() if row.state in LIVE]
        assert sum(row.has_a_slot for row in self.rows.values()) <= 1
        held = [row.key for row in self.rows.values() if row.holds_its_key]
        assert len(held) == len(set(held))
        for row in self.rows.values():
            assert row.attempt <= row.max_attempts - (row.state in WAITING)
            assert row.state != "running" or row.worker in believed  # or nobody would ever rescue it
        assert not {job for job in self.asked if self.rows[job].state in WAITING}


LOCK_SECONDS = 30
"""A statement that waits for a lock where it should pass it by fails after that."""


@pytest.mark.parametrize("part", range(6))
@pytest.mark.timeout(600)  # what it finds it makes small first
def test_whatever_happens_to_jobs_the_rows_say_what_the_model_says(chancy_dsn, chancy_schema, part):
    def connect():
        return psycopg.connect(chancy_dsn, autocommit=True, prepare_threshold=1)

    with connect() as link, connect() as onlooker, connect() as holder:
        link.execute(OwnSession(lock_timeout=f"{LOCK_SECONDS}s", deadline=2 * LOCK_SECONDS)._settings)

        def life():
            return Life(chancy_schema, link, onlooker, holder)

        run_state_machine_as_test(
            seed(part)(life) if "CI" in os.environ else life,
            settings=settings(
                max_examples=int(os.environ.get("CHANCY_MODEL_EXAMPLES", "16")),
                stateful_step_count=40,
                deadline=None,
                database=None,
                report_multiple_bugs=False,
            ),
        )
