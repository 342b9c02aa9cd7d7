"""What a worker and a child process say to each other: length-prefixed msgpack, arguments and results as the JSON bytes
that they are already. Nothing is pickled.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from chancy.model import Progress

from .verdict import Claimed, Completion, Since


class Order(msgspec.Struct, frozen=True, array_like=True, tag="o", gc=False):
    """Perform this job, after those that were ordered before."""

    job: Claimed
    since: Since
    schema: str
    memory: int | None
    """Its limit in bytes."""


class Recall(msgspec.Struct, frozen=True, array_like=True, tag="r", gc=False):
    """Forget every order that has not been begun."""


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="r", gc=False):
    """The child has imported the tasks, and waits."""


class Done(msgspec.Struct, frozen=True, array_like=True, tag="d", gc=False):
    """The verdict of the job."""

    completion: Completion
    seconds: float
    """That the job took, here."""
    last: bool
    """The child ends now: its memory is no longer what it was."""


class Told(msgspec.Struct, frozen=True, array_like=True, tag="p", gc=False):
    """What the handler said of its progress."""

    progress: Progress


class Logged(msgspec.Struct, frozen=True, array_like=True, tag="l", gc=False):
    """A record of `logging`."""

    name: str
    level: int
    message: str
    created: float
    traceback: str
    claim: tuple[int, int] | None
    """The job and the fence in whose context it was made."""


class Recalled(msgspec.Struct, frozen=True, array_like=True, tag="b", gc=False):
    """How many of the last orders are forgotten."""

    count: int


Said: TypeAlias = Order | Recall
Answer: TypeAlias = Ready | Done | Told | Logged | Recalled

encode = msgspec.msgpack.Encoder().encode
decode_said = msgspec.msgpack.Decoder(Said).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode

HEAD_BYTES = 4


def framed(message: Said | Answer) -> bytes:
    """The message with its length in front."""
    body = encode(message)
    return len(body).to_bytes(HEAD_BYTES, "little") + body


class Splitter:
    """Cuts a stream of bytes into the bodies of its frames."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def split(self, data: bytes) -> list[bytes]:
        """The bodies that are complete with these bytes."""
        waiting = self._waiting
        waiting += data
        bodies, start = [], 0
        while len(waiting) >= (body := start + HEAD_BYTES):
            end = body + int.from_bytes(waiting[start:body], "little")
            if len(waiting) < end:
                break
            bodies.append(bytes(waiting[body:end]))
            start = end
        del waiting[:start]
        return bodies
