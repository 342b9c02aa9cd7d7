"""The screens of docs/guides/command-line.md are what the command shows.

With CHANCY_WRITE_SCREENS=1 they are written anew, from what it shows.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cli_help import ESCAPES

import chancy
from chancy.__about__ import __version__
from chancy.registry import registered
from chancy.tally.tally import bucket_of
from chancy_ops.cli import COMMANDS
from chancy_ops.terminal import screen

GUIDE = Path(__file__).parents[2] / "docs/guides/command-line.md"
SCREEN = re.compile(r"^```console\n\$ (chancy .*)\n((?:.*\n)*?)```$", re.MULTILINE)
NOW = datetime(2026, 11, 25, 18, 30, tzinfo=UTC)


@pytest.fixture
def shop(shell, tmp_path, monkeypatch, chancy_clock):
    """A shop on a busy evening, at half past six."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (code,) = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (folder / "__init__.py").touch()
    (folder / "tasks.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys.modules["chancy.registry"], "tasks", {})  # none of other tests
    tasks = importlib.import_module("shop.tasks")
    shell.conn.execute(f'ALTER TABLE "{shell.schema}".job ALTER id RESTART WITH 2901')
    chancy_clock.set(NOW - timedelta(hours=2))
    failed = shell.submit(*[tasks.welcome.bind(n) for n in range(1200)])
    chancy_clock.set(NOW - timedelta(minutes=40))
    shell.finish(*failed, kind="SMTPServerDisconnected", message="Connection unexpectedly closed")
    (running,) = shell.submit(tasks.invoice.bind(17))
    shell.submit(tasks.welcome.bind(18), tasks.welcome.using(run_at=NOW + timedelta(hours=12)).bind(19))
    chancy_clock.set(NOW - timedelta(seconds=42))
    shell.run(
        running,
        '{"fraction": 0.4, "note": "page 12 of 30"}',
        ["mail", "paper"],
        list(registered()),
    )
    chancy_clock.set(NOW)
    counted = [("mail", "shop.tasks.welcome", "succeeded", 4120), ("mail", "shop.tasks.welcome", "failed", 12)]
    for queue, task, outcome, jobs in [*counted, ("paper", "shop.invoice", "succeeded", 3)]:
        buckets = [bucket_of(seconds) for seconds in (0.02, 0.08, 1.5)]
        counts = [jobs - jobs // 4 - jobs // 40, jobs // 4, jobs // 40]
        shell.rows(
            "INSERT INTO {0}.tally (at, queue, task, outcome, jobs, wait_buckets, wait_counts, run_buckets, run_counts) "
            "VALUES ({0}.clock() - interval '4 min', %s, %s, %s, %s, %s, %s, %s, %s) RETURNING at",
            queue, task, outcome, jobs, buckets, counts, buckets, counts,
        )  # fmt: skip
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


def shape(text):
    """What stays the same from one run to the next."""
    return re.sub(r"\s+", " ", re.sub(r"[─━╸╺]+", "─", re.sub(r"\d+", "0", text))).strip()


def test_the_screens_are_what_the_command_shows(shell, shop, monkeypatch):
    # As on a terminal 120 columns wide, but in this process, as far as nothing is asked.
    monkeypatch.setattr(screen, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    guide = GUIDE.read_text(encoding="utf-8")
    seen = []
    welcome = registered()["shop.tasks.welcome"]

    def shown(match):
        line, before = match.groups()
        arguments = shlex.split(line)[1:]
        name = next(word for word in arguments if word in COMMANDS)
        if name == "schedules":
            nine = chancy.cron("0 9 * * 1-5", timezone="Europe/Prague")
            chancy.schedule(shell.conn, "greet", welcome.bind(1), nine, schema=shell.schema)
            shell.rows(
                "UPDATE {}.schedule SET next_at = '2026-11-26T08:00Z', last_at = '2026-11-25T08:00Z', last_job = 2900 RETURNING name"
            )
        if name == "requeue":
            answer = shell.terminal(*arguments, keys="y\n", columns=120, folder=shop)
        else:
            answer = shell(*arguments)
        text = ESCAPES.sub("", answer.out + answer.err).rstrip("\n").replace(shell.schema, "chancy")
        now = "".join(part.rpartition("\r")[2].rstrip() + "\n" for part in text.split("\n"))
        if name == "schedules":
            chancy.unschedule(shell.conn, "greet", schema=shell.schema)
        seen.append((line, shape(before), shape(now)))
        return f"```console\n$ {line}\n{now}```"

    written = SCREEN.sub(shown, guide)
    assert len(seen) > 10
    if os.environ.get("CHANCY_WRITE_SCREENS"):
        GUIDE.write_text(written, encoding="utf-8")
        return
    for line, before, now in seen:
        assert before == now, line


def test_the_screens_are_of_this_version():
    assert set(re.findall(r"web-1:77   (\d+\.\d+\.\d+)", GUIDE.read_text(encoding="utf-8"))) == {__version__}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_guide_names_every_command(name):
    assert re.search(rf"`(chancy )?{name}\b|\$ chancy {name}\b", GUIDE.read_text(encoding="utf-8"))


def test_the_guide_names_the_keys_of_a_job():
    guide = GUIDE.read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| a job \|.*$", guide, re.MULTILINE)
    names = {field.name for field in msgspec.structs.fields(chancy.JobRow)}
    assert names - set(re.findall(r"`(\w+)`", row)) == set()
