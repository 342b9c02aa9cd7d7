"""A context as it travels: in the meta of a job, by the propagators of the application, and as one line of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chancy.arguments.meta import checked_meta, parsed
from chancy.errors import InvalidArguments

MOST_CHARACTERS: Final = 1024
"""Of a context that goes into a row. Of a longer one its baggage is left behind."""

_w3c: Final = TraceContextTextMapPropagator()


def carrier_here() -> dict[str, str]:
    """The current context. Empty where there is none."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    if sum(map(len, carrier.values())) > MOST_CHARACTERS:
        carrier.clear()
        _w3c.inject(carrier)
    return carrier


def context_here() -> dict[str, str | None]:
    """What goes with a job that is bound here, and where nothing does, that nothing does: a job that a schedule submits
    has nothing to do with the trace in which the schedule was made.
    """
    carrier = carrier_here()
    return carrier or dict.fromkeys(propagate.get_global_textmap().fields)  # type: ignore[return-value]


def context_in(meta: Mapping[str, Any]) -> Context:
    """What has travelled with a job. Never raises, and has no span in it where nothing readable has."""
    try:
        carrier = {key: value for key, value in meta.items() if isinstance(value, str)}
        return propagate.extract(carrier, context=Context())
    except Exception:  # of a propagator; what is in a row anybody may have written
        return Context()


def span_in(context: Context) -> SpanContext:
    """Where in a trace that is; not valid if nowhere."""
    return trace.get_current_span(context).get_span_context()


def bound_in(meta: bytes | None) -> SpanContext:
    """Where the job was bound."""
    return span_in(context_in(parsed(meta)))


def with_carrier(task: str, meta: bytes | None, carrier: Mapping[str, str]) -> bytes | None:
    """The same meta with this context. One that would be too large with it stays as it is."""
    before = parsed(meta)
    if carrier.items() <= before.items():
        return meta
    kept = {key: value for key, value in before.items() if key not in propagate.get_global_textmap().fields}
    try:
        return checked_meta(task, {**kept, **carrier})
    except InvalidArguments:
        return meta


def traceparent_of(span: SpanContext) -> str:
    """The W3C's line, whatever the propagators of the application are; "" for one that is not valid."""
    if not span.is_valid:
        return ""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def context_of(traceparent: str, within: Context) -> Context:
    """The span of that line, with all else of the context."""
    return _w3c.extract({"traceparent": traceparent}, within)
