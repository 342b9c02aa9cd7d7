"""What `doctor` asks Postgres about: the schema's tables, who keeps dead rows from being removed, notifications."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from chancy.errors import SchemaOutdated
from chancy.history.moving import MAKE_PARTITIONS
from chancy.migrations.migrate import newest, version
from chancy.migrations.roles import MISSING_RIGHTS, OWN_FUNCTION, OWN_TABLE, missing_rights
from chancy.model import Rows, Statement, Steps
from chancy.options.phrases import counted, moment, one_line, sized, span
from chancy.schema import named

from .findings import Finding, Patience, Severity, unless_any

PINNED = Patience(timedelta(minutes=5), timedelta(hours=1))
"""Of the oldest snapshot in the database: dead rows younger than it stay."""
_DAYS_AHEAD = 6
"""Workers make partitions for seven days, each hour."""
_OVERDUE = timedelta(days=1)
_DEAD_ROWS, _BYTES_A_ROW, _LARGE = 50_000, 1_000, 100 * 1024**2
_OLD_TRANSACTIONS = 1_000_000


def migrations(schema: str) -> Steps[Finding]:
    """Whether the schema fits this version of Chancy. An error: nothing else can be asked."""
    made, needed = (yield from version()), newest()
    found = made.number
    if found < needed or made.schema not in (None, schema):
        state, _, remedy = str(SchemaOutdated(schema, found, needed, was=made.schema)).partition(": ")
        return Finding("schema", Severity.ERROR, f"{state}.", f"{remedy[0].upper()}{remedy[1:]}.")
    if found > needed:
        return Finding(
            "schema",
            Severity.WARNING,
            f"schema '{schema}' is at migration {found}, newer than this version of Chancy, which knows {needed}.",
            "Upgrade Chancy here too; until then some of the checks may miss what is new.",
        )
    return Finding("schema", Severity.OK, f"schema '{schema}' is at migration {found}, as this version needs it.")


def rights() -> Statement[list[Finding]]:
    """Whether the days of history can be made by whoever has to."""

    def parse(rows: Rows) -> list[Finding]:
        _, _, not_owned, owner, _ = rows[0]
        if not_owned:
            return [
                Finding(
                    "rights",
                    Severity.ERROR,
                    f"the functions belong to role {owner}, which does not own {', '.join(not_owned)}: "
                    "no day of history can be made.",
                    f"`{OWN_TABLE % owner}`, or `{OWN_FUNCTION}`.",
                )
            ]
        return [Finding("rights", Severity.OK, f"tables and functions belong to role {owner}.")]

    return Statement(MISSING_RIGHTS, missing_rights().params, parse, name="missing_rights")


# Of history and logs, and of each retention that a queue has.
PARTITIONS = """
    WITH kept (name) AS (
        VALUES ('history'), ('log'), ('step')
        UNION
        SELECT CASE what WHEN 'results' THEN 'history_result_' ELSE 'history_' END || days::text || 'd'
        FROM {schema}.retention WHERE days > 0
    )
    SELECT ARRAY(
        SELECT ahead FROM generate_series(0, %(days)s::integer) AS ahead
        WHERE EXISTS (
            SELECT FROM kept
            LEFT JOIN pg_inherits AS part
                ON part.inhrelid = to_regclass(
                    '{schema}.' || kept.name || to_char((today.day + ahead)::timestamp, '_YYYYMMDD'))
            WHERE part.inhrelid IS NULL)
        ORDER BY ahead
    ), today.day::text
    FROM (SELECT ({schema}.clock() AT TIME ZONE 'UTC')::date AS day) AS today
"""


MAKE = " ".join(MAKE_PARTITIONS.replace("%(days)s", "7").split())
"""For a person to run."""


def partitions(schema: str) -> Statement[list[Finding]]:
    """Whether history has a place for the jobs that finish today and in the days ahead."""

    def parse(rows: Rows) -> list[Finding]:
        missing, today = rows[0]
        if not missing:
            message = f"history has its partitions from today ({today} UTC) to {_DAYS_AHEAD} days ahead."
            return [Finding("partitions", Severity.OK, message)]
        soon = missing[0] <= 1
        return [
            Finding(
                "partitions",
                Severity.ERROR if soon else Severity.WARNING,
                f"history lacks {counted(len(missing), 'partition')} of the days from today ({today} UTC) to "
                f"{_DAYS_AHEAD} days ahead, the first "
                + ("for today." if missing[0] == 0 else f"in {counted(missing[0], 'day')}."),
                f"Workers make them each hour: see their logs for `upkeep`, or run `{named(MAKE, schema)}`.",
            )
        ]

    return Statement(PARTITIONS, {"days": _DAYS_AHEAD}, parse, name="partitions")


RETENTION = """
    SELECT (SELECT value FROM {schema}.setting WHERE name = 'keep'),
        array_agg(name ORDER BY name) FILTER (WHERE over), count(name),
        array_agg(name ORDER BY name) FILTER (WHERE detaching)
    FROM {schema}.kept_days(%(grace)s::interval)
"""


def retention() -> Statement[list[Finding]]:
    """Whether the partitions whose time is over are dropped; a day late is late."""

    def parse(rows: Rows) -> list[Finding]:
        keep, over, all_, pending = rows[0]
        bad = []
        if over:
            bad.append(
                f"{counted(len(over), 'partition')} of history should have been dropped, the oldest {over[0]}: "
                f"jobs are kept for {keep} by default."
            )
        if pending:
            bad.append(f"the detach of {pending[0]} was begun and not finished.")
        remedy = (
            "Workers drop them each hour, and wait for whoever reads them: see the check `xmin` for an open "
            "transaction, and the workers' logs for `upkeep`."
        )
        found = [Finding("retention", Severity.WARNING, message, remedy) for message in bad]
        kept = f"{counted(all_, 'partition')} of history and logs, none overdue; jobs are kept for {keep} by default."
        return unless_any(found, "retention", kept)

    return Statement(RETENTION, {"grace": _OVERDUE}, parse, name="retention")


BLOAT = """
    SELECT stat.n_live_tup, stat.n_dead_tup, greatest(stat.last_autovacuum, stat.last_vacuum),
        pg_table_size('{schema}.job'::regclass),
        ARRAY(SELECT index.indexrelid::regclass::text FROM pg_index AS index
            WHERE index.indrelid = '{schema}.job'::regclass
            ORDER BY pg_relation_size(index.indexrelid) DESC, index.indexrelid),
        ARRAY(SELECT pg_relation_size(index.indexrelid) FROM pg_index AS index
            WHERE index.indrelid = '{schema}.job'::regclass
            ORDER BY pg_relation_size(index.indexrelid) DESC, index.indexrelid)
    FROM (SELECT) AS always
    LEFT JOIN pg_stat_user_tables AS stat ON stat.relid = '{schema}.job'::regclass
"""


def bloat() -> Statement[list[Finding]]:
    """Dead rows of `job`, and its size and that of its indexes against what lives in it. By Postgres' statistics."""
    return Statement(BLOAT, {}, _parse_bloat, name="bloat")


def _parse_bloat(rows: Rows) -> list[Finding]:
    live, dead, vacuumed_at, size, indexes, sizes = rows[0]
    live, dead = live or 0, dead or 0
    vacuumed = f"vacuumed last at {moment(vacuumed_at)}" if vacuumed_at else "not vacuumed yet"
    largest = ", ".join(f"{name} {sized(bytes_)}" for name, bytes_ in zip(indexes[:3], sizes, strict=False))
    figures = f"{live:,} live rows and {dead:,} dead in {sized(size)}, {vacuumed}; largest indexes: {largest}"
    bad = []
    if dead > max(_DEAD_ROWS, live):
        remedy = "Look at the check `xmin` first: what it names keeps them. Then `VACUUM` the table."
        bad.append(Finding("bloat", Severity.WARNING, f"the table job has {figures}.", remedy))
    bloated = [
        name
        for name, bytes_ in zip(indexes, sizes, strict=True)
        if bytes_ > _LARGE and bytes_ > _BYTES_A_ROW * (live + dead)
    ]
    if bloated:
        remedy = "; ".join(f"REINDEX INDEX CONCURRENTLY {name}" for name in bloated)
        message = f"of the indexes of job {len(bloated)} are mostly air: it has {figures}."
        bad.append(Finding("bloat", Severity.WARNING, message, f"`{remedy}`"))
    return unless_any(bad, "bloat", f"the table job has {figures}.")


# A snapshot (`backend_xmin`) or a transaction that has written (`backend_xid`) keeps what died after it. Autovacuum's
# own do not, and standbys and slots are told by how many transactions have passed: they have no time.
PINS = """
    SELECT * FROM (
        (SELECT 'session' AS kind, pid::text AS name,
            extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds, NULL::bigint AS transactions,
            convert_to(coalesce(usename::text, ''), 'UTF8') AS owner,
            convert_to(coalesce(application_name, ''), 'UTF8') AS application, coalesce(state, '') AS state
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
            AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND backend_type <> 'autovacuum worker'
        ORDER BY xact_start LIMIT 1)
        UNION ALL
        (SELECT 'prepared', gid, extract(epoch FROM clock_timestamp() - prepared)::float8, NULL,
            convert_to(owner::text, 'UTF8'), ''::bytea, ''
        FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared LIMIT 1)
        UNION ALL
        (SELECT 'slot', slot_name::text, NULL, age(xmin)::bigint, ''::bytea, ''::bytea,
            CASE WHEN active THEN 'active' ELSE 'inactive' END
        FROM pg_replication_slots WHERE xmin IS NOT NULL ORDER BY age(xmin) DESC LIMIT 1)
        UNION ALL
        (SELECT 'standby', pid::text, NULL, age(backend_xmin)::bigint, convert_to(coalesce(usename::text, ''), 'UTF8'),
            convert_to(coalesce(application_name, ''), 'UTF8'), coalesce(state, '')
        FROM pg_stat_replication WHERE backend_xmin IS NOT NULL ORDER BY age(backend_xmin) DESC LIMIT 1)
    ) AS pin
    UNION ALL
    SELECT 'hidden', NULL, NULL, count(*), ''::bytea, ''::bytea, '' FROM pg_stat_activity
    WHERE datname = current_database() AND query = '<insufficient privilege>'
"""


def pins(patience: Patience = PINNED) -> Statement[list[Finding]]:
    """Who keeps dead rows from being removed, and for how long already."""

    def parse(rows: Rows) -> list[Finding]:
        bad, longest, hidden = [], "", 0
        for kind, name, seconds, transactions, *said in rows:
            if kind == "hidden":
                hidden = transactions
                continue
            severity, held = _pinned(seconds, transactions, patience)
            what, remedy = _pin(kind, one_line(name), *(one_line(_text(word), 80) for word in said))
            if severity is not Severity.OK:
                bad.append(Finding("xmin", severity, f"{what} {held}: nothing that died since is removed.", remedy))
            longest = longest or f"; the longest: {what} {held}"
        unseen = f" ({counted(hidden, 'session')} of others cannot be seen: GRANT pg_read_all_stats)" if hidden else ""
        return unless_any(bad, "xmin", f"nothing keeps dead rows for long{longest}{unseen}.")

    return Statement(PINS, {}, parse, name="pins")


def _text(word: Any) -> str:
    return word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)


def _pinned(seconds: float | None, transactions: int | None, patience: Patience) -> tuple[Severity, str]:
    if seconds is not None:
        age = timedelta(seconds=seconds)
        return patience.with_age(age), f"for {span(age)}"
    passed = transactions or 0
    return (
        Severity.WARNING if passed > _OLD_TRANSACTIONS else Severity.OK,
        f"for {counted(passed, 'transaction')}",
    )


# For a person to run.
SEE_QUERY = "SELECT query FROM pg_stat_activity WHERE pid = %s"
END_SESSION = "SELECT pg_terminate_backend(%s)"
DROP_SLOT = "SELECT pg_drop_replication_slot('%s')"


def _pin(kind: str, name: str, owner: str, application: str, state: str) -> tuple[str, str]:
    match kind:
        case "session":
            what = f"the transaction of session {name} ({application}, user {owner}, {state}) has been open"
            remedy = (
                f"See what it does (`{SEE_QUERY % name}`), and end its transaction, or the session: "
                f"`{END_SESSION % name}`."
            )
        case "prepared":
            what = f"the prepared transaction '{name}' of {owner} has been open"
            literal = name.replace("'", "''")
            remedy = f"`COMMIT PREPARED '{literal}'` or `ROLLBACK PREPARED '{literal}'`."
        case "slot":
            what = f"the replication slot {name} ({state}) has been behind"
            remedy = f"See what became of its reader; if nobody needs it, `{DROP_SLOT % name}`."
        case _:
            what = f"the standby {application} ({state}) has had a query open"
            remedy = "Look for it there, or set hot_standby_feedback off."
    return what, remedy


NOTIFICATIONS = "SELECT pg_notification_queue_usage()::float8"


def notifications() -> Statement[list[Finding]]:
    """How full the queue is in which notifications wait for who listens. When it is full, submits fail."""

    def parse(rows: Rows) -> list[Finding]:
        used: float = rows[0][0]
        message = f"the queue of notifications is {used:.0%} full."
        if used < 0.1:
            return [Finding("notifications", Severity.OK, message)]
        remedy = "A session that listens has been in one transaction for long: end it (see the check `xmin`)."
        return [Finding("notifications", Severity.ERROR if used >= 0.5 else Severity.WARNING, message, remedy)]

    return Statement(NOTIFICATIONS, {}, parse, name="notifications")


POOLER = "SELECT pg_backend_pid()"


def pooler(told: int) -> Statement[list[Finding]]:
    """Whether something stands between this connection and Postgres, which told it the process id `told`."""

    def parse(rows: Rows) -> list[Finding]:
        message = "this connection leads to Postgres itself."
        if rows[0][0] != told:
            message = (
                "there is a pooler such as PgBouncer between this connection and Postgres. Workers behind one start "
                "jobs up to 1 s late; their --dsn may lead past it."
            )
        return [Finding("pooler", Severity.OK, message)]

    return Statement(POOLER, {}, parse, name="pooler")
