"""Members that end in each way there is, and a callback that leaves a line in a file that no fault can touch."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path

from chancy import Backoff, BatchCounts, Discard, Snooze, current_job, task

SOON = Backoff(base=timedelta(milliseconds=200), factor=1, jitter=0.5)


@task(max_attempts=6, retry=SOON)
async def member(folder: str, number: int) -> int:
    """Of a hundred: ten fail, ten are discarded, ten snooze once, ten fail twice before they succeed."""
    await asyncio.sleep(0.005)
    kind, attempt = number % 100 // 10, current_job().attempt
    if kind == 1 or (kind == 2 and attempt <= 2):
        raise ValueError(number)
    if kind == 3:
        raise Discard(str(number))
    if kind == 4:
        slept = Path(folder, f"slept-{number}")
        if not slept.exists():
            slept.touch()
            raise Snooze(timedelta(milliseconds=300))
    return number


@task(max_attempts=50)
async def finished(counts: BatchCounts, folder: str) -> None:
    say(folder, f"finished {current_job().id} {counts}")


@task(max_attempts=50)
def succeeded(counts: BatchCounts, folder: str) -> None:
    say(folder, f"succeeded {current_job().id} {counts}")


def say(folder: str, line: str) -> None:
    file = os.open(Path(folder, "told"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(file, f"{line}\n".encode())
    os.close(file)


@task
async def nothing(number: int) -> None: ...
