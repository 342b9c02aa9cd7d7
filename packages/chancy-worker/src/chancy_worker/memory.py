"""How much memory a process has, may have, and whether the kernel kills for it. Linux only."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

MEASURABLE = sys.platform == "linux"
"""Whether a memory limit can be kept on this system."""

_PAGE = resource.getpagesize()
_MEBIBYTE = 1024**2


def used(pid: int) -> int:
    """Bytes of memory that the process has now; 0 if it is gone.

    What is resident, shared memory included, or what it has asked for as its own, whichever is more.
    """
    try:
        _, resident, _, _, _, data, _ = map(int, Path(f"/proc/{pid}/statm").read_bytes().split())
    except (OSError, ValueError):
        return 0
    return max(resident, data) * _PAGE


def forget_peak() -> None:
    """Let this process's peak begin anew."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak() -> int:
    """The most bytes that this process has had since `forget_peak`."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


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
