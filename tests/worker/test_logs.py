"""What jobs log is kept with them, and what they say of their progress is seen."""

from __future__ import annotations

import log_tasks as tasks
from worker_help import all_finished, working


async def test_an_async_function_in_a_child_knows_its_job(site):
    async with working(site.app()):
        jobs = site.submit(*[tasks.who_async_in_process.bind() for _ in range(3)])
        await all_finished(site)
    assert [site.row(job).result for job in jobs] == [str(job.id).encode() for job in jobs]
