"""Where a trace goes: from a request through its jobs, into threads and child processes, and from one attempt to the next."""

from __future__ import annotations

import asyncio

import httpx
import otel_tasks as tasks
import psycopg
import pytest
from opentelemetry import baggage, context
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from otel_help import instrumented, working
from worker_help import eventually

import chancy
import chancy_otel
from chancy import DuplicateJob, InvalidOption, State, Unique, every, submit_many
from chancy_testing import drain, eager
from fastapi import FastAPI

FOREIGN = "00-cc7590a49c4de73998e69f59d8b52640-9abdde883dce378c-01"


async def all_over(site):
    await eventually(lambda: site.one("SELECT count(*) FROM {}.job") == 0, within=60)


async def test_one_trace_goes_from_a_request_through_submit_job_its_job_a_retry_and_a_child_process(site, spans):
    web = FastAPI()

    @web.post("/orders/{number}")
    async def order(number: int) -> int:
        async with await psycopg.AsyncConnection.connect(site.dsn, autocommit=True) as conn:
            return (await tasks.place.submit(conn, number)).id

    FastAPIInstrumentor.instrument_app(web, tracer_provider=spans.provider, exclude_spans=["receive", "send"])
    async with working(site, tasks.place, tasks.pack, tasks.tell):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://shop") as client:
            (await client.post("/orders/7")).raise_for_status()
        await all_over(site)
    request = spans.named("POST /orders/{number}")
    send, (first, second) = spans.one("send", "place"), spans.of("process", "place")
    look, select, send_pack = spans.named("look up"), spans.named("SELECT"), spans.one("send", "pack")
    pack, inner, send_tell = spans.one("process", "pack"), spans.named("in the child"), spans.one("send", "tell")
    tell, inside = spans.one("process", "tell"), spans.named("inside")
    family = {request, send, first, second, look, select, send_pack, pack, inner, send_tell, tell, inside}
    assert set(spans.all) == family
    assert {span.trace for span in family} == {request.trace}
    parents = {
        request: None, send: request, first: send, second: send, look: second, select: look, send_pack: second,
        pack: send_pack, inner: pack, send_tell: inner, tell: send_tell, inside: tell,
    }  # fmt: skip
    assert {span: span.parent for span in family} == {span: over and over.id for span, over in parents.items()}
    assert [span.parent for span in (first, second)] == [send.id, send.id]
    links = {send: (), first: (send.id,), second: (send.id, first.id), pack: (send_pack.id,), tell: (send_tell.id,)}
    assert {span: span.links for span in links} == links
    assert [span.kind for span in (request, send, first, look, pack)] == [
        "SERVER", "PRODUCER", "CONSUMER", "INTERNAL", "CONSUMER",
    ]  # fmt: skip
    assert [span.name for span in (send, first, send_pack, pack)] == [
        "send default", "process default", "send parcels", "process parcels",
    ]  # fmt: skip
    assert len(spans.file.read_text().splitlines()) == 2  # those that the child process has told


async def test_a_span_says_what_the_conventions_ask_for_and_how_the_attempt_has_ended(site, spans):
    async with working(site, tasks.place, tasks.pack, tasks.tell):
        job = tasks.place.submit(site.conn, 7)
        await all_over(site)
    about = {"messaging.system": "chancy", "messaging.destination.name": "default", "messaging.message.id": str(job.id)}
    about |= {"messaging.chancy.task": "otel_tasks.place"}
    operation = {"messaging.operation.name": "send", "messaging.operation.type": "send"}
    assert spans.one("send", "place").attributes == about | operation | {"messaging.chancy.outcome": "inserted"}
    first, second = spans.of("process", "place")
    (error,) = site.row(job).errors
    about |= {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.client.id": error.worker,
    }
    about |= {"messaging.chancy.max_attempts": 2}
    assert first.attributes == about | {
        "messaging.chancy.attempt": 1, "messaging.chancy.outcome": "retried", "error.type": "OSError",
    }  # fmt: skip
    assert second.attributes == about | {"messaging.chancy.attempt": 2, "messaging.chancy.outcome": "succeeded"}
    (event,) = first.events
    assert (event["name"], event["attributes"]["exception.message"]) == ("exception", "the first time")
    assert "otel_tasks.py" in event["attributes"]["exception.stacktrace"]
    assert (first.status, second.status, second.events) == ("ERROR", "UNSET", ())
    assert error.trace.startswith(f"00-{first.trace}-{first.id}-")  # and flags


async def test_the_context_is_there_in_a_thread_on_the_loop_and_in_a_child_process(site, spans):
    with spans.tracer.start_as_current_span("request"):
        jobs = [each.submit(site.conn) for each in (tasks.say, tasks.say_async, tasks.say_in_a_child)]
    async with working(site, tasks.say, tasks.say_async, tasks.say_in_a_child):
        await all_over(site)
    assert {job.result(site.conn) for job in jobs} == {spans.named("request").trace}


ENDS = {
    "go": [("succeeded", "")],
    "snooze": [("released", ""), ("succeeded", "")],
    "discard": [("discarded", "Discard")],
    "fail": [("retried", "ArithmeticError"), ("failed", "ArithmeticError")],
    "cancel itself": [("retried", "CancelledError"), ("failed", "CancelledError")],
}


@pytest.mark.parametrize("how", ENDS)
async def test_each_end_of_an_attempt_is_told_and_what_is_no_error_is_none(site, spans, how):
    both = [tasks.end] if how == "cancel itself" else [tasks.end, tasks.end_in_a_thread]
    async with working(site, tasks.end, tasks.end_in_a_thread):
        for each in both:
            each.submit(site.conn, how)
        await all_over(site)
    for each in both:
        told = spans.of("process", each.name.rpartition(".")[2])
        said = sorted((s.attributes["messaging.chancy.outcome"], s.attributes.get("error.type", "")) for s in told)
        assert said == sorted(ENDS[how])
        assert all((span.status == "ERROR") == ("error.type" in span.attributes) for span in told)


@pytest.mark.parametrize(
    ("task", "kind"),
    [(tasks.late, "TimeLimitExceeded"), (tasks.late_in_a_child, "TimeLimitExceeded"), (tasks.dies, "ProcessDied")],
    ids=lambda value: getattr(value, "name", None),
)
async def test_an_attempt_that_is_stopped_or_killed_has_its_span_and_the_next_one_links_to_it(site, spans, task, kind):
    async with working(site, task):
        job = task.submit(site.conn)
        await all_over(site)
    first, second = spans.of("process")
    assert [span.attributes["error.type"] for span in (first, second)] == [kind, kind]
    assert [span.attributes["messaging.chancy.outcome"] for span in (first, second)] == ["retried", "failed"]
    assert first.id in second.links
    assert [error.kind for error in site.row(job).errors] == [kind, kind]


async def test_one_that_is_cancelled_or_interrupted_is_no_error(site, spans):
    async with working(site, tasks.end):
        cancelled, interrupted = (tasks.end.submit(site.conn, "wait") for _ in range(2))
        await eventually(lambda: site.count("running") == 2)
        chancy.cancel(site.conn, cancelled.id)
        await eventually(lambda: site.row(cancelled).state is State.CANCELLED)
    told = {s.attributes["messaging.message.id"]: s for s in spans.of("process")}
    ends = [told[str(job.id)] for job in (cancelled, interrupted)]
    assert [span.attributes["messaging.chancy.outcome"] for span in ends] == ["cancelled", "released"]
    assert not any("error.type" in span.attributes for span in ends)


# Submits.


async def test_many_jobs_of_one_submit_are_one_span_and_each_has_its_context(site, spans):
    with spans.tracer.start_as_current_span("elsewhere"):
        bound = tasks.say_async.bind()
    with spans.tracer.start_as_current_span("request"):
        jobs = submit_many(
            site.conn, [tasks.say.bind(), tasks.say.bind(), bound, tasks.once.using(queue="parcels").bind()]
        )
    async with working(site, tasks.say, tasks.say_async, tasks.once):
        await all_over(site)
    send, request, elsewhere = spans.one("send"), spans.named("request"), spans.named("elsewhere")
    assert (send.name, send.parent, send.links) == ("send", request.id, (elsewhere.id,))
    assert send.attributes["messaging.batch.message_count"] == 4
    assert not {"messaging.destination.name", "messaging.message.id", "messaging.chancy.task"} & send.attributes.keys()
    assert [span.parent for span in spans.of("process")] == [send.id] * 4
    assert len(jobs) == 4


@pytest.mark.parametrize("task", [tasks.on_loop, tasks.in_child], ids=str)
async def test_the_jobs_of_a_graph_that_a_handler_returns_belong_to_its_attempt(site, spans, task):
    async with working(site, task, tasks.weigh, tasks.total):
        task.submit(site.conn, 2)
        await all_over(site)
    outer = spans.one("process", task.name.rpartition(".")[2])
    (sent,) = [span for span in spans.of("send") if span.parent == outer.id]
    nodes = [*spans.of("process", "weigh"), *spans.of("process", "total")]
    assert (len(nodes), {node.parent for node in nodes}) == (3, {sent.id})
    assert {span.trace for span in spans.all} == {outer.trace}
    assert sent.attributes["messaging.batch.message_count"] == 3


def test_a_submit_that_goes_wrong_is_an_error_and_one_that_finds_its_job_says_so(site, spans):
    made = tasks.once.submit(site.conn)
    assert tasks.once.submit(site.conn) == made
    with pytest.raises(DuplicateJob):
        tasks.once.using(unique=Unique(key="k", on_conflict="raise")).submit(site.conn)
    first, second, third = spans.all
    assert [span.attributes.get("messaging.chancy.outcome") for span in (first, second)] == ["inserted", "existing"]
    assert second.attributes["messaging.message.id"] == str(made.id)
    assert (third.attributes["error.type"], third.status) == ("DuplicateJob", "ERROR")
    assert spans.figures("messaging.client.sent.messages") == {
        ("send", "once", ""): 2, ("send", "once", "DuplicateJob"): 1,
    }  # fmt: skip


async def test_async_submits_side_by_side_do_not_see_each_others_spans(site, spans):
    async def one(number):
        with spans.tracer.start_as_current_span(f"request {number}"):
            async with await psycopg.AsyncConnection.connect(site.dsn, autocommit=True) as conn:
                await asyncio.gather(tasks.say.submit(conn), tasks.say.submit(conn))

    await asyncio.gather(*(one(number) for number in range(5)))
    requests = {span.id: span.trace for span in spans.all if span.name.startswith("request")}
    sends = spans.of("send")
    assert len(sends) == 10
    assert sorted(span.parent for span in sends) == sorted([*requests, *requests])
    assert all(requests[span.parent] == span.trace for span in sends)


# Where there is no submit of ours.


async def test_a_job_of_another_language_goes_on_with_its_context_or_begins_a_trace(site, spans):
    text = f"SELECT {site.schema}.submit('otel_tasks.say_async', meta => %s::json)"
    with_it, without = (
        site.conn.execute(text, [meta]).fetchone()[0] for meta in (f'{{"traceparent": "{FOREIGN}"}}', None)
    )
    async with working(site, tasks.say_async):
        await all_over(site)
    told = {int(span.attributes["messaging.message.id"]): span for span in spans.of("process")}
    assert (told[with_it].trace, told[with_it].parent, told[with_it].links) == (
        FOREIGN[3:35],
        FOREIGN[36:52],
        (FOREIGN[36:52],),
    )
    assert (told[without].parent, told[without].links) == (None, ())
    assert told[without].trace != told[with_it].trace


BROKEN = [
    '"nonsense"', '""', "7", "null", "[]", '["00-a-b-01", "x"]', '{"a": 1}',
    f'"{FOREIGN[:-1]}"', f'"ff{FOREIGN[2:]}"', '"00-00000000000000000000000000000000-9abdde883dce378c-01"',
    '"00-cc7590a49c4de73998e69f59d8b52640-0000000000000000-01"', '"\\u017c"',
]  # fmt: skip


async def test_a_context_that_cannot_be_read_is_none(site, spans):
    for broken in BROKEN:
        meta = f'{{"traceparent": {broken}, "tracestate": {broken}, "baggage": {broken}}}'
        site.conn.execute(f"SELECT {site.schema}.submit('otel_tasks.say_async', meta => %s::json)", [meta])
    async with working(site, tasks.say_async):
        await all_over(site)
    assert [(span.parent, span.links) for span in spans.of("process")] == [(None, ())] * len(BROKEN)
    assert site.count("succeeded") == len(BROKEN)


async def test_a_tick_begins_a_trace_of_its_own_whatever_there_was_where_its_schedule_was_made(site, spans):
    with spans.tracer.start_as_current_span("request"):
        chancy.schedule(site.conn, "nightly", tasks.say_async.bind(), every(days=1))
    chancy.run_now(site.conn, "nightly")
    with spans.tracer.start_as_current_span("the whole program"):
        async with working(site, tasks.say_async):
            await eventually(lambda: spans.of("process"))
    process = spans.one("process")
    assert (process.parent, process.links) == (None, ())
    assert process.trace != spans.named("request").trace
    row = site.row(int(process.attributes["messaging.message.id"]))
    assert row.meta == {"dsn": site.dsn}


async def test_the_callback_of_a_batch_belongs_to_the_span_in_which_the_batch_was_made(site, spans):
    with spans.tracer.start_as_current_span("request"):
        with chancy.batch(site.conn, on_finished=tasks.done) as batch:
            batch.submit_many([tasks.say_async.bind(), tasks.say_async.bind()])
    async with working(site, tasks.say_async, tasks.done):
        await eventually(lambda: spans.of("process", "done"))
    request, done = spans.named("request"), spans.one("process", "done")
    assert (done.parent, done.links) == (request.id, (request.id,))


async def test_an_attempt_long_after_its_submit_begins_a_trace_which_links_to_that(site, spans):
    tasks.say_async.submit(site.conn)
    site.conn.execute(f"UPDATE {site.schema}.job SET submitted_at = submitted_at - interval '61 minutes'")
    async with working(site, tasks.say_async):
        await all_over(site)
    send, process = spans.one("send"), spans.one("process")
    assert (process.parent, process.links) == (None, (send.id,))
    assert process.trace != send.trace


# Sampling, baggage, and what else is around.


async def test_what_is_not_sampled_stays_so_in_all_that_follows(site):
    with instrumented(sampler=ParentBased(ALWAYS_OFF)) as spans:
        meta = f'{{"traceparent": "{FOREIGN[:-1]}0"}}'
        site.conn.execute(f"SELECT {site.schema}.submit('otel_tasks.say_async', meta => %s::json)", [meta])
        with spans.tracer.start_as_current_span("request"):
            job = tasks.say_async.submit(site.conn)
        async with working(site, tasks.say_async):
            await all_over(site)
        assert spans.all == []
        assert not int(site.row(job).meta["traceparent"][-2:], 16) & 1
        assert job.result(site.conn) == site.row(job).meta["traceparent"][3:35]
        assert spans.figures("messaging.client.consumed.messages") == {("process", "say_async", ""): 2}


async def test_baggage_travels_and_what_is_too_large_stays_behind(site, spans):
    for value in ("acme", "x" * 2000):
        token = context.attach(baggage.set_baggage("tenant", value))
        try:
            with spans.tracer.start_as_current_span("request"):
                tasks.tell.submit(site.conn, 1)
        finally:
            context.detach(token)
    async with working(site, tasks.tell):
        await all_over(site)
    first, second = sorted(spans.of("process"), key=lambda span: int(span.attributes["messaging.message.id"]))
    rows = [site.row(int(span.attributes["messaging.message.id"])) for span in (first, second)]
    assert [row.result for row in rows] == [b'{"tenant":"acme"}', b"{}"]
    assert {span.parent for span in spans.of("process")} == {span.id for span in spans.of("send")}


async def test_the_span_around_a_worker_is_no_parent_of_its_jobs(site, spans):
    site.conn.execute(f"SELECT {site.schema}.submit('otel_tasks.say_async')")
    with spans.tracer.start_as_current_span("the whole program"):
        async with working(site, tasks.say_async):
            await all_over(site)
    assert spans.one("process").parent is None


async def test_the_figures_are_those_of_the_conventions(site, spans):
    async with working(site, tasks.end):
        submit_many(site.conn, [tasks.end.bind("go"), tasks.end.bind("fail")])
        tasks.end.submit(site.conn, "go")
        await all_over(site)
    attempts = {("process", "end", ""): 2, ("process", "end", "ArithmeticError"): 2}
    assert spans.figures("messaging.client.sent.messages") == {("send", "end", ""): 3}
    assert spans.figures("messaging.client.operation.duration") == {("send", "end", ""): 2}
    assert spans.figures("messaging.client.consumed.messages") == attempts
    assert spans.figures("messaging.process.duration") == attempts


@pytest.mark.parametrize("given", ["soon", None, float("inf")])
def test_a_length_of_time_that_is_none_is_refused(given):
    with pytest.raises(InvalidOption, match="same_trace"):
        chancy_otel.instrument(same_trace=given)


# In tests.


def test_in_memory_and_in_a_drain_the_spans_are_the_same(site, spans):
    with eager(surround=chancy_otel.surround, raise_errors=False) as backend:
        with spans.tracer.start_as_current_span("request"):
            tasks.end.submit(backend.conn, "fail")
    in_memory = spans.all
    spans.exporter.clear()
    with spans.tracer.start_as_current_span("request"):
        tasks.end.submit(site.conn, "fail")
    for _ in range(2):
        site.conn.execute(f"UPDATE {site.schema}.job SET run_at = submitted_at")
        drain(site.conn, surround=chancy_otel.surround)
    for told in (in_memory, spans.all):
        send, first, second, request = sorted(
            told, key=lambda span: ("send", "process", "request").index(span.name.split()[0])
        )
        assert (send.parent, first.parent, second.parent) == (request.id, send.id, send.id)
        first, second = sorted((first, second), key=lambda span: span.attempt)
        assert (first.links, second.links) == ((send.id,), (send.id, first.id))
        assert [span.attributes["error.type"] for span in (first, second)] == ["ArithmeticError"] * 2
        assert [span.attributes["messaging.chancy.outcome"] for span in (first, second)] == ["retried", "failed"]
