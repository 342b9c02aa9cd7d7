"""The dashboard as an ASGI application: run it, or mount it under any prefix of another one."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial

import psycopg
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from chancy.app import Chancy
from chancy.errors import ChancyError, InvalidOption, SchemaOutdated, UnknownBatch, UnknownJob
from chancy.wires.failures import denied
from chancy_ops.redaction import Redact

from .access.borders import HEADERS, READS, WRITES, refused_host, refused_origin
from .access.doors import Auth
from .access.users import Action, User
from .connections import Busy, Connections
from .rendering import STATIC, Pages
from .routes import ACTS, PAGES, Act, Page
from .shared import Shared
from .sweeps import Sweeps
from .visit import Desk, Visit, form_of, path_of

log = logging.getLogger("chancy.dashboard")

USER = "chancy_ops.web.user"
"""In the scope, who has come in: `state` belongs to the application around this one."""


class Dashboard:
    """Looks at one schema of one database, for whoever `auth` lets in.

    `auth` is asked for each request, and says who that is: a `User`, a response that is sent in place of the page, or
    None, which is nobody. There is none by default. `dsn` and `schema` are what `Chancy` takes. With `read_only`
    Postgres refuses whatever would change anything. `hosts` are the names by which it may be called, None is any: alone
    on a machine it is called by its own. `every` is how many seconds a page waits until it looks again.

    `redact` is given a part of a job ("arguments", "result", "error", "log" or "step"), its task's name and the value,
    and gives what is shown in its place; nobody searches for words then.

    Opens at most three connections, with the first request, and closes those that nobody uses: nothing has to be
    started or stopped, also where it is mounted. What is done to many jobs has one of its own, twice at a time. Raises
    `InvalidOption`.
    """

    def __init__(
        self,
        dsn: str | Callable[[], str] | None = None,
        *,
        auth: Auth,
        schema: str | None = None,
        read_only: bool = False,
        hosts: Collection[str] | None = None,
        every: float = 2.0,
        redact: Redact | None = None,
    ) -> None:
        if not callable(auth):
            raise InvalidOption("auth", "expected a function of the request, that gives a User or None")
        self._settings = Chancy(dsn, schema=schema)
        self._auth = auth
        self._hosts = None if hosts is None else frozenset(hosts)
        connections = Connections(lambda: self._settings.conninfo, read_only=read_only)
        sweeps = Sweeps(lambda: self._settings.conninfo, self._settings.schema_name, read_only=read_only)
        self._desk = Desk(self._settings.schema_name, connections, Shared(), Pages(), every, sweeps, redact)
        self._app = Starlette(
            routes=[
                Route("/healthz", _well),
                Mount("/static", StaticFiles(directory=STATIC)),
                *(Route(path, partial(self._look, page), methods=["GET"]) for path, page in PAGES.items()),
                *(Route(path, partial(self._do, act), methods=["POST"]) for path, act in ACTS.items()),
            ],
            exception_handlers=dict.fromkeys((*SORRY, HTTPException, Exception), self._sorry),
            lifespan=self._lifespan,
        )
        self._app.router.redirect_slashes = False  # it would name a host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with the headers that every answer has."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path = path_of(scope["path"], scope.get("root_path", ""))
        kept = path.startswith("/static/")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if kept and message["status"] == 200:
                    headers["Cache-Control"] = "public, max-age=31536000, immutable"
            await send(message)

        refused = await self._refused(scope, path)
        inside = {**scope, "path": path, "root_path": ""}
        return await (refused or self._app)(inside, receive, send_with_headers)

    async def _refused(self, scope: Scope, path: str) -> Response | None:
        """What is answered in place of a page, if anything. Who has come in is in the scope then."""
        headers = Headers(scope=scope)
        if scope["method"] not in READS | WRITES:
            return PlainTextResponse("only GET and POST\n", 405, {"Allow": "GET, HEAD, POST"})
        if (why := refused_host(headers, self._hosts)) is not None:
            return PlainTextResponse(why + "\n", 421)
        if scope["method"] in WRITES and (why := refused_origin(headers)) is not None:
            return PlainTextResponse(f"refused: {why}\n", 403)
        if path == "":
            return RedirectResponse(scope["path"].rpartition("/")[2] + "/", 307)
        if path == "/healthz" or path.startswith("/static/"):
            return None
        found = self._auth(Request(scope))
        user = await found if inspect.isawaitable(found) else found
        if isinstance(user, Response):
            return user
        if not isinstance(user, User):
            return PlainTextResponse("Nobody is logged in: open the link that was printed, or log in first.\n", 401)
        if not user.may(Action.LOOK):
            return PlainTextResponse(f"{user.name} may not look at this.\n".encode("utf-8", "replace").decode(), 403)
        scope[USER] = user
        return None

    def _visit(self, request: Request, form: Sequence[tuple[str, str]] = ()) -> Visit:
        return Visit(request, request.scope[USER], self._desk, form)

    async def _look(self, page: Page, request: Request) -> Response:
        return await page(self._visit(request))

    async def _do(self, act: Act, request: Request) -> Response:
        if not request.scope[USER].may(act.right):
            raise HTTPException(403, f"{request.scope[USER].name} has no right to {act.right}.")
        visit = self._visit(request, await form_of(request))
        async with self._desk.connections.acting() as conn:
            return await act.do(visit, conn)

    async def _sorry(self, request: Request, error: Exception) -> Response:
        status, said = told(error)
        alone = False
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            alone = request.method in READS  # any other page would say the same
            kind = "viewer" if alone else "operator"
            role = denied(error, self._desk.connections.role, self._desk.schema, kind)
            said = f"The dashboard's {role}; or give the dashboard the connection string of a role that may."
        if status >= 500:
            log.warning("%s %s: %s", request.method, request.url.path, error, exc_info=not isinstance(error, Busy))
        if USER not in request.scope:
            return PlainTextResponse(said + "\n", status)
        return self._visit(request).page("sorry.html", status=status, said=said, alone=alone)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: object) -> AsyncIterator[None]:
        yield
        self.close()

    def close(self) -> None:
        """Close the connections of this event loop, and end what is done to many jobs, for a program that ends its loop
        and goes on.
        """
        self._desk.sweeps.close()
        self._desk.connections.close()


async def _well(request: Request) -> Response:
    return Response()


SORRY: Mapping[type[Exception], tuple[int, str | None]] = {
    UnknownJob: (404, None),
    UnknownBatch: (404, None),
    InvalidOption: (400, None),
    SchemaOutdated: (503, None),
    ChancyError: (409, None),
    ClientDisconnect: (400, "The form has not arrived whole: nothing was changed."),
    Busy: (503, "All connections of the dashboard are in use. Try again in a moment."),
    psycopg.errors.QueryCanceled: (
        503, "This look took longer than five seconds and was stopped: name a queue, a task or a shorter time.",
    ),
    psycopg.errors.LockNotAvailable: (503, "Somebody holds what was asked for: a migration may be running."),
    psycopg.errors.ReadOnlySqlTransaction: (403, "This dashboard is read-only: nothing was changed."),
    psycopg.errors.InsufficientPrivilege: (403, None),
    psycopg.OperationalError: (503, "Postgres cannot be reached. The log of this process says more."),
}  # fmt: skip
"""What is told about which error; None is what it says itself."""


def told(error: Exception) -> tuple[int, str]:
    """The status, and a sentence; of what nobody expects no more than that."""
    if isinstance(error, HTTPException):
        return error.status_code, "There is no such page." if error.status_code == 404 else error.detail
    for kind, (status, said) in SORRY.items():
        if isinstance(error, kind):
            return status, said or str(error)
    return 500, "Something went wrong that nobody has thought of. The log of this process says what."
