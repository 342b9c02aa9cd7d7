"""Snippets of pages: where they stand, and how they are run."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """A block of code: its language, its text, the line of its page on which it begins, and what is above it."""

    page: Path
    language: str
    text: str
    line: int
    above: str

    @property
    def name(self) -> str:
        return f"{self.page.stem.replace('-', '_')}_{self.line}"


def snippets(page: Path, language: str) -> list[Snippet]:
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in FENCE.finditer(text):
        if fence[2] == language:
            above = text[: fence.start()].rstrip().rpartition("\n")[2]
            code = re.sub(rf"(?m)^{fence[1]}", "", fence[3])
            found.append(Snippet(page, language, code, text.count("\n", 0, fence.start()) + 2, above))
    return found


async def run(snippet: Snippet, module: types.ModuleType) -> None:
    """Run it in this module, in which the page's other snippets have run. A traceback shows the page's own lines.

    It has a name of its own, so that two snippets of a page may each have a task of one name.
    """
    names: dict[str, Any] = module.__dict__
    names["__name__"] = snippet.name
    sys.modules[snippet.name] = module  # where dataclasses and Pydantic look for what annotations name
    padded = "\n" * (snippet.line - 1) + snippet.text
    code = compile(padded, str(snippet.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    try:
        come = eval(code, names)
        if inspect.isawaitable(come):
            await come
    finally:
        del sys.modules[snippet.name]
