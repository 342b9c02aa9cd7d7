"""`chancy throughput`: what workers have counted, as a table."""

from __future__ import annotations

from datetime import timedelta

import pytest

import chancy_ops
from chancy.tally.tally import bucket_of
from chancy_ops.tally import minutes

HOUR = timedelta(hours=1)


@pytest.fixture
def counted(shell):
    """Two tasks in two queues, a minute ago and two hours ago: all in these two minutes, whichever begins meanwhile."""
    ((now,),) = shell.rows("SELECT {}.clock()")

    def count(ago, queue, task, outcome, jobs, wait, run):
        buckets = [[bucket_of(seconds)] for seconds in (wait, run)]
        shell.rows(
            "INSERT INTO {0}.tally (at, queue, task, outcome, jobs, waited, ran, wait_buckets, wait_counts, "
            "run_buckets, run_counts) VALUES (date_trunc('minute', %s - %s::interval), "
            "%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING at",
            now, ago, queue, task, outcome, jobs, wait * jobs, run * jobs, buckets[0], [jobs], buckets[1], [jobs],
        )  # fmt: skip

    count("1 min", "mail", "shop.welcome", "succeeded", 50, 0.1, 0.02)
    count("1 min", "mail", "shop.welcome", "failed", 2, 0.1, 3)
    count("1 min", "mail", "shop.welcome", "retried", 4, 0.1, 3)
    count("1 min", "paper", "shop.invoice", "succeeded", 900, 20, 0.5)
    count("2 h", "paper", "shop.invoice", "succeeded", 5000, 20, 0.5)


def test_throughput_is_a_line_for_each_task_the_busiest_first(shell, counted):
    lines = shell("throughput").lines
    assert lines[0] == ["TASK", "OUT", "OUT/S", "FAILED", "ERRORS", "WAIT", "P50", "P95", "RUN", "P50", "P95", "P99"]
    assert [line[:2] + line[3:5] for line in lines[1:]] == [
        ["shop.invoice", "900", "0", "0"], ["shop.welcome", "52", "2", "6"],
    ]  # fmt: skip


def test_throughput_tells_a_program_what_it_tells_a_person(shell, counted):
    invoice, welcome = shell("--json", "throughput", "--by", "queue and task").document["throughput"]
    assert (invoice["queue"], invoice["task"], invoice["finished"]) == ("paper", "shop.invoice", 900)
    assert invoice["outcomes"] == {"succeeded": 900}
    assert invoice["wait"]["p50"] == pytest.approx(20, rel=0.1)
    assert invoice["run"]["mean"] == pytest.approx(0.5, rel=0.1)
    assert (welcome["failed"], welcome["errors"], welcome["outcomes"]["retried"]) == (2, 6, 4)


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        (["--since", "3h", "--queue", "paper"], [("shop.invoice", 5900)]),
        (["--task", "shop.welcome"], [("shop.welcome", 52)]),
        (["--by", "nothing"], [(None, 952)]),
        (["--since", "3h", "--until", "1h"], [("shop.invoice", 5000)]),
        (["--since", "3h", "--every", "hour", "--by", "nothing"], [(None, 5000), (None, 952)]),
        (["--queue", "unknown"], []),
    ],
)
def test_throughput_of_what_is_asked_for(shell, counted, asked, rows):
    told = shell("--json", "throughput", *asked).document["throughput"]
    assert [(row["task"], row["finished"]) for row in told] == rows
    assert len(shell("throughput", *asked).lines) == 1 + len(rows)


def test_minutes_say_what_throughput_says_of_outcomes_and_nothing_of_time(shell, counted):
    whole = chancy_ops.throughput(shell.conn, since=HOUR, by="nothing", every="minute", schema=shell.schema)
    short = minutes(shell.conn, HOUR, schema=shell.schema)
    assert [(row.since, row.until, row.outcomes) for row in short] == [
        (row.since, row.until, row.outcomes) for row in whole
    ]
    assert [(row.wait.p50, row.run.p50) for row in short] == [(None, None)]
    assert minutes(shell.conn, HOUR, queue="paper", schema=shell.schema)[0].finished == 900
    assert minutes(shell.conn, HOUR, task="shop.welcome", schema=shell.schema)[0].finished == 52
