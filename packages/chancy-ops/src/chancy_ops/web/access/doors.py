"""Ways to know who asks: a link with a token, for who starts it; a header, for who has a proxy that knows."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from chancy.errors import InvalidOption

from .users import OPERATE, VIEW, Action, User

Auth: TypeAlias = Callable[[Request], Awaitable[User | Response | None] | User | Response | None]
"""Who asks; None is nobody, and a response is sent in place of the page: a redirect to a login."""

# In place of a redirect: a strict cookie goes along with what our own page asks for, and not always with a redirect.
WELCOME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>chancy</title><meta http-equiv="refresh" content="0; url=./"></head>
<body><p>You are in. <a href="./">Go to the dashboard</a></p></body></html>
"""


def by_token(token: str, *, name: str = "you", rights: Collection[Action] = OPERATE) -> Auth:
    """Who opens `?token=…` once has a cookie from then on, for as long as the process and the browser run."""
    session = secrets.token_urlsafe(32)
    cookie = f"chancy-{secrets.token_hex(4)}"  # other dashboards on other ports of this host have others
    user = User(name, frozenset(rights))

    def auth(request: Request) -> User | Response | None:
        given = request.query_params.get("token")
        if given is not None and same(given, token):
            welcome = HTMLResponse(WELCOME)
            path = request.scope.get("root_path") or "/"
            secure = request.scope.get("scheme") == "https"
            welcome.set_cookie(cookie, session, path=path, httponly=True, samesite="strict", secure=secure)
            return welcome
        return user if same(request.cookies.get(cookie, ""), session) else None

    return auth


def by_header(
    header: str,
    *,
    secret: str,
    secret_header: str = "X-Chancy-Secret",  # noqa: S107 - its name
    rights: Collection[Action] | Callable[[str], Collection[Action]] = VIEW,
) -> Auth:
    """Who a proxy says in this header that it is: it logs people in, and removes the header where they send it
    themselves. That a request has come through the proxy is known by a secret, which it adds in another header.

    `rights` is what each of them may do, or a function of the name that says it. Raises `InvalidOption`.
    """
    if len(secret) < 16:
        raise InvalidOption("secret", "expected at least 16 characters, which the proxy knows and nobody else")

    def auth(request: Request) -> User | None:
        name = request.headers.get(header, "")
        if not name or not same(request.headers.get(secret_header, ""), secret):
            return None
        return User(name, frozenset(rights(name) if callable(rights) else rights))

    return auth


def same(given: str, secret: str) -> bool:
    """Compared in a time that tells nothing of where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())
