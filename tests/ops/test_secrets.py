"""Nobody who looks is shown a secret, whether the task's code is here or not."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import msgspec
import pytest

import chancy
import chancy_ops
from chancy import Secret, State, task
from chancy.registry import registered
from chancy_ops import JobFilter
from chancy_worker.parts.declarations import declare

PASSWORD = "correct horse"


class Login(msgspec.Struct):
    user: str
    password: Annotated[str, Secret()]


@task(queue="mail", name="shop.log_in")
def log_in(password: Annotated[str, Secret()], login: Login, note: str = "") -> Annotated[str, Secret()]:
    return password


@pytest.fixture(autouse=True)
def here(chancy_schema):
    chancy.configure(schema=chancy_schema)
    yield
    chancy.configure(schema=None)


@pytest.fixture(params=["here", "declared", "both"])
def job(request, shell, monkeypatch):
    """A job with secrets, of a task whose code is here, or which a worker has declared."""
    (job_id,) = shell.submit(log_in.bind(PASSWORD, Login("ann", PASSWORD), "a note"))
    shell.finish(job_id, state="succeeded")
    shell.rows("UPDATE {}.history SET result = to_json(%s::text) RETURNING id", PASSWORD)
    if request.param != "here":
        statement = declare([log_in])
        from chancy.run import perform

        perform(shell.conn, statement, shell.schema)
    if request.param == "declared":
        without = {name: known for name, known in registered().items() if known is not log_in}
        monkeypatch.setattr(sys.modules["chancy.registry"], "tasks", without)
    return job_id


def test_commands_show_what_is_no_secret(shell, job):
    chancy.schedule(shell.conn, "nightly", log_in.bind(PASSWORD, Login("ann", PASSWORD)), chancy.every(hours=25))
    for line in (["job", job], ["jobs"]):
        out = shell(*line).out
        assert "log_in" in out
        assert PASSWORD not in out
    assert '"user": "ann"' in shell("job", job).out
    seen = {"password": "[secret]", "login": {"user": "ann", "password": "[secret]"}, "note": "a note"}
    assert shell("job", job, "--json").document["arguments"] == seen
    assert shell("job", job, "--json").document["result"] == "[secret]"
    assert shell("jobs", "--json").document["jobs"][0]["arguments"] == seen
    assert PASSWORD not in shell("schedules", "--json").out


def test_lines_show_what_is_no_secret(shell, job):
    (line,) = chancy_ops.search(shell.conn)
    assert json.loads(line.arguments)["login"] == {"user": "ann", "password": "[secret]"}


def test_a_search_for_words_does_not_find_a_secret_or_what_is_beside_it(shell, job, tasks):
    (other,) = shell.submit(tasks.welcome.bind(1, greeting=PASSWORD))
    for words in (PASSWORD, PASSWORD[:3], "a note", "ann"):
        found = chancy_ops.search(shell.conn, words=words)
        assert [line.id for line in found] == ([other] if words in PASSWORD else [])
    assert [line.id for line in chancy_ops.search(shell.conn, JobFilter(state=State.SUCCEEDED))] == [job]


def test_of_large_arguments_with_a_secret_nothing_is_in_a_line(shell, job):
    (large,) = shell.submit(log_in.bind(PASSWORD, Login("ann", PASSWORD), "".join(map(str, range(5000)))))
    line = next(line for line in chancy_ops.search(shell.conn) if line.id == large)
    assert line.arguments in (None, '"[secret]"')
    assert "4999" in shell("job", large).out


def test_what_an_application_hides_besides_is_asked_of_its_function(shell, tasks):
    (job_id,) = shell.submit(tasks.welcome.bind(1, greeting="hello"))
    shell.finish(job_id, message="of hello")
    asked = []

    def redact(part, name, value):
        asked.append((part, name))
        if part == "arguments":
            return value | {"greeting": "…"}
        return value.replace("hello", "…")

    hiding = chancy_ops.hiding(shell.conn, ["shop_tasks.welcome"], redact=redact)
    row = hiding.job(chancy.get(shell.conn, job_id))
    assert json.loads(row.arguments) == {"user_id": 1, "greeting": "…"}
    assert row.errors[0].message == "of …"
    assert hiding.words("log", row.task, "say hello") == "say …"
    assert hiding.result(row.task, None) is None
    assert {part for part, _ in asked} == {"arguments", "error", "log"}


def test_what_could_not_be_hidden_is_not_shown(shell, tasks):
    (job_id,) = shell.submit(tasks.welcome.bind(1))
    hiding = chancy_ops.hiding(shell.conn, ["shop_tasks.welcome"], redact=lambda part, name, value: 1 / 0)
    assert hiding.job(chancy.get(shell.conn, job_id)).arguments == b'"[secret]"'
    assert hiding.words("log", "shop_tasks.welcome", "hello") == "[secret]"
    with pytest.raises(chancy.InvalidOption):
        chancy_ops.hiding(shell.conn, [], redact="x")


def test_a_secret_that_is_typed_wrongly_is_not_repeated(shell, tmp_path, monkeypatch):
    (tmp_path / "pins.py").write_text(
        "from typing import Annotated\nfrom chancy import Secret, task\n"
        "@task\ndef enter(pin: Annotated[int, Secret()], other: int = 0) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    answer = shell("submit", "pins:enter", "pin=x4711")
    assert answer.code == 2
    assert "4711" not in answer.err
    assert "(got 'x4711')" in shell("submit", "pins:enter", "pin=1", "other=x4711").err


def test_declared_once_more_without_its_secrets_it_has_none(shell, job):
    from chancy.run import perform

    perform(shell.conn, declare([log_in]), shell.schema)
    assert shell.rows("SELECT secrets::text FROM {}.task") == [
        ('{"arguments":[["login","password"],["password"]],"result":[[]]}',)
    ]

    @task(name="shop.other")
    def other(password: str) -> None: ...

    perform(shell.conn, declare([other]), shell.schema)
    assert shell.rows("SELECT secrets::text FROM {}.task WHERE name = 'shop.other'") == [(None,)]
