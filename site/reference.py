"""The reference, made of the packages: a page for each part of their public names, and one of all commands."""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import griffe

from verbs import Verbs

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "chancy": ROOT / "packages/chancy-core/src/chancy",
    "chancy_worker": ROOT / "packages/chancy-worker/src/chancy_worker",
    "chancy_ops": ROOT / "packages/chancy-ops/src/chancy_ops",
    "chancy_testing": ROOT / "packages/chancy-testing/src/chancy_testing",
    "chancy_django": ROOT / "packages/chancy-django/src/chancy_django",
    "chancy_otel": ROOT / "packages/chancy-otel/src/chancy_otel",
}
CORE = {
    "tasks": ("Tasks and what they submit", ["task", "job", "results", "verbs", "model", "states", "logs"]),
    "inside": ("Inside a job", ["current", "arguments", "options/outcomes"]),
    "options": ("Options", ["options", "keys"]),
    "schedules": ("Schedules", ["schedules"]),
    "batches": ("Batches", ["batches"]),
    "steps": ("Steps", ["steps"]),
    "flows": ("Workflows", ["flows"]),
    "settings": ("Settings, schema, roles", ["app", "schema", "history", "migrations"]),
    "connections": ("Connections", ["wires"]),
    "errors": ("Errors", ["errors"]),
}
"""The pages of core, and the rooms or wings whose names are on them. A new wing gets a page by itself."""
OTHERS = {
    "chancy_worker": "The worker",
    "chancy_ops": "For whoever is on call",
    "chancy_testing": "Testing",
    "chancy_django": "Django",
    "chancy_otel": "OpenTelemetry",
}


@dataclass(frozen=True)
class Name:
    """A public name: what users write (`chancy.get`), and where it is made (`chancy.verbs.get`)."""

    package: str
    name: str
    room: str

    @property
    def made(self) -> str:
        """Its path for whoever reads the sources."""
        return f"{self.package}.{self.room.replace('/', '.')}.{self.name}"


def public(package: str) -> list[Name]:
    """All that the package's `__all__` names, with the room in which it is made."""
    tree = ast.parse((PACKAGES[package] / "__init__.py").read_text(encoding="utf-8"))
    rooms: dict[str, str] = {}
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            rooms |= {alias.asname or alias.name: node.module.replace(".", "/") for alias in node.names}
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
    return [Name(package, name, rooms[name]) for name in names]


def _page_of(name: Name) -> tuple[str, str]:
    for page, (title, rooms) in CORE.items():
        if name.room in rooms:
            return page, title
    wing = name.room.partition("/")[0]
    for page, (title, rooms) in CORE.items():
        if wing in rooms:
            return page, title
    return wing, wing.replace("_", " ").capitalize()


def reference() -> dict[str, str]:
    """The pages, by their paths."""
    pages: dict[str, list[str]] = defaultdict(list)
    for name in public("chancy"):
        page, title = _page_of(name)
        lines = pages[f"reference/chancy-{page}.md"]
        if not lines:
            lines.append(f"# chancy: {title[0].lower()}{title[1:]}\n\nImported as `from chancy import …`.\n")
        lines.append(_entry(name))
    for package, title in OTHERS.items():
        lines = pages[f"reference/{package.replace('_', '-')}.md"]
        lines.append(f"# {package}: {title[0].lower()}{title[1:]}\n\nImported as `from {package} import …`.\n")
        lines += [_entry(name) for name in public(package)]
    order = [f"reference/chancy-{page}.md" for page in CORE]
    return {page: "\n".join(pages[page]) for page in [*order, *sorted(pages.keys() - order)]}


def _entry(name: Name) -> str:
    return f"::: {name.made}\n    options:\n      heading: {name.package}.{name.name}\n      toc_label: {name.name}\n"


def as_text(page: str) -> str:
    """The page with what mkdocstrings would put into it, in short: each signature, and what its docstring says."""
    return re.sub(r"^::: (\S+)\n(?:    .*\n)*", lambda found: _told(found[1]), page, flags=re.MULTILINE)


@functools.cache
def _packages() -> griffe.ModulesCollection:
    loader = griffe.GriffeLoader(
        search_paths=[place.parent for place in PACKAGES.values()], extensions=griffe.load_extensions(Verbs)
    )
    for package in PACKAGES:
        loader.load(package)
    loader.resolve_aliases(external=False)
    return loader.modules_collection


def _told(path: str) -> str:
    found = _packages()[path]
    parts = [f"## {path.split('.', maxsplit=1)[0]}.{found.name}", _signed(found), _doc(found)]
    if found.is_class:
        for name, member in found.all_members.items():
            if not name.startswith("_") and not member.is_class:
                parts.append(f"- `{_line(member)}`: {' '.join(_doc(member).split())}".rstrip(": "))
    return "\n\n".join(part for part in parts if part) + "\n\n"


def _signed(found: griffe.Object | griffe.Alias) -> str:
    return f"```python\n{_line(found)}\n```"


def _line(found: griffe.Object | griffe.Alias) -> str:
    if found.is_function:
        return str(found.signature(return_type=True))
    if found.is_class:
        return f"{found.name}({', '.join(_parameter(each) for each in found.parameters if each.name != 'self')})"
    return f"{found.name}: {found.annotation}" if found.annotation else found.name


def _parameter(each: griffe.Parameter) -> str:
    default = "" if each.default in (None, "None") else f" = {each.default}"
    return f"{each.name}: {each.annotation}{default}"


def _doc(found: griffe.Object | griffe.Alias) -> str:
    return found.docstring.value if found.docstring else ""


def commands() -> str:
    """Every command's own `--help`, of the packages that are installed."""
    import chancy.__main__
    import chancy_ops.cli
    from chancy_worker.cli import parser

    asked = {f"chancy {name}": [name, "--help"] for name in chancy_ops.cli.COMMANDS}
    told = {"chancy-worker": parser().format_help(), "chancy": _said(chancy_ops.cli.run, ["--help"])}
    told |= {title: _said(chancy_ops.cli.run, words) for title, words in asked.items()}
    told["python -m chancy migrate"] = _said(chancy.__main__.main, ["migrate", "--help"])
    parts = [f"## {title}\n\n```text\n{text.strip()}\n```\n" for title, text in told.items()]
    return "\n".join([_ABOUT_COMMANDS, *parts])


_ABOUT_COMMANDS = """# Commands

What each says with `--help`. Screens and examples are on the page of [the command `chancy`](../guides/command-line.md).
"""


def _said(main: Callable[[list[str]], object], words: list[str]) -> str:
    """What a command prints on a terminal of 100 columns without colours."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main(words)
    return out.getvalue()
