"""Whatever the role or the database is set to, each command answers the same."""

from __future__ import annotations

import pytest
from odd_settings import each_with_each
from psycopg.conninfo import make_conninfo

from chancy_ops.cli import COMMANDS

SETTINGS = {
    "German dates": {"datestyle": "German"},
    "SQL dates": {"datestyle": "SQL,DMY"},
    "Postgres' dates": {"datestyle": "Postgres,MDY"},
    "SQL intervals": {"intervalstyle": "sql_standard"},
    "verbose intervals": {"intervalstyle": "postgres_verbose"},
    "ISO intervals": {"intervalstyle": "iso_8601"},
    "a zone of half hours": {"timezone": "Asia/Kolkata"},
    "a zone whose name means another": {"timezone": "Asia/Manila", "datestyle": "SQL,DMY"},
    "old bytes": {"bytea_output": "escape", "extra_float_digits": "0"},
    "serializable": {"default_transaction_isolation": "serializable"},
    "no path": {"search_path": "pg_temp"},
    "compiled": {"jit": "on", "jit_above_cost": "0", "plan_cache_mode": "force_generic_plan"},
}
LOOKS = [
    ["audit"],
    ["batch", "{batch}"],
    ["check", "shop_tasks"],
    ["failures"],
    ["graph", "{waiting}"],
    ["job", "{failed}"],
    ["jobs"],
    ["queues"],
    ["schedules"],
    ["steps", "{waiting}"],
    ["throughput", "--by", "queue and task"],
    ["why", "{waiting}"],
    ["workers"],
    ["migrate", "--check"],
]
WRITES = [
    ["signal", "{waiting}", "approval", "7"],
    ["forget-steps", "{waiting}"],
    ["edit", "{waiting}", "--run-at", "2044-02-03T04:05Z", "--priority", "5"],
    ["cancel", "{waiting}"],
    ["requeue", "{failed}"],
    ["delete", "{failed}"],
    ["limit", "mail", "5"],
    ["pause", "mail", "--until", "2044-02-03T04:05Z"],
    ["resume", "mail"],
    ["run-now", "nightly"],
    ["stop", "{sweep}"],
    ["submit", "shop_tasks:welcome", "user_id=7", "--delay", "2h"],
    ["requeue", "--state", "cancelled", "--yes"],
    ["migrate"],
]
SHOWS = [["doctor"], ["top", "--once", "--every", "0.1"]]
"""Of these the figures change from one look to the next."""
WITHOUT_DATABASE = {"completion", "dev", "grants"}
SERVES = {"dashboard"}
"""What it asks are verbs: see tests/core/test_sessions.py."""


def test_no_command_is_forgotten():
    assert {line[0] for line in (*LOOKS, *WRITES, *SHOWS)} | WITHOUT_DATABASE | SERVES == COMMANDS.keys()


@pytest.fixture
def filled(shell, tasks):
    import chancy

    waiting, failed = shell.submit(
        tasks.welcome.using(delay=100_000).bind(1, greeting="žluť €"), tasks.welcome.bind(2, greeting="žluť")
    )
    shell.finish(failed, message="žluť €")
    (running,) = shell.submit(tasks.welcome.bind(3))
    shell.run(running, '{"fraction": 0.5, "note": "žluť €"}')
    chancy.configure(schema=shell.schema)
    with chancy.batch(shell.conn) as made:
        made.submit(tasks.ship.bind(4))
    chancy.schedule(shell.conn, "nightly", tasks.ship.bind(5), chancy.every(hours=25))
    ((sweep,),) = shell.rows(
        """INSERT INTO {0}.audit (at, who, via, verb, what, fits, changed, skipped, seen_at)
        VALUES ({0}.clock(), 'žluť €', 'command', 'requeue', '{{"queue": "žluť €"}}', 9, 4, 0, {0}.clock()) RETURNING id"""
    )
    return {"waiting": waiting, "failed": failed, "batch": made.id, "sweep": sweep}


@pytest.mark.long
@pytest.mark.parametrize(("settings", "encoding"), each_with_each(SETTINGS))
def test_every_command_answers_the_same_and_does_its_part(shell, filled, settings, encoding):
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    odd = make_conninfo(shell.dsn, options=options, client_encoding=encoding)

    def said(line):
        return [each.format(**filled) for each in line]

    for line in LOOKS:
        as_ever, answer = shell("--json", *said(line)), shell("--json", *said(line), dsn=odd)
        assert (answer.code, answer.document, answer.err) == (as_ever.code, as_ever.document, "")
    for line in SHOWS:
        answer = shell(*said(line), dsn=odd)
        assert (answer.code in (0, 1), answer.err) == (True, "")
    for line in WRITES:
        answer = shell(*said(line), dsn=odd)
        assert (answer.code, answer.err) == (0, ""), answer
