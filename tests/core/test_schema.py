"""The schema as it stands in the database: every change of it is seen in a review."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest

import chancy
from chancy import DevelopmentSchema
from chancy.__main__ import main
from chancy.migrations.migrate import steps

SNAPSHOT = Path(__file__).parent / "schema.txt"

# What a day, an implicit index or this version of Postgres adds is left out.
CATALOG = """
    SELECT 'column ' || relation.relname || '.' || attname || ' ' || format_type(atttypid, atttypmod)
        || CASE WHEN attnotnull THEN ' not null' ELSE '' END
        || coalesce(' = ' || pg_get_expr(adbin, adrelid), '')
    FROM pg_class AS relation
    JOIN pg_attribute AS attribute ON attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
    LEFT JOIN pg_attrdef ON adrelid = relation.oid AND adnum = attnum
    WHERE relnamespace = %(schema)s::text::regnamespace AND relkind IN ('r', 'p', 'v', 'c') AND relname !~ '_[0-9]{8}$'
    UNION ALL
    SELECT 'constraint ' || relname || ' ' || pg_get_constraintdef(constraint_.oid)
    FROM pg_constraint AS constraint_ JOIN pg_class ON pg_class.oid = conrelid
    WHERE connamespace = %(schema)s::text::regnamespace AND contype <> 'n' AND relname !~ '_[0-9]{8}$'
    UNION ALL
    SELECT 'domain ' || typname || ' ' || format_type(typbasetype, NULL) || ' ' || conname || ' '
        || pg_get_constraintdef(constraint_.oid)
    FROM pg_constraint AS constraint_ JOIN pg_type ON pg_type.oid = contypid
    WHERE connamespace = %(schema)s::text::regnamespace
    UNION ALL
    SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = %(schema)s::text AND tablename !~ '_[0-9]{8}$'
    UNION ALL
    SELECT 'storage ' || relname || ' ' || reloptions::text FROM pg_class
    WHERE relnamespace = %(schema)s::text::regnamespace AND reloptions IS NOT NULL AND relname !~ '_[0-9]{8}$'
    UNION ALL
    SELECT 'function ' || proname || '(' || pg_get_function_arguments(oid) || ') ' || provolatile::text || proparallel::text
        || coalesce(' ' || proconfig::text, '')
    FROM pg_proc WHERE pronamespace = %(schema)s::text::regnamespace
    UNION ALL
    SELECT 'enum ' || typname || ' ' || enumlabel
    FROM pg_enum JOIN pg_type ON pg_type.oid = enumtypid WHERE typnamespace = %(schema)s::text::regnamespace
"""


def test_the_schema_is_what_was_reviewed(database):
    """After a change that is meant: CHANCY_WRITE_SCHEMA=1 writes the file anew, and its diff is a part of the change."""
    database.conn.execute("SET TIME ZONE 'UTC'")
    rows = database.conn.execute(CATALOG, {"schema": database.schema}).fetchall()
    lines = sorted(
        line.replace(f'"{database.schema}"', "chancy").replace(database.schema, "chancy") for (line,) in rows
    )
    text = "\n".join(lines) + "\n"
    if os.environ.get("CHANCY_WRITE_SCHEMA"):
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8"), "CHANCY_WRITE_SCHEMA=1 writes tests/core/schema.txt anew"


def test_a_schema_of_a_development_version_is_told_as_one_and_left_alone(database):
    database.rows("UPDATE {}.migration SET number = 11, name = '0011_several_bells' RETURNING 1")
    database.rows("INSERT INTO {}.migration (number, name) VALUES (1, '0001_first') RETURNING 1")
    with pytest.raises(DevelopmentSchema, match="drop it"):
        chancy.migrate(database.conn, schema=database.schema)
    assert database.rows("SELECT max(number) FROM {}.migration") == [(11,)]


def test_the_command_of_core_says_what_a_schema_lacks_and_changes_nothing(database, chancy_dsn, capsys):
    site = ["migrate", "--check", "--dsn", chancy_dsn, "--schema"]
    assert main([*site, database.schema]) == 0
    assert main([*site, "never_migrated"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"schema {database.schema}: is up to date", f"schema never_migrated: lacks {', '.join(s.name for s in steps())}"
    ]  # fmt: skip
    assert database.rows("SELECT to_regnamespace('never_migrated')") == [(None,)]


def test_a_role_that_may_not_migrate_is_told_who_may(database, chancy_dsn, capsys):
    database.conn.execute("DROP ROLE IF EXISTS chancy_guest")
    database.conn.execute("CREATE ROLE chancy_guest LOGIN")
    try:
        dsn = psycopg.conninfo.make_conninfo(chancy_dsn, user="chancy_guest")
        assert main(["migrate", "--dsn", dsn, "--schema", database.schema]) == 2
    finally:
        database.conn.execute("DROP ROLE chancy_guest")
    said = capsys.readouterr().err
    assert f"role chancy_guest may not migrate schema {database.schema} (permission denied for schema" in said
    assert "as the role that owns it" in said
