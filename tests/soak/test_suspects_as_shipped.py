"""How long it takes until the jobs of a lost worker are done, and what a job that kills its workers costs the others."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest
import worker_tasks as tasks
from worker_help import eventually, states

from chancy import State
from chancy_worker import Timing

pytestmark = [pytest.mark.patience, pytest.mark.timeout(400)]
SHIPPED = Timing()


@pytest.mark.parametrize(
    ("jobs", "seconds", "survivors", "within"), [(30, 5, 1, 45), (100, 0.2, 1, 20), (300, 10, 2, 240)]
)
async def test_what_ran_when_a_worker_was_killed_is_done_again(site, say, jobs, seconds, survivors, within):
    lost = site.spawn(timing=SHIPPED, concurrency=jobs)
    await site.started(lost)
    submitted = site.submit(*[tasks.nap.bind(seconds if seconds > 1 else 3) for _ in range(jobs)])
    await eventually(lambda: site.count("running") == jobs, 20)
    for job in submitted:  # long enough to be running, all of them, when it dies
        site.rows(
            "UPDATE {}.job SET arguments = json_build_object('seconds', %s::float8) WHERE id = %s RETURNING id",
            seconds,
            job.id,
        )
    others = [site.spawn(timing=SHIPPED, concurrency=100) for _ in range(survivors)]
    await site.started(*others)
    lost.signal(signal.SIGKILL)
    killed = time.monotonic()
    await eventually(lambda: site.one("SELECT count(*) FROM {}.job") == 0, within)
    rows = [site.row(job) for job in submitted]
    first = min(row.started_at for row in rows)
    say(
        f"{jobs} of {seconds} s on {survivors}: done {time.monotonic() - killed:.1f} s after the kill, "
        f"{(max(row.finished_at for row in rows) - first).total_seconds():.1f} s after the first began again"
    )
    assert {(row.state, row.attempt, row.crashes) for row in rows} == {(State.SUCCEEDED, 2, 1)}
    claims = site.one("SELECT sum(claims) FROM {}.history")
    assert claims == 2 * jobs


@pytest.mark.parametrize("most", [3, 2])
async def test_a_poison_job_among_200_innocent_ones(site, say, most):
    def naps():
        return [tasks.nap.using(max_attempts=most).bind(0.1 if i % 2 else 5) for i in range(100)]

    innocent = site.submit(*naps())
    (poison,) = site.submit(tasks.kill_my_worker.using(max_attempts=most).bind())
    innocent += site.submit(*naps())
    workers = [site.spawn(timing=SHIPPED) for _ in range(2)]
    await site.started(*workers)
    began = time.monotonic()

    def keep_two_alive():
        for index, worker in enumerate(workers):
            if worker.code is not None:
                workers[index] = site.spawn(timing=SHIPPED)
        return site.one("SELECT count(*) FROM {}.job") == 0

    await eventually(keep_two_alive, 380)
    row, rows = site.row(poison), [site.row(job) for job in innocent]
    attempts = dict(Counter(row.attempt for row in rows))
    say(
        f"poison {row.state} {row.errors[-1].kind} after {row.attempt} of {most}; innocent: {states(site)}, "
        f"attempts {attempts}; {time.monotonic() - began:.0f} s"
    )
    assert (row.state, row.attempt, row.errors[-1].kind) == (State.FAILED, most, "WorkerDied")
    assert {row.state for row in rows} == {State.SUCCEEDED}
