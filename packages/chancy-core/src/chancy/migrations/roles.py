"""The rights of four kinds of database roles: the least that each needs for its part.

The schema belongs to whoever migrates it. Nobody else has to own anything: the days of history are made and dropped by
functions that run with their owner's rights, and who may call those is said here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

from chancy.errors import InvalidArguments, InvalidOption
from chancy.model import Statement
from chancy.options.plain import several, shown, text
from chancy.schema import named, schema_in_use
from chancy.wires.literals import of_texts

Role: TypeAlias = Literal["producer", "worker", "viewer", "operator"]


def _on(rights: str, tables: str) -> str:
    return f"{rights} ON " + ", ".join("{schema}." + table for table in tables.split())


_LOOK = "SELECT ON ALL TABLES IN SCHEMA {schema}"
_DRAW = "USAGE ON SEQUENCE {schema}.job_id_seq, {schema}.batch_id_seq"
_CARE = """EXECUTE ON FUNCTION {schema}.make_partitions(date, date), {schema}.drop_day(text),
    {schema}.keep_queues(text[], text[], text[], smallint[])"""

_NOTE = _on("INSERT", "audit")
"""Who did what is added by whoever does it, and neither changed nor deleted."""
_LOOK_LATE = "EXECUTE ON FUNCTION {schema}.unblock_late(bigint[], bigint)"

GRANT = "GRANT %s TO %s;"
RIGHTS: Mapping[Role, Sequence[str]] = {
    "producer": (
        "USAGE ON SCHEMA {schema}",
        _on("SELECT", "migration job history history_result any_job log step task batch unique_window need"),
        _on("INSERT", "job step batch unique_window need"),
        # What a submit replaces of a job that waits under its key, and whose batch it is; and of one that needs others.
        "UPDATE (arguments, priority, max_attempts, retry, limits, gates, parked, run_at, batch, meta) ON {schema}.job",
        "UPDATE (needed) ON {schema}.job",
        _on("UPDATE", "batch unique_window"),
        _on("DELETE", "unique_window"),
        _NOTE,
        _DRAW,
        _LOOK_LATE,
    ),
    "worker": (
        "USAGE ON SCHEMA {schema}",
        "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema}",
        "USAGE ON ALL SEQUENCES IN SCHEMA {schema}",
        _CARE,
        _LOOK_LATE,
    ),
    "viewer": ("USAGE ON SCHEMA {schema}", _LOOK),
    "operator": (
        "USAGE ON SCHEMA {schema}",
        _LOOK,
        _on(
            "INSERT, UPDATE, DELETE",
            "job history history_result log step pause queue_limit schedule batch unique_window setting need",
        ),
        _NOTE,
        "UPDATE (changed, skipped, seen_at, stop_at, done_at, note) ON {schema}.audit",
        _DRAW,
        _CARE,
        _LOOK_LATE,
    ),
}
"""What is granted to each, as the middle of a GRANT.

A producer submits, alone, in bulk, unique and in batches, signals, does the steps of handlers whose connections are its
own, and reads what became of jobs. A worker works. A viewer
looks. An operator looks, and steers: pauses, limits, cancels, requeues, edits, deletes, schedules.
"""
ROLES: tuple[Role, ...] = get_args(Role)


def grants(roles: Mapping[Role, str | Iterable[str]], *, schema: str | None = None) -> str:
    """The SQL that grants these roles of the database what they need, for a person to read and run as the owner.

    `roles` says by kind which: `{"producer": "shop_web", "worker": ["shop_worker"]}`. Grants nothing twice and takes
    nothing away. Run it again after an upgrade: new tables have no grants.
    """
    where = schema_in_use(schema)
    lines = []
    if not isinstance(roles, Mapping):
        raise InvalidArguments(
            "grants", "roles", f"expected a dict of {', '.join(ROLES)} to names of roles, got {shown(roles)}"
        )
    for kind, names in roles.items():
        if kind not in RIGHTS:
            raise InvalidArguments("grants", "roles", f"there is no kind {kind!r}, but {', '.join(ROLES)}")
        for name in _plain(kind, names):
            if not name:
                raise InvalidArguments("grants", kind, f"expected the name of a role, got {name!r}")
            quoted = '"' + name.replace('"', '""') + '"'
            lines += [GRANT % (named(right, where), quoted) for right in RIGHTS[kind]]
    return "\n".join(lines) + "\n"


def _plain(kind: Role, names: object) -> list[str]:
    try:
        return [text(kind, name) for name in ([names] if isinstance(names, str) else several(kind, names, "names"))]
    except InvalidOption as error:
        raise InvalidArguments("grants", kind, error.reason) from None


# Of the partitioned tables, since only their owner can make a part of them.
MISSING_RIGHTS = """
    SELECT ARRAY(
        SELECT right_ || ' on ' || name
        FROM unnest(%(tables)s::text[]) AS name
        CROSS JOIN unnest(%(rights)s::text[]) AS right_
        WHERE NOT has_table_privilege(current_user, to_regclass('{schema}.' || name), right_)
        ORDER BY 1
    ), current_user::text, ARRAY(
        SELECT relname::text FROM pg_class
        WHERE relnamespace = to_regnamespace('{schema}') AND relkind = 'p'
            AND NOT pg_has_role(maker.proowner, relowner, 'USAGE')
        ORDER BY 1
    ), pg_get_userbyid(maker.proowner)::text,
    has_function_privilege(current_user, maker.oid, 'EXECUTE')
    FROM pg_proc AS maker
    WHERE maker.pronamespace = to_regnamespace('{schema}') AND maker.proname = 'make_partitions'
"""
# For a person to run.
OWN_TABLE = "ALTER TABLE … OWNER TO %s"
OWN_FUNCTION = "ALTER FUNCTION … OWNER TO the owner of the tables"
_WORKED_ON = (
    "job",
    "history",
    "history_result",
    "log",
    "tally",
    "step",
    "worker",
    "offer",
    "dead_worker",
    "slot",
    "share",
    "batch",
    "schedule",
    "need",
)


def missing_rights() -> Statement[str]:
    """What this role lacks of a worker's rights, or the owner of the functions of the tables': a sentence with the
    remedy, or "" if nothing.
    """
    params = {"tables": of_texts(_WORKED_ON), "rights": of_texts(("SELECT", "INSERT", "UPDATE", "DELETE"))}

    def parse(rows: Sequence[Sequence[object]]) -> str:
        lacking, user, not_owned, owner, may_make = rows[0]
        assert isinstance(lacking, list)
        assert isinstance(not_owned, list)
        if lacking or not may_make:
            what = ", ".join(lacking[:4]) + (f" and {len(lacking) - 4} more" if len(lacking) > 4 else "")
            what = what or "EXECUTE on make_partitions"
            return f"role {user} lacks what a worker needs ({what}): run what `chancy grants --worker {user}` prints"
        if not_owned:
            what = ", ".join(not_owned)
            remedy = f"{OWN_TABLE % owner}, or {OWN_FUNCTION}"
            return f"role {owner} has the functions, but not {what}, and cannot make the days of history: {remedy}"
        return ""

    return Statement(MISSING_RIGHTS, params, parse, name="missing_rights")
