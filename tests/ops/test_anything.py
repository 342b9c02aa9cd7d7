"""Whatever is typed behind `chancy`: it is done, or one line says what is wrong with it. Afterwards a worker claims, and
whoever looks sees.

`CHANCY_EXAMPLES=20000 python3 dev.py test tests/ops/test_anything.py --timeout 3600` asks more often.
"""

from __future__ import annotations

import itertools
import os

import click
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import chancy
from chancy import State, every
from chancy.run import send
from chancy_ops.cli import COMMANDS
from chancy_ops.cli import chancy as group
from chancy_worker.claims.statement import play_round
from chancy_worker.claims.wanted import Wanted
from chancy_worker.life.lease import register

MORE = int(os.environ.get("CHANCY_EXAMPLES", "50"))
WITHOUT_END = {"dashboard", "dev", "top"}
"""Commands that go on until somebody ends them."""

ODD = [
    "", "0", "-1", "1", "2", "101", "32768", "2147483648", "9" * 30, "1e9", "1.5", "nan", "inf", "٣", "true", "none",
    "a\nb", "\x1b[31mred", "x" * 500, "x" * 501, "x" * 5000, "ä" * 251, "\udcff", "💥", "\u202e", "'; DROP TABLE job; --",
    "%s {schema} $1", "{}", "[1]", "2026-11-25T18:00Z", "2026-11-25", "infinity", "0001-01-01T00:00+14:00",
    "9999-12-31T23:59:59-14:00", "9999-12-31T23:59Z", "0001-01-02T00:00Z", "2h", "1h30m", "0s", "99999999999999w",
    "1" + "0" * 400 + "d", "36525d", "mail", "default", "a", "shop_tasks", "shop_tasks:welcome", "shop_tasks.welcome",
    "shop_tasks:no_task", "shop_tasks:everything", "user_id=1", "user_id=x", "user_id:=null", "user_id:=[" + "[" * 3000,
    "greeting=\udcff", "greeting:=\"\\ud800\"", "user_id=" + "9" * 30, "=", "order=7", "nope=1", "--yes", "--json", "-", "--",
]  # fmt: skip
WORDS = st.sampled_from(ODD) | st.text(st.characters(exclude_characters="\0"), max_size=8)
FITTING = {
    "job_id": ["1", "2", "3"], "ids": ["1", "2", "3", "4"], "queue": ["mail", "default"], "task": ["shop_tasks.welcome"],
    "state": list(State), "since": ["2h"], "until": ["2026-11-25T18:00Z", "2h"], "run_at": ["2031-11-25T18:00Z"],
    "delay": ["10m"], "name": ["shop_tasks:welcome", "a"], "schedule": ["a"], "priority": ["5"], "limit": ["7"],
    "before": ["9"], "attempts": ["4"], "max_attempts": ["4"], "arguments": ["user_id=1", "greeting=hi"], "most": ["3", "none"],
    "modules": ["shop_tasks"], "batch_id": ["1"], "shell": ["bash"],
}  # fmt: skip


def words_for(name):
    return st.sampled_from(FITTING[name]) | st.sampled_from(FITTING[name]) | WORDS if name in FITTING else WORDS


@st.composite
def lines(draw):
    """A command, with what has to be said and some of what may be, now and then too much."""
    name = draw(st.sampled_from(sorted(COMMANDS.keys() - WITHOUT_END)))
    command = group.get_command(click.Context(group), name)
    words = []
    for parameter in command.params:
        if parameter.name in ("dsn", "schema", "help"):
            continue
        if isinstance(parameter, click.Argument):
            most = 3 if parameter.nargs == -1 else 1
            least = int(parameter.required or draw(st.booleans()))
            words += [draw(words_for(parameter.name)) for _ in range(draw(st.integers(least, most)))]
        elif draw(st.integers(0, 3)) == 0:
            words.append(draw(st.sampled_from(parameter.opts)))
            if not parameter.is_flag:
                words.append(draw(words_for(parameter.name)))
    if draw(st.integers(0, 19)) == 0:
        words.append(draw(WORDS))
    return [name, *words]


def stock(shell, tasks):
    """Something of each kind is there."""
    first, second, *_ = shell.submit(*[tasks.welcome.bind(n) for n in range(4)], tasks.invoice.bind(7))
    shell.finish(first)
    shell.run(second)
    with chancy.batch(shell.conn, schema=shell.schema) as batch:
        batch.submit(tasks.welcome.bind(9))
    chancy.schedule(shell.conn, "a", tasks.welcome.bind(1), every(hours=1), schema=shell.schema)


def goes_on(shell, conn, looks):
    rows = chancy.jobs(conn, limit=50, schema=shell.schema)
    with conn.transaction(force_rollback=True):
        worker = send(conn, register("w", 60), shell.schema)
        free = {row.queue: 5 for row in rows}
        send(conn, play_round(worker, [], Wanted(free=free, looking=tuple(free))), shell.schema)
    if looks:
        for said in (["jobs"], ["jobs", "--json"], ["queues"], ["workers"], ["schedules"], ["doctor", "--json"]):
            answer = shell(*said)
            assert answer.code in (0, 1), (said, answer)
        for row in rows[:3]:
            assert shell("why", row.id).code == 0
            assert shell("job", row.id).code == 0


_ask = itertools.count()


@pytest.mark.long
@settings(
    max_examples=MORE,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=MORE <= 50,
)
@given(line=lines())
def test_a_command_does_what_it_was_told_or_says_in_a_line_what_is_wrong(shell, tasks, line):
    if len(chancy.jobs(shell.conn, limit=3, schema=shell.schema)) < 3:
        stock(shell, tasks)
    answer = shell(*line)
    assert answer.code in (0, 1, 2), answer
    assert "Traceback" not in answer.err
    assert "Postgres says" not in answer.err, answer.err
    if answer.code == 2:
        assert answer.err.startswith("chancy: "), answer
        assert answer.err.count("\n") == 1, answer
        assert len(answer.err) < 1_000 + 6 * sum(map(len, line))  # what was typed is told, at most escaped
    goes_on(shell, shell.conn, looks=next(_ask) % 50 == 0)
    assert shell.conn.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
