#!/usr/bin/env python3
"""The two commands of a fresh machine, and every other one of hatch.

    python3 dev.py demo [FOLDER]            the demo, on an embedded Postgres
    python3 dev.py test [pytest arguments]  the tests
    python3 dev.py check                    anything else goes to `hatch run`

Needs Python 3.11 or later and nothing else. hatch and uv come into an environment of their own in the folder .hatch,
as do the environments that hatch makes: delete it, and nothing is left but the ordinary caches of pip and uv. Where
packages come from is decided by pip's own configuration. Whoever has hatch can use hatch directly.
"""

import ast
import contextlib
import os
import shutil
import ssl
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

# This file avoids newer syntax (and the import of annotations), so that an old Python reads up to this line.
if sys.version_info < (3, 11):
    sys.exit(
        "Chancy needs Python 3.11 or later, and this is {}.{} ({}). Run dev.py with a newer one, for example "
        "python3.12 dev.py".format(sys.version_info[0], sys.version_info[1], sys.executable)
    )

TOOLS = ["hatch==1.18.2", "uv==0.13.9"]
ROOT = Path(__file__).resolve().parent
HOUSE = ROOT / ".hatch" / f"{sys.version_info[0]}.{sys.version_info[1]}"  # each Python has a set of its own
TOOL = HOUSE / "tool"
BIN = TOOL / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
TEMPORARY = HOUSE / "tmp"
READY = TOOL / "ready"
MADE_OF = "\n".join([str(ROOT), *TOOLS])  # an environment does not survive a move of the checkout

NO_INSTALLER = (
    "This Python cannot fill an environment: it has no ensurepip, and neither pip nor uv nor pipx is there. "
    "Install your system's package python3-venv (as root: apt-get install python3-venv) and try again."
)

FOREIGN = {"CONDA_PREFIX", "PIP_PREFIX", "PIP_TARGET", "PYTHONHOME", "PYTHONPATH", "UV_PYTHON", "VIRTUAL_ENV"}
SLOW = {"PYTHONDONTWRITEBYTECODE"}
"""Of images for containers. The tests start Python more than a thousand times, and each start would compile all that it
imports: a worker's takes twice as long with that."""

# pip's name, uv's name, and what uv wants between several values.
PIP_TO_UV = [
    ("index-url", "UV_DEFAULT_INDEX", " "),
    ("extra-index-url", "UV_INDEX", " "),
    ("find-links", "UV_FIND_LINKS", ","),
    ("trusted-host", "UV_INSECURE_HOST", " "),
    ("cert", "SSL_CERT_FILE", " "),
    ("proxy", "ALL_PROXY", " "),
]


def main(arguments: list[str]) -> int:
    """Run hatch with these arguments on this checkout; returns its exit code."""
    if arguments in ([], ["-h"], ["--help"]):
        print(__doc__)
        return 0 if arguments else 2
    env = environment(os.environ)
    try:
        with alone():
            if not is_ready():
                print("Preparing hatch and uv in the folder .hatch (once)", file=sys.stderr, flush=True)
                prepare(env)
    except OSError as error:
        return complain(f"dev.py could not write to {HOUSE}: {error}. Delete that folder, or run as its owner.")
    except subprocess.CalledProcessError:
        return complain("hatch and uv could not be installed; the lines above say why. Is a package index reachable?")
    command = ["run", *arguments]
    if arguments[0] == "test":  # with this Python: hatch would look for others, and offer to download them
        command = ["test", "--python", "{}.{}".format(*sys.version_info), *arguments[1:]]
    child = subprocess.Popen([PYTHON, "-m", "hatch", *command], cwd=ROOT, env=env | uv_settings(env))
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:  # the child has had the same Ctrl-C and tidies up
            continue


def complain(sentence: str) -> int:
    """Say on one line why nothing can be done."""
    print(sentence, file=sys.stderr)
    return 2


def environment(outside: Mapping[str, str]) -> dict[str, str]:
    """The variables for every program started from here, so that nothing lands outside of the checkout.

    HATCH_ variables of the caller belong to other projects, and FOREIGN ones would bring other packages in.
    """
    unwanted = FOREIGN | SLOW
    env = {name: value for name, value in outside.items() if not name.startswith("HATCH_") and name not in unwanted}
    env |= {
        "PATH": f"{BIN}{os.pathsep}{outside.get('PATH', os.defpath)}",
        "HATCH_CONFIG": str(HOUSE / "config.toml"),
        "HATCH_DATA_DIR": str(HOUSE / "data"),
        "HATCH_CACHE_DIR": str(HOUSE / "cache"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_USER": "0",
        "PYTEST_DEBUG_TEMPROOT": str(TEMPORARY),
        "UV_PYTHON_DOWNLOADS": "never",
    }
    if "UV_CACHE_DIR" not in env and not has_cache(env):
        env["UV_CACHE_DIR"] = str(HOUSE / "uv-cache")
    return env


def has_cache(env: Mapping[str, str]) -> bool:
    """Whether uv can use its ordinary cache: some users have no home that they may write to."""
    try:
        cache = Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return False
    return os.access(cache, os.W_OK)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the checkout's lock, so that two first runs at once make one environment."""
    TEMPORARY.mkdir(parents=True, exist_ok=True)
    with (HOUSE / "lock").open("w") as file:
        with contextlib.suppress(ImportError):  # Windows has no fcntl
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_ready() -> bool:
    """Whether the tools are there, whole, in these versions and at this place."""
    return READY.exists() and PYTHON.exists() and READY.read_text(encoding="utf-8") == MADE_OF


def prepare(env: Mapping[str, str]) -> None:
    """Make the environment of hatch and uv, from nothing."""
    for remains in (TOOL, HOUSE / "data"):
        shutil.rmtree(remains, ignore_errors=True)
    try:
        venv.create(TOOL, with_pip=True, symlinks=os.name != "nt")
        install = [str(PYTHON), "-m", "pip", "install", "--quiet"]
    except (ImportError, subprocess.CalledProcessError):  # Debian and Ubuntu keep ensurepip in python3-venv
        venv.create(TOOL, clear=True, symlinks=os.name != "nt")
        found = installer()
        if found is None:
            sys.exit(NO_INSTALLER)
        install = [*found, "pip"]  # whose configuration is read later
    subprocess.run([*install, *TOOLS], env=env, check=True)
    (HOUSE / "config.toml").touch()
    READY.write_text(MADE_OF, encoding="utf-8")


def installer() -> list[str] | None:
    """A command of this machine that installs into the environment, where that has no pip yet."""
    into = ["install", "--quiet", "--python", str(PYTHON)]
    for program, arguments in (
        ("uv", ["pip", *into]),
        ("pip3", ["--python", str(PYTHON), "install", "--quiet"]),
        ("pip", ["--python", str(PYTHON), "install", "--quiet"]),
        ("pipx", ["run", "uv", "pip", *into]),
    ):
        if shutil.which(program):
            return [program, *arguments]
    return None


def uv_settings(env: Mapping[str, str]) -> dict[str, str]:
    """pip's configuration in uv's words: uv reads its own alone, and only pip's is known to be right here.

    Nothing is said where the caller has told uv about indexes. The command line of pip is asked, since files,
    variables and their order are its own matter.
    """
    if any(name.startswith(("UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX", "UV_CONFIG_FILE")) for name in env):
        return {}
    lines = subprocess.run(
        [PYTHON, "-m", "pip", "config", "list"], env=env, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    options: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):  # the later one wins
        for line in lines:
            if line.startswith(section):
                name, _, value = line.removeprefix(section).partition("=")
                options[name] = ast.literal_eval(value)
    settings = {uv: between.join(options[pip].split()) for pip, uv, between in PIP_TO_UV if options.get(pip)}
    settings = {name: value for name, value in settings.items() if name not in env}
    if "UV_INDEX" in settings:  # pip takes the best version of all indexes
        settings["UV_INDEX_STRATEGY"] = env.get("UV_INDEX_STRATEGY", "unsafe-best-match")
    if "SSL_CERT_FILE" not in settings | env and ssl.get_default_verify_paths().cafile:
        settings["UV_SYSTEM_CERTS"] = env.get("UV_SYSTEM_CERTS", "true")  # as pip does
    return settings


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
