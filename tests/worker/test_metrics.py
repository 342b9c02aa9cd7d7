"""What `/metrics` says is what ran, in Prometheus' own words, of one worker and of several under a parent."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import tally_tasks
import worker_tasks
from prometheus_client.parser import text_string_to_metric_families
from worker_help import FAST, SOON_MISSED, Proxy, all_finished, eventually, probed, until_answered, working

from chancy import Queue
from chancy.run import send
from chancy.schema import numbered
from chancy.tally.tally import Tallied
from chancy_worker import WorkerConfig
from chancy_worker.connection.link import Link
from chancy_worker.metrics.looks import LOOK, look
from chancy_worker.metrics.numbers import Counted, Depth, Numbers, Seen, decode, encode
from chancy_worker.metrics.prometheus import BOUNDS, page
from chancy_worker.parts.tally import sample


def read(text):
    """Each sample by its name and labels, as Prometheus reads it."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(port):
    status, text = await probed(port, "/metrics")
    assert status == 200, text
    return read(text)


def jobs(task, outcome, queue="default", **more):
    labels = {"queue": queue, "task": f"worker_tasks.{task}", "outcome": outcome} | more
    return ("chancy_jobs_total", *sorted(labels.items()))


def config(port):
    return WorkerConfig(timing=FAST, grace=1, health_port=port)


async def test_what_a_scrape_says_is_what_ran(site, port):
    site.submit(
        *[worker_tasks.add.bind(n, 1) for n in range(30)],
        *[worker_tasks.raise_with.bind("no") for _ in range(4)],
        *[worker_tasks.succeed_at.bind(3) for _ in range(2)],
    )
    async with working(site.app(queues=[Queue("default", 7), Queue("mail", 2)]), config(port)) as worker:
        await all_finished(site)
        await eventually(lambda: not worker._engine.claimer.held)
        site.submit(worker_tasks.pass_gate.bind("never"), worker_tasks.add.using(run_at=None, delay=3600).bind(1, 1))
        await eventually(lambda: worker.busy == 1)
        found = await scraped(port)
    assert {key: n for key, n in found.items() if key[0] == "chancy_jobs_total"} == {
        jobs("add", "succeeded"): 30,
        jobs("raise_with", "failed"): 4,
        jobs("succeed_at", "retried"): 4,
        jobs("succeed_at", "succeeded"): 2,
    }
    of_add = [("queue", "default"), ("task", "worker_tasks.add")]
    assert found["chancy_job_run_seconds_count", *of_add] == found["chancy_job_wait_seconds_count", *of_add] == 30
    assert found["chancy_job_run_seconds_bucket", ("le", "+Inf"), *of_add] == 30
    assert found["chancy_job_run_seconds_count", ("queue", "default"), ("task", "worker_tasks.succeed_at")] == 6
    for queue, slots, running in (("default", 7, 1), ("mail", 2, 0)):
        assert found["chancy_slots", ("queue", queue)] == slots
        assert found["chancy_running", ("queue", queue)] == running
        assert found["chancy_oldest_ready_seconds", ("queue", queue)] == 0
    assert [found[f"chancy_{name}",] for name in ("worker_up", "worker_ready", "database_up", "verdicts_waiting")] == [
        1, 1, 1, 0,
    ]  # fmt: skip


async def test_a_queue_that_is_stuck_shows_how_old_its_oldest_job_is(site, port, chancy_clock):
    async with working(site.app(concurrency=1), config(port)) as worker:
        site.submit(*[worker_tasks.pass_gate.bind("never") for _ in range(3)])
        await eventually(lambda: site.count("running") == 1)
        chancy_clock.move(timedelta(minutes=5))
        found = await scraped(port)
        assert 300 <= found["chancy_oldest_ready_seconds", ("queue", "default")] < 400
        send(site.conn, sample(), site.schema)
        found = await scraped(port)
        assert found["chancy_depth", ("queue", "default"), ("state", "ready")] == 2
        assert found["chancy_depth", ("queue", "default"), ("state", "running")] == 1
        assert worker._engine.looks.due.recovery is not None


async def test_while_the_database_is_away_the_numbers_of_the_worker_are_there(site, port):
    async with Proxy(site.dsn) as proxy, working(site.app(dsn=proxy.dsn), config(port)) as worker:
        site.submit(worker_tasks.add.bind(1, 1))
        await all_finished(site)
        await eventually(lambda: not worker._engine.claimer.held)
        proxy.closes = True
        proxy.cut()
        found = await scraped(port)
        assert found["chancy_database_up",] == 0
        assert found[jobs("add", "succeeded")] == 1
        assert not [key for key in found if key[0] in ("chancy_oldest_ready_seconds", "chancy_depth")]
        proxy.closes = False
        while (await scraped(port))["chancy_database_up",] == 0:
            await asyncio.sleep(0.05)


async def test_what_a_dead_worker_was_running_is_told_by_who_takes_it_back(site, port):
    (job,) = site.submit(worker_tasks.wait_for_file.bind(str(site.folder / "gate")))
    dead = site.spawn()
    await eventually(lambda: site.count("running") == 1, 30)
    tally_tasks.kill(site, dead)
    (site.folder / "gate").touch()
    async with working(site.app(), replace(SOON_MISSED, health_port=port)) as worker:
        await all_finished(site)
        await eventually(lambda: not worker._engine.claimer.held)
        found = await scraped(port)
    assert site.row(job).attempt == 2
    assert found[jobs("wait_for_file", "died")] == found[jobs("wait_for_file", "succeeded")] == 1


async def test_without_the_library_it_is_said_what_to_install(site, port, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    async with working(site.app(), config(port)):
        await until_answered(port, 200)
        status, text = await probed(port, "/metrics")
        assert (status, "install chancy-worker[prometheus]" in text) == (501, True)
        status, text = await probed(port, "/counts")
        assert (status, decode(text).ready) == (200, True)


@pytest.mark.long
async def test_the_parent_of_processes_answers_for_each_of_them(site, port):
    parent = site.work(
        "worker_tasks", "--processes", "2", "--dsn", site.dsn, "--schema", site.schema,
        "--health-port", str(port),
    )  # fmt: skip
    await until_answered(port, 200)
    site.submit(*[worker_tasks.nap.bind(0.05) for _ in range(400)])
    await all_finished(site)
    done = 0
    while done < 400:
        found = await scraped(port)
        done = sum(found.get(jobs("nap", "succeeded", process=str(n)), 0) for n in (1, 2))
    assert done == 400
    assert [found["chancy_worker_up", ("process", str(n))] for n in (1, 2)] == [1, 1]
    assert found["chancy_database_up",] == 1
    pid = next(iter(site.workers().values()))
    os.kill(pid, signal.SIGSTOP)
    found = await scraped(port)
    assert sorted(found["chancy_worker_up", ("process", str(n))] for n in (1, 2)) == [0, 1]
    assert found["chancy_database_up",] == 1
    os.kill(pid, signal.SIGCONT)
    site.submit(worker_tasks.kill_my_worker.using(max_attempts=1).bind())
    await all_finished(site)
    while not (await scraped(port)).get(jobs("kill_my_worker", "failed", process="parent")):
        await asyncio.sleep(0.05)
    parent.signal(signal.SIGTERM)
    await eventually(lambda: parent.code == 0)


NUMBERS = Numbers(
    counted=[
        Counted("q", "t", "succeeded", 5, 2.5, 0.5, {0: 2, BOUNDS[0]: 1, BOUNDS[0] + 1: 2}, {300: 5}),
        Counted("q", "t", "failed", 1, 0.5, 0.25, {BOUNDS[-1]: 1}, {0: 1}),
        Counted('q "\n', "\\t", "retried", 1, 0.0, 0.0, {}, {}),
    ],
    slots={"q": 3},
    running={"q": 1},
    ready=True,
    seen=Seen({"q": 1.5}, {"q": Depth(10_000, 1, 2, 3, 4), "other": Depth()}),
)


DOCS = Path(__file__).parents[2] / "docs"


def expressions(dashboard):
    """What a dashboard of Grafana asks Prometheus."""
    if isinstance(dashboard, list):
        return [text for part in dashboard for text in expressions(part)]
    if not isinstance(dashboard, dict):
        return []
    own = [text for name in ("expr", "definition") if isinstance(text := dashboard.get(name), str)]
    return own + expressions(list(dashboard.values()))


def asked(text):
    """The metrics in an expression, each with the labels by which it is chosen."""
    for name, chosen in re.findall(r"\b(chancy_(?!ops\b|worker\b)\w+)(?:\{([^{}]*)\})?", text):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", chosen))


async def test_what_alerts_and_dashboard_ask_is_what_a_worker_tells(site, port):
    async with working(site.app(concurrency=1), config(port)) as worker:
        site.submit(*[worker_tasks.raise_with.bind("no"), *[worker_tasks.pass_gate.bind("never") for _ in range(3)]])
        await eventually(lambda: site.count("failed") == 1 and site.count("running") == 1)
        await eventually(lambda: len(worker._engine.claimer.held) == 1)
        send(site.conn, sample(), site.schema)
        found = await scraped(port)
    labels = {}
    for name, *pairs in found:
        labels.setdefault(name, {"process"}).update(label for label, _ in pairs)
    guide = (DOCS / "guides/monitoring.md").read_text("utf-8")
    dashboard = expressions(json.loads((DOCS / "chancy-grafana.json").read_text("utf-8")))
    (alerts,) = re.findall(r"^```yaml\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    in_the_table = set(re.findall(r"^\| `(chancy_\w+)`", guide, re.MULTILINE))
    histograms = {name for name in in_the_table if f"{name}_bucket" in labels}
    assert {name for name in in_the_table if name not in labels} == histograms
    assert len(dashboard) > 10
    assert alerts.count("- alert:") == 6
    wrong = {
        (name, label)
        for text in [guide, *dashboard]
        for name, chosen in asked(text)
        for label in [None, *chosen]
        if name not in labels.keys() | histograms or (label and label not in labels[name])
    }
    assert wrong == set()
    outcomes = [each.split("|") for each in re.findall(r'outcome=~?"([^"]*)"', "\n".join([guide, *dashboard]))]
    assert {each for group in outcomes for each in group} <= set(Tallied)


def test_buckets_are_cumulative_and_end_at_powers_of_four():
    found = read(page({"": NUMBERS})[1].decode())
    of = [("queue", "q"), ("task", "t")]
    waits = {key[1][1]: n for key, n in found.items() if key[0] == "chancy_job_wait_seconds_bucket" and key[3] == of[1]}
    assert list(waits) == [
        "0.001024", "0.004096", "0.016384", "0.065536", "0.262144", "1.04858", "4.1943", "16.7772", "67.1089",
        "268.435", "1073.74", "4294.97", "+Inf",
    ]  # fmt: skip
    assert list(waits.values()) == [3, *[5] * 10, 6, 6]
    assert found["chancy_job_wait_seconds_sum", *of] == 3.0
    assert found["chancy_job_run_seconds_bucket", ("le", "4294.97"), *of] == 1
    assert found["chancy_job_run_seconds_count", *of] == 6


def test_whatever_a_queue_is_called_is_read_as_it_is():
    found = read(page({"": NUMBERS})[1].decode())
    assert found["chancy_jobs_total", ("outcome", "retried"), ("queue", 'q "\n'), ("task", "\\t")] == 1


def test_of_several_workers_each_has_its_own_and_what_the_database_says_is_there_once():
    found = read(page({"1": NUMBERS, "2": replace_seen(NUMBERS), "3": None})[1].decode())
    assert [found["chancy_worker_up", ("process", n)] for n in "123"] == [1, 1, 0]
    totals = {key: n for key, n in found.items() if key[0] == "chancy_jobs_total" and ("outcome", "failed") in key}
    assert [dict(key[1:])["process"] for key in totals] == ["1", "2"]
    assert found["chancy_oldest_ready_seconds", ("queue", "q")] == 1.5
    states = ("ready", "waiting", "scheduled", "blocked", "running")
    assert [found["chancy_depth", ("queue", "q"), ("state", state)] for state in states] == [10_000, 1, 2, 3, 4]


def replace_seen(numbers):
    return decode(encode(numbers)).__class__(counted=numbers.counted, slots=numbers.slots)


async def test_a_look_reads_no_more_with_many_jobs_than_with_few(site):
    schema = site.schema
    site.conn.execute(
        f"""INSERT INTO "{schema}".job (task, queue, priority, state, max_attempts, run_at, submitted_at, arguments)
        SELECT 't', 'q' || n % 3, n % 4, 'ready', 3, now() - interval '1 hour' + n * interval '1 ms', now(), '{{}}'
        FROM generate_series(1, 20000) AS n"""
    )
    site.conn.execute(f'VACUUM ANALYZE "{schema}".job')
    seen = send(site.conn, look(["q0", "q1", "q2", "none"], sampled=True), schema)
    assert sorted(seen.oldest) == ["q0", "q1", "q2"]
    assert all(3500 < seconds < 3700 for seconds in seen.oldest.values())
    assert seen.depths == dict.fromkeys(["q0", "q1", "q2", "none"], Depth())

    text, names = numbered(LOOK, schema)
    link = Link(site.dsn, schema, "metrics", deadline=8)
    await link.connect()
    cursor = await psycopg.AsyncRawCursor(link.conn).execute(
        b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + text, ["{q0,q1,q2,none}" for _ in names]
    )
    plan = (await cursor.fetchone())[0][0]["Plan"]
    await link.close()
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 400, plan
