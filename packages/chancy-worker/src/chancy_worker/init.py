"""A worker that is the first process of a container has the duties of an init process: whatever loses its parent in
there becomes its child, and stays a zombie until somebody waits for it.

A worker cannot do that itself, for whoever waits for all children takes their ends from those who wait for one of
them: asyncio, subprocess, multiprocessing, the jobs. So the first process stays behind, and the worker is its child.
"""

from __future__ import annotations

import os
import signal


def stay_behind() -> int | None:
    """Go on in a new process, where this returns None. In this one signals are handed on and the dead are waited for,
    until the new one has ended: its exit code. To be called before anything is started.
    """
    numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*numbers, signal.SIGCHLD})
    worker = os.fork()
    if worker == 0:
        os.setsid()  # Ctrl-C in a terminal is for the first process, which hands it on: once
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    while True:
        number = signal.sigwait({*numbers, signal.SIGCHLD})
        if number != signal.SIGCHLD:
            os.kill(worker, number)
        elif (code := _wait_for_the_dead(worker)) is not None:
            return code


def _wait_for_the_dead(worker: int) -> int | None:
    """The exit code of the worker, if it is among them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == worker:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            return None
