"""The packages read as rooms: who imports whom, and how many lines of code each has."""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "packages"
FOLDERS = {
    "chancy": PACKAGES / "chancy-core/src/chancy",
    "chancy_worker": PACKAGES / "chancy-worker/src/chancy_worker",
    "chancy_ops": PACKAGES / "chancy-ops/src/chancy_ops",
    "chancy_testing": PACKAGES / "chancy-testing/src/chancy_testing",
    "chancy_django": PACKAGES / "chancy-django/src/chancy_django",
    "chancy_otel": PACKAGES / "chancy-otel/src/chancy_otel",
}
SOURCES = sorted(PACKAGES.glob("*/src/**/*.py"))
STATEMENT = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|ALTER|DROP|WITH)\b")


@dataclass(frozen=True)
class Room:
    """A module: its package, its path within that (`keys/gates`), its file."""

    package: str
    path: str
    file: Path

    @property
    def unit(self) -> str:
        """The wing that it is in, which stands for all its rooms; or itself."""
        return self.path.split("/")[0]

    @property
    def imports(self) -> frozenset[str]:
        """Full names of what is imported anywhere in it, but for type checkers alone."""
        return _imports(self)

    @property
    def rooms(self) -> set[str]:
        """The paths of the rooms of its own package that it imports."""
        inner = (name.split(".")[1:] for name in self.imports if name.startswith(f"{self.package}."))
        there = {room.path for room in rooms_of(self.package)}
        return {path for parts in inner for n in (3, 2, 1) if (path := "/".join(parts[:n])) in there}

    @property
    def lines(self) -> int:
        """Lines of code, without blanks, comments, docstrings and SQL."""
        return _lines(self.file)


@functools.cache
def rooms_of(package: str) -> list[Room]:
    """All of them, without the empty fronts of wings."""
    folder = FOLDERS[package]
    files = sorted(file for file in folder.rglob("*.py") if file.stem != "__about__")
    rooms = [Room(package, file.relative_to(folder).with_suffix("").as_posix(), file) for file in files]
    return [room for room in rooms if not room.path.endswith("/__init__")]


@functools.cache
def _imports(room: Room) -> frozenset[str]:
    package = [room.package, *room.path.split("/")[:-1]]
    found = set()
    for node in _unguarded(ast.parse(room.file.read_text()).body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def _unguarded(nodes):
    for node in nodes:
        if isinstance(node, ast.expr):  # nothing is imported in there
            continue
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _unguarded(ast.iter_child_nodes(node))


@functools.cache
def _lines(file: Path) -> int:
    source = file.read_text()
    apart = _docstrings_and_sql(ast.parse(source)) | {
        number for number, line in enumerate(source.splitlines(), 1) if not line.strip()
    }
    nothing = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in nothing:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - apart)


def _docstrings_and_sql(tree: ast.Module) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        for statement in getattr(node, "body", []) if isinstance(getattr(node, "body", None), list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                if isinstance(statement.value.value, str):
                    lines.update(range(statement.lineno, statement.end_lineno + 1))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.end_lineno > node.lineno:
            if STATEMENT.search(node.value):
                lines.update(range(node.lineno, node.end_lineno + 1))
    return lines
