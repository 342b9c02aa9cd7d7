"""One request: who asks, what for, and what a page or an act may use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from chancy.errors import InvalidOption
from chancy.wires.connections import PsycopgAsyncConn
from chancy_ops import JobLine
from chancy_ops.redaction import Hiding, Redact, hiding

from .access.users import VIEW, Action, User
from .connections import Connections
from .rendering import Pages
from .shared import Shared
from .shown import query_of
from .sweeps import Sweeps

T = TypeVar("T")
U = TypeVar("U")
Look: TypeAlias = Callable[[PsycopgAsyncConn], Awaitable[T]]
MOST_POSTED = 1024**2
MOST_FIELDS = 10_000
SLOWEST_FORM = 30.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a dashboard has: all its requests use the same."""

    schema: str
    connections: Connections
    shared: Shared
    pages: Pages
    every: float
    """Seconds between two looks of a page at itself."""
    sweeps: Sweeps
    redact: Redact | None = None
    """What the application hides besides secrets."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of one user."""

    request: Request
    user: User
    desk: Desk
    form: Sequence[tuple[str, str]] = ()
    """What was posted, in its order: a name may be there several times."""
    began: float = field(default_factory=time.perf_counter)

    @property
    def schema(self) -> str:
        """The schema that is looked at."""
        return self.desk.schema

    @property
    def asked(self) -> Mapping[str, str]:
        """The address' query; what is empty is missing. A name may be a blank, and somebody's is."""
        return {name: value for name, value in self.request.query_params.items() if value}

    @property
    def path(self) -> str:
        """Below the mount, from its slash on."""
        path: str = self.request.scope["path"]
        return path

    @property
    def root(self) -> str:
        """From this page to the mount, relatively: right behind any proxy, under any prefix."""
        return "../" * (self.path.count("/") - 1) or "./"

    def may(self, action: Action | str) -> bool:
        """Whether the user may do that here."""
        changes = Action(action) not in VIEW
        return self.user.may(Action(action)) and not (changes and self.desk.connections.read_only)

    def looking(self) -> AbstractAsyncContextManager[PsycopgAsyncConn]:
        """A connection that can write nothing."""
        return self.desk.connections.looking()

    async def at_once(self, one: Look[T], other: Look[U]) -> tuple[T, U]:
        """What two looks find that need nothing of each other, each on a connection of its own. Not for who has one
        already: who waits for a second one while others do the same waits for ever.
        """
        return await asyncio.gather(self._look(one), self._look(other))

    async def _look(self, look: Look[T]) -> T:
        async with self.looking() as conn:
            return await look(conn)

    def line(self, line: JobLine) -> JobLine:
        """The same job, as it may be shown: of secrets it has none, of what the application hides it may."""
        return Hiding({}, self.desk.redact).line(line)

    def error(self, task: str, message: str) -> str:
        """What an error of a task's job said, as it may be shown."""
        return Hiding({}, self.desk.redact).words("error", task, message)

    async def hiding(self, conn: PsycopgAsyncConn, tasks: Iterable[str]) -> Hiding:
        """What is to be hidden of jobs of these tasks. One round trip."""
        return await hiding(conn, tasks, redact=self.desk.redact, schema=self.schema)

    def page(self, template: str, /, *, status: int = 200, **values: object) -> Response:
        """The page, or that it is as it was."""
        return self.desk.pages.made(self, template, status, values)

    def page_of(self, seen: object, template: str, /, values: Callable[[], Mapping[str, object]]) -> Response:
        """The same of what many have `seen`; all `values` follow from that."""
        return self.desk.pages.made_once(self, template, seen, values)

    def to(self, path: str, /, **asked: object) -> str:
        """The address of another page."""
        return f"{self.root}{path}{query_of(asked)}"

    def go(self, path: str, /, **asked: object) -> Response:
        """To another page: what is posted ends so."""
        return RedirectResponse(self.to(path, **asked), 303)

    def posted(self) -> dict[str, str]:
        """The fields of a form; of those of one name the last."""
        return dict(self.form)


async def form_of(request: Request) -> list[tuple[str, str]]:
    """What was posted, once all of it is there: who sends it slowly holds nothing that others wait for.

    Raises `InvalidOption` for more than a megabyte, or ten thousand fields, and `HTTPException` for what does not come
    in half a minute.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(SLOWEST_FORM):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_POSTED:
                    raise InvalidOption("form", "it has more than a megabyte")
    except TimeoutError:
        raise HTTPException(408, "The form did not arrive in time. Nothing was changed: press again.") from None
    try:
        text = body.decode("utf-8", "replace").replace("%0D%0A", "%0A")  # browsers end lines so, whatever the value had
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidOption("form", f"it has more than {MOST_FIELDS:,} fields") from None


def path_of(path: str, prefix: str) -> str:
    """A path below a prefix; "" is the prefix itself, without its slash.

    Of a prefix that a proxy has stripped a part may be missing in the path: then what is left of it counts.
    """
    while prefix:
        if path == prefix:
            return ""
        if path.startswith(prefix + "/"):
            return path[len(prefix) :]
        prefix = "".join(f"/{part}" for part in prefix.split("/")[2:])
    return path
