"""The tasks of the demo: what a worker imports, `chancy-worker tree_tasks`."""

import ast
import hashlib
from datetime import timedelta
from pathlib import Path

import msgspec

from chancy import Backoff, task

BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


class FileFacts(msgspec.Struct, frozen=True):
    """What is known about one Python file."""

    path: str
    lines: int
    bytes: int
    sha256: str
    depth: int
    """How many blocks of its syntax tree lie within each other."""


@task(queue="tree", max_attempts=2, retry=Backoff(base=timedelta(milliseconds=500)))
def analyse(path: str) -> FileFacts:
    """Read and parse one file; a plain function, so a worker runs it in a thread.

    What it raises (SyntaxError, say) fails the attempt and is kept on the job, with its traceback.
    """
    source = Path(path).read_bytes()
    return FileFacts(
        path=path,
        lines=len(source.splitlines()),
        bytes=len(source),
        sha256=hashlib.sha256(source).hexdigest(),
        depth=depth_of(ast.parse(source, filename=path)),
    )


def depth_of(tree: ast.AST) -> int:
    """How many blocks lie within each other at most. Level by level: some trees are deeper than Python may recurse."""
    depth, level = 0, [tree]
    while level:
        level = [child for node in level for block in BLOCKS for child in getattr(node, block, ())]
        depth += bool(level)
    return depth
