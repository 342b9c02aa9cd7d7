"""How things are shown: instants with their age, lengths of time, and what somebody else has written."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import msgspec
from markupsafe import Markup, escape

from chancy.model import WITHOUT_END
from chancy.options.phrases import span
from chancy_ops.terminal.screen import harmless
from chancy_ops.terminal.times import lasting

MOST_SHOWN = 64 * 1024
"""Of a payload: fifteen megabytes of text keep a browser busy for nine seconds."""
KINDS = {"": Markup(), "data-age": Markup(" data-age"), "data-since": Markup(" data-since")}
"""Whether the script says the age of an instant anew, or for how long it has been so."""
_REFERENCE = Markup("&#x{:x};")
_AGES = re.compile(r"(<time [^>]*data-(?:age|since)[^>]*>)[^<]*")


def printed(value: object) -> object:
    r"""What `{{ … }}` prints: of texts the characters that control something, and those that no encoding has, as
    escapes (`\x1b`). None is nothing.
    """
    if value is None:
        return ""
    return harmless(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def as_typed(value: object) -> Markup:
    """A value in a field of a form, which comes back as it is: what nobody sees goes as a character reference. (Those
    of U+0080 to U+009F mean other characters to a browser.)
    """
    text = "" if value is None else str(value)
    if text.isprintable():
        return escape(text)
    return Markup().join(
        escape(c) if c.isprintable() or "\x80" <= c <= "\x9f" else _REFERENCE.format(ord(c)) for c in text
    )


def age(at: datetime | None, now: datetime) -> Markup | str:
    """`5 min ago`, `in 3 h`; the script keeps it right."""
    if at is None:
        return "-"
    if at == WITHOUT_END:
        return "without end"
    said = f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"
    return _time(at, said, "data-age", title=True)


def moment(at: datetime | None, now: datetime) -> Markup | str:
    """The same behind the instant in UTC."""
    if at is None or at == WITHOUT_END:
        return age(at, now)
    said = f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"
    whole = _time(at, f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z", "")
    return whole + Markup(' <span class="dim">') + _time(at, said, "data-age") + Markup("</span>")


def for_(since: datetime | None, now: datetime) -> Markup | str:
    """`12 s`: for how long it has been so."""
    return "-" if since is None else _time(since, span(now - since), "data-since", title=True)


def _time(at: datetime, said: str, kind: str, *, title: bool = False) -> Markup:
    utc = at.astimezone(UTC)
    titled = Markup(' title="{}"').format(f"{utc:%Y-%m-%d %H:%M:%S}Z") if title else Markup()
    return Markup('<time datetime="{}"{}{}>{}</time>').format(
        f"{utc:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z", KINDS[kind], titled, said
    )


def without_ages(html: str) -> str:
    """The page as it is at any time, as long as nothing happens."""
    return _AGES.sub(r"\1", html)


def length(seconds: float | timedelta | None) -> str:
    """A length of time, or none."""
    if seconds is None:
        return "-"
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    return f"{seconds * 1e6:.0f} µs" if 0 < seconds < 0.001 else lasting(seconds)


def readable(payload: bytes | None) -> str:
    """JSON to look at: indented where it can be read, and at most 64 kB of it."""
    if payload is None:
        return ""
    more = len(payload) - MOST_SHOWN
    if more > 0:
        return f"{payload[:MOST_SHOWN].decode('utf-8', 'ignore')}\n… and {more:,} bytes more"
    with contextlib.suppress(msgspec.DecodeError, RecursionError):  # a lone surrogate, a thousand deep: from elsewhere
        payload = msgspec.json.format(payload, indent=2)
    return payload.decode("utf-8", "backslashreplace")


def cut(text: str) -> str:
    """At most 64 kB of a text."""
    more = len(text) - MOST_SHOWN
    return f"{text[:MOST_SHOWN]}\n… and {more:,} characters more" if more > 0 else text


def query_of(asked: Mapping[str, object]) -> str:
    """What is asked, as the end of an address; what is None or empty is not."""
    said = {name: str(value) for name, value in asked.items() if value is not None and value != ""}
    return f"?{urlencode(said, errors='replace')}" if said else ""
