"""One worker process with a fast clock: what `chancy-worker worker_tasks` does, told by a JSON object in argv.

The pauses between attempts to reconnect keep their proportion to the lease.

With `nursery` in place of the object it is the process of which such workers are copies: see `worker_help.Nursery`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from typing import Any

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


def born() -> str:
    """Returns in each worker, with what it is told. The nursery itself answers lines of its standard input: with the
    pid of a new worker, or how one has ended, or null.
    """
    living: set[int] = set()
    for line in sys.stdin:
        asked = json.loads(line)
        if "poll" in asked:
            answer = ended(asked["poll"], living)
        elif answer := os.fork():
            living.add(answer)
        else:
            settle_in(asked)
            return str(asked["told"])
        print(json.dumps(answer), flush=True)
    for pid in living:
        os.kill(pid, signal.SIGKILL)
    sys.exit()


def ended(pid: int, living: set[int]) -> int | None:
    gone, status = os.waitpid(pid, os.WNOHANG)
    living.discard(gone)
    return os.waitstatus_to_exitcode(status) if gone else None


def settle_in(asked: dict[str, Any]) -> None:
    """What a process of its own would have been started with."""
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
        file = os.open(path, flags, 0o644)
        os.dup2(file, number)
        os.close(file)
    os.dup2(1, 2)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["env"])


if __name__ == "__main__":
    assert batch_tasks
    assert death_tasks
    assert flow_graphs
    assert flow_tasks
    assert worker_tasks
    assert limit_tasks
    assert step_tasks
    assert tally_tasks
    told = json.loads(born() if sys.argv[1] == "nursery" else sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    recovery.LONGEST_SECONDS = told["timing"]["lease"] / 3
    queues = [Queue(name, told["concurrency"]) for name in told.get("queues", ["default"])]
    app = Chancy(dsn=told["dsn"], schema=told["schema"], queues=queues)
    sys.exit(asyncio.run(work(app, WorkerConfig(grace=told["grace"], timing=Timing(**told["timing"])))))
