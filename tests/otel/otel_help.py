"""Spans and figures in memory, as plain data; and what `instrument` does, undone behind each test."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from worker_help import FAST, at_work

import chancy_otel
from chancy import AsyncTask, Queue, Task
from chancy.arguments import meta, submits
from chancy_otel import telemetry
from chancy_worker import Worker, WorkerConfig


@dataclass(frozen=True)
class Seen:
    """A span that has ended, in this process or in another one."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str | None
    links: tuple[str, ...]
    attributes: dict[str, Any] = field(hash=False)
    status: str
    events: tuple[dict[str, Any], ...] = field(hash=False)

    @property
    def task(self) -> str:
        return self.attributes.get("messaging.chancy.task", "").rpartition(".")[2]

    @property
    def attempt(self) -> int:
        return self.attributes["messaging.chancy.attempt"]


def seen(said: str) -> Seen:
    span = json.loads(said)
    return Seen(
        span["name"],
        span["kind"].rpartition(".")[2],
        span["context"]["trace_id"][2:],
        span["context"]["span_id"][2:],
        span["parent_id"] and span["parent_id"][2:],
        tuple(link["context"]["span_id"][2:] for link in span["links"]),
        span["attributes"],
        span["status"]["status_code"],
        tuple(span["events"]),
    )


class Spans:
    """All that was exported: to memory, and by child processes to a file."""

    def __init__(self, **provider: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **provider)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracer = self.provider.get_tracer("app")
        self.file: Path | None = None

    @property
    def all(self) -> list[Seen]:
        there = self.file.read_text().splitlines() if self.file and self.file.exists() else []
        return [seen(said) for said in [*(span.to_json(None) for span in self.exporter.get_finished_spans()), *there]]

    def of(self, operation: str, task: str | None = None) -> list[Seen]:
        """Those of this operation and task, the first attempt first."""
        found = [span for span in self.all if span.attributes.get("messaging.operation.name") == operation]
        found = [span for span in found if task is None or span.task == task]
        return sorted(found, key=lambda span: span.attributes.get("messaging.chancy.attempt", 0))

    def one(self, operation: str, task: str | None = None) -> Seen:
        (span,) = self.of(operation, task)
        return span

    def named(self, name: str) -> Seen:
        (span,) = [span for span in self.all if span.name == name]
        return span

    def figures(self, name: str) -> dict[tuple[str, str, str], Any]:
        """The points of an instrument, by operation, task and error."""
        data = self.reader.get_metrics_data()
        points = [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]
        return {
            (
                point.attributes["messaging.operation.name"],
                point.attributes.get("messaging.chancy.task", "").rpartition(".")[2],
                point.attributes.get("error.type", ""),
            ): getattr(point, "value", None) or point.count
            for point in points
        }


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """What `instrument` changes in the process is as before, behind the block."""
    lists = meta.functions, submits.functions
    before, using = [each[:] for each in lists], telemetry.in_use()
    try:
        yield
    finally:
        for each, was in zip(lists, before, strict=True):
            each[:] = was
        telemetry.use(using)


@contextlib.contextmanager
def instrumented(**options: Any) -> Iterator[Spans]:
    provider = {"sampler": options.pop("sampler")} if "sampler" in options else {}
    spans = Spans(**provider)
    with restored():
        chancy_otel.instrument(tracer_provider=spans.provider, meter_provider=spans.meters, **options)
        yield spans


@contextlib.asynccontextmanager
async def working(site, *tasks: Task | AsyncTask, middleware=(chancy_otel.middleware,), surround=chancy_otel.surround):
    """A worker of these tasks."""
    app = site.app(queues=[Queue(), Queue("parcels")], middleware=middleware, surround=surround)
    worker = Worker(app, WorkerConfig(timing=FAST, grace=1, children=1))
    worker._tasks = {each.name: each for each in tasks}
    async with at_work(worker):
        yield worker


class IntoFile(SpanExporter):
    """Where the test reads them: a line each, written at once, whoever kills this process next."""

    def __init__(self, path: str) -> None:
        self._path = path

    def export(self, spans: Any) -> SpanExportResult:
        with Path(self._path).open("a") as file:
            file.writelines(f"{span.to_json(None)}\n" for span in spans)
        return SpanExportResult.SUCCESS
