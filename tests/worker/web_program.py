"""A web program with a worker in it, as a web server runs it. Told by variables: GRACE, BREAKS."""

from __future__ import annotations

import contextlib
import os

import limit_tasks  # noqa: F401 - registers its tasks
import worker_tasks  # noqa: F401
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from chancy import Chancy
from chancy_worker import Worker, WorkerConfig

worker = Worker(Chancy(), WorkerConfig(grace=float(os.environ.get("GRACE", "0.2"))))


@contextlib.asynccontextmanager
async def lifespan(web):
    async with worker.running():
        if os.environ.get("BREAKS"):
            raise LookupError("no cache")
        yield


async def hello(request):
    return PlainTextResponse(f"hello from {os.getpid()}")


web = Starlette(routes=[Route("/", hello)], lifespan=lifespan)
