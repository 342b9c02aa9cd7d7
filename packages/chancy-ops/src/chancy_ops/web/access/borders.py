"""What is refused before anybody is asked who they are: foreign hosts, requests that other sites make, and what a
browser is told to do with a page.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

READS, WRITES = frozenset({"GET", "HEAD"}), frozenset({"POST"})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})

# Nothing inline and nothing from elsewhere: what somebody writes into a job's arguments is a text, whatever is in it.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def refused_host(headers: Mapping[str, str], hosts: Collection[str] | None) -> str | None:
    """Why a request for this host is not answered; None if it is. Hosts are names, without ports.

    A name that somebody else's server gives for our address (DNS rebinding) makes their pages ours in a browser's eyes.
    """
    host = named(headers.get("host", ""))
    if hosts is None or host in hosts:
        return None
    return f"this dashboard is not called by this name: use {' or '.join(sorted(hosts))}"


def named(host: str) -> str:
    """The name in a `Host` or an authority, without the port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


def refused_origin(headers: Mapping[str, str]) -> str | None:
    """Why a request that would change something is not heard: it comes from another site, or does not say whence.

    Browsers say it themselves, and no page can make them say something else: in `Sec-Fetch-Site`, or where that is
    missing (on plain HTTP, other than on localhost) in `Origin`. So there is no token that could expire.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return None if site == "same-origin" else f"it comes from another page (Sec-Fetch-Site: {site})"
    origin = headers.get("origin")
    if origin is None:
        return "it says neither Sec-Fetch-Site nor Origin, and could come from anywhere"
    if origin.partition("://")[2].lower() != headers.get("host", "").lower():
        return f"it comes from {origin}, and the dashboard is {headers.get('host', '')}; a proxy has to pass Host on"
    return None
