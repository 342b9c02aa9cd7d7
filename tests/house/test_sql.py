"""What is sent to Postgres names the schema of everything that it uses."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from chancy.schema import BUILT_INS

PACKAGES = Path(__file__).parents[2] / "packages"
SOURCES = sorted(PACKAGES.glob("*/src/**/*.py"))
SYNTAX = {
    "any", "array", "coalesce", "exists", "extract", "greatest", "in", "least", "nullif", "operator", "over", "row",
    "values",
}  # fmt: skip
"""What looks like a call and is none: nobody can define another one."""
CALL = re.compile(r"(?<![\w.}\"%$])([A-Za-z_]+)\(")
STATEMENT = re.compile(r"\b(SELECT|UPDATE|DELETE|INSERT|WHERE|CASE)\b")
FUNCTIONS = [
    re.match(r"\{schema\}\.(\w+)", text)[1] + "\n" + text
    for file in sorted((PACKAGES / "chancy-core/src/chancy/sql").glob("*.sql"))
    for text in re.split(r"CREATE OR REPLACE FUNCTION ", re.sub(r"(?m)--.*$", "", file.read_text()))[1:]
]


@functools.cache
def statements():
    """Each with its file."""
    return [
        (file, node.value)
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and STATEMENT.search(node.value)
    ]


def test_a_statement_calls_only_functions_whose_schema_is_added_to_them():
    calls = {
        (str(file), call.lower())
        for file, text in statements()
        for call in CALL.findall(re.sub(r"(?m)'[^']*'|--.*$", "", text))
    }
    assert len(calls) > 100
    wrong = {(file, call) for file, call in calls if call not in SYNTAX | BUILT_INS}
    assert wrong == set(), "add it to chancy.schema.BUILT_INS"


def test_an_operator_on_arrays_names_its_schema_since_that_of_postgres_is_for_any_of_them_and_never_fits_best():
    bare = re.compile(r"(?<!pg_catalog\.)(&&|@>|<@)")
    texts = [
        node.value
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and STATEMENT.search(node.value)
    ]
    assert len(texts) > 100
    assert [text for text in texts if bare.search(text)] == []


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda text: text.split("\n")[0])
def test_a_function_pins_its_path_or_names_every_schema(function):
    if "SET search_path = pg_catalog, pg_temp\n" in function:
        return
    body = function.split("AS $$")[1].split("$$")[0]
    assert {call.lower() for call in CALL.findall(re.sub(r"'[^']*'", "", body))} <= SYNTAX


def test_a_statement_casts_each_parameter_so_that_any_driver_may_send_it_as_a_text():
    texts = [(file, text) for file, text in statements() if {"chancy", "chancy_ops"} & set(file.parts)]
    assert len(texts) > 100
    assert [(str(file), found) for file, text in texts for found in re.findall(r"%\(\w+\)s(?!::)", text)] == []


def test_each_capability_has_advisory_keys_of_its_own():
    """Below zero; from 1 to 64 they are those of the doorbell. Who shares one waits for somebody whom it does not know."""
    owners = {}
    for file in (*SOURCES, *sorted(PACKAGES.glob("*/src/**/*.sql"))):
        noun = file.stem.lstrip("0123456789_")
        for key in re.findall(r"regnamespace::oid::integer, (-\d+)\)", file.read_text()):
            owners.setdefault(int(key), set()).add(file.parent.name if noun == "statements" else noun)
    assert owners == {-1: {"retention"}, -2: {"flows"}, -3: {"flows"}, -4: {"declarations"}, -5: {"tally"}}
