"""Who takes part: Chancy in its settings, the bare statements beneath it, and other queues."""

from __future__ import annotations

from functools import partial

from place import Contender

_floor = partial(Contender, script="floor.py")
_chancy = partial(Contender, script="chancy_here.py")
_pgqueuer = partial(Contender, script="peers/pgqueuer_asyncpg.py", env="peer-pgqueuer", jobs=10_000)
_procrastinate = partial(Contender, script="peers/procrastinate_peer.py", env="peer-procrastinate", jobs=1_500)

FLOOR = _floor("floor", "bare statements", setting="best", jobs=80_000)
FLOOR_10 = _floor("floor-10", "bare statements, batches of 10", setting="best", concurrency=10, jobs=25_000)
FLOOR_SYNC = _floor("floor-sync", "bare statements, sync", style="sync")

CHANCY = _chancy("chancy", "Chancy as shipped")
CHANCY_SYNC = _chancy("chancy-sync", "Chancy, sync", style="sync")
CHANCY_10 = _chancy("chancy-10", "Chancy, 10 at a time", setting="best", concurrency=10, jobs=25_000)
CHANCY_20 = _chancy("chancy-20", "Chancy, 20 at a time", setting="best", concurrency=20, jobs=35_000)
CHANCY_400 = _chancy("chancy-400", "Chancy, 400 at a time", setting="best", concurrency=400, jobs=80_000)
CHANCY_FAST = _chancy(
    "chancy-fast", "Chancy[fast], 400 at a time", env="bench-fast", setting="best", concurrency=400, jobs=80_000
)
CHANCY_THREAD = _chancy("chancy-thread", "Chancy, in threads", kind="thread", jobs=20_000)
CHANCY_CHILD = _chancy("chancy-child", "Chancy, in child processes", kind="child", jobs=20_000)
CHANCY_KEYED = _chancy("chancy-keyed", "Chancy, 3 at a time of each of 50 keys", kind="keyed", jobs=30_000)
CHANCY_UNKEYED = _chancy("chancy-unkeyed", "Chancy, without a limit", jobs=30_000)
CHANCY_NARROW = _chancy(
    "chancy-narrow", "Chancy, without a limit, 19 at a time", setting="best", concurrency=19, jobs=30_000
)
"""Eight of these have 152 jobs at a time; 50 keys of three have 150."""
CHANCY_WIDE = _chancy("chancy-wide", "Chancy, 10,000 at a time", kind="wide", jobs=20_000)
CHANCY_UNLIMITED = _chancy("chancy-unlimited", "Chancy, without a limit", kind="sleep", jobs=20_000)

PGQUEUER = _pgqueuer("pgqueuer", "pgqueuer on asyncpg, tuned", setting="best", jobs=30_000)
PGQUEUER_SHIPPED = _pgqueuer("pgqueuer-shipped", "pgqueuer on asyncpg as shipped")
PGQUEUER_THREAD = _pgqueuer("pgqueuer-thread", "pgqueuer, by to_thread", setting="best", kind="thread")
PGQUEUER_PSYCOPG = _pgqueuer(
    "pgqueuer-psycopg", "pgqueuer on psycopg, tuned", script="peers/pgqueuer_psycopg.py", setting="best", jobs=25_000
)
PROCRASTINATE = _procrastinate("procrastinate", "procrastinate, tuned", setting="best", concurrency=20)
PROCRASTINATE_100 = _procrastinate("procrastinate-100", "procrastinate, 100 at a time", setting="best", concurrency=100)
PROCRASTINATE_SHIPPED = _procrastinate("procrastinate-shipped", "procrastinate as shipped", jobs=600)
PROCRASTINATE_THREAD = _procrastinate(
    "procrastinate-thread", "procrastinate, in threads", setting="best", concurrency=20, kind="thread"
)
CHANCY_026 = Contender(
    "chancy-026",
    "chancy 0.26 of PyPI, tuned",
    script="peers/chancy_026.py",
    env="peer-chancy026",
    setting="best",
    jobs=8_000,
)
HUEY = Contender(
    "huey",
    "huey on SQL, tuned",
    script="peers/huey_peer.py",
    env="peer-huey",
    setting="best",
    concurrency=20,
    jobs=1_500,
)
DRAMATIQ = Contender(
    "dramatiq",
    "dramatiq-pg, tuned",
    script="peers/dramatiq_peer.py",
    env="peer-dramatiq",
    setting="best",
    concurrency=20,
    jobs=1_500,
)

PEERS = [PGQUEUER, PGQUEUER_PSYCOPG, PROCRASTINATE, CHANCY_026, HUEY, DRAMATIQ]

CONTENDERS = {found.key: found for found in list(globals().values()) if isinstance(found, Contender)}
FLOORS = {key for key, contender in CONTENDERS.items() if contender.script == "floor.py"}
OTHERS = {key for key, contender in CONTENDERS.items() if contender.script.startswith("peers/")}
"""The keys of other queues."""
