"""Tasks that trace, where child processes can import them. There the spans go into a file."""

from __future__ import annotations

import asyncio
import os
import time

import psycopg
from opentelemetry import baggage, trace
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from otel_help import IntoFile

import chancy_otel
from chancy import Backoff, BatchCounts, Discard, Limit, Snooze, Unique, current_job, result_of, task

provider: TracerProvider = TracerProvider(shutdown_on_exit=False)

if path := os.environ.get("CHANCY_TEST_SPANS"):  # a child process: the tests have imported this before they set it
    provider.add_span_processor(SimpleSpanProcessor(IntoFile(path)))
    chancy_otel.instrument(tracer_provider=provider)

SOON = Backoff(base=0.01)
snoozed: set[int] = set()


def connected() -> psycopg.Connection:
    return psycopg.connect(current_job().meta["dsn"], autocommit=True)


def span(name: str):
    return provider.get_tracer("app").start_as_current_span(name)


@task(name="otel_tasks.place", max_attempts=2, retry=SOON)
def place(number: int) -> None:
    if current_job().attempt == 1:
        raise OSError("the first time")
    with span("look up"), connected() as conn:
        PsycopgInstrumentor().instrument_connection(conn, provider)
        conn.execute("SELECT 1")
    with connected() as conn:
        pack.submit(conn, number)


@task(name="otel_tasks.pack", queue="parcels", executor="process")
def pack(number: int) -> None:
    with span("in the child"), connected() as conn:
        tell.submit(conn, number)


@task(name="otel_tasks.tell")
async def tell(number: int) -> dict[str, str]:
    await asyncio.sleep(0)
    with span("inside"):
        return {key: str(value) for key, value in baggage.get_all().items()}


@task(name="otel_tasks.weigh")
async def weigh(number: int) -> int:
    return number


@task(name="otel_tasks.total")
async def total(numbers: list[int]) -> int:
    return sum(numbers)


def graph(size: int) -> int:
    return result_of(total.bind([result_of(weigh.bind(number)) for number in range(size)]))


@task(name="otel_tasks.on_loop")
async def on_loop(size: int) -> int:
    return graph(size)


@task(name="otel_tasks.in_child", executor="process")
def in_child(size: int) -> int:
    return graph(size)


@task(name="otel_tasks.done")
async def done(counts: BatchCounts) -> None: ...


@task(name="otel_tasks.once", unique=Unique(key="k"))
async def once() -> None: ...


@task(name="otel_tasks.end", max_attempts=2, retry=SOON)
async def end(how: str) -> None:
    if how == "snooze" and current_job().id not in snoozed:
        snoozed.add(current_job().id)
        raise Snooze(0.001)
    if how == "discard":
        raise Discard("never again")
    if how == "fail":
        raise ArithmeticError("always")
    if how == "cancel itself":
        raise asyncio.CancelledError
    if how == "wait":
        await asyncio.sleep(600)


@task(name="otel_tasks.end_in_a_thread", max_attempts=2, retry=SOON)
def end_in_a_thread(how: str) -> None:
    asyncio.run(end.function(how))


@task(name="otel_tasks.late", max_attempts=2, retry=SOON, limits=[Limit.time(0.05)])
async def late() -> None:
    await asyncio.sleep(600)


@task(name="otel_tasks.late_in_a_child", max_attempts=2, retry=SOON, limits=[Limit.time(0.2)])
def late_in_a_child() -> None:
    time.sleep(600)


@task(name="otel_tasks.dies", max_attempts=2, retry=SOON, executor="process")
def dies() -> None:
    os._exit(9)


def trace_here() -> str:
    return format(trace.get_current_span().get_span_context().trace_id, "032x")


@task(name="otel_tasks.say")
def say() -> str:
    return trace_here()


@task(name="otel_tasks.say_async")
async def say_async() -> str:
    return trace_here()


@task(name="otel_tasks.say_in_a_child", executor="process")
def say_in_a_child() -> str:
    return trace_here()
