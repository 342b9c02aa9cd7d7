"""The example projects: their own tests pass, their types are right, and they do what their READMEs say."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import psycopg
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FASTAPI = EXAMPLES / "fastapi"

pytestmark = [pytest.mark.timeout(240), pytest.mark.long]


def run(*command, **settings):
    """What it said; it must succeed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | settings
    done = subprocess.run(
        [sys.executable, *command], cwd=FASTAPI, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tests_of_the_shop_on_fastapi_pass(chancy_dsn):
    written = (FASTAPI / "tests/test_shop.py").read_text(encoding="utf-8")
    said = run("-m", "pytest", "-p", "no:cacheprovider", "-q", CHANCY_TEST_DSN=chancy_dsn)
    passed = re.search(r"(\d+) passed", said)
    assert passed
    assert int(passed[1]) >= len(re.findall(r"^(?:async )?def test_", written, re.MULTILINE))
    assert "skipped" not in said


@pytest.mark.projects
def test_the_shop_on_fastapi_has_the_right_types(pytestconfig):
    cache = pytestconfig.cache.mkdir("types-fastapi")
    run("-m", "mypy", "--strict", f"--cache-dir={cache}", "shop", "tests")


@pytest.fixture
def database(chancy_dsn):
    """A database of the shop's own, as SQLAlchemy calls it."""
    name = f"shop_{os.getpid()}"
    with psycopg.connect(chancy_dsn, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
        place = conn.info
        where = urllib.parse.urlencode({"host": place.host, "port": place.port})
        user = urllib.parse.quote(place.user, safe="") + (
            f":{urllib.parse.quote(place.password, safe='')}" if place.password else ""
        )
        yield f"postgresql+asyncpg://{user}@/{name}?{where}"
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


def asked(port, path, given=None):
    """The answer as JSON; None while there is none."""
    data = None if given is None else json.dumps(given).encode()
    headers = {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers), timeout=30
        ) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        return {"status": error.code}
    except OSError:
        return None


def until(condition):
    deadline = time.monotonic() + 60
    while (value := condition()) is None:
        assert time.monotonic() < deadline, "it took longer than a minute"
        time.sleep(0.05)
    return value


def test_the_shop_on_fastapi_serves_as_its_readme_says(database, tmp_path):
    run("-m", "shop.database", SHOP_DATABASE=database)
    env = os.environ | {"SHOP_DATABASE": database}
    env.pop("CHANCY_SCHEMA", None)
    log = tmp_path / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "shop.web:web", "--port", "0"],
            cwd=FASTAPI, env=env, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        port = until(lambda: re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text()))[1]
        until(lambda: asked(port, "/jobs/1"))
        placed = asked(port, "/orders", {"article": "pen", "email": "ann@example.com"})
        done = until(lambda: ((seen := asked(port, f"/jobs/{placed['job']}"))["state"] == "succeeded" and seen) or None)
        assert json.loads(done["result"])["text"] == "Dear ann@example.com, pen is on its way"
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    finally:
        server.kill()
        server.wait()
        print(log.read_text())
    with psycopg.connect(database.replace("+asyncpg", "")) as conn:
        assert conn.execute("SELECT count(*) FROM chancy.worker").fetchone() == (0,)


GUIDE = EXAMPLES.parent / "docs" / "guides" / "fastapi.md"
COPIED = """
import builtins, dis, sys
from shop.web import NewOrder, Placed, web

def asked_for(code):
    for each in dis.get_instructions(code):
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield each.argval
    for inner in code.co_consts:
        if hasattr(inner, "co_code"):
            yield from asked_for(inner)

for text in sys.stdin.read().split("=====")[1:]:
    code, names = compile(text, "guide", "exec"), dict(NewOrder=NewOrder, Placed=Placed, web=web)
    exec(code, names)
    missing = set(asked_for(code)) - names.keys() - vars(builtins).keys()
    assert not missing, missing
"""


def test_the_guides_snippets_have_all_that_they_name_when_they_are_copied_into_the_shop():
    text = GUIDE.read_text(encoding="utf-8").partition("\n## Tests")[0]
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 4
    given = "".join(f"=====\n{snippet}" for snippet in snippets)
    done = subprocess.run(
        [sys.executable, "-c", COPIED],
        cwd=FASTAPI,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
