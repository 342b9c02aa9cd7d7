"""Chancy's schema in Django's ledger: each numbered step is a migration of Django, whose operation looks into Chancy's
own ledger first. So `manage.py migrate` and `chancy migrate` may have been there before each other.
"""

from __future__ import annotations

from typing import Any

from django.db.migrations.operations.base import Operation, OperationCategory

import chancy
from chancy.migrations.migrate import (
    CREATE_LEDGER,
    CREATE_SCHEMA,
    PRINTED_RECORD,
    Step,
    Version,
    functions,
    newest,
    steps,
    version,
)
from chancy.model import Script, Steps
from chancy.run import perform
from chancy.schema import fill

from .settings import settings_in_use

# The ledger, what is set for the whole schema, and what is empty already stay.
EMPTY = """
    DO $$
    DECLARE
        used text;
    BEGIN
        SELECT pg_catalog.string_agg(oid::pg_catalog.regclass::pg_catalog.text, ', ') INTO used
        FROM pg_catalog.pg_class
        WHERE relnamespace = '{schema}'::pg_catalog.regnamespace AND relkind = 'r'
            AND relname NOT IN ('setting', 'migration') AND pg_catalog.pg_relation_size(oid) > 0;
        IF used IS NOT NULL THEN
            EXECUTE 'TRUNCATE ' || used;
        END IF;
    END
    $$
"""


def found(connection: Any) -> int:
    """The number of the newest step that the database has; 0 where there is no schema."""
    seen: Version = perform(connection, version(), settings_in_use().schema)  # type: ignore[assignment]
    return seen.number


def empty(connection: Any) -> None:
    """Take all jobs away, and whatever else has come in since the schema was made."""
    perform(connection, _emptied(), settings_in_use().schema)


def _emptied() -> Steps[None]:
    yield Script(EMPTY)


class ApplyStep(Operation):
    """Bring the schema to this step, if it is not there yet, and the functions with it.

    Where it is not, all that this version of Chancy has is applied in one go: its functions are those of the newest
    step, and could not be made between two. The migrations behind then find their steps there.
    """

    reduces_to_sql = True
    reversible = False
    category = OperationCategory.SQL

    def __init__(self, number: int) -> None:
        self.number = number

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Models are none of its business."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """In Django's transaction; with it Chancy's ledger is written."""
        settings, connection = settings_in_use(), schema_editor.connection
        if connection.alias != settings.database or connection.vendor != "postgresql":
            return
        if schema_editor.collect_sql:  # `manage.py sqlmigrate`
            schema_editor.execute(printed(self.step, settings.schema), params=None)
        elif found(connection) < self.number:
            chancy.migrate(connection, schema=settings.schema)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Chancy's steps go forward only."""

    def describe(self) -> str:
        """For `manage.py migrate --plan` and `sqlmigrate`."""
        return f"Chancy's schema, step {self.step.name}"

    @property
    def step(self) -> Step:
        """As Chancy has it."""
        return next(step for step in steps() if step.number == self.number)


def printed(step: Step, schema: str) -> str:
    """What it does, for a person to read: before the first step the schema and its ledger are made, and with the newest
    one the functions.
    """
    parts = [] if step.number > 1 else [f"{CREATE_SCHEMA};", f"{CREATE_LEDGER};"]
    parts += [PRINTED_RECORD % (step.number, step.name), step.sql]
    return fill("\n".join([*parts, functions()] if step.number == newest() else parts), schema).decode()
