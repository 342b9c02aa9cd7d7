"""Whether an installation is well: every check answers, also when it is."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, overload

import psycopg

from chancy.model import AskStanding, Steps
from chancy.run import perform
from chancy.schema import schema_in_use
from chancy.wires.connections import AsyncConn, SyncConn
from chancy.wires.wire import Standing

from . import fleet as fleet_checks
from . import server as server_checks
from .findings import Finding, Severity
from .flows import held, needs
from .steps import waits
from .waiting import waiting


@overload
def doctor(conn: SyncConn, /, *, schema: str | None = None) -> list[Finding]: ...
@overload
def doctor(conn: AsyncConn, /, *, schema: str | None = None) -> Coroutine[Any, Any, list[Finding]]: ...
def doctor(
    conn: SyncConn | AsyncConn, /, *, schema: str | None = None
) -> list[Finding] | Coroutine[Any, Any, list[Finding]]:
    """Look at everything that has ever kept jobs from running; what was found, in a fixed order.

    Each check gives one finding that all is well, or one for each thing that is not. About 22 round trips; where the
    doorbell seems dead, some seconds more. Writes nothing and waits for no lock, and rings once, so that idle workers
    look. Best on a connection in autocommit: in a transaction the time stands still, and nobody can be rung. What other
    users' sessions do can be seen by members of pg_read_all_stats only. Of a schema that is older than this version
    that alone is told.
    """
    where = schema_in_use(schema)
    return perform(conn, _examine(where, conn), where)


def _examine(schema: str, conn: SyncConn | AsyncConn) -> Steps[list[Finding]]:
    migrated: Finding = yield from server_checks.migrations(schema)
    if migrated.severity is Severity.ERROR:
        return [migrated]
    found = [migrated]
    fleet = yield from fleet_checks.fleet()
    for fleet_check in (fleet_checks.leases, fleet_checks.queues, fleet_checks.tasks):
        found += fleet_check(fleet)
    found += yield from waiting(fleet)
    found += yield from fleet_checks.doorbell(fleet)
    if (yield AskStanding()) is Standing.AUTOCOMMIT:
        found += yield from fleet_checks.listeners(fleet)
    found += fleet_checks.clocks(fleet)
    found += fleet_checks.pauses(fleet)
    # What other stacks were told at the start is theirs.
    pooler = []
    if isinstance(conn, (psycopg.Connection, psycopg.AsyncConnection)):
        pooler.append(server_checks.pooler(conn.info.backend_pid))
    for statement in (
        fleet_checks.schedules(fleet),
        fleet_checks.claims(schema),
        fleet_checks.slots(),
        waits(),
        needs(),
        held(),
        server_checks.rights(),
        server_checks.partitions(schema),
        server_checks.retention(),
        server_checks.bloat(),
        server_checks.pins(),
        server_checks.notifications(),
        *pooler,
    ):
        found += yield statement
    return found
