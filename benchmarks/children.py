"""How fast one worker drains no-op jobs of child processes, beside bare round trips over a pipe in the same run.

    hatch run bench-children [--jobs 20000] [--runs 3]

The floor is a process that sends 300 bytes to a child and waits for them to come back, one after the other: no
database, no event loop, no job.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import socket
import statistics
import time

from chancy import task
from drain import drain_worker, fill, server

MESSAGE = bytes(300)


@task(name="bench.process", executor="process")
def noop_in_process(number: int) -> None:
    """Nothing."""


def echo(line: socket.socket) -> None:
    while data := line.recv(len(MESSAGE)):
        line.sendall(data)


def round_trips(count: int) -> float:
    """Bare round trips per second."""
    ours, theirs = socket.socketpair()
    child = multiprocessing.get_context("spawn").Process(target=echo, args=(theirs,))
    child.start()
    theirs.close()
    ours.sendall(MESSAGE)
    ours.recv(len(MESSAGE))
    began = time.perf_counter()
    for _ in range(count):
        ours.sendall(MESSAGE)
        ours.recv(len(MESSAGE))
    seconds = time.perf_counter() - began
    ours.close()
    child.join()
    return count / seconds


def main() -> None:
    """Run both in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    floors, drains = [], []
    with server() as dsn:
        for _ in range(options.runs):
            floors.append(round_trips(options.jobs))
            print(f"bare round trips {floors[-1]:10,.0f} /s", flush=True)
            fill(dsn, options.jobs, noop_in_process)
            drains.append(asyncio.run(drain_worker(dsn, options.jobs)))
            print(f"jobs             {drains[-1]:10,.0f} /s", flush=True)
    ratios = [drain / floor for drain, floor in zip(drains, floors, strict=True)]
    print("\n| | per second, median | min | max |\n|---|---|---|---|")
    for name, values in (("bare round trips", floors), ("jobs in children", drains)):
        print(f"| {name} | {statistics.median(values):,.0f} | {min(values):,.0f} | {max(values):,.0f} |")
    print(f"| jobs / round trips | {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |")


if __name__ == "__main__":
    main()
