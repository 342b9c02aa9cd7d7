"""How large the house may be, and that a capability has one noun: so that growth is a decision.

Lines of code are those without blanks, comments, docstrings and SQL. What breaks a budget becomes a wing; what breaks
that, a package. Nobody shortens code for it: an exception has its reason here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from rooms import FOLDERS, ROOT, rooms_of

ROOT_OF_CORE, WING, ROOM, LIST = 1_900, 800, 260, 1_200

LARGER_ROOMS = {
    "chancy/arguments/codec": (280, "a signature, and all that is refused of it, each refusal with its way out"),
    "chancy/task": (275, "what can be done with a task, each with its types for sync and async"),
    "chancy_ops/reasons/why": (320, "a list of reasons, each with its sentence, that are asked in this order"),
    "chancy_testing/server/postgres": (290, "the life of one server, which no other room has a part in"),
    "chancy_worker/child/child": (300, "the life of one process: what it reads decides what it does next"),
    "chancy_worker/children/pool": (300, "places, starts and ends of children change together"),
}
"""More than a room's lines: how many, and why."""
LARGER_WINGS = {
    "chancy_worker/claims": (
        830,
        "forms of one statement, of the same pieces: a reader needs the plain one, and perhaps another",
    ),
    "chancy_ops/command": (1_400, "a file a command: a reader needs one of them"),
    "chancy_ops/web": (
        2_300,
        "a file a page, and one for what its buttons do: a reader needs the application and one of them",
    ),
    "chancy_testing/in_memory": (
        1_150,
        "a file a capability, told once more: a reader needs the store and one of them",
    ),
}


def test_a_room_is_read_in_ten_minutes():
    rooms = {f"{room.package}/{room.path}": room for package in FOLDERS for room in rooms_of(package)}
    assert len(rooms) > 300
    larger = {name: (room.lines, LARGER_ROOMS.get(name, (ROOM, ""))) for name, room in rooms.items()}
    assert {name: (lines, most, why) for name, (lines, (most, why)) in larger.items() if lines > most} == {}


def test_an_exception_is_one():
    rooms = {f"{room.package}/{room.path}": room for package in FOLDERS for room in rooms_of(package)}
    assert [name for name in LARGER_ROOMS if rooms[name].lines <= ROOM] == []


def wings():
    return sorted({f"{p}/{room.unit}" for p in FOLDERS for room in rooms_of(p) if "/" in room.path})


@pytest.mark.parametrize("wing", wings())
def test_a_wing_is_read_in_an_hour(wing):
    package, name = wing.split("/")
    most, why = LARGER_WINGS.get(wing, (WING, ""))
    assert sum(room.lines for room in rooms_of(package) if room.path.startswith(f"{name}/")) <= most, why


def test_the_root_of_core_is_read_in_an_afternoon():
    assert sum(room.lines for room in rooms_of("chancy") if "/" not in room.path) <= ROOT_OF_CORE


PAGE = (ROOT / "docs/how-it-works/read-the-code.md").read_text(encoding="utf-8")
LISTS = {
    title: re.findall(r"^\d+\. \*\*`([\w/]+)\.py`\*\*", text, re.MULTILINE)
    for title, text in re.findall(r"^## (Core|The worker)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}


@pytest.mark.parametrize(("title", "package"), [("Core", "chancy"), ("The worker", "chancy_worker")])
def test_a_reading_list_is_read_in_one_sitting(title, package):
    rooms = {f"{package}/{room.path}": room for room in rooms_of(package)}
    assert len(LISTS[title]) >= 5
    assert set(LISTS[title]) <= set(rooms)
    assert sum(rooms[path].lines for path in LISTS[title]) <= LIST


CAPABILITIES = ["audit", "batch", "flow", "gate", "retention", "schedule", "step", "tally", "unique"]
PLACES = {
    "SQL": "packages/chancy-core/src/chancy/sql/*{noun}*.sql",
    "core": "packages/chancy-core/src/chancy/**/{noun}*.py",
    "worker": "packages/chancy-worker/src/chancy_worker/**/{noun}*.py",
    "memory": "packages/chancy-testing/src/chancy_testing/in_memory/{noun}*.py",
    "command": "packages/chancy-ops/src/chancy_ops/command/{noun}*.py",
    "tests": "tests/*/test_{noun}*.py",
    "conformance": "tests/conformance/{noun}*.py",
    "guide": "docs/guides/*{noun}*.md",
}
WITHOUT = {
    ("audit", "SQL"): "a table in its step, and no function",
    ("audit", "core"): "what a person does is an affair of chancy-ops alone",
    ("audit", "worker"): "its rows go when their time is over, in parts/retention",
    ("audit", "memory"): "nobody is on call in memory",
    ("audit", "conformance"): "as in memory",
    ("unique", "worker"): "the row keeps its key: no worker looks after it",
    ("unique", "command"): "`chancy job` shows the key, and `chancy submit` says what it did",
    ("gate", "command"): "`chancy queues`, `chancy why`; a queue's is set by `chancy limit`",
    ("gate", "guide"): "limits-and-turns.md, in the words of who looks for it",
    ("retention", "command"): "set by code, in `Queue(keep=…)` or `chancy_ops.keep`",
    ("tally", "memory"): "no worker works in memory",
    ("tally", "conformance"): "as in memory",
    ("tally", "guide"): "monitoring.md, in the words of who looks for it",
    ("retention", "conformance"): "in memory nothing goes before the test is over",
}
"""Where a capability has no file of its noun, and why."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("noun", CAPABILITIES)
def test_a_capability_has_one_noun_wherever_it_is(noun, place):
    there = list(ROOT.glob(PLACES[place].format(noun=noun)))
    assert bool(there) != ((noun, place) in WITHOUT), WITHOUT.get((noun, place))
