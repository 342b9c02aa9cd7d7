"""A worker of a Django project whose Postgres is restarted: what its functions ask of the ORM is asked again."""

from __future__ import annotations

import psycopg
import pytest

import chancy
from chancy_testing import Postgres

pytestmark = [pytest.mark.timeout(200), pytest.mark.long]

THREADS = 6


def test_a_restart_of_postgres_costs_no_job_of_the_orm_more_than_the_attempt_that_ran(
    here, start, eventually, settings_as
):
    with Postgres() as server:
        here.dsn = server.dsn
        here.run("manage.py", "migrate", "--verbosity", "0")
        worker = start(here, "chancy_worker", "--threads", THREADS, "--children", "1")
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            eventually(lambda: "queues default" in worker.log or worker.process.poll() is not None)

            def submit(first, number):
                conn.execute(
                    "INSERT INTO shop_order (id, name, shipped) SELECT n, 'order ' || n, 0 FROM generate_series(%s::int, %s::int) AS n",
                    (first, first + number - 1),
                )
                for n in range(first, first + number):
                    arguments = f'{{"args": [{n}]}}'
                    conn.execute("SELECT chancy.submit('shop.tasks.count_up', %s::json)", (arguments,))

            def done():
                return conn.execute("SELECT count(*) FROM chancy.history WHERE state = 'succeeded'").fetchone()[0]

            submit(1, 2 * THREADS)  # from here on each thread has a connection, and keeps it
            eventually(lambda: done() == 2 * THREADS)
            submit(101, 60)
            eventually(lambda: done() >= 2 * THREADS + 10)
        server.stop()
        server.start()
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            eventually(lambda: conn.execute("SELECT count(*) FROM chancy.job").fetchone() == (0,))
            rows = chancy.jobs(conn, limit=200)
            shipped = conn.execute("SELECT min(shipped), max(shipped) FROM shop_order").fetchone()
        assert worker.stop() == 0, worker.log
    assert {row.state for row in rows} == {"succeeded"}
    again = [row.attempt - 1 for row in rows if row.attempt > 1]
    assert set(again) <= {1}
    assert len(again) <= THREADS, "more than could run at the time"
    assert (len(rows), shipped[0]) == (60 + 2 * THREADS, 1)
    print(f"{len(again)} of {len(rows)} jobs needed a second attempt")
