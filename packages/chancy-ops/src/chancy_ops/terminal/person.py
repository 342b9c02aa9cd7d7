"""For whom the command acts."""

from __future__ import annotations

import contextlib
import getpass
import importlib
import os
import socket


def person() -> str:
    """The user of the system and the machine, `ann@web-1`: by the process, and not by what its environment says."""
    return f"{_user()}@{socket.gethostname()}"


def _user() -> str:
    if not hasattr(os, "getuid"):  # Windows
        return getpass.getuser()
    with contextlib.suppress(KeyError):  # a number without a name, as in a container
        return str(importlib.import_module("pwd").getpwuid(os.getuid()).pw_name)
    return f"uid {os.getuid()}"
