"""`stacks` is found under its plain name, as are the promises and the verbs of other folders."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

import kept
import psycopg
import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "core")]


@dataclass
class Onlooker:
    """Somebody with a connection of their own, in autocommit, and a table `thing` beside Chancy's."""

    conn: psycopg.Connection
    schema: str
    thing: str

    def jobs(self):
        """The argument `n` of each job that waits."""
        rows = self.conn.execute(f"SELECT (arguments->>'n')::int FROM {self.schema}.job ORDER BY id").fetchall()
        return [number for (number,) in rows]

    def things(self):
        return [number for (number,) in self.conn.execute(f"SELECT id FROM {self.thing} ORDER BY id").fetchall()]

    def insert(self, number):
        """What writes a row, as a text."""
        return f"INSERT INTO {self.thing} VALUES ({number})"


@pytest.fixture
def onlooker(chancy_dsn, chancy_schema):
    with contextlib.closing(kept.connect(chancy_dsn)) as conn:
        thing = f"public.thing_{chancy_schema}"
        conn.execute(f"CREATE TABLE {thing} (id int)")
        try:
            yield Onlooker(conn, chancy_schema, thing)
        finally:
            conn.execute(f"DROP TABLE {thing}; DELETE FROM {chancy_schema}.worker")  # then the schema is used again


def pytest_terminal_summary(terminalreporter):
    """The table of transactions: what was seen of each stack."""
    seen: dict[str, dict[str, str]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name == "chancy_stack" and report.when == "call":
                    seen.setdefault(value[0], {})[value[1]] = "ok" if outcome == "passed" else "WRONG"
    if seen:
        cases = list(dict.fromkeys(case for row in seen.values() for case in row))
        terminalreporter.section("transactions of each stack")
        terminalreporter.write_line(f"| stack | {' | '.join(cases)} |")
        terminalreporter.write_line(f"|---{'|---' * len(cases)}|")
        for stack, row in seen.items():
            terminalreporter.write_line(f"| {stack} | {' | '.join(row.get(case, '') for case in cases)} |")
