"""What errors and texts of somebody else's code say, so that it can be kept: encodable, capped, and never raising."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from chancy.errors import AttemptStopped

MAX_KIND_BYTES = 256
MAX_MESSAGE_BYTES = 4 * 1024
MAX_TRACEBACK_BYTES = 64 * 1024

_HERE = str(Path(__file__).parent)
_QUALNAME: Callable[[type], str] = type.__dict__["__qualname__"].__get__
"""Past whatever a metaclass has made of it."""


def safe(text: str, limit: int) -> str:
    """The text without lone surrogates, at most `limit` bytes of UTF-8; of a longer one both ends are kept."""
    text = str.__str__(text)  # a subclass has methods of its own
    if text.isascii() and len(text) <= limit:
        return text
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    half = limit // 2 - 16
    return f"{data[:half].decode('utf-8', 'ignore')}\n[… cut …]\n{data[-half:].decode('utf-8', 'ignore')}"


# To read what an exception says of itself is code of the job, and may do what a job may do.


def kind_of(value: object) -> str:
    """The name of its type."""
    return _QUALNAME(type(value))


def words_of(error: BaseException) -> str:
    """Its message. Never raises."""
    try:
        return str(error)
    except BaseException as broken:
        return f"its message could not be read: {kind_of(broken)}"


def frames_of(error: BaseException) -> TracebackType | None:
    """From the handler's own on: ours say nothing to its author."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_HERE):
        frames = frames.tb_next
    return frames


def handlers_traceback(error: BaseException) -> str:
    """Its frames and its message, as text. Never raises."""
    try:
        frames = frames_of(error)
        if frames is None and issubclass(type(error), AttemptStopped):
            return ""
        return "".join(traceback.format_exception(type(error), error, frames))
    except BaseException as broken:
        return f"the traceback could not be formatted: {kind_of(broken)}"
