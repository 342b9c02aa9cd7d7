"""`python -m chancy migrate [--print | --check]`. A worker's command is `chancy-worker`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import psycopg

from .errors import ChancyError
from .migrations.migrate import migrate, printed, steps_after, version
from .run import perform
from .schema import checked, schema_in_use
from .wires.dsn import understood
from .wires.failures import denied


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 is success, 1 is what a check has found missing, 2 says on standard error what to do."""
    parser = argparse.ArgumentParser(prog="python -m chancy", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("migrate", help="bring the schema up to date, or print the SQL that would")
    command.add_argument(
        "--dsn", default=os.environ.get("CHANCY_DSN", ""), help="default: CHANCY_DSN, then libpq's variables"
    )
    command.add_argument("--schema", help="default: CHANCY_SCHEMA, then chancy")
    either = command.add_mutually_exclusive_group()
    either.add_argument("--print", action="store_true", help="print the SQL and send nothing")
    either.add_argument(
        "--check", action="store_true", help="change nothing; end with 1 and the names if something is missing"
    )
    command.add_argument("--after", type=int, default=0, metavar="N", help="with --print: only steps above number N")
    options = parser.parse_args(arguments)
    try:
        schema = checked(schema_in_use(options.schema))
        if options.print:
            sys.stdout.write(printed(schema, options.after))
            sys.stdout.flush()
            return 0
        with psycopg.connect(understood(options.dsn), connect_timeout=10, prepare_threshold=None) as conn:
            if options.check:
                return _checked(conn, schema)
            try:
                applied = migrate(conn, schema=schema)
            except psycopg.errors.InsufficientPrivilege as error:
                return _failed(denied(error, conn.info.user, schema, "owner"))
    except ChancyError as error:
        return _failed(str(error))
    except BrokenPipeError:  # `… --print | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except psycopg.errors.LockNotAvailable:
        return _failed("another session holds a lock that the migration needs; nothing was changed, try again")
    except psycopg.Error as error:
        if error.sqlstate is not None:
            return _failed(f"Postgres says: {error}")
        return _failed(f"{error}; say where Postgres is with --dsn, CHANCY_DSN or PGHOST and the like")
    print(f"schema {schema}: " + (f"applied {', '.join(applied)}" if applied else "is up to date"))
    return 0


def _checked(conn: psycopg.Connection, schema: str) -> int:
    found: Any = perform(conn, version(), schema)
    missing = [step.name for step in steps_after(found.number)]
    print(f"schema {schema}: " + (f"lacks {', '.join(missing)}" if missing else "is up to date"))
    return 1 if missing else 0


def _failed(message: str) -> int:
    print("chancy:", " ".join(message.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
