"""What the border refuses: rows that an index could not hold, or no worker and no verb could read."""

from __future__ import annotations

import re

import psycopg
import pytest

import chancy
import chancy_ops
from chancy import State, task


@task
def count(number: int = 0) -> int:
    return number


ODD_JOBS = {
    "priority is from -100 to 100, got 101": "'t', priority => 101",
    "max_attempts is from 1 to 32767 (the first one counts), got 0": "'t', max_attempts => 0",
    "max_attempts is from 1 to 32767 (the first one counts), got 32768": "'t', max_attempts => 32768",
    "a task has a name of 1 to 500 bytes, got ''": "''",
    "a task has a name of 1 to 500 bytes, got NULL": "NULL",
    "a queue has a name of 1 to 500 bytes, got ''": "'t', queue => ''",
    "a queue has a name of 1 to 500 bytes, got 'äää": "'t', queue => repeat('ä', 251)",
    "run_at is an instant in the years 1 to 9999, got infinity": "'t', run_at => 'infinity'",
    "run_at is an instant in the years 1 to 9999, got -infinity": "'t', run_at => '-infinity'",
    "run_at is an instant in the years 1 to 9999, got 10000-01-01": "'t', run_at => '10000-01-01 UTC'",
    "arguments is a JSON object, each argument by its name, got a JSON array": "'t', '[1]'",
    "arguments is a JSON object, each argument by its name, got null": "'t', NULL",
    "arguments has at most 16777216 bytes, got 16777217": "'t', json_build_object('a', repeat('a', 16777207))",
}


@pytest.mark.parametrize("words", ODD_JOBS)
@pytest.mark.parametrize("key", ["", ", unique_key => 'k'"])
def test_a_job_from_sql_that_no_row_could_hold_or_no_worker_read_is_refused_with_words(database, words, key):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="^" + re.escape(words)):
        database.rows("SELECT {}.submit(" + ODD_JOBS[words] + key + ")")
    assert database.ids() == []


def test_how_long_a_key_is_held_is_not_taken_without_the_key(database):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="unique_until is about a unique_key, got 'started'"):
        database.rows("SELECT {}.submit('t', unique_until => 'started')")
    assert database.ids() == []


def test_what_is_just_possible_is_taken_from_sql(database):
    for job in (
        "'t', run_at => '9999-12-31 00:00:00+00'", "'t', run_at => '0001-01-02 00:00:00+00'", "repeat('ä', 250)",
        "'t', max_attempts => 32767", "'t', json_build_object('a', repeat('a', 16777206))", "'t', E'\\n\\t {{}}'",
    ):  # fmt: skip
        ((id_,),) = database.rows("SELECT {}.submit(" + job + ")")
        assert chancy.get(database.conn, id_).id == id_


ODD_ROWS = {
    "run_at": ["'infinity'", "'-infinity'", "'10000-01-01 UTC'"],
    "arguments": ["'[]'", "'null'", "json_build_object('a', repeat('a', 16777207))"],
    "priority": ["101", "-101"],
    "max_attempts": ["0"],
    "worker": ["7"],
    "state": ["'running'", "'succeeded'"],
}


@pytest.mark.parametrize(("column", "value"), [(column, value) for column in ODD_ROWS for value in ODD_ROWS[column]])
def test_the_table_itself_refuses_them_too(database, column, value):
    job = count.submit(database.conn)
    with pytest.raises(psycopg.errors.CheckViolation):
        database.rows("UPDATE {}.job SET " + column + " = " + value + " RETURNING id")
    assert job.refresh(database.conn).state is State.READY


def test_the_size_of_arguments_is_the_same_in_sql_and_in_python(database):
    bound = chancy.model.MAX_PAYLOAD_BYTES - len('{"a" : ""}')
    database.rows("SELECT {}.submit('t', json_build_object('a', repeat('a', %s)))", bound)
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        database.rows("SELECT {}.submit('t', json_build_object('a', repeat('a', %s)))", bound + 1)


SCHEDULE = (
    "INSERT INTO {{0}}.schedule (name, task, arguments, changes, recurrence, declared, since) "
    "VALUES ('s', 't', {}, '{{{{}}}}', '{{{{}}}}', false, {})"
)
ODD_OTHERS = [
    "INSERT INTO {0}.pause (kind, name, until, paused_at) VALUES ('queue', 'q', '-infinity', now())",
    "INSERT INTO {0}.pause (kind, name, until, paused_at) VALUES ('job', 'q', 'infinity', now())",
    "INSERT INTO {0}.pause (kind, name, until, paused_at) VALUES ('queue', '', 'infinity', now())",
    "INSERT INTO {0}.retention (queue, what, days) VALUES ('q', 'failed', 3651)",
    "INSERT INTO {0}.retention (queue, what, days) VALUES (repeat('q', 501), 'failed', 1)",
    "INSERT INTO {0}.queue_limit (queue, concurrency) VALUES ('', 1)",
    "UPDATE {0}.setting SET value = '1 hour' WHERE name = 'keep'",
    "UPDATE {0}.setting SET value = '200 years' WHERE name = 'keep'",
    SCHEDULE.format("'{{}}'", "'-infinity'"),
    SCHEDULE.format("'[]'", "now()"),
    "INSERT INTO {0}.batch (on_finished, total, created_at, witness) VALUES ('[]', 1, now(), 1)",
    "INSERT INTO {0}.worker (name, started_at, expires_at) VALUES ('w', now(), 'infinity')",
]


@pytest.mark.parametrize("text", ODD_OTHERS)
def test_no_other_row_comes_to_hold_what_a_worker_could_not_read(database, text):
    with pytest.raises(psycopg.errors.CheckViolation):
        database.rows(text + " RETURNING 1")


def test_only_a_pause_has_no_end(database):
    database.rows(
        "INSERT INTO {}.pause (kind, name, until, paused_at) VALUES ('queue', 'q', 'infinity', now()) RETURNING 1"
    )


# What no border keeps out, since it is not worth a check of each row: whoever looks reads on.

INSTANTS = ["'infinity'", "'-infinity'", "'12000-01-01 UTC'"]
ODD_ANYWHERE = {
    "submitted_at": INSTANTS,
    "started_at": INSTANTS,
    "errors": ["'7'", "'{}'", "'[7]'", "'[{}]'", "'null'", """'[{"attempt": 1, "kind": "\\ud800"}]'"""],
    "retry": ["'7'"],
    "limits": ["'{}'"],
    "task": ["''", "E'a\\nb'"],
    "queue": ["''"],
    "unique_until": ["'noon'"],
    "arguments": [
        """'{"a": 1e999}'""",
        """'{"a": "\\ud800"}'""",
        """('{"a":' || repeat('[', 3000) || repeat(']', 3000) || '}')::json""",
    ],
    "attempt": ["-1", "32767"],
    "batch": ["-1"],
}
ODD_WHILE_LIVE = {
    "cancel_at": INSTANTS,
    "refused_at": INSTANTS,
    "progress": ["'7'", "'[]'", """'{"fraction": "x"}'""", "'null'"],
    "gates": ["""'{"key": "x", "gates": 7}'""", """'{"key": 7, "gates": [{"name": 1}], "turn": "x"}'"""],
    "parked": ["''"],
}


@pytest.mark.parametrize(
    ("where", "column"),
    [(where, column) for where in ("job", "history") for column in ODD_ANYWHERE]
    + [("job", column) for column in ODD_WHILE_LIVE],
)
def test_an_odd_row_hides_no_other_and_can_be_looked_at_and_ended(database, where, column):
    conn = database.conn
    for value in (ODD_ANYWHERE | ODD_WHILE_LIVE)[column]:
        odd, other = count.submit(conn), count.submit(conn)
        if where == "history":
            database.finish(odd.id, "failed", None)
        value = value.replace("{", "{{").replace("}", "}}")
        database.rows("UPDATE {}." + where + " SET " + column + " = " + value + " WHERE id = %s RETURNING 1", odd.id)
        assert {odd.id, other.id} <= {row.id for row in chancy.jobs(conn)}
        assert chancy.get(conn, odd.id).id == odd.id
        assert chancy_ops.why(conn, odd.id).sentence
        with pytest.raises((TimeoutError, chancy.JobFailed)):
            odd.result(conn, timeout=0)
        for look in (chancy_ops.doctor, chancy_ops.queues, chancy_ops.count):
            look(conn)
        assert chancy.requeue(conn, odd.id) is (where == "history")
        assert chancy_ops.edit(conn, odd.id, priority=1)
        assert chancy.cancel(conn, odd.id)
