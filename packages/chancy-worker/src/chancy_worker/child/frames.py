"""What a worker says to its child processes and to their fork server, and what they answer: length-prefixed msgpack,
arguments and results as the JSON bytes that they are already. Nothing is pickled.

Every answer about a job names the claim that it is about.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from chancy.model import Progress
from chancy_worker.attempts.verdict import Claimed, Completion, Since

Claim: TypeAlias = tuple[int, int]
"""A job's id and its fence."""


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


class Unready(msgspec.Struct, frozen=True, array_like=True, tag="u", gc=False):
    """The child cannot begin, and ends."""

    why: str


class Done(msgspec.Struct, frozen=True, array_like=True, tag="d", gc=False):
    """The verdict of the job, whose claim it carries."""

    completion: Completion
    seconds: float
    """That the job took, here."""
    last: str | None
    """What the job has left behind, so that the child ends now; None if it goes on."""


class Told(msgspec.Struct, frozen=True, array_like=True, tag="p", gc=False):
    """What the handler said of its progress."""

    claim: Claim
    progress: Progress


class Grown(msgspec.Struct, frozen=True, array_like=True, tag="g", gc=False):
    """Before a job with a memory limit: how many bytes those before it have left in the child."""

    claim: Claim
    size: int


class Logged(msgspec.Struct, frozen=True, array_like=True, tag="l", gc=False):
    """A record of `logging`."""

    name: str
    level: int
    message: str
    created: float
    traceback: str
    claim: Claim | None
    """The one in whose context it was made."""
    extra: bytes = b""
    """What was given beside the message, as a JSON object."""


class Recalled(msgspec.Struct, frozen=True, array_like=True, tag="b", gc=False):
    """The orders that are forgotten."""

    claims: tuple[Claim, ...]


class Setup(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """To a fork server, once: what its children have in common."""

    preload: tuple[str, ...]
    """Modules that the server imports itself."""
    modules: tuple[str, ...]
    """Modules that each child imports."""
    main: tuple[str, str] | None
    """The program itself, if tasks are defined in it: its module's name or "", and its file or ""."""
    path: tuple[str, ...]
    """`sys.path`"""
    argv: tuple[str, ...]
    folder: str
    """In which children work."""
    surround: tuple[str, str] | None = None
    """What goes around each function: its module, and its name there."""


class Fork(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """To a fork server, with the child's end of a line: make child `number`."""

    number: int
    level: int
    """Of the root logger."""


class Kill(msgspec.Struct, frozen=True, array_like=True, tag="k"):
    """To a fork server: kill this child and all that it has started. Nothing, if it has ended."""

    number: int


class Forked(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """Of a fork server: the child is there."""

    number: int
    pid: int


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    """Of a fork server: there is no such child, and why."""

    number: int
    why: str


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    """Of a fork server: the child is dead, and what it had started and was still there has been killed."""

    number: int
    code: int
    """Its exit code, or minus the signal that it died of."""
    killed: bool
    """Whether it had been asked to kill it."""


class Unloaded(msgspec.Struct, frozen=True, array_like=True, tag="u"):
    """Of a fork server: something is wrong with a module to be preloaded."""

    module: str
    why: str


def _nothing(error: object) -> None:
    """An exception stays in its process."""


Said: TypeAlias = Order | Recall
Answer: TypeAlias = Ready | Unready | Done | Told | Grown | Logged | Recalled
Asked: TypeAlias = Setup | Fork | Kill
Reported: TypeAlias = Forked | Refused | Ended | Unloaded

encode = msgspec.msgpack.Encoder(enc_hook=_nothing).encode
decode_said = msgspec.msgpack.Decoder(Said).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
decode_asked = msgspec.msgpack.Decoder(Asked).decode
decode_reported = msgspec.msgpack.Decoder(Reported).decode

HEAD_BYTES = 4


def framed(message: Said | Answer | Asked | Reported) -> bytes:
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
