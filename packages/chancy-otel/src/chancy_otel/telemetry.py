"""By what spans and figures are told: a tracer and instruments, after OpenTelemetry's conventions for messaging.

The conventions are version 1.44, which calls them "in development": they are named here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import Counter, Histogram, MeterProvider
from opentelemetry.trace import Tracer, TracerProvider

from .__about__ import __version__

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The borders of both histograms, if the application's SDK has no others for them."""

SYSTEM: Final = "messaging.system"
OPERATION: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
QUEUE: Final = "messaging.destination.name"
JOB: Final = "messaging.message.id"
COUNT: Final = "messaging.batch.message_count"
WORKER: Final = "messaging.client.id"
ERROR: Final = "error.type"

# What the conventions have no name for goes below that of the system.
TASK: Final = "messaging.chancy.task"
ATTEMPT: Final = "messaging.chancy.attempt"
MAX_ATTEMPTS: Final = "messaging.chancy.max_attempts"
OUTCOME: Final = "messaging.chancy.outcome"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What this process tells by."""

    tracer: Tracer
    sent: Counter
    send_seconds: Histogram
    consumed: Counter
    process_seconds: Histogram
    same_trace: float
    """Seconds after its submit until which an attempt belongs to the trace of that."""


def telemetry_of(tracers: TracerProvider | None, meters: MeterProvider | None, same_trace: float) -> Telemetry:
    """By these providers; None is the global one, also one that is set later."""
    meter = metrics.get_meter("chancy", __version__, meters, SCHEMA)
    return Telemetry(
        tracer=trace.get_tracer("chancy", __version__, tracers, SCHEMA),
        sent=meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        ),
        send_seconds=meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=SECONDS,
        ),
        consumed=meter.create_counter(
            "messaging.client.consumed.messages",
            "{message}",
            "Number of messages that were delivered to the application.",
        ),
        process_seconds=meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=SECONDS,
        ),
        same_trace=same_trace,
    )


_in_use = telemetry_of(None, None, 3600.0)


def in_use() -> Telemetry:
    """As `instrument` has said, or by the global providers."""
    return _in_use


def use(telemetry: Telemetry) -> None:
    """From now on, in this process."""
    global _in_use
    _in_use = telemetry
