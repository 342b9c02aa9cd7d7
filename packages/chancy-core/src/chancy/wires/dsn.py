"""Connection strings: understood or refused, and never repeated in an error, since they hold passwords.

libpq's own words about a string that it cannot read repeat the part that it stumbles over. So a string is read here
first, and what does not look like a host or a port is refused before anybody is told that it could not be reached.
"""

from __future__ import annotations

import re

import psycopg
from psycopg.conninfo import conninfo_to_dict

from chancy.errors import InvalidDSN

_DRIVER = re.compile(r"(postgres(?:ql)?)\+\w+://")
_HOST = re.compile(r"[\w.:%~,/ -]*|[/@][^@\n]*")
_PORT = re.compile(r"[\d,]*")


def understood(dsn: str) -> str:
    """The string as libpq takes it: a URL of SQLAlchemy loses its driver (`postgresql+psycopg://…`).

    Raises `InvalidDSN` for one that libpq cannot read, or whose host or port is none: most likely a character of the
    password that has to be percent-encoded.
    """
    plain = _DRIVER.sub(r"\1://", dsn, count=1) if dsn.startswith("postgres") else dsn
    try:
        parts = conninfo_to_dict(plain)
    except (psycopg.Error, UnicodeError, ValueError):
        raise InvalidDSN(_hint(plain)) from None
    for name, form in ("host", _HOST), ("hostaddr", _HOST), ("port", _PORT):
        if not form.fullmatch(str(parts.get(name) or "")):
            raise InvalidDSN(f"its {name} is none; a password with @, /, : or # in a URL has them percent-encoded")
    return plain


def _hint(dsn: str) -> str:
    if "://" in dsn:
        return "in a URL, %, @, /, : and # of a user or password have to be percent-encoded"
    if dsn.startswith("postgres"):
        return "a URL begins with postgresql://"
    return "it is postgresql://USER:PASSWORD@HOST/DATABASE, or host=… dbname=… user=…"
