"""Switching it on, in this process."""

from __future__ import annotations

from datetime import timedelta

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

import chancy
from chancy.options.plain import Duration, duration

from .carried import context_here
from .submits import around_submit
from .telemetry import telemetry_of, use


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    same_trace: Duration = timedelta(hours=1),
) -> None:
    """From now on jobs that this process submits carry the context in which they are, and each submit is a span.

    Where tasks are defined is a good place, so that child processes have it, too. By default the providers are the
    global ones, also those that are set later. An attempt that begins later after its submit than `same_trace`, a
    `timedelta` or seconds, begins a trace of its own, which links to that of the submit. Called again it changes the
    providers and that. Raises `InvalidOption`.
    """
    within = duration("same_trace", same_trace).total_seconds()
    use(telemetry_of(tracer_provider, meter_provider, within))
    chancy.meta(context_here)
    chancy.around_submit(around_submit)
