"""Where a command works and how it answers: the options that each of them takes, before its name or after it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import click

from .faults import Refusal

if TYPE_CHECKING:
    from chancy.migrations.migrate import Version
    from chancy.wires.connections import PsycopgConn

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Site:
    """One database, one schema, and whether answers are for programs."""

    dsn: str
    schema: str
    json: bool
    needs: str = "viewer"
    """Which kind of role the command needs: see `chancy grants`."""

    @contextmanager
    def connect(self) -> Iterator[PsycopgConn]:
        """A connection in autocommit, to a schema that this version can read. Two round trips.

        Raises `Refusal` for any other schema.
        """
        from chancy.migrations.migrate import newest

        with self.connect_to_any() as conn:
            found = self.version(conn)
            if found.number < newest():
                state = f"is at migration {found.number}" if found.number else "has not been migrated"
                raise Refusal(f"schema {self.schema!r} {state}, and this needs {newest()}: run {self.migrate()}")
            if found.schema not in (None, self.schema):
                raise Refusal(
                    f"schema {self.schema!r} was {found.schema!r} when it was migrated, and its functions still name "
                    f"that: run {self.migrate()}"
                )
            yield conn

    @contextmanager
    def connect_to_any(self) -> Iterator[PsycopgConn]:
        """A connection in autocommit, whatever is there. What its role has no right to is a `Refusal` within."""
        import psycopg

        from chancy.wires.dsn import understood
        from chancy.wires.failures import denied

        options: dict[str, Any] = {"connect_timeout": 10, "fallback_application_name": "chancy"}
        with psycopg.connect(understood(self.dsn), autocommit=True, prepare_threshold=None, **options) as conn:
            try:
                yield conn
            except psycopg.errors.InsufficientPrivilege as error:
                raise Refusal(denied(error, conn.info.user, self.schema, self.needs)) from error

    def version(self, conn: PsycopgConn) -> Version:
        """How far the schema is; `Refusal` where it is newer than this command."""
        from chancy.migrations.migrate import Version, newest, version
        from chancy.run import perform

        found: Any = perform(conn, version(), self.schema)
        assert isinstance(found, Version)
        if found.number > newest():
            raise Refusal(
                f"schema {self.schema!r} is at migration {found.number}, which is newer than this chancy, which knows "
                f"{newest()}: install the chancy-ops of the version that migrated it"
            )
        return found

    def note(self, conn: PsycopgConn, did: str, /, changed: int = 1, **what: Any) -> None:
        """Write down what the person at the command did, in the transaction of that."""
        from chancy_ops.auditing import note

        from .person import person

        note(conn, did, what, who=person(), via="command", changed=changed, schema=self.schema)

    def migrate(self) -> str:
        """The command that would bring the schema up to date."""
        return f"`chancy migrate --schema {self.schema}`"

    def now(self, conn: PsycopgConn) -> datetime:
        """The database's clock. One round trip."""
        from chancy_ops.overview import clock

        return clock(conn, schema=self.schema)


def site_options() -> list[click.Parameter]:
    """--dsn, --schema and --json. What is said after the command's name counts."""
    about: list[tuple[str, dict[str, Any]]] = [
        ("--dsn", {"help": "Where Postgres is; default: CHANCY_DSN, then libpq's variables."}),
        ("--schema", {"help": "Default: CHANCY_SCHEMA, then chancy."}),
        ("--json", {"is_flag": True, "help": "One JSON document in place of tables."}),
    ]
    return [click.Option([name], expose_value=False, callback=_remember, **more) for name, more in about]


def _remember(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    if value:
        ctx.ensure_object(dict)[parameter.name] = value


def site_of(ctx: click.Context, needs: str = "viewer") -> Site:
    """What the options have said."""
    from chancy.schema import checked, schema_in_use

    said = ctx.ensure_object(dict)
    schema = checked(schema_in_use(said.get("schema")))
    return Site(said.get("dsn", os.environ.get("CHANCY_DSN", "")), schema, said.get("json", False), needs)


class _Command(click.Command):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params += site_options()


def command(
    name: str, *, needs: str = "viewer"
) -> Callable[[Callable[Concatenate[Site, P], int | None]], click.Command]:
    """Make a function a command, whose first argument is the site. What it returns is the command's code.

    `needs` is the kind of role of the database that it takes to do it.
    """

    def make(function: Callable[Concatenate[Site, P], int | None]) -> click.Command:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> int | None:
            return function(site_of(click.get_current_context(), needs), *args, **kwargs)

        return click.command(name, cls=_Command)(run)

    return make
