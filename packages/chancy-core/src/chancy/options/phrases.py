"""How an instant, a length of time, a number and a text of somebody else's are said in a sentence."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

_LONGEST_TEXT = 200
_UNITS = ((86_400, 172_800, "d"), (3_600, 6_000, "h"), (60, 100, "min"))


def span(length: timedelta) -> str:
    """`12 s`, `4 min`, `5 h`, `3 d`: what a person wants to know. A length below zero is none."""
    seconds = max(length.total_seconds(), 0)
    for unit, least, name in _UNITS:
        if seconds >= least:
            return f"{seconds / unit:,.0f} {name}"
    return f"{seconds:.0f} s"


def moment(at: datetime) -> str:
    """`2026-11-25 18:58:55 UTC`"""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def size(number: int | None) -> str:
    """`120 MiB`, of bytes."""
    return "unknown" if number is None else f"{number / 1024**2:,.0f} MiB"


def counted(number: int, noun: str, most: int | None = None) -> str:
    """`1 job`, `1,200 jobs`; of what was counted up to `most` only, `more than 10,000 jobs`."""
    if most is not None and number > most:
        return f"more than {most:,} {noun}s"
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def jobs_named(ids: Sequence[int], all_: int) -> str:
    """`job 7`, `jobs 7 and 8`, `jobs 7, 8, 9 and 4 more`."""
    names = [str(id_) for id_ in ids]
    if (more := all_ - len(names)) > 0:
        names.append(f"{more:,} more")
    return f"{'job' if all_ == 1 else 'jobs'} {joined(names)}"


def joined(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def one_line(text: str, longest: int = _LONGEST_TEXT) -> str:
    """What somebody else has written: on one line, at most so many characters, and nothing that a terminal obeys."""
    words = " ".join(text[: 4 * longest].split())
    safe = words if words.isprintable() else "".join(map(_printable, words))
    return safe if len(safe) <= longest and len(text) <= 4 * longest else f"{safe[: longest - 1]}…"


def _printable(c: str) -> str:
    return c if c.isprintable() else c.encode("unicode_escape").decode()


def argument(name: str) -> str:
    """This very name as a word of a command that somebody copies into a shell, on one line."""
    if name.isprintable():
        return shlex.quote(name)
    return "$'" + "".join(c if c.isprintable() and c not in "\\'" else _escaped(c) for c in name) + "'"


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def sized(size: int) -> str:
    """`12 kB`, `3 MB`, `1.5 GB`: of bytes, in powers of 1024 as Postgres says it."""
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f} {unit}" if amount < 10 and unit in ("GB", "TB") else f"{amount:,.0f} {unit}"
