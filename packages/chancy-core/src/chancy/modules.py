"""The user's modules, imported by the name that a command was given."""

from __future__ import annotations

import importlib
import sys
import traceback
from types import ModuleType

from .errors import InvalidModule


def load(name: str) -> ModuleType:
    """Import a module as `python -m` would: from where one stands.

    Raises `InvalidModule`, with the file and the line where the import has failed.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name + ".").startswith(error.name + "."):
            reason = f"there is no module {name!r} here; start it where `python -c 'import {name}'` works"
            raise InvalidModule(name, reason) from None
        raise InvalidModule(name, f"module {name!r} cannot be imported: {_at_its_place(error)}") from error
    except (Exception, SystemExit) as error:
        raise InvalidModule(name, f"module {name!r} cannot be imported: {_at_its_place(error)}") from error


def _at_its_place(error: BaseException) -> str:
    """The error's last line, and where it was raised: below the import machinery, in a file of somebody's."""
    line = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) and error.filename:
        return f"{line} ({error.filename}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    inside = [frame for frame in frames if frame.filename not in (__file__, importlib.__file__)]
    return f"{line} ({inside[-1].filename}, line {inside[-1].lineno})" if inside else line
