"""How a job that has ended gets from `job` to `history`, and the days that it may get to."""

from __future__ import annotations

from chancy.model import Statement
from chancy.wires.literals import readable

MOVED = """id, task, queue, priority, attempt, max_attempts, claims, crashes, worker, run_at, submitted_at, started_at,
            arguments, retry, limits, gates, unique_key, unique_until, batch, meta, needs, becomes, needed"""
"""The columns that a job takes along from `job` to `history`, for `{moved}` in a statement."""

_PLAIN = {"run_at": readable("run_at"), "arguments": "arguments::json", "gates": "gates::json", "meta": "meta::json"}
_AS_MOVED = ", ".join(_PLAIN.get(name, name) for name in MOVED.replace(",", " ").split())
"""The same as history has them, without the domains: where types differ Postgres copies each row once more."""

KEEP = "CASE WHEN EXISTS (SELECT FROM {schema}.retention) THEN {schema}.keep_days(queue, {state}) END AS keep"
"""Column `keep`: days that a job which ended as `{state}` is kept, and days that its result is. NULL where the schema
has no rule of retention: then it costs one subquery a statement, and no call for each row.
"""
_KEPT = """kept AS (
        INSERT INTO {schema}.history
            ({moved}, state, finished_at, result, errors, keep_days, error_kind, fingerprint)
        SELECT {as_moved}, state, {schema}.clock(), CASE WHEN keep IS NULL OR keep[2] = 0 OR needed THEN result END,
            errors,
            coalesce(keep[1], 0),
            CASE WHEN errors IS NOT NULL THEN {schema}.of_last_error(errors, 'kind') END,
            CASE WHEN errors IS NOT NULL THEN {schema}.of_last_error(errors, 'fingerprint') END
        FROM ended
        -- A batch is counted from its rows, and the result of what is needed is read.
        WHERE keep IS NULL OR keep[1] IS NOT NULL OR batch IS NOT NULL OR needed
    )"""
# Results that are kept for a shorter time.
_APART = """apart AS (
        INSERT INTO {schema}.history_result (id, finished_at, result, keep_days)
        SELECT id, {schema}.clock(), result, keep[2]
        FROM ended
        WHERE keep IS NOT NULL AND keep[2] > 0 AND keep[1] IS NOT NULL AND result IS NOT NULL AND needed IS NULL
    )"""


def keeping(text: str, state: str) -> str:
    """Complete a statement that finishes jobs: its CTE `ended` has their rows, and this adds the copies to history.

    `state` is the SQL expression of the final state, by which rules of retention are looked up, as `{keep}` in `ended`.
    `{kept}` stands for the rows, `{apart}` for results that are kept for a shorter time.
    """
    keep = KEEP.replace("{state}", state)
    text = text.replace("{kept}", _KEPT).replace("{apart}", _APART).replace("{keep}", keep)
    return text.replace("{as_moved}", _AS_MOVED).replace("{moved}", MOVED)


DAYS_AHEAD = 1
"""For who is about to write to history: until midnight has passed, somebody else has made more."""

MAKE_PARTITIONS = """
    SELECT {schema}.make_partitions(
        ({schema}.clock() AT TIME ZONE 'UTC')::date,
        ({schema}.clock() AT TIME ZONE 'UTC')::date + %(days)s::integer
    )
"""


def make_partitions(days: int) -> Statement[int]:
    """Make the history partitions that are missing from today to `days` ahead; returns how many it made."""
    return Statement(MAKE_PARTITIONS, {"days": days}, lambda rows: int(rows[0][0]), name="make_partitions")
