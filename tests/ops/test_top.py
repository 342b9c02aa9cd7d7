"""The live view, on a terminal of its own."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import psycopg
import pytest
from cli_help import Terminal

import chancy
import chancy_ops
from chancy.schema import numbered
from chancy_ops.command.top import QUEUES
from chancy_ops.flow import FLOW, look, measure


@pytest.fixture
def busy(shell, tasks):
    running, *_ = shell.submit(*[tasks.welcome.bind(n) for n in range(4)])
    shell.run(running, '{"fraction": 0.5, "note": "halfway"}')
    return shell


def end_by_key(key):
    return lambda terminal: terminal.type(key)


def end_by_signal(number):
    return lambda terminal: os.kill(terminal.popen.pid, number)


@pytest.mark.parametrize(
    "end",
    [end_by_key("q"), end_by_key("\x03"), end_by_signal(signal.SIGTERM)],
    ids=["q", "Ctrl-C", "SIGTERM"],
)
def test_top_shows_a_queue_and_leaves_the_terminal_as_it_was(busy, end):
    terminal = Terminal(busy, "top", "--every", "0.2")
    terminal.see("workers: 1")
    for seen in ("mail", "shop_tasks.welcome", "web-1:77", "halfway", "queues: 1", "running: 1", "\x1b[?1049h"):
        assert seen in terminal.raw
    assert terminal.modes() != terminal.before
    end(terminal)
    answer = terminal.end()
    assert answer.code == 0
    assert "Traceback" not in answer.out
    assert terminal.after == terminal.before
    assert terminal.raw.rindex("\x1b[?1049l") > terminal.raw.rindex("\x1b[?1049h")  # the screen of before
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")  # the cursor


def test_top_looks_again(busy, tasks):
    terminal = Terminal(busy, "top", "--every", "0.2")
    terminal.see("mail")
    busy.submit(tasks.invoice.bind(1))
    terminal.see("default")
    terminal.type("q")
    assert terminal.end().code == 0


def test_a_database_that_goes_away_under_top_is_one_line_on_the_terminal_of_before(busy):
    terminal = Terminal(busy, "top", "--every", "0.2")
    terminal.see("mail")
    busy.conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'chancy' AND datname = current_database()"
    )
    answer = terminal.end()
    assert answer.code == 2
    assert terminal.after == terminal.before
    assert terminal.raw.rindex("chancy: Postgres says: ") > terminal.raw.rindex("\x1b[?1049l")
    assert "Traceback" not in answer.out


def test_one_frame_is_printed_in_a_pipe(busy):
    answer = busy("top", "--once", "--every", 0.1)
    assert answer.code == 0
    lines = answer.lines
    queues = lines.index(["queues:", "1"])
    assert lines[queues + 1] == [
        "QUEUE",
        "READY",
        "WAITING",
        "SCHEDULED",
        "BLOCKED",
        "RUNNING",
        "IN/S",
        "OUT/S",
        "FAILED",
        "OLDEST",
        "PAUSED",
    ]
    assert lines[queues + 2][:6] == ["mail", "3", "0", "0", "0", "1"]
    assert any("█████░░░░░ 50% halfway" in line for line in answer.out.splitlines())


def test_blocked_jobs_are_counted_in_the_frame_and_in_the_document(busy, tasks):
    first = tasks.welcome.bind(1)
    busy.submit(*[tasks.welcome.using(after=[first], queue="default").bind(n) for n in range(2)])
    lines = busy("top", "--once", "--every", 0.1).lines
    found = next(line for line in lines if line[:1] == ["default"])
    assert dict(zip(QUEUES, found, strict=False))["BLOCKED"] == "2"
    told = busy("top", "--json", "--every", 0.1).document
    assert {row["name"]: row["blocked"] for row in told["queues"]} == {"default": 2, "mail": 0}


@pytest.mark.long
def test_rates_are_of_the_time_since_the_look_before(busy, tasks):
    def later(before, seconds):
        """A look so long after that one."""
        return look(busy.conn, busy.schema, replace(before, seen_at=time.monotonic() - seconds))

    def rates(frame):
        return {queue: (frame.submits[queue], frame.completions[queue]) for queue in frame.submits}

    def about(*each):
        """Of a thousand seconds, to which those that the look itself takes are added."""
        return pytest.approx(each, rel=0.02, abs=0.05)

    start = measure(busy.conn, schema=busy.schema)
    jobs = busy.submit(*[tasks.invoice.bind(n) for n in range(20_000)])
    busy.finish(*jobs[:10_000])
    frame = later(start, 1000)
    assert rates(frame) == {"mail": about(0, 0), "default": about(20, 10)}
    frame = later(frame.flow, 1000)
    assert rates(frame) == {"mail": about(0, 0), "default": about(0, 0)}
    busy.finish(*jobs[10_000:])
    frame = later(frame.flow, 1000)
    assert rates(frame) == {"mail": about(0, 0), "default": about(0, 10)}
    chancy_ops.requeue_many(busy.conn, chancy_ops.JobFilter(state=chancy.State.FAILED), schema=busy.schema)
    frame = later(frame.flow, 1000)
    assert rates(frame) == {"mail": about(0, 0), "default": about(20, 0)}


def test_rates_begin_where_nothing_is_live(shell, tasks):
    start = measure(shell.conn, schema=shell.schema)
    shell.finish(*shell.submit(tasks.invoice.bind(1)))
    (newest,) = shell.rows("SELECT max(id) FROM {}.history")[0]
    frame = look(shell.conn, shell.schema, start)
    assert frame.flow.newest == newest
    assert frame.submits["default"] > 0
    assert frame.completions["default"] == frame.submits["default"]


def test_a_look_at_the_rates_does_not_read_what_is_finished(shell, tasks):
    shell.finish(*shell.submit(*[tasks.welcome.bind(n) for n in range(5000)]))
    shell.conn.execute(f'ANALYZE "{shell.schema}".history')
    text, names = numbered(FLOW, shell.schema)
    newest = measure(shell.conn, schema=shell.schema).newest
    plan = psycopg.RawCursor(shell.conn).execute(b"EXPLAIN " + text, [newest for _ in names]).fetchall()
    assert not [line for (line,) in plan if "Seq Scan on history" in line and "rows=5000" in line]
    assert "Index" in str(plan)


def test_what_top_sees_can_be_had_as_a_document(busy):
    told = busy("top", "--json", "--every", 0.1).document
    assert told["running"][0]["progress"] == {"fraction": 0.5, "note": "halfway"}
    assert told["queues"][0]["name"] == "mail"
    assert told["workers"][0]["name"] == "web-1:77"
