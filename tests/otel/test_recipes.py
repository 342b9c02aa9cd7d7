"""What docs/guides/tracing.md shows does what it says, in a thread, on the loop and in a child process."""

from __future__ import annotations

import importlib
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from otel_help import working
from worker_help import eventually

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guides/tracing.md").read_text(encoding="utf-8")

TASKS = """
import os
from chancy import Backoff, task
{imports}

@task(name="{name}.in_a_thread", max_attempts=2, retry=Backoff(base=0.01))
def in_a_thread(order: int) -> None:
    {body}

@task(name="{name}.on_the_loop", max_attempts=2, retry=Backoff(base=0.01))
async def on_the_loop(order: int) -> None:
    {body}

@task(name="{name}.in_a_child", max_attempts=2, retry=Backoff(base=0.01), executor="process")
def in_a_child(order: int) -> None:
    {body}
"""

SENTRY = """
import json, os, sentry_sdk
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

class IntoFile(Transport):
    def capture_envelope(self, envelope):
        with open(os.environ["RECIPE"], "a") as file:
            for item in envelope.items:
                if item.type in ("event", "transaction"):
                    file.write(json.dumps([item.type, item.payload.json], default=str) + "\\n")

sentry_sdk.init(
    dsn="http://key@127.0.0.1:9/1", transport=IntoFile, traces_sample_rate=1.0,
    default_integrations=False, auto_enabling_integrations=False, integrations=[LoggingIntegration()],
)
"""

STRUCTLOG = """
import os, structlog

class IntoFile:
    def msg(self, text):
        with open(os.environ["RECIPE"], "a") as file:
            file.write(text + "\\n")
    info = warning = error = msg

structlog.configure(
    processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()],
    logger_factory=lambda *args: IntoFile(),
)
"""


def blocks(title):
    """The code under this heading."""
    (part,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", GUIDE, re.DOTALL | re.MULTILINE)
    return re.findall(r"^```python\n(.*?)^```$", part, re.DOTALL | re.MULTILINE)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Makes modules of these texts, and imports the last one; what its tasks tell is in the file `told`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(logging.Logger, "callHandlers", logging.Logger.callHandlers)  # Sentry puts its own there
    monkeypatch.setenv("RECIPE", str(tmp_path / "told"))
    names = []

    def write(**modules):
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            names.append(name)
        importlib.invalidate_caches()
        return importlib.import_module(names[-1])

    yield write
    for name in names:
        sys.modules.pop(name, None)


async def perform(site, recipe, surround, order=7):
    """All tasks of the recipe, to their ends."""
    tasks = [recipe.in_a_thread, recipe.on_the_loop, recipe.in_a_child]
    jobs = [each.submit(site.conn, order) for each in tasks]
    async with working(site, *tasks, middleware=(), surround=surround):
        await eventually(lambda: site.one("SELECT count(*) FROM {}.job") == 0, within=60)
    return jobs


@pytest.mark.long
async def test_sentry_has_the_last_failure_with_its_frame_and_each_attempt_in_the_trace_of_the_request(
    site, recipe, tmp_path
):
    import sentry_sdk

    code, _ = blocks("Sentry")
    body = 'doubled = order * 2; raise ValueError(f"order {order}")'
    setup = SENTRY + code
    tasks = recipe(
        recipe_sentry=setup,
        recipe_sentry_tasks=TASKS.format(name="recipe_sentry", imports="import recipe_sentry", body=body),
    )
    try:
        with sentry_sdk.start_transaction(op="http.server", name="POST /orders") as request:
            jobs = await perform(site, tasks, sys.modules["recipe_sentry"].in_sentry)
    finally:
        sentry_sdk.get_global_scope().set_client(None)
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    events = [said for kind, said in told if kind == "event"]
    attempts = [said for kind, said in told if kind == "transaction" and said["transaction"] != "POST /orders"]
    assert sorted((a["transaction"], a["contexts"]["chancy"]["attempt"]) for a in attempts) == sorted(
        (job.task, attempt) for job in jobs for attempt in (1, 2)
    )
    assert sorted(event["transaction"] for event in events) == sorted(job.task for job in jobs)
    assert {said["contexts"]["trace"]["trace_id"] for said in [*events, *attempts]} == {request.trace_id}
    for event in events:
        raised = event["exception"]["values"][-1]
        assert (raised["type"], raised["value"]) == ("ValueError", "order 7")
        assert raised["stacktrace"]["frames"][-1]["vars"]["doubled"] == "14"
        assert event["contexts"]["chancy"]["attempt"] == 2


async def test_structlog_has_the_job_on_each_line_within_an_attempt_and_on_none_after_it(site, recipe, tmp_path):
    import structlog

    code, _ = blocks("structlog")
    body = 'structlog.get_logger().info("paid", order=order)'
    tasks = recipe(
        recipe_structlog=STRUCTLOG + code,
        recipe_structlog_tasks=TASKS.format(
            name="recipe_structlog", imports="import structlog, recipe_structlog", body=body
        ),
    )
    try:
        jobs = await perform(site, tasks, sys.modules["recipe_structlog"].bound)
        assert structlog.contextvars.get_contextvars() == {}
    finally:
        structlog.reset_defaults()
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert sorted(told, key=lambda line: line["job"]) == [
        {"job": job.id, "task": job.task, "attempt": 1, "queue": "default", "order": 7, "event": "paid"} for job in jobs
    ]


OPENTELEMETRY = """
{blocks}

from chancy import task
from chancy_testing import eager

@task(name="shop.fold")
def fold() -> None:
    with trace.get_tracer("shop").start_as_current_span("fold"):
        pass

with eager(surround=app.surround) as backend:
    with trace.get_tracer("shop").start_as_current_span("POST /orders"):
        fold.submit(backend.conn)
provider.shutdown()
"""


def test_the_program_of_the_guide_prints_its_spans(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(OPENTELEMETRY.format(blocks="\n".join(blocks("OpenTelemetry"))))
    said = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    assert re.findall(r'^    "name": "(.*)"', said.stdout, re.MULTILINE) == [
        "fold", "process default", "send default", "POST /orders",
    ]  # fmt: skip
    assert len(set(re.findall(r'^        "trace_id": "(.*)"', said.stdout, re.MULTILINE))) == 1


WITHOUT_SDK = """
import sys

class NoSdk:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry.sdk"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoSdk())

import chancy, chancy_otel
from chancy_testing import eager
from opentelemetry import propagate, trace

chancy_otel.instrument()

@chancy.task(name="shop.say")
def say() -> str:
    return format(trace.get_current_span().get_span_context().trace_id, "032x")

FOREIGN = "00-cc7590a49c4de73998e69f59d8b52640-9abdde883dce378c-01"
with eager(surround=chancy_otel.surround) as backend:
    job = say.submit(backend.conn)
    assert job.refresh(backend.conn).meta == {}
    assert job.result(backend.conn) == "0" * 32
    with trace.use_span(trace.get_current_span(propagate.extract({"traceparent": FOREIGN}))):
        job = say.submit(backend.conn)
    assert job.refresh(backend.conn).meta["traceparent"] == FOREIGN
    assert job.result(backend.conn) == FOREIGN[3:35]
print("well")
"""


def test_without_an_sdk_nothing_is_recorded_and_what_others_have_begun_goes_on():
    said = subprocess.run([sys.executable, "-c", WITHOUT_SDK], capture_output=True, text=True, timeout=60, check=False)
    assert said.stdout == "well\n", said.stderr


def test_chancy_loads_nothing_of_opentelemetry_by_itself():
    loaded = "import chancy, chancy_worker, chancy_ops, sys; print('opentelemetry' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout == "False\n"
