"""Which Postgres schema a statement goes to, and how its name gets into the SQL.

The schema is always written into the statement: the caller's `search_path` is never relied on. In this order:
the `Job` or `Chancy` at hand, the attempt that is running, `configure(schema=…)`, `CHANCY_SCHEMA` as it was when first
asked for, "chancy".
"""

from __future__ import annotations

import functools
import os
import re
from contextvars import ContextVar

from .errors import ChancyError
from .options.plain import text

# No quotes and no dollars: the name also stands inside string literals and bodies of the schema's functions. 48
# characters leave room for the suffixes of the partitions' constraint names within Postgres' 63.
_NAME = re.compile(r"(?!pg_)[A-Za-z_][A-Za-z0-9_]{0,47}")

_NAMES = """
    age array_agg array_cat array_position bool_or cardinality clock_timestamp concat_ws convert_to count
    current_database current_setting date_trunc dense_rank generate_series has_function_privilege has_table_privilege
    hashtext hashtextextended isfinite json_agg json_array_elements_text json_build_array json_build_object
    json_object_agg json_typeof left length max min nextval now octet_length pg_advisory_unlock pg_advisory_xact_lock
    pg_backend_pid pg_column_size pg_current_xact_id pg_current_xact_id_if_assigned pg_drop_replication_slot
    pg_encoding_to_char pg_get_functiondef pg_get_userbyid pg_has_role pg_is_in_recovery pg_notification_queue_usage
    pg_notify pg_relation_size pg_table_size pg_terminate_backend pg_try_advisory_lock pg_try_advisory_xact_lock
    random row_number set_config setval string_agg strpos sum to_char to_json to_jsonb to_regclass to_regnamespace
    unnest
"""
BUILT_INS = frozenset(_NAMES.split())
"""The functions of Postgres that statements call. Each is sent with its schema: in the caller's `search_path` there may
be another one of the name that fits better, by whoever may create functions there (CVE-2018-1058)."""
_FIELD = re.compile(r"(->>?) ?('\w+')(?! *::)")
"""A field of a JSON, by its name. A literal of no type would be taken for JSON itself, if somebody had an operator of
that kind."""
_CALL = re.compile(rf"(?<![\w.])({'|'.join(sorted(BUILT_INS))})\(")

STATEMENTS = 4096
"""So many texts are kept: of each statement one for each schema, of which an application may have one a tenant."""
_PARAMETER = re.compile(r"%\((\w+)\)s")

attempt_schema: ContextVar[str | None] = ContextVar("chancy_attempt_schema", default=None)
"""The schema of the attempt that is running; set by worker, eager and drain."""

_default: str | None = None


def configure(*, schema: str | None) -> None:
    """Set this process's default schema; None goes back to `CHANCY_SCHEMA`, read anew, or "chancy"."""
    global _default
    _default = None if schema is None else checked(schema)


def schema_in_use(given: str | None = None) -> str:
    """The schema for a verb that was given `given`. Raises `ChancyError` for what cannot be the name of one."""
    if given is not None:
        return checked(given)
    return attempt_schema.get() or _default or _from_environment()


def _from_environment() -> str:
    """Read once: a look into the environment takes as long as the rest of what a submit does before it sends."""
    global _default
    _default = checked(os.environ.get("CHANCY_SCHEMA") or "chancy")
    return _default


def checked(schema: str) -> str:
    """The same name, or an error that says what a schema may be called."""
    if type(schema) is not str:
        schema = text("schema", schema)
    if not _NAME.fullmatch(schema):
        raise ChancyError(
            f"{schema!r} cannot be the name of Chancy's schema: use up to 48 letters, digits and underscores, "
            f"starting with a letter or an underscore, and not with pg_, which is for Postgres"
        )
    return schema


def named(sql: str, schema: str) -> str:
    """The SQL with `{schema}` as a quoted identifier and `{name}` as it is."""
    return sql.replace("{schema}", f'"{checked(schema)}"').replace("{name}", schema)


def _with_schema(call: re.Match[str]) -> str:
    """Of several arrays `unnest` is no function but syntax, which knows no schema and finds that of Postgres."""
    if call[1] == "unnest" and _has_several_arguments(call.string[call.end() :]):
        return call[0]
    return f"pg_catalog.{call[0]}"


def _has_several_arguments(text: str) -> bool:
    depth = 0
    for character in text:
        if character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        if depth < 0:
            return False
        if character == "," and depth == 0:
            return True
    return False


@functools.lru_cache(STATEMENTS)
def fill(sql: str, schema: str) -> bytes:
    """The text of a statement for this schema, without indentation, each function with its schema, and each field's
    name with its type: what is looked for in the caller's `search_path` fits exactly in Postgres' own, which comes
    first.
    """
    text = _FIELD.sub(r"\1 \2::pg_catalog.text", _CALL.sub(_with_schema, named(sql, schema)))
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line).encode()


@functools.lru_cache(STATEMENTS)
def numbered(sql: str, schema: str) -> tuple[bytes, tuple[str, ...]]:
    """The same with `$1`, `$2` … for its parameters, and their names in that order.

    psycopg would do that itself, and anew each time for a text above 4 kB.
    """
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${names.setdefault(found[1], len(names) + 1)}"

    return _PARAMETER.sub(number, fill(sql, schema).decode()).encode(), tuple(names)
