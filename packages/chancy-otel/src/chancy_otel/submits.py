"""A submit as a PRODUCER span, whose context its jobs take along."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, StatusCode

from chancy.arguments.submits import Submit
from chancy.job import NewJob

from .carried import bound_in, carrier_here, with_carrier
from .telemetry import COUNT, ERROR, JOB, OPERATION, OPERATION_TYPE, OUTCOME, QUEUE, SYSTEM, TASK, in_use

_SEND = {SYSTEM: "chancy", OPERATION: "send", OPERATION_TYPE: "send"}


@contextlib.contextmanager
def around_submit(submit: Submit) -> Iterator[None]:
    """One span for all its jobs. It knows nothing of the commit."""
    telemetry, jobs = in_use(), submit.jobs
    about = _about(jobs)
    began = time.perf_counter()
    span = telemetry.tracer.start_span(
        f"send {about[QUEUE]}" if QUEUE in about else "send",
        kind=SpanKind.PRODUCER,
        attributes=about if len(jobs) == 1 else {**about, COUNT: len(jobs)},
        links=_bound_elsewhere(jobs),
    )
    wrong: dict[str, str] = {}
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            if span.get_span_context().is_valid:
                submit.jobs = _carrying(jobs)
            yield
        if len(jobs) == 1 and submit.made:  # those of a returned graph are made later
            (made,) = submit.made
            span.set_attributes({JOB: str(made.id), OUTCOME: str(made.outcome)})
    except BaseException as error:
        wrong = {ERROR: type(error).__qualname__}
        span.set_attributes(wrong)
        span.record_exception(error)
        span.set_status(StatusCode.ERROR, str(error))
        raise
    finally:
        span.end()
        telemetry.send_seconds.record(time.perf_counter() - began, {**about, **wrong})
        for (queue, task), number in Counter((job.options.queue, job.task) for job in jobs).items():
            telemetry.sent.add(number, {**_SEND, QUEUE: queue, TASK: task, **wrong})


def _about(jobs: Sequence[NewJob[Any]]) -> dict[str, str]:
    """What is true of all of them."""
    about = dict(_SEND)
    for name, values in ((QUEUE, {job.options.queue for job in jobs}), (TASK, {job.task for job in jobs})):
        if len(values) == 1:
            about[name] = values.pop()
    return about


def _bound_elsewhere(jobs: Sequence[NewJob[Any]]) -> list[Link]:
    """To the spans of other traces in which jobs were bound that are submitted here."""
    here = trace.get_current_span().get_span_context()
    trace_here = format(here.trace_id, "032x").encode()
    links = {}
    for meta in dict.fromkeys(job.meta for job in jobs):
        if meta is not None and not (here.is_valid and trace_here in meta):
            bound = bound_in(meta)
            if bound.is_valid and bound.trace_id != here.trace_id:
                links[bound.trace_id, bound.span_id] = Link(bound)
    return list(links.values())


def _carrying(jobs: Sequence[NewJob[Any]]) -> list[NewJob[Any]]:
    """The same with the context that is here."""
    carrier = carrier_here()
    metas = {job.meta: with_carrier(job.task, job.meta, carrier) for job in jobs}
    return [msgspec.structs.replace(job, meta=metas[job.meta]) for job in jobs]
