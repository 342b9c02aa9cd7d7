"""Tasks, a program and its worker in one file: `CHANCY_DSN=… python app.py`, until Ctrl-C or SIGTERM."""

import asyncio
import logging

from chancy import Chancy, Limit, Queue, task
from chancy_worker import Worker


@task(queue="greetings", limits=[Limit(Limit.Type.TIME, 60)])
async def greet(name: str, *, punctuation: str = "!") -> str:
    """Return the greeting; the worker stores it as the job's result."""
    greeting = f"Hello, {name}{punctuation}"
    print(greeting, flush=True)
    return greeting


async def main() -> None:
    """Migrate, submit, work."""
    async with Chancy(queues=[Queue(name="greetings", concurrency=10)]) as app:
        await app.migrate()
        await app.submit(greet.bind("world"))
        await Worker(app).start()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
