"""Pages whose code is a program of its own: docs/guides/embedding.md, django.md, and the login of dashboard.md."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from snippets import ROOT, snippets

GUIDES = ROOT / "docs/guides"


@pytest.fixture
def env(chancy_dsn, chancy_schema):
    return os.environ | {"CHANCY_DSN": chancy_dsn, "CHANCY_SCHEMA": chancy_schema}


def python(folder, env, code, *, timeout=60):
    (folder / "shown.py").write_text(code, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "shown.py"], cwd=folder, env=env, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_program_that_is_a_worker_works_until_it_is_told_to_stop(tmp_path, env):
    program = snippets(GUIDES / "embedding.md", "python")[0].text
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp/tasks.py").write_text(
        'import chancy\n\n@chancy.task(queue="mail")\ndef say(word: str) -> None:\n    print(word, flush=True)\n'
    )
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    submit = "import os, psycopg\nfrom myapp.tasks import say\nwith psycopg.connect(os.environ['CHANCY_DSN']) as conn:\n    say.submit(conn, 'done')\n"
    python(tmp_path, env, submit)
    worker = subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout.readline() == "done\n"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 0
    finally:
        worker.kill()
        worker.communicate()


def test_a_web_program_has_its_worker_beside_it(tmp_path, env):
    program = snippets(GUIDES / "embedding.md", "python")[1].text
    asked = "\nfrom fastapi.testclient import TestClient\n\nwith TestClient(web) as client:\n    print(client.get('/').status_code)\n"
    assert python(tmp_path, env, program + asked) == "404\n"


LOGIN = """

from fastapi.testclient import TestClient


def password_is_right(email, password):
    return password == "right"


with TestClient(app, base_url="https://testserver", follow_redirects=False) as client:
    print(client.get("/queue/").headers["location"])
    print(client.get("/login").status_code)
    wrong = client.post("/login", data={"email": "<ann>", "password": "wrong"})
    print("&lt;ann&gt;" in wrong.text, client.get("/queue/").status_code)
    print(client.post("/login", data={"email": "ann@example.com", "password": "right"}).headers["location"])
    print(client.get("/queue/").status_code)
"""


def test_who_logs_in_by_the_ten_lines_of_the_page_is_let_into_the_dashboard(tmp_path, env):
    mounted, login = [each.text for each in snippets(GUIDES / "dashboard.md", "python")[:2]]
    env |= {"DASHBOARD_DSN": env["CHANCY_DSN"], "SHOP_SECRET": "of a test"}
    mounted = mounted.replace("auth=who)", "auth=lambda request: user(request), schema=os.environ['CHANCY_SCHEMA'])")
    shown = python(tmp_path, env, mounted + login + LOGIN)
    assert shown.split("\n") == ["/login", "200", "True 303", "/queue/", "200", ""]


DJANGO = """
import sys
from datetime import timedelta
import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict
import os

at = conninfo_to_dict(os.environ["CHANCY_DSN"])
{settings}
DATABASE = {{"ENGINE": "django.db.backends.postgresql", "NAME": at["dbname"], "USER": at.get("user", ""),
    "PASSWORD": at.get("password", ""), "HOST": at["host"], "PORT": at.get("port", "")}}
CHANCY |= {{"SCHEMA": os.environ["CHANCY_SCHEMA"], "TASK_MODULES": []}}
known = {{"DATABASE", "SCHEMA", "QUEUES", "TASK_MODULES", "KEEP", "LIFESPAN", "MIDDLEWARE", "SURROUND", "PRELOAD",
         "TALLY"}}
assert CHANCY.keys() == known, CHANCY.keys() ^ known
for name in ("LIFESPAN", "MIDDLEWARE", "SURROUND"):
    del CHANCY[name]  # of a module of the reader's
INSTALLED_APPS = [app for app in INSTALLED_APPS if app is not ...]
settings.configure(DATABASES={{"default": DATABASE}}, CHANCY=CHANCY, TASKS=TASKS, INSTALLED_APPS=INSTALLED_APPS, USE_TZ=True)
if django.VERSION < (6,):
    import django_tasks
    sys.modules["django.tasks"] = django_tasks
django.setup()
Parcel = dict
customer = 7
{tasks}
print(sorted(chancy.registry.registered()))
"""


def test_the_snippets_of_the_page_about_django_are_what_django_takes(tmp_path, env):
    shown = [snippet.text for snippet in snippets(GUIDES / "django.md", "python")]
    installed, tasks, typed, place, names, tests = shown
    code = DJANGO.format(
        settings=installed + names,
        tasks="import chancy.registry\n" + tasks + typed.split("\njob = ")[0] + PLACE + place + tests,
    )
    assert "__main__.send_receipt" in python(tmp_path, env, code)


PLACE = """
from asgiref.sync import sync_to_async
from django.db import transaction
from django.test import TestCase
"""
