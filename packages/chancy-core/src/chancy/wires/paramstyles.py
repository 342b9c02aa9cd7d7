"""A statement for somebody else's driver: its text with that driver's placeholders, and its parameters as texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from chancy.options.plain import word
from chancy.schema import fill

from .wire import as_text

ParamStyle: TypeAlias = Literal["pyformat", "named", "format", "qmark", "numeric", "numeric_dollar"]
"""How placeholders are written: as PEP 249 calls it, or `$1`."""

_PARAMETER = re.compile(r"%\((\w+)\)s")
_SPELLINGS = {
    "pyformat": "%({name})s",
    "named": ":{name}",
    "format": "%s",
    "qmark": "?",
    "numeric": ":{number}",
    "numeric_dollar": "${number}",
}
_AS_TEXT = "CAST(%s AS pg_catalog.text)"
"""And not `:x::text`, of which SQLAlchemy would take a part for the name."""
_BY_NAME = ("pyformat", "named")
_NUMBERED = ("numeric", "numeric_dollar")


def spelled(
    sql: str, params: Mapping[str, Any], schema: str, paramstyle: str
) -> tuple[str, dict[str, str | None] | tuple[str | None, ...]]:
    """The text in this style, and the parameters: by their names, or in their order where it knows no names.

    Each parameter is a text, and the statement says so before it casts it: a driver that asks Postgres for the types of
    parameters would want numbers for numbers, and what it makes of a JSON is its own affair.
    """
    style = word("paramstyle", paramstyle, get_args(ParamStyle))
    names: list[str] = []

    def spell(found: re.Match[str]) -> str:
        name = found[1]
        if style not in _NUMBERED or name not in names:
            names.append(name)
        return _AS_TEXT % _SPELLINGS[style].format(name=name, number=names.index(name) + 1)

    text = _PARAMETER.sub(spell, fill(sql, schema).decode())
    texts = {name: as_text(value) for name, value in params.items()}
    return text, {name: texts[name] for name in names} if style in _BY_NAME else tuple(map(texts.__getitem__, names))
