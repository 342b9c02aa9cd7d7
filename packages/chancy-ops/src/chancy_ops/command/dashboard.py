"""`chancy dashboard`: the pages, for one person on this machine, or behind a proxy that knows who comes."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import click

from chancy_ops.terminal.faults import Refusal
from chancy_ops.terminal.modules import load
from chancy_ops.terminal.person import person
from chancy_ops.terminal.screen import answer
from chancy_ops.terminal.site import Site, command

if TYPE_CHECKING:
    from uvicorn.server import Server

    from chancy_ops.web import Dashboard

SECRET = "CHANCY_DASHBOARD_SECRET"  # noqa: S105 - the name of a variable
LOOPBACK = ("127.0.0.1", "::1", "localhost")
MISSING = "chancy dashboard needs what `pip install 'chancy-ops[web]'` brings ({missing} is not there)"


@command("dashboard")
@click.argument("modules", metavar="[MODULE]...", nargs=-1)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Listen at this address.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8610, show_default=True, help="0 takes a free one.")
@click.option("--or-another", is_flag=True, help="Take a free port where somebody has that one.")
@click.option("--read-only", is_flag=True, help="Postgres refuses whatever would change anything.")
@click.option("--auth-header", metavar="NAME", help="A proxy says in this header who comes.")
@click.option("--until-input-ends", is_flag=True, help="End when standard input does: with who has started it.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="The host by which browsers call it.")
def dashboard(
    site: Site,
    modules: tuple[str, ...],
    host: str,
    port: int,
    or_another: bool,
    read_only: bool,
    auth_header: str | None,
    names: tuple[str, ...],
    until_input_ends: bool,
) -> None:
    """Show the queue in a browser, until Ctrl-C.

    Prints a link with a token, which lets in whoever opens it; it listens on this machine alone. On another address it
    wants a proxy in front that encrypts and knows who comes: --auth-header names the header in which the proxy says
    it, CHANCY_DASHBOARD_SECRET what the proxy sends as X-Chancy-Secret, and --name each host by which it is called.

    The tasks of the MODULEs are known to the pages, so that these can say what a task takes.
    """
    try:
        from uvicorn.config import Config
        from uvicorn.server import Server

        from chancy_ops.web import Dashboard
    except ModuleNotFoundError as error:
        raise Refusal(MISSING.format(missing=error.name)) from None
    for module in modules:
        load(module)
    with site.connect():
        pass  # whatever is wrong with the database or the schema is told here, and not in a browser
    token = secrets.token_urlsafe(24)
    app = _made(Dashboard, site, host, read_only, auth_header, names, token)
    with closing(_listening(host, port, or_another=or_another)) as listener:
        place = f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        link = f"http://{place}/" + ("" if auth_header else f"?token={token}")
        answer(site.json, {"url": link}, f"The dashboard of schema {site.schema} is at {link}")
        sys.stdout.flush()
        config = Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2)
        server = Server(config)
        if until_input_ends:
            threading.Thread(target=_end_with_input, args=[server], daemon=True).start()
        server.run(sockets=[listener])


def _made(
    kind: type[Dashboard],
    site: Site,
    host: str,
    read_only: bool,
    auth_header: str | None,
    names: tuple[str, ...],
    token: str,
) -> Dashboard:
    from chancy_ops.web.access.borders import LOOPBACK as LOOPBACK_NAMES
    from chancy_ops.web.access.doors import by_header, by_token
    from chancy_ops.web.access.users import OPERATE, VIEW

    rights = VIEW if read_only else OPERATE
    if auth_header:
        secret = os.environ.get(SECRET, "")
        if len(secret) < 16:
            raise Refusal(f"set {SECRET} to what the proxy sends as X-Chancy-Secret, of 16 characters or more")
        auth = by_header(auth_header, secret=secret, rights=rights)
    elif host not in LOOPBACK:
        raise Refusal(
            f"on {host} others could open it: let a proxy say who comes (--auth-header, {SECRET}, --name), or reach it "
            f"by `ssh -L`"
        )
    else:
        auth = by_token(token, name=person(), rights=rights)
    hosts = {*names, *(LOOPBACK_NAMES if host in LOOPBACK else ())}
    if not hosts:
        raise Refusal("say with --name by which host browsers call it: queue.example.com")
    return kind(site.dsn, auth=auth, schema=site.schema, read_only=read_only, hosts=hosts)


def _end_with_input(server: Server) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    server.should_exit = True


def _listening(host: str, port: int, *, or_another: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # from here on a browser is answered, if a moment later
    except OSError as error:
        listener.close()
        if or_another and port and error.errno == errno.EADDRINUSE:
            return _listening(host, 0, or_another=False)
        raise Refusal(f"cannot listen at {host} port {port}: {error.strerror}; --port 0 takes a free one") from None
    return listener
