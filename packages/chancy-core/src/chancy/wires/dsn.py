"""Connection strings: understood or refused, and never repeated in an error, since they hold passwords.

libpq's own words about a string that it cannot read repeat the part that it stumbles over. So a string is read here
first, and what does not look like a host or a port is refused before anybody is told that it could not be reached.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from chancy.errors import InvalidDSN

_DRIVER = re.compile(r"(postgres(?:ql)?)\+\w+://")
_OF_DRIVERS = {
    "async_creator_fn", "async_fallback", "autocommit", "command_timeout", "max_cacheable_statement_size",
    "max_cached_statement_lifetime", "prepare_threshold", "prepared_statement_cache_size",
    "prepared_statement_name_func", "server_settings", "statement_cache_size",
}  # fmt: skip
"""What drivers are told in such a URL and libpq does not know. All else that it does not know is refused: it may be a
misspelt `sslmode`."""
_OTHERS = frozenset({"amqp", "mariadb", "mongodb", "mssql", "mysql", "oracle", "redis", "rediss", "sqlite"})
_NAMES = {"database": "dbname", "ssl": "sslmode", "timeout": "connect_timeout", "username": "user"}
_SSL = {"true": "require", "false": "disable", "1": "require", "0": "disable"}
_HOST = re.compile(r"[\w.:%~,/ -]*|[/@][^@\n]*")
_PORT = re.compile(r"[\d,]*")


def understood(dsn: str) -> str:
    """The string as libpq takes it. A URL of SQLAlchemy (`postgresql+asyncpg://…`) loses its driver, and what its query
    says is said in libpq's words.

    Raises `InvalidDSN` for one that libpq cannot read, or whose host or port is none: most likely a character of the
    password that has to be percent-encoded.
    """
    plain = dsn
    if _DRIVER.match(dsn):
        url, mark, query = _DRIVER.sub(r"\1://", dsn, count=1).partition("?")
        plain = url + mark + _said_to_libpq(query)
    try:
        parts = conninfo_to_dict(plain)
    except (psycopg.Error, UnicodeError, ValueError):
        raise InvalidDSN(_hint(plain)) from None
    for name, form in ("host", _HOST), ("hostaddr", _HOST), ("port", _PORT):
        if not form.fullmatch(str(parts.get(name) or "")):
            raise InvalidDSN(f"its {name} is none; a password with @, /, : or # in a URL has them percent-encoded")
    return plain


def _said_to_libpq(query: str) -> str:
    given: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OF_DRIVERS:
            given.setdefault(_NAMES.get(name, name), []).append(
                _SSL.get(value.lower(), value) if name == "ssl" else value
            )
    if hosts := given.get("host"):  # each as HOST:PORT, or several of either
        apart = [host.rpartition(":") if re.fullmatch(r"[^:/]+:\d+", host) else (host, "", "") for host in hosts]
        given["host"] = [host for host, _, _ in apart]
        if any(port for _, _, port in apart):
            given["port"] = [port or "5432" for _, _, port in apart]
    return urlencode({name: ",".join(values) for name, values in given.items()}, safe="/,", quote_via=quote)


def _hint(dsn: str) -> str:
    scheme = dsn.partition("://")[0].partition("+")[0]
    if scheme in _OTHERS:
        return f"it leads to {scheme}, and jobs are rows of Postgres"
    if "://" in dsn:
        return "in a URL, %, @, /, : and # of a user or password have to be percent-encoded"
    if dsn.startswith("postgres"):
        return "a URL begins with postgresql://"
    return "it is postgresql://USER:PASSWORD@HOST/DATABASE, or host=… dbname=… user=…"
