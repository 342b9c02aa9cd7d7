"""How much memory a process has together with those that it has started, how much it may have, and whether the kernel
kills for it. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

MEASURABLE = sys.platform == "linux"
"""Whether a memory limit can be kept on this system."""

SHARE_OF_TIME = 0.05
"""Of its own time the worker gives at most so much to finding out what children have started, and as much to finding
out which of their pages are shared: on a machine with thousands of processes, or for gigabytes, that takes longer."""

_PAGE = resource.getpagesize()
_KIBIBYTE, _MEBIBYTE = 1024, 1024**2


def used(pid: int) -> int:
    """Bytes of memory that this process has now; 0 if it is gone.

    What is resident, shared memory included, or what it has asked for as its own, whichever is more.
    """
    return max(_resident_and_own(pid))


class Families:
    """What the children of a worker have started, and how much memory each has together with that.

    To a child belong the processes of its session, and what is started by one that belongs to it. Each is looked at
    once, when it is new; so one that has left its session since, as daemons do, is still known.
    """

    def __init__(self) -> None:
        self._roots: dict[int, int] = {}
        """Of each process the child that it belongs to; 0 for those of others."""
        self._members: dict[int, list[int]] = {}
        self._next_look = 0.0
        self._exact: dict[int, tuple[int, float]] = {}
        """Bytes of a family with each page counted once, and when to count again."""

    def look(self, children: Collection[int]) -> None:
        """Find out what has been started; these are all children of the worker."""
        if time.monotonic() < self._next_look:
            return
        began = time.thread_time()
        alive = _processes()
        roots = {pid: root for pid, root in self._roots.items() if pid in alive and (not root or root in children)}
        members: dict[int, list[int]] = {child: [] for child in children}
        for pid in sorted(alive - roots.keys()):
            parent, _, session = _origin(pid)
            roots[pid] = session if session in members else parent if parent in members else roots.get(parent, 0)
        for pid, root in roots.items():
            if root and pid != root:
                members[root].append(pid)
        self._roots, self._members = roots, members
        self._exact = {child: exact for child, exact in self._exact.items() if child in members}
        self._next_look = _after(began)

    def used(self, child: int, limit: int) -> int:
        """Bytes of memory that this child and what it has started have now.

        Forked processes share most pages with each other: what is resident in each of them adds up to far more than
        there is. But that is read in microseconds, so pages are told apart only where the sum is above the limit.
        """
        resident, own = _resident_and_own(child)
        others = self._members.get(child, ())
        most = resident + sum(_resident_and_own(other)[0] for other in others)
        if not others or most <= limit:
            return max(most, own)
        return max(self._proportional(child, others), own)

    def _proportional(self, child: int, others: Sequence[int]) -> int:
        size, due = self._exact.get(child, (0, 0.0))
        if time.monotonic() >= due:
            began = time.thread_time()
            size = sum(map(_proportional, (child, *others)))
            self._exact[child] = size, _after(began)
        return size


def _after(began: float) -> float:
    """When to do again what has begun then, by `time.thread_time`, and ends now."""
    return time.monotonic() + (time.thread_time() - began) / SHARE_OF_TIME


def relatives(child: int) -> list[int]:
    """What belongs to a child now, itself left out: its descendants, and who is of its session or group."""
    origins = {pid: _origin(pid) for pid in _processes()}
    found = {child}
    found.update(pid for pid, (_, group, session) in origins.items() if child in (group, session))
    while more := {pid for pid, (parent, _, _) in origins.items() if parent in found} - found:
        found |= more
    return sorted(found - {child})


def forget_peak() -> None:
    """Let this process's peak begin anew."""
    with contextlib.suppress(OSError):
        file = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, b"5")
        finally:
            os.close(file)


def peak() -> int:
    """The most bytes that this process has had since `forget_peak`."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * _KIBIBYTE
    return 0


def peak_of_all() -> int:
    """The most bytes that have ever been resident in this process, or since `forget_peak`. In a microsecond."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIBIBYTE


def allow(limit: int | None) -> None:
    """Refuse this process more private memory than the limit and a sixteenth; None refuses nothing.

    RLIMIT_DATA and not RLIMIT_AS, which breaks threads and read-only mappings of files. The sixteenth is there so
    that who swallows the MemoryError and goes on is seen by the worker's watch above its limit, and killed.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = hard if limit is None else limit + max(limit // 16, 16 * _MEBIBYTE)
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def kills() -> int:
    """How many processes of this one's cgroup the kernel has killed for memory so far; 0 where it does not say."""
    found = 0
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            for file in (
                Path(f"/sys/fs/cgroup{path}/memory.events") if not controllers else None,
                Path(f"/sys/fs/cgroup/memory{path}/memory.oom_control") if "memory" in controllers else None,
            ):
                if file is not None and file.exists():
                    for entry in file.read_text(encoding="ascii").splitlines():
                        if entry.startswith("oom_kill "):
                            found += int(entry.split()[1])
    return found


def _resident_and_own(pid: int) -> tuple[int, int]:
    try:
        fields = _read(f"/proc/{pid}/statm").split()
        return int(fields[1]) * _PAGE, int(fields[5]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0, 0


def _proportional(pid: int) -> int:
    """What is resident, of each page its share among those that have it. Of one that hides that, what is its own."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * _KIBIBYTE
        _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_bytes().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * _PAGE


def _read(path: str) -> bytes:
    """A short file, four times as fast as by `pathlib`."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)


def _processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdecimal()}  # noqa: PTH208 - no paths


def _origin(pid: int) -> tuple[int, int, int]:
    """Its parent, its group and its session; zeros if it is gone."""
    try:
        # The name in parentheses may hold anything, also spaces and parentheses.
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        return int(fields[1]), int(fields[2]), int(fields[3])
    except (OSError, IndexError, ValueError):
        return 0, 0, 0
