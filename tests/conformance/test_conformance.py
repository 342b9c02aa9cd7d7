"""The promises about jobs, on Postgres and in memory; and that a memory which drifts is found out."""

from __future__ import annotations

import asyncio

import msgspec
import psycopg
import pytest

from chancy.arguments.codec import Signature
from chancy.states import State
from chancy_testing import eager
from chancy_testing.attempts import on_a_loop_of_its_own
from chancy_testing.in_memory.store import Memory
from conformance import InMemory, OnPostgres, run
from conformance.cases import CASES


@pytest.fixture(scope="module", params=["sync", "async"])
def conn(request, chancy_dsn):
    """On which case after case runs: half of what a short one takes is to be known to the server, and much of the rest
    are plans of rounds, which are made once, as a worker has them.
    """
    asked = {"conninfo": chancy_dsn, "autocommit": True, "options": "-c plan_cache_mode=force_generic_plan"}
    if request.param == "sync":
        with psycopg.connect(**asked) as conn:
            yield conn
    else:
        conn = on_a_loop_of_its_own(psycopg.AsyncConnection.connect(**asked))
        yield conn
        on_a_loop_of_its_own(conn.close())


@pytest.fixture
def on_postgres(conn, chancy_schema):
    if isinstance(conn, psycopg.AsyncConnection):
        conn.lock = asyncio.Lock()  # which belongs to a loop as soon as two have waited for it
    yield OnPostgres(conn, chancy_schema)
    assert conn.info.transaction_status is psycopg.pq.TransactionStatus.IDLE


@pytest.fixture(params=["sync", "async"])
def in_memory(request):
    with eager(raise_errors=False) as backend:
        yield InMemory(backend, backend.conn if request.param == "sync" else backend.aconn)


each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)


def test_there_are_at_least_80_promises_each_once():
    assert len({case.__name__ for case in CASES}) == len(CASES) >= 80


@each
def test_postgres_keeps_the_promise(case, on_postgres):
    run(case, on_postgres)


@each
def test_memory_keeps_the_promise(case, in_memory):
    run(case, in_memory)


def broken_promises(kind):
    """Their names, as they are found."""
    for case in CASES:
        with eager(raise_errors=False) as backend:
            try:
                run(case, InMemory(backend, backend.conn if kind == "sync" else backend.aconn))
            except (Exception, pytest.fail.Exception):
                yield case.__name__


def without_decoding(monkeypatch):
    """The function gets the very objects that were submitted."""
    given = {}
    encode = Signature.encode_arguments

    def encode_and_keep(self, args, kwargs):
        payload = encode(self, args, kwargs)
        given[payload] = args, kwargs
        return payload

    monkeypatch.setattr(Signature, "encode_arguments", encode_and_keep)
    monkeypatch.setattr(Signature, "decode_arguments", lambda self, payload: given[payload])


def without_a_last_attempt(monkeypatch):
    """A job is tried 50 times, whatever its row says."""
    claim = Memory.claim

    def generous(self, job_id):
        job = claim(self, job_id)
        return job and msgspec.structs.replace(job, max_attempts=50)

    monkeypatch.setattr(Memory, "claim", generous)


def without_a_fence(monkeypatch):
    """A verdict is written whatever has become of the job."""
    settle = Memory.settle

    def careless(self, verdict):
        if (kept := self.jobs[verdict.id]).row.state is not State.RUNNING:
            self.jobs[verdict.id] = kept.with_row(state=State.RUNNING)
        settle(self, verdict)

    monkeypatch.setattr(Memory, "settle", careless)


def without_a_refund(monkeypatch):
    """A snooze costs an attempt."""
    settle = Memory.settle
    monkeypatch.setattr(
        Memory, "settle", lambda self, verdict: settle(self, msgspec.structs.replace(verdict, refund=False))
    )


@pytest.mark.parametrize("drift", [without_decoding, without_a_last_attempt, without_a_fence, without_a_refund])
def test_a_memory_that_drifts_from_postgres_is_found_out(drift, monkeypatch):
    drift(monkeypatch)
    assert next(broken_promises("sync"), None)
    assert next(broken_promises("async"), None)


def test_a_memory_that_has_not_drifted_breaks_none():
    assert [*broken_promises("sync"), *broken_promises("async")] == []
