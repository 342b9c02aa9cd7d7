"""Whatever is given to a verb or to the function in SQL: it is refused by its name before anything is sent, or done. And
afterwards a worker claims, and whoever looks sees.

`CHANCY_EXAMPLES=20000 python3 dev.py test tests/core/test_anything.py tests/ops/test_anything.py --timeout 3600` asks
20,000 times each; a run of the tests some hundreds of times.
"""

from __future__ import annotations

import inspect
import itertools
import json
import os
from datetime import UTC, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_values import ANYTHING, DURATIONS, INSTANTS, ODD_TEXTS, TEXTS, mostly
from psycopg import sql
from psycopg.pq import TransactionStatus

import chancy
import chancy_ops
from chancy import Keep, State, Unique, days, every, task
from chancy.run import send
from chancy_ops import Count, JobFilter, Sweep
from chancy_ops.sweeping import KINDS
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import register

MORE = int(os.environ.get("CHANCY_EXAMPLES", "200"))
anything_goes = settings(
    max_examples=MORE,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=MORE <= 200,
)


@task(name="anything.note", aliases=["anything.older"])
def note(number: int = 0) -> int:
    return number


@task
def told(counts: chancy.BatchCounts) -> None: ...


@pytest.fixture
def stocked(database):
    """Something of each kind is there."""
    conn = database.conn
    for _ in range(3):
        note.submit(conn)
    chancy.cancel(conn, note.using(unique=Unique()).submit(conn, 7).id)
    note.using(unique=Unique(key="held")).submit(conn, 8)
    chancy.schedule(conn, "a", note.bind(), every(hours=1))
    chancy_ops.pause(conn, "paused")
    with chancy.batch(conn, on_finished=chancy.callback(told)) as batch:
        batch.submit(note.bind(9))
    return database


def goes_on(conn, schema, looks=0):
    """A worker claims all that is there, and whoever looks sees it."""
    assert conn.info.transaction_status is TransactionStatus.INTRANS
    rows = chancy.jobs(conn, limit=1000)
    if looks is None:
        return
    assert sum(chancy_ops.count(conn).values()) == len(rows)
    for row in rows[:looks]:
        assert chancy_ops.why(conn, row.id).sentence
        chancy.logs(conn, row.id)
    if looks:
        for look in (chancy_ops.queues, chancy_ops.workers, chancy.schedules, chancy_ops.doctor):
            look(conn)
    free = {row.queue: 5 for row in rows}
    worker = send(conn, register("w", 60), schema)
    answer = send(conn, play_round(worker, [], Wanted(free=free, looking=tuple(free))), schema)
    assert all(job.fence for job in answer.claimed)
    chancy.jobs(conn)


_ask = itertools.count()


def often():
    """A list each time, a claim at every fifth, and now and then all looks, which take longer."""
    number = next(_ask)
    if number % 5:
        return None
    return 0 if number % 20 else 3


# Verbs

IDS = mostly(st.integers(1, 9), ANYTHING)
NAMES = mostly(TEXTS | st.sampled_from(["default", "paused"]), ANYTHING)
TASKS = mostly(st.sampled_from([note, "anything.note", "anything.older"]), ANYTHING)
FILTERS = mostly(
    st.fixed_dictionaries(
        {},
        optional={
            "queue": NAMES,
            "task": TASKS,
            "state": mostly(st.sampled_from(list(State)), ANYTHING),
            "error": mostly(TEXTS, ANYTHING),
            "fingerprint": mostly(TEXTS, ANYTHING),
            "batch": IDS,
            "since": mostly(INSTANTS, ANYTHING),
            "until": mostly(INSTANTS, ANYTHING),
        },
    ).map(lambda options: lambda: JobFilter(**options)),
    ANYTHING,
)
KEEPS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["succeeded", "failed", "results"], mostly(st.integers(0, 99).map(days), ANYTHING))
)
JOBS = mostly(
    st.tuples(
        st.fixed_dictionaries(
            {},
            optional={
                "queue": NAMES,
                "delay": mostly(DURATIONS, ANYTHING),
                "unique": mostly(st.just(Unique(key="k")), ANYTHING),
                "group": NAMES,
                "priority": mostly(st.integers(-100, 100), ANYTHING),
            },
        ),
        mostly(st.integers(), ANYTHING),
    ).map(lambda made: lambda: note.using(**made[0]).bind(made[1])),
    ANYTHING,
)
CALLBACKS = mostly(st.none() | st.just(lambda: chancy.callback(told)), ANYTHING)
NUMBERS = mostly(st.integers(0, 2**31 - 1), ANYTHING)
OF_PARAMETERS: dict[str, Any] = {
    "after": mostly(st.none() | st.tuples(st.integers(0, 99), st.integers(0, 99)), ANYTHING),
    "audit_id": IDS,
    "begun": mostly(st.none() | st.just(str), ANYTHING),
    "changed": mostly(st.none() | st.integers(0, 9), ANYTHING),
    "did": mostly(st.sampled_from(["cancel", "requeue", "delete"]), ANYTHING),
    "planned": mostly(
        st.just(lambda: Sweep(KINDS["requeue"], JobFilter(state=State.FAILED), {State.FAILED: Count(1)})), ANYTHING
    ),
    "redact": mostly(st.none() | st.just(str), ANYTHING),
    "tasks": mostly(st.lists(NAMES, max_size=3), ANYTHING),
    "via": mostly(TEXTS, ANYTHING),
    "what": mostly(st.dictionaries(TEXTS, TEXTS, max_size=3), ANYTHING),
    "who": mostly(TEXTS, ANYTHING),
    "attempts": mostly(st.none() | st.integers(1, 32_767), ANYTHING),
    "needs": mostly(st.booleans(), ANYTHING),
    "batch": IDS,
    "by": mostly(st.sampled_from(["queue", "task", "queue and task", "nothing"]), ANYTHING),
    "batch_id": IDS,
    "before": IDS,
    "concurrency": mostly(st.none() | st.integers(0, 2**31 - 1), ANYTHING),
    "every": mostly(st.none() | st.sampled_from(["minute", "hour", "day"]), ANYTHING),
    "job": JOBS,
    "job_id": IDS,
    "jobs": mostly(st.lists(JOBS, max_size=3), ANYTHING),
    "keep": mostly(KEEPS.map(lambda options: lambda: Keep(**options)), ANYTHING),
    "limit": NUMBERS,
    "name": mostly(st.just("a") | TEXTS, ANYTHING),
    "names": mostly(st.none() | st.lists(st.just("a") | TEXTS, max_size=3), ANYTHING),
    "on_finished": CALLBACKS,
    "on_success": CALLBACKS,
    "priority": mostly(st.integers(-100, 100), ANYTHING),
    "queue": NAMES,
    "rules": mostly(KEEPS.map(lambda options: lambda: Keep(**options)), ANYTHING),
    "run_at": mostly(INSTANTS, ANYTHING),
    "schedule": mostly(st.just("a") | TEXTS, ANYTHING),
    "schema": mostly(st.none(), ANYTHING.filter(lambda value: not isinstance(value, str))),
    "since": mostly(st.none() | INSTANTS | DURATIONS, ANYTHING),
    "state": mostly(st.sampled_from(list(State)), ANYTHING),
    "task": TASKS,
    "told": mostly(st.none() | st.just(str), ANYTHING),
    "until": mostly(st.none() | INSTANTS | DURATIONS, ANYTHING),
    "value": ANYTHING,
    "when": mostly(st.integers(1, 99).map(lambda hours: every(hours=hours)), ANYTHING),
    "which": FILTERS,
    "words": mostly(st.none() | TEXTS, ANYTHING),
}
ELSEWHERE = {"migrate", "grants", "callback", "configure"}
"""Those that change the schema or send nothing."""


OF_BUILT = {
    "callback",
    "queue",
    "task",
    "state",
    "error",
    "fingerprint",
    "since",
    "until",
    "batch",
    "succeeded",
    "failed",
    "results",
}
"""Options of filters, rules and callbacks."""


def parameters_of(verb):
    found = list(inspect.signature(verb).parameters.values())
    return found[1:] if found and found[0].name == "conn" else None


VERBS = {
    name: parameters
    for package in (chancy, chancy_ops)
    for name in package.__all__
    if inspect.isfunction(verb := getattr(package, name))
    and name not in ELSEWHERE
    and (parameters := parameters_of(verb))
}


def test_every_verb_is_asked_with_each_of_its_options():
    assert len(VERBS) >= 25
    assert {parameter.name for each in VERBS.values() for parameter in each} <= OF_PARAMETERS.keys()


@st.composite
def calls(draw):
    """A verb, and what it is given: what has to be there, and some of the rest."""
    verb = draw(st.sampled_from(sorted(VERBS)))
    by_position, by_name = [], {}
    for parameter in VERBS[verb]:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            if parameter.default is parameter.empty or draw(st.booleans()):
                by_position.append((parameter.name, draw(OF_PARAMETERS[parameter.name])))
            else:
                break
    for parameter in VERBS[verb]:
        needed = parameter.default is parameter.empty
        if parameter.kind is parameter.KEYWORD_ONLY and (needed or draw(st.integers(0, 2)) == 0):
            by_name[parameter.name] = draw(OF_PARAMETERS[parameter.name])
    return verb, by_position, by_name


def built(value):
    """What is made of options of its own, which may refuse them."""
    if isinstance(value, list):
        return [built(each) for each in value]
    return value() if inspect.isfunction(value) else value


@pytest.mark.long
@anything_goes
@given(call=calls(), zone=st.sampled_from(["UTC", "Pacific/Kiritimati", "America/New_York"]))
def test_a_verb_does_what_it_was_told_or_names_what_it_refuses(stocked, call, zone):
    verb, by_position, by_name = call
    conn = stocked.conn
    refused = None
    with conn.transaction(force_rollback=True):
        conn.execute(f"SET LOCAL TimeZone = '{zone}'")
        try:
            given = [built(value) for _, value in by_position]
            named = {name: built(value) for name, value in by_name.items()}
            done = getattr(chancy_ops if verb in chancy_ops.__all__ else chancy, verb)(conn, *given, **named)
            if verb == "batch":
                with done as batch:
                    batch.submit(note.bind(1))
        except (chancy.ChancyError, TimeoutError) as error:
            refused = error
        if isinstance(refused, chancy.InvalidOption):
            assert refused.option in {parameter.name for parameter in VERBS[verb]} | {verb} | OF_BUILT
        assert len(str(refused)) < 900
        goes_on(conn, stocked.schema, often())


# The function in SQL

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30).filter(lambda text: text != "held")
LONG = st.sampled_from(
    ["", "x" * 400, "x" * 401, "x" * 500, "x" * 501, "ä" * 250, "ä" * 251, "x" * 9000, "\x1f", "a\nb"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
ODD_JSON = st.sampled_from(
    [
        '{"a": 1e999}', r'{"a": "\ud800"}', r'{"\u0000": 1}', '{"a": ' + "[" * 900 + "]" * 900 + "}", "[]", "null", "1",
        '{"a": 1, "a": 2}', '{"number": "x"}', '{"number": 99999999999999999999999}', ' \n{"number"  : 1}', '"text"',
    ]
)  # fmt: skip
OBJECTS = st.dictionaries(st.sampled_from(["number", "a", ""]) | st.text(max_size=9), JSON, max_size=3).map(json.dumps)
INTEGERS = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-101, -100, 100, 101, 0, 1, 32_767, 32_768])
DATES = st.sampled_from(
    [
        "infinity", "-infinity", "4713-01-01 BC", "294276-12-31", "0001-01-01", "0001-01-02 UTC", "9999-12-31 UTC",
        "10000-01-01",
    ]
)  # fmt: skip
OF_SQL = {
    "task": ("text", mostly(TEXT | st.just("anything.note"), LONG)),
    "arguments": ("json", mostly(OBJECTS, ODD_JSON)),
    "queue": ("text", mostly(TEXT, LONG | st.none())),
    "priority": ("integer", mostly(st.integers(-100, 100), INTEGERS | st.none())),
    "run_at": ("timestamptz", mostly(st.none() | INSTANTS.map(lambda at: at.astimezone(UTC)), DATES)),
    "max_attempts": ("integer", mostly(st.integers(1, 32_767), INTEGERS | st.none())),
    "unique_key": ("text", mostly(st.none() | TEXT, LONG)),
    "unique_until": ("text", mostly(st.sampled_from([None, "started", "finished"]), TEXT)),
    "concurrency_key": ("text", mostly(st.none(), TEXT | LONG)),
}
REFUSED = (psycopg.errors.InvalidParameterValue, psycopg.errors.StringDataRightTruncation)
UNSAID = {"queue": "default", "priority": 0, "max_attempts": 3}
"""What is null is not given: a task that nobody has declared gets these."""
MEANT = "SELECT task, arguments::text, queue, priority, run_at, max_attempts, unique_key, unique_until FROM {}.job WHERE id = %s"


@pytest.mark.long
@anything_goes
@given(
    options=st.fixed_dictionaries(
        {"task": OF_SQL["task"][1]}, optional={name: each for name, (_, each) in OF_SQL.items() if name != "task"}
    )
)
def test_the_function_in_sql_says_what_it_refuses_or_the_row_says_what_was_meant(stocked, options):
    conn, schema = stocked.conn, sql.Identifier(stocked.schema)
    given = [sql.SQL(f"{name} => %({name})s::{OF_SQL[name][0]}") for name in options]
    query = sql.SQL("SELECT {}.submit({})").format(schema, sql.SQL(", ").join(given))
    with conn.transaction(force_rollback=True):
        try:
            with conn.transaction():
                (job,) = conn.execute(query, options).fetchone()
        except REFUSED as error:
            words = str(error).replace("a queue has", "queue").replace("a task has", "task")
            assert any(name in words for name in OF_SQL), words
            return
        row = conn.execute(sql.SQL(MEANT).format(schema), [job]).fetchone()
        kept = dict(zip(("task", "arguments", "queue", "priority", "run_at", "max_attempts", "unique_key", "unique_until"),
                        row, strict=True))  # fmt: skip
        for name in ("task", "arguments", "queue", "priority", "max_attempts", "unique_key"):
            if name in options:
                assert kept[name] == (UNSAID.get(name) if options[name] is None else options[name])
        if options.get("run_at") is not None and not isinstance(options["run_at"], str):
            assert abs(kept["run_at"] - options["run_at"]) < timedelta(microseconds=1)
        goes_on(conn, stocked.schema, often())


# What is built of options

MADE = {
    "Queue": (chancy.Queue, ["name", "concurrency", "keep"]),
    "Unique": (Unique, ["key", "until", "within", "on_conflict"]),
    "Backoff": (chancy.Backoff, ["base", "factor", "maximum", "jitter"]),
    "Keep": (Keep, ["succeeded", "failed", "discarded", "cancelled", "results"]),
    "JobFilter": (JobFilter, ["queue", "task", "state", "error", "fingerprint", "since", "until", "batch"]),
    "cron": (chancy.cron, ["expression", "timezone", "missed"]),
    "every": (chancy.every, ["interval", "days", "hours", "minutes", "seconds", "missed"]),
    "Limit": (chancy.Limit, ["type", "value"]),
    "concurrency": (chancy.Limit.concurrency, ["most", "key"]),
    "rate": (chancy.Limit.rate, ["most", "per", "key"]),
    "time": (chancy.Limit.time, ["seconds"]),
    "memory": (chancy.Limit.memory, ["bytes"]),
    "Chancy": (chancy.Chancy, ["dsn", "queues", "schema", "lifespan", "middleware", "preload", "keep"]),
    "using": (note.using, ["queue", "priority", "run_at", "delay", "max_attempts", "limits", "retry", "unique",
              "group", "after"]),
    "task": (lambda **given: task(**given)(note.function), ["queue", "priority", "max_attempts", "limits", "retry",
             "executor", "unique", "group", "keep_logs", "schedule", "aliases"]),
    "grants": (chancy.grants, ["roles"]),
    "callback": (chancy.callback, ["callback"]),
}  # fmt: skip


@anything_goes
@given(
    what=st.sampled_from(sorted(MADE)).flatmap(
        lambda name: st.tuples(
            st.just(name), st.fixed_dictionaries({}, optional=dict.fromkeys(MADE[name][1], ANYTHING | ODD_TEXTS))
        )
    )
)
def test_what_is_built_of_anything_is_built_or_says_what_it_refuses(what):
    name, options = what
    make, _ = MADE[name]
    try:
        bound = inspect.signature(make).bind(**options) if name not in ("using", "task") else None
    except TypeError:  # something is missing
        return
    registry, refused = dict(chancy.registry.tasks), None
    try:
        make(*bound.args, **bound.kwargs) if bound else make(**options)
    except chancy.ChancyError as error:
        refused = error
    finally:
        chancy.registry.tasks.clear()
        chancy.registry.tasks.update(registry)
    assert len(str(refused)) < 1500
