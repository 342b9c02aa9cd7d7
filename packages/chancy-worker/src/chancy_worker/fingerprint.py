"""What makes two failures the same: their kind, where in the application it happened, and what the message says beside
what differs from job to job.

Line numbers are left out, and so are folders above the application: the same bug keeps its fingerprint over deploys,
machines and versions of Python. Pure.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import chancy
from chancy.errors import AttemptStopped

from .words import MAX_MESSAGE_BYTES, kind_of, safe, words_of

LENGTH = 12
"""Characters: of a million different failures two have the same in one of 600 installations."""
MOST_CHARACTERS, MOST_SAID = 2_000, 200
"""So much of a message is looked at, and so much of what is left of it counts."""

Frame = tuple[str, str, str]
"""Of a traceback: the file, the module, the function by its qualified name."""

_OURS = tuple(str(Path(file).parent) + "/" for file in (chancy.__file__, __file__))
_STANDARD = tuple(sysconfig.get_paths()[name] + "/" for name in ("stdlib", "platstdlib"))
_INSTALLED = ("/site-packages/", "/dist-packages/")
_TRACEBACK: Callable[[BaseException], TracebackType | None] = BaseException.__dict__["__traceback__"].__get__
_EXCEPTIONS: Callable[[BaseException], Sequence[BaseException]] = BaseExceptionGroup.__dict__["exceptions"].__get__
"""Past what the class of an error has made of them."""
_MAINS = ("__main__", "__mp_main__", "")

_QUOTED = re.compile(r"""(?<!\w)'[^'\n]*'|"[^"\n]*"|`[^`\n]*`|[“«][^”»\n]{0,200}[”»]|=\([^)\n]{0,200}\)""")
_DIFFERS = re.compile(r"\d|@|://|^[(\[]?/")


def fingerprint(kind: str, place: str, message: str) -> str:
    """Of a failure; `place` is a function, or the task where none of the application's was at work.

    The database makes the same of the same, by its function `fingerprint`, of a message that is an outline already.
    """
    said = "\n".join((kind, place, outline(message)))
    return hashlib.sha256(said.encode("utf-8", "backslashreplace")).hexdigest()[:LENGTH]


def fingerprint_of(error: BaseException, task: str, kind: str, message: str) -> str:
    """Of an error with this kind and message. Never raises. An attempt that was stopped was so wherever it happened to
    be, which says nothing of where the fault is: its place is the task.
    """
    try:
        inner = innermost(error)
        if inner is not error:
            kind, message = f"{kind} {kind_of(inner)}", safe(words_of(inner), MAX_MESSAGE_BYTES)
        place = task if issubclass(type(error), AttemptStopped) else place_of(frames_of(inner), task)
    except BaseException:
        place = task
    return fingerprint(kind, place, message)


def outline(message: str) -> str:
    """The message without numbers, ids, addresses, paths and what is quoted: words with a digit in them are such, and
    so is what stands behind an equals sign.
    """
    words = _QUOTED.sub(lambda found: "=" if found[0][0] == "=" else "_", message[:MOST_CHARACTERS]).split()
    named = (f"{word.partition('=')[0]}=" if "=" in word else word for word in words)
    plain = ("_" if _DIFFERS.search(word) else word for word in named)
    return " ".join(word for word, _ in itertools.groupby(plain))[:MOST_SAID]


def place_of(frames: Iterable[Frame], task: str) -> str:
    """The last function of the application among these, outermost first; where all is installed like a library, that
    of the task's own package, or else the first one; the task where there is none.
    """
    foreign = [frame for frame in frames if not _is_ours(frame[0])]
    package = task.partition(".")[0]
    own = [frame for frame in foreign if not _is_library(frame[0]) or frame[1].partition(".")[0] == package]
    if not foreign:
        return task
    file, module, function = own[-1] if own else foreign[0]
    where = Path(file).stem if module in _MAINS else module
    return f"{where}:{function.partition('.<')[0]}"  # closures and comprehensions are part of what they are in


def frames_of(error: BaseException) -> Iterator[Frame]:
    """Of its traceback, outermost first."""
    at = _TRACEBACK(error)
    while at is not None:
        frame = at.tb_frame
        module = frame.f_globals.get("__name__")
        yield frame.f_code.co_filename, module if type(module) is str else "", frame.f_code.co_qualname
        at = at.tb_next


def innermost(error: BaseException) -> BaseException:
    """Of a group the first error in it, which says more than that there was one."""
    for _ in range(100):
        if not issubclass(type(error), BaseExceptionGroup):
            break
        error = _EXCEPTIONS(error)[0]
    return error


@functools.lru_cache(4096)
def _is_ours(file: str) -> bool:
    return file.replace("\\", "/").startswith(_OURS) or file.startswith("<frozen")


@functools.lru_cache(4096)
def _is_library(file: str) -> bool:
    plain = file.replace("\\", "/")
    return plain.startswith(_STANDARD) or any(folder in plain for folder in _INSTALLED)
