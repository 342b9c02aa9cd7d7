"""What commands answer: tables on a terminal, the same as aligned text in a pipe, one JSON document for programs."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec
from rich.cells import cell_len

from .times import written

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Cell = str | int | datetime | None

BETWEEN = 3
"""Blanks between two columns on a terminal."""
STYLES = {
    "STATE": {
        "running": "cyan", "succeeded": "green", "failed": "red", "discarded": "magenta", "cancelled": "yellow"
    },
    "SEVERITY": {"ok": "green", "warning": "yellow", "error": "bold red"},
}  # fmt: skip
"""Of a column the words that have a colour."""


def on_terminal() -> bool:
    """Whether a person reads the answer."""
    return sys.stdout.isatty()


def harmless(text: str) -> str:
    r"""The text with control characters as escapes (`\x1b`), but for the ends of lines and tabs."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


@dataclass(frozen=True, slots=True)
class Table:
    """Columns with a title each, and rows of cells. Columns of numbers go to the right."""

    titles: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    long: Literal["ellipsis", "fold"] = "ellipsis"
    """What becomes of the last column on a terminal without room for it: it is cut, or goes on below."""

    def show(self) -> None:
        """Print it."""
        if not on_terminal():
            click.echo("\n".join(self.lines()))
            return
        from rich.console import Console

        Console(highlight=False).print(self.rich())

    def lines(self) -> list[str]:
        """As aligned text, whose columns are two blanks apart, whatever their width."""
        grid, widths, right = self._grid(), self._widths(), self._numeric()
        return [
            "  ".join(
                " " * (width - cell_len(cell)) + cell if number else cell + " " * (width - cell_len(cell))
                for cell, width, number in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in grid
        ]

    def rich(self) -> RichTable:
        """For a terminal."""
        from rich import box
        from rich.table import Table as Made
        from rich.text import Text

        made = Made(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        *others, wish = self._widths()
        room = max(shutil.get_terminal_size().columns - sum(others) - BETWEEN * len(others), 10)
        for title, number in zip(self.titles, self._numeric(), strict=True):
            made.add_column(title, justify="right" if number else "left", no_wrap=True)
        last = made.columns[-1]  # the others have their width before it
        last.width, last.no_wrap, last.overflow = min(wish, room), self.long == "ellipsis", self.long
        for row in self.rows:
            cells = []
            for title, cell in zip(self.titles, row, strict=True):
                style = "dim" if cell is None else STYLES.get(title, {}).get(str(cell), "")
                cells.append(Text(_text(cell), style=style))
            made.add_row(*cells)
        return made

    def _grid(self) -> list[list[str]]:
        return [list(self.titles), *([_text(cell) for cell in row] for row in self.rows)]

    def _widths(self) -> list[int]:
        return [max(map(cell_len, column)) for column in zip(*self._grid(), strict=True)]

    def _numeric(self) -> list[bool]:
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.titles)
        kinds = [{type(cell) for cell in column} - {type(None)} for column in columns]
        return [bool(found) and all(issubclass(kind, int) and kind is not bool for kind in found) for found in kinds]


def _text(cell: Cell) -> str:
    if cell is None or cell == "":
        return "-"
    return written(cell) if isinstance(cell, datetime) else harmless(str(cell))


def heading(text: str) -> None:
    """The title of what follows."""
    click.secho(f"\n{harmless(text)}", bold=True)


def document(value: object) -> None:
    """One JSON document: instants in ISO 8601 and UTC, durations in seconds. What commands a terminal is escaped."""
    text = msgspec.json.encode(value)
    with contextlib.suppress(RecursionError):  # somebody's JSON, a thousand deep: it stays on one line
        text = msgspec.json.format(text, indent=2)
    click.echo("".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text.decode()))


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def answer(json: bool, value: Mapping[str, Any], sentence: str) -> None:
    """What was done: a document for programs, a sentence for people."""
    if json:
        document(value)
    else:
        click.echo(harmless(sentence))
