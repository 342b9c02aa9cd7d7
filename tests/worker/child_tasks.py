"""Tasks that open, seed, fork and leave things behind, each in its own way."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import io
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from chancy import Limit, current_job, task

log = logging.getLogger("child_tasks")

IMPORTED_BY = os.getpid()
SEEDED = random.Random()
OPENED, _ = os.pipe()
MEBIBYTE = 1024**2


def wait_for(gate: str) -> None:
    while not Path(gate).exists():
        time.sleep(0.01)


def wait_until_dead(pid: int) -> int:
    """The exit code of a fork of this process."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@task(executor="process")
def of_its_import(pids: str, gate: str) -> list[Any]:
    """What the module has opened and seeded: the pipe's number in the kernel, and the first number drawn."""
    with Path(pids).open("a") as file:
        file.write(f"{os.getpid()}\n")
    wait_for(gate)
    return [os.getpid(), IMPORTED_BY, os.fstat(OPENED).st_ino, SEEDED.random()]


@task(executor="process")
def is_loaded(module: str) -> list[Any]:
    """Which process has imported the module."""
    found = sys.modules.get(module)
    return [os.getpid(), getattr(found, "IMPORTED_BY", None)]


@task(executor="process")
def draw(gate: str) -> list[float]:
    wait_for(gate)
    numpy_random = sys.modules["numpy.random"]
    return [float(number) for number in numpy_random.random(3)]


@task(executor="process")
def me() -> int:
    return os.getpid()


@task(executor="process")
async def me_async() -> int:
    await asyncio.sleep(0)
    return os.getpid()


# Forks that come back out of the handler.


def go_back(how: str) -> str:
    if how == "exit":
        sys.exit(3)
    if how == "raise":
        raise ValueError("of the fork")
    return "the fork's"


def fork(how: str) -> str:
    if (pid := os.fork()) == 0:
        return go_back(how)
    return f"{wait_until_dead(pid)}"


@task(executor="process", max_attempts=1)
def fork_in_child(how: str) -> str:
    return fork(how)


@task(max_attempts=1)
def fork_in_thread(how: str) -> str:
    return fork(how)


async def fork_and_await(how: str) -> str:
    """One that waits goes on with the event loop that it is a copy of; so does one of a task of the handler's own."""
    if how == "task":
        return await asyncio.create_task(fork_and_await("return"))
    if (pid := os.fork()) == 0:
        if how == "wait":
            for _ in range(100):
                await asyncio.sleep(0)
        return go_back(how)
    return f"{await asyncio.get_running_loop().run_in_executor(None, wait_until_dead, pid)}"


fork_in_async_child = task(name="child_tasks.fork_in_async_child", executor="process", max_attempts=1)(fork_and_await)
fork_on_loop = task(name="child_tasks.fork_on_loop", max_attempts=1)(fork_and_await)


@task(executor="process")
def speak_in_a_fork() -> int:
    """A fork says how far it is, and logs."""
    if (pid := os.fork()) == 0:
        current_job().progress(0.9, "the fork")
        log.warning("said by a fork")
        os._exit(0)
    return wait_until_dead(pid)


@task(max_attempts=1)
def fork_and_leave(pids: str) -> int:
    """A thread's fork that goes on when its worker is dead."""
    if (pid := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    Path(pids).write_text(f"{pid}")
    return pid


@task(executor="process", max_attempts=1)
def terminate_in_child() -> int | None:
    return terminate()


@task(max_attempts=1)
def terminate_in_thread() -> int | None:
    return terminate()


@task(max_attempts=1)
async def terminate_on_loop() -> int | None:
    code = terminate()
    await asyncio.sleep(0.2)
    return code


def terminate() -> int | None:
    """The exit code of a forked process that is asked to end, as pools do with theirs; None if it does not."""
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=[60])
    process.start()
    process.terminate()
    process.join(10)
    code = process.exitcode
    process.kill()
    return code


@task(executor="process")
def signals_of_a_program_in_child() -> list[str]:
    return signals_of_a_program()


@task
def signals_of_a_program_in_thread() -> list[str]:
    return signals_of_a_program()


def signals_of_a_program() -> list[str]:
    """Which of the signals that end programs one ignores or blocks that is started here."""
    code = (
        "import signal\n"
        "for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):\n"
        "    if signal.getsignal(s) == signal.SIG_IGN or s in signal.pthread_sigmask(signal.SIG_BLOCK, ()): print(s.name)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


# A child that dies while what it has forked lives on.


@task(executor="process", max_attempts=1)
def die_before_its_forks(pids: str, how: str) -> None:
    """The fork has the child's files; one of C is also in a session of its own, where the child's end does not reach."""
    if how == "python":
        pid = os.fork()
    else:
        libc = ctypes.PyDLL(None)
        pid = libc.fork()
        if pid == 0:
            libc.setsid()
    if pid == 0:
        ctypes.PyDLL(None).sleep(60)
        os._exit(0)
    Path(pids).write_text(f"{pid}")
    if how == "C":
        time.sleep(0.3)  # it leaves the session
    os.kill(os.getpid(), signal.SIGKILL)


@task(executor="process", max_attempts=1)
def close_everything() -> None:
    """As daemons do; the line to the worker, too."""
    os.closerange(3, 256)


@task(executor="process", max_attempts=1)
def become_a_program(pids: str) -> None:
    Path(pids).write_text(f"{os.getpid()}")
    os.execvp("sleep", ["sleep", "60"])


# What ends a coroutine without being an error.


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


@task(executor="process", max_attempts=1)
async def end_oddly(how: str) -> None:
    if how == "cancelled":
        inner = asyncio.create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner
    elif how == "generator":
        raise GeneratorExit
    elif how == "unspeakable":
        raise Unspeakable
    elif how == "exit in a task":
        await asyncio.create_task(_exit())


async def _exit() -> None:
    sys.exit(3)


# What jobs leave behind.


@task(executor="process")
def leave(what: str, note: str) -> int:
    """Changes the process, and returns its pid."""
    if what == "folder":
        os.chdir("/proc")
    elif what == "umask":
        os.umask(0o777)
    elif what == "alarm":
        signal.setitimer(signal.ITIMER_REAL, 600)
    elif what == "handlers":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    elif what == "output":
        sys.stdout = sys.stderr = io.StringIO()
    elif what == "log":
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        logging.disable(logging.CRITICAL)
    elif what == "closed output":
        sys.stderr.close()
    elif what == "thread":
        threading.Thread(target=time.sleep, args=[60]).start()
    elif what == "daemon thread":
        threading.Thread(target=time.sleep, args=[60], daemon=True).start()
    elif what == "thread that ends":
        threading.Thread(target=time.sleep, args=[0.01]).start()
    elif what == "process":
        Path(note).write_text(f"{subprocess.Popen(['sleep', '60']).pid}")
    elif what == "process of a shell":
        Path(note).write_text(
            subprocess.run(
                ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
            ).stdout
        )
    elif what == "process that ended":
        subprocess.run(["true"], check=True)
    elif what == "memory":
        KEPT.append(b"x" * (192 * MEBIBYTE))
    elif what == "some memory":
        KEPT.append(b"x" * (96 * MEBIBYTE))
    return os.getpid()


KEPT: list[bytes] = []


@task(executor="process", max_attempts=1)
def leave_a_thread_at_last(gate: str) -> int:
    wait_for(gate)
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    return os.getpid()


@task(executor="process")
def look(file: str) -> list[Any]:
    """What a job finds: pid, folder, the mode of a new file, what a program that fails returns, handlers, no alarm, and
    its own words.
    """
    Path(file).touch()
    log.warning("seen by %d", current_job().id)
    print("on standard output", flush=True)
    failed = subprocess.run(["false"], check=False).returncode
    handler = signal.getsignal(signal.SIGTERM)
    return [
        os.getpid(), str(Path.cwd()), Path(file).stat().st_mode & 0o777, failed,
        callable(handler), signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN, signal.getitimer(signal.ITIMER_REAL)[0],
    ]  # fmt: skip


@task(executor="process", keep_logs=True)
async def leave_a_task(gate: str, spoken: str) -> int:
    """It speaks for this job while the next one runs."""
    job = current_job()

    async def speak_late() -> None:
        while not Path(gate).exists():
            await asyncio.sleep(0.01)
        log.warning("late")
        job.progress(0.99, "late")
        Path(spoken).touch()

    log.warning("in time")
    LEFT.append(asyncio.create_task(speak_late()))
    return os.getpid()


LEFT: list[asyncio.Task[None]] = []


@task(executor="process", keep_logs=True)
async def open_and_wait(gate: str, spoken: str, heard: str) -> int:
    Path(gate).touch()
    while not Path(spoken).exists():
        await asyncio.sleep(0.01)
    log.warning("its own")
    current_job().progress(0.25, "its own")
    while not Path(heard).exists():  # what was said in the last tenth of a second is not passed on
        await asyncio.sleep(0.01)
    return os.getpid()


@task
def wander(folder: str) -> None:
    """Leaves the worker in a folder that is gone."""
    Path(folder).mkdir()
    os.chdir(folder)
    Path(folder).rmdir()


@task(executor="process")
def folder() -> str:
    return str(Path.cwd())


@task(max_attempts=1, limits=[Limit.time(0.5)])
def overstay() -> None:
    """Killed together with two programs."""
    subprocess.Popen(["sleep", "60"])
    subprocess.run(["sleep", "60"], check=False)


@task
def orphan() -> None:
    """A shell that is over before what it has started."""
    subprocess.run(["sh", "-c", "sleep 0.1 & exec true"], check=True)
    time.sleep(0.5)


@task
def zombies() -> list[str]:
    """Those that stay; each dead process is one for a moment."""
    deadline = time.monotonic() + 10
    while (found := _zombies()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _zombies() -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            if text.rpartition(")")[2].split()[0] == "Z":
                found.append(text)
    return found


# Memory of several processes.


def fill(size: int, seconds: float) -> int:
    data = bytearray(size)
    data[::4096] = b"x" * len(data[::4096])
    time.sleep(seconds)
    return len(data)


@task(max_attempts=1, limits=[Limit.memory(256 * MEBIBYTE)])
def eat_together(how: str) -> int:
    """Three processes with 128 MiB each."""
    if how == "pool":
        with multiprocessing.get_context("fork").Pool(3) as pool:
            return sum(pool.starmap(fill, [(128 * MEBIBYTE, 30)] * 3))
    code = f"import time; data = bytearray({128 * MEBIBYTE}); data[::4096] = b'x' * len(data[::4096]); time.sleep(30)"
    programs = [
        subprocess.Popen([sys.executable, "-c", code], start_new_session=how == "own sessions") for _ in range(3)
    ]
    return sum(program.wait() for program in programs)


@task(max_attempts=1, limits=[Limit.memory(512 * MEBIBYTE)])
def share(gate: str, ready: str) -> int:
    """Four forks that read what the child has filled once."""
    data = b"x" * (160 * MEBIBYTE)
    forks = []
    for number in range(4):
        if (pid := os.fork()) == 0:
            data.count(b"y")
            Path(f"{ready}{number}").touch()
            wait_for(gate)
            os._exit(0)
        forks.append(pid)
    wait_for(gate)
    return sum(map(wait_until_dead, forks))


@task(max_attempts=1, limits=[Limit.memory(128 * MEBIBYTE)])
def eat_a_little() -> int:
    fill(16 * MEBIBYTE, 0.3)
    return os.getpid()


@task(max_attempts=1, limits=[Limit.memory(128 * MEBIBYTE)])
def ask_too_much() -> int:
    return fill(192 * MEBIBYTE, 0)


@task(executor="process")
def wait(gate: str, pids: str) -> int:
    with Path(pids).open("a") as file:
        file.write(f"{os.getpid()}\n")
    wait_for(gate)
    return os.getpid()
