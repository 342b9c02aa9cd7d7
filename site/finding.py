"""What the search of the site has to find: words that people look for, and each option of a command or a task."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import click

import chancy
from chancy_ops.cli import COMMANDS
from chancy_ops.cli import chancy as command
from chancy_worker.cli import parser

LOOKED_FOR = [
    "Backoff", "SQLAlchemy", "Django", "Pydantic", "dataclass", "msgspec", "OpenTelemetry", "Prometheus", "dashboard",
    "Docker", "Kubernetes", "GRANT", "upgrade", "reload", "systemd", "FastAPI", "Celery", "asyncpg",
    "PgBouncer", "cron",
]  # fmt: skip


def options() -> set[str]:
    """Of all commands, and of `@task`."""
    found = {each for action in parser()._actions for each in action.option_strings}  # noqa: SLF001
    for name in COMMANDS:
        made = command.get_command(click.Context(command), name)
        found |= {each for param in made.params for each in param.opts} if made else set()
    return {each for each in found if each.startswith("--")} | set(inspect.signature(chancy.task).parameters)


def unfound(index: Path) -> list[str]:
    """What the search would not find, in the index that the site has for it."""
    items = json.loads(index.read_text(encoding="utf-8"))["items"]
    text = "\n".join(f"{item['title']} {re.sub(r'<[^>]+>', ' ', item['text'])}" for item in items).lower()
    looked_for = [*LOOKED_FOR, *sorted(options())]
    return [word for word in looked_for if not re.search(rf"(?<![\w-]){re.escape(word.lower())}", text)]
