"""The house: which room may know which, and who may touch what."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from rooms import FOLDERS, PACKAGES, SOURCES, rooms_of

ORDER = {
    "chancy": """
        errors states tally
        options schema modules
        wires model carried arguments history
        registry run statements
        flows
        verb keys verbs steps current logs migrations
        results job schedules
        task batches
        app __main__ __init__
    """,
    "chancy_worker": """
        config memory forks init words fingerprint mistakes versions
        attempts connection logs
        tally slots claims held child doorbell
        children threads life parts demand rounds metrics
        lifespan places engine
        supervision reloading worker processes
        cli __main__ __init__
    """,
    "chancy_ops": """
        auditing redaction forms pauses queue matching counting jobs graphs fingerprints searching overview sweeping tally
        batch_list declared flow deploy
        reasons places diagnosis __init__ terminal development web command cli __main__
    """,
    "chancy_testing": "attempts clock server stand_ins in_memory faults asserts beside draining background plugin __init__",
    "chancy_django": """
        settings database tasks
        steps project
        after_migrate checks models admin apps
        migrations child reloading management testing pytest_plugin __init__
    """,
    "chancy_otel": "telemetry carried submits attempts instrumenting __init__",
}
"""The rooms at the root of each package and its wings, from below: each imports only what stands before it."""

PURE = {
    "chancy": """
        errors options/phrases states tally/tally registry schema wires/literals wires/wire model options/limits options/outcomes options/plain options/retry
        options/spelling
        carried/arrival carried/flaws carried/models carried/secrets arguments/codec arguments/functions
        arguments/words history/moving history/retention history/rules
        keys/gates keys/key keys/statements keys/unique schedules/recurrence statements batches/values
    """,
    "chancy_worker": """
        attempts/verdict claims/answer claims/forms claims/parked claims/pieces claims/portions claims/settling
        claims/statement claims/wanted doorbell/line held/holdings held/leases held/returns
        demand/appetite demand/marks demand/pace rounds/doubts slots/room tally/tally metrics/numbers words fingerprint
    """,
}
LOOPS = {
    "chancy_worker": """
        rounds/claimer doorbell/bell life/heart life/rescue
        parts/batches parts/reports parts/retention parts/schedules parts/tally
    """
}
STOREYS = {
    "chancy": {"chancy_worker", "chancy_testing", "chancy_ops", "chancy_django", "chancy_otel"},
    "chancy_worker": {"chancy_testing", "chancy_ops", "chancy_django", "chancy_otel"},
    "chancy_ops": {"chancy_worker", "chancy_testing", "chancy_django", "chancy_otel"},
    "chancy_testing": {"chancy_ops", "chancy_django", "chancy_otel"},
    "chancy_django": {"chancy_otel"},
    "chancy_otel": {"chancy_worker", "chancy_testing", "chancy_ops", "chancy_django"},
}
"""What a package never imports. In memory the verbs of chancy-ops are answered by the names of their statements."""
VALUES = {"batches": set(), "schedules": {"schedules/recurrence"}, "steps": {"steps/stepwise"}}
"""What the trunk of core may know of these wings."""


@pytest.mark.parametrize("package", ORDER)
def test_every_room_has_its_place_in_the_order(package):
    assert {room.unit for room in rooms_of(package)} == set(ORDER[package].split())


@pytest.mark.parametrize("package", ORDER)
def test_a_room_imports_only_what_stands_before_it(package):
    order = ORDER[package].split()
    wrong = {
        (room.path, other)
        for room in rooms_of(package)
        for other in room.rooms
        if other.split("/")[0] != room.unit and order.index(other.split("/")[0]) > order.index(room.unit)
    }
    assert wrong == set()


@pytest.mark.parametrize("package", ORDER)
def test_no_room_imports_itself_by_way_of_others(package):
    left = {room.path: room.rooms for room in rooms_of(package)}
    while free := [path for path, others in left.items() if not others & set(left)]:
        for path in free:
            del left[path]
    assert left == {}


def test_the_trunk_of_core_knows_no_more_of_a_capability_than_its_values():
    trunk = [room for room in rooms_of("chancy") if "/" not in room.path and room.path != "__init__"]
    for wing, values in VALUES.items():
        known = {other for room in trunk for other in room.rooms if other.startswith(f"{wing}/")}
        assert known <= values, wing


@pytest.mark.parametrize(("package", "path"), [(package, path) for package in PURE for path in PURE[package].split()])
def test_a_pure_room_imports_neither_asyncio_nor_psycopg(package, path):
    (room,) = [room for room in rooms_of(package) if room.path == path]
    assert not {name.split(".")[0] for name in room.imports} & {"asyncio", "psycopg", "threading"}
    if package == "chancy":
        assert room.rooms <= set(PURE[package].split())


@pytest.mark.parametrize("package", STOREYS)
def test_a_package_never_imports_one_that_stands_on_it(package):
    for room in rooms_of(package):
        assert not {name.split(".")[0] for name in room.imports} & STOREYS[package], room.path


def test_a_project_of_django_needs_chancy_testing_for_its_tests_alone():
    knowing = [
        room.path for room in rooms_of("chancy_django") if any(n.startswith("chancy_testing") for n in room.imports)
    ]
    assert knowing == ["testing"]


def test_telemetry_asks_for_the_api_of_opentelemetry_and_no_sdk():
    project = tomllib.loads((PACKAGES / "chancy-otel/pyproject.toml").read_text())["project"]
    asked = [re.split(r"[^\w-]", each)[0] for each in project["dependencies"]]
    assert asked == ["chancy-core", "opentelemetry-api"]
    known = {name for room in rooms_of("chancy_otel") for name in room.imports if name.startswith("opentelemetry")}
    assert not {name for name in known if name.startswith(("opentelemetry.sdk", "opentelemetry.semconv"))}
    for package in FOLDERS:
        if package != "chancy_otel":
            assert not [r.path for r in rooms_of(package) if any(n.startswith("opentelemetry") for n in r.imports)]


def test_core_asks_for_psycopg_msgspec_and_typing_extensions_and_nothing_else():
    project = tomllib.loads((PACKAGES / "chancy-core/pyproject.toml").read_text())["project"]
    asked = [re.split(r"[^\w-]", each)[0] for each in project["dependencies"]]
    assert asked == ["msgspec", "psycopg", "typing-extensions"]
    loaded = (
        "import chancy, sys; print(*(name for name in ('cronsim', 'pydantic', 'sqlalchemy') if name in sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout
    assert said.strip() == ""


def test_a_process_that_only_submits_loads_neither_the_app_nor_batches_nor_migrations(tmp_path):
    submits = tmp_path / "submits.py"
    submits.write_text("""
import sys
import chancy
__name__ = "shop"  # a task is in a module

@chancy.task
def noted(n: int) -> None: ...

noted.bind(1).sql()
unused = ("chancy.app", "chancy.batches", "chancy.migrations", "chancy.history.retention")
print(*(name for name in sys.modules if name.startswith(unused)))
print(chancy.Chancy.__name__, chancy.batch.__name__, chancy.migrate.__name__, set(chancy.__all__) <= set(dir(chancy)))
""")
    said = subprocess.run([sys.executable, submits], check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == ["", "Chancy batch migrate True"]


def test_the_workers_loops_do_not_import_each_other():
    loops = set(LOOPS["chancy_worker"].split())
    rooms = {room.path: room for room in rooms_of("chancy_worker")}
    allowed = {("life/heart", "life/rescue")}
    assert {(path, other) for path in loops for other in rooms[path].rooms & loops} <= allowed


def test_only_wires_touch_a_cursor_in_core():
    touching = {
        "cursor",
        "execute",
        "executemany",
        "fetchone",
        "fetchall",
        "fetchmany",
        "copy",
        "exec_driver_sql",
        "Cursor",
        "AsyncCursor",
    }
    found = {
        room.path
        for room in rooms_of("chancy")
        for node in ast.walk(ast.parse(room.file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in touching
    }
    assert found == {f"wires/{stack}" for stack in ("asyncpg", "django", "psycopg", "psycopg2", "sqlalchemy")}


SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|ALTER|DROP|NOTIFY|LISTEN|SET)\s+\S")


def test_no_f_string_holds_sql():
    found = [
        (file, node)
        for file in SOURCES
        if "chancy_testing" not in file.relative_to(PACKAGES).parts
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.JoinedStr)
    ]
    assert len(found) > 100
    texts = {
        f"{file}:{node.lineno}": "".join(part.value if isinstance(part, ast.Constant) else "x" for part in node.values)
        for file, node in found
    }
    assert {place: text for place, text in texts.items() if SQL.search(text)} == {}


def test_every_name_in_all_exists():
    packages = [importlib.import_module(name) for name in FOLDERS]
    for package in packages:
        names = getattr(package, "__all__", [])
        assert sorted(set(names)) == sorted(names)
        assert [name for name in names if not hasattr(package, name)] == []
    assert packages[0].__all__
