"""One worker process with a fast clock: what `chancy-worker worker_tasks` does, told by a JSON object in argv.

The pauses between attempts to reconnect keep their proportion to the lease.

It is imported by the nursery of which such workers are copies, so all that they need is imported at its head.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys

import batch_tasks
import death_tasks
import flow_graphs
import flow_tasks
import limit_tasks
import step_tasks
import tally_tasks
import worker_tasks

from chancy import Chancy, Queue
from chancy_worker import Timing, WorkerConfig
from chancy_worker.cli import work
from chancy_worker.connection import recovery

if __name__ == "__main__":
    assert batch_tasks
    assert death_tasks
    assert flow_graphs
    assert flow_tasks
    assert worker_tasks
    assert limit_tasks
    assert step_tasks
    assert tally_tasks
    told = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    recovery.LONGEST_SECONDS = told["timing"]["lease"] / 3
    queues = [Queue(name, told["concurrency"]) for name in told.get("queues", ["default"])]
    app = Chancy(dsn=told["dsn"], schema=told["schema"], queues=queues)
    sys.exit(asyncio.run(work(app, WorkerConfig(grace=told["grace"], timing=Timing(**told["timing"])))))
