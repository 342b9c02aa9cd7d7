"""Statements have names, and what is in memory answers by them."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from rooms import rooms_of

from chancy_testing.in_memory.answers import ANSWERS, ASKED_BY

WITHOUT_ANSWER = {
    "arguments": "of `chancy check`",
    "audit": "nobody is on call in memory",
    "batches": "of the dashboard",
    "begin_sweep": "of a person's act",
    "clock": "of the command",
    "declared_limits": "as limits",
    "depths": "as throughput",
    "end_sweep": "of a person's act",
    "finish_unfinished": "of workers, and of drain",
    "go_on_sweep": "of a person's act",
    "graph": "of the command",
    "is_known": "as pause",
    "lines": "of a page",
    "limits": "in memory nothing runs beside anything",
    "measure": "of `chancy top`",
    "minutes": "as throughput",
    "note": "nobody is on call in memory",
    "pause": "nobody waits in memory for what is paused",
    "queues": "nothing waits in memory",
    "resume": "as pause",
    "retention": "in memory nothing goes before the test is over",
    "running": "of `chancy top`",
    "secrets": "nobody looks in memory",
    "stop_sweep": "of a person's act",
    "tasks": "no worker has declared them",
    "throughput": "no worker works in memory",
    "waiting": "of `chancy check`",
    "workers": "there are none",
}
"""Of the rooms whose statements a test may ask for."""
NEVER_ASKED = ("migrations/", "diagnosis/", "reasons/", "command/")
"""Their verbs are about a database; the first statement is refused in their name."""


def statements():
    """The room, the SQL and the name of each statement that core and chancy-ops make, as they are written."""
    for package in ("chancy", "chancy_ops"):
        for room in rooms_of(package):
            for node in ast.walk(ast.parse(room.file.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "Statement":
                    names = [each.value for each in node.keywords if each.arg == "name"]
                    yield room.path, ast.unparse(node.args[0]), names[0] if names else None


def test_each_statement_of_core_and_of_operators_has_a_name():
    assert [(path, sql) for path, sql, name in statements() if name is None] == []


def test_a_name_means_one_statement():
    meanings = defaultdict(set)
    for _, sql, name in statements():
        if isinstance(name, ast.Constant):
            meanings[name.value].add(sql)
    assert {name: sqls for name, sqls in meanings.items() if len(sqls) > 1} == {}
    assert len(meanings) > 60


def test_in_memory_each_statement_is_answered_or_it_is_said_why_not():
    asked = {
        name.value
        for path, _, name in statements()
        if isinstance(name, ast.Constant) and not path.startswith(NEVER_ASKED)
    }
    chosen = {"choose_live", "choose_finished"}  # named where they are chosen
    assert asked | chosen == ANSWERS.keys() | WITHOUT_ANSWER.keys()
    assert not ANSWERS.keys() & {*WITHOUT_ANSWER, *ASKED_BY}
