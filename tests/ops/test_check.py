"""What a deploy of a module would break."""

from __future__ import annotations

import itertools
import sys
from datetime import timedelta

import pytest

import chancy
from chancy.schedules import recurrence
from chancy.task import task

ROOM = sys.modules["chancy.registry"]

numbers = itertools.count()


@pytest.fixture
def code(tmp_path, monkeypatch):
    """Write a module, which is then all the code that there is."""
    monkeypatch.setattr(ROOM, "tasks", {})
    monkeypatch.chdir(tmp_path)

    def write(text):
        ROOM.tasks.clear()
        name = f"deploy_{next(numbers)}"
        header = "from __future__ import annotations\nfrom chancy import task\n"
        (tmp_path / f"{name}.py").write_text(header + text)
        return name

    yield write
    for name in [name for name in sys.modules if name.startswith("deploy_")]:
        del sys.modules[name]


def old(shell, text="order: int", name="shop.ship", **options):
    """Submit a job of a task as the code had it before."""
    made = {}
    exec(f"def ship({text}) -> None: ...", made)
    before = task(name=name)(made["ship"])
    ROOM.tasks.clear()
    object.__setattr__(before, "refusal", None)
    return lambda *args, **kwargs: shell.submit(before.using(**options).bind(*args, **kwargs))[0]


KNOWN = "@task(name='shop.ship')\ndef ship(order: int) -> None: ...\n"


def test_code_that_can_perform_all_that_waits_is_fine(shell, code):
    submit = old(shell)
    for n in range(3):
        submit(n)
    shell.run(submit(3))
    old(shell, delay=timedelta(hours=1))(4)
    answer = shell("check", code(KNOWN))
    assert answer.code == 0
    assert answer.lines[1] == ["shop.ship", "ok", "3", "ready,", "1", "scheduled,", "1", "running"]


def test_a_name_that_the_code_does_not_know_is_told_with_how_many_wait(shell, code):
    old(shell, name="shop.send")(1)
    old(shell, name="shop.send", delay=timedelta(hours=1))(2)
    module = code(KNOWN)
    answer = shell("check", module)
    assert answer.code == 1
    assert answer.lines[1][:2] == ["shop.send", "error"]
    assert (
        "1 ready, 1 scheduled: the code has no task of this name; give its successor aliases=['shop.send']"
        in answer.out
    )
    assert answer.lines[2] == ["shop.ship", "ok", "nothing", "waits"]
    told = shell("check", module, "--json").document
    assert told["fine"] is False
    assert told["tasks"][0]["task"] == "shop.send"
    assert (told["tasks"][0]["known"], told["tasks"][0]["ready"], told["tasks"][0]["scheduled"]) == (False, 1, 1)


def test_a_task_that_was_renamed_with_an_alias_is_fine(shell, code):
    old(shell, name="shop.send")(1)
    answer = shell("check", code("@task(name='shop.ship', aliases=['shop.send'])\ndef ship(order: int) -> None: ...\n"))
    assert answer.code == 0
    assert ["shop.send", "ok", "1", "ready"] in answer.lines


def test_arguments_that_do_not_fit_the_new_signature_are_told_with_an_example(shell, code):
    submit = old(shell, "order: int | str")
    fits, first, second = submit(1), submit("seven"), submit("eight")
    answer = shell("check", module := code(KNOWN))
    assert answer.code == 1
    assert (
        f"3 ready; of 3 read 2 do not fit: job {first}: argument 'order' of task shop.ship: "
        "Expected `int`, got `str`" in answer.out
    )
    (told,) = shell("check", module, "--json").document["tasks"]
    assert (told["read"], told["broken"], told["example"]) == (3, 2, first)
    assert fits < first < second


@pytest.mark.parametrize(
    ("before", "arguments", "now", "problem"),
    [
        ("order: int", [1], "order: int, express: bool", "Object missing required field `express`"),
        ("order: int, express: bool", [1, True], "order: int", "Object contains unknown field `express`"),
        ("order: int", [1], "number: int", "Object contains unknown field `order`"),
        ("order: int", [1], "order: int, express: bool = False", None),
    ],
)
def test_signatures_that_changed(shell, code, before, arguments, now, problem):
    old(shell, before)(*arguments)
    answer = shell("check", code(f"@task(name='shop.ship')\ndef ship({now}) -> None: ...\n"))
    assert answer.code == (1 if problem else 0)
    assert (problem or "ok") in answer.out


def test_so_many_arguments_are_read_of_each_task_as_was_asked_for(shell, code):
    submit, other = old(shell, "order: int | str"), old(shell, name="shop.pack")
    for _ in range(600):
        submit(1)
    broken = submit("x")
    other(1)
    both = KNOWN + "@task(name='shop.pack')\ndef pack(order: int) -> None: ...\n"
    answer = shell("check", module := code(both), "--limit", 600)
    assert answer.code == 0
    assert "601 ready; the first 600 were read" in answer.out
    told = {each["task"]: each for each in shell("check", module, "--limit", 600, "--json").document["tasks"]}
    assert (told["shop.ship"]["read"], told["shop.pack"]["read"]) == (600, 1)
    answer = shell("check", module, "--limit", 601)
    assert answer.code == 1
    assert f"job {broken}:" in answer.out


def test_several_modules_are_one_code(shell, code, tmp_path):
    old(shell)(1)
    old(shell, name="shop.pack")(1)
    (tmp_path / "deploy_more.py").write_text(
        "import chancy\n@chancy.task(name='shop.pack')\ndef p(order: int) -> None: ...\n"
    )
    module = code(KNOWN)
    assert shell("check", module).code == 1
    assert shell("check", module, "deploy_more").code == 0


def test_a_module_without_tasks_and_one_that_there_is_not_are_refused(shell, code):
    answer = shell("check", code(""))
    assert answer.code == 2
    assert "has no task; decorate a function with @chancy.task" in answer.err
    answer = shell("check", "no_such_module")
    assert answer.code == 2
    assert "there is no module 'no_such_module' here" in answer.err


def test_schedules_that_the_code_does_not_know_or_cannot_perform_are_told(shell, code):
    for name, text in (("shop.ship", "order: int | str"), ("shop.gone", "order: int")):
        made = {}
        exec(f"def ship({text}) -> None: ...", made)
        made_task = task(name=name)(made["ship"])
        object.__setattr__(made_task, "refusal", None)
        argument = "seven" if "str" in text else 7
        when = chancy.every(minutes=5)
        chancy.schedule(shell.conn, f"nightly {name}", made_task.bind(argument), when, schema=shell.schema)
    answer = shell("check", code(KNOWN))
    assert answer.code == 1
    assert "schedule nightly shop.gone: the code has no task of this name" in answer.out
    assert "schedule nightly shop.ship: schedule nightly shop.ship: argument 'order'" in answer.out


def test_a_cron_expression_that_was_made_where_nothing_reads_one_is_told(shell, code, monkeypatch):
    made = {"__name__": "shop"}
    exec("def ship(order: int) -> None: ...", made)
    job = task(name="shop.ship")(made["ship"]).bind(1)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(recurrence, "cronsim", lambda: None)
        chancy.schedule(shell.conn, "hourly", job, chancy.cron("61 * * * *"), schema=shell.schema)
    answer = shell("check", code(KNOWN))
    assert answer.code == 1
    assert "schedule hourly: expression: cron expression '61 * * * *': bad minute" in " ".join(answer.out.split())


def test_a_model_that_has_changed_is_told_by_the_job_that_does_not_fit(shell, code):
    old(shell, "order: dict")({"id": 1, "note": "x"})
    header = "from pydantic import BaseModel\nclass Order(BaseModel):\n    id: int\n"
    task = "@task(name='shop.ship')\ndef ship(order: Order) -> None: ...\n"
    assert shell("check", code(header + task)).code == 0
    answer = shell("check", code(header + "    total: int\n" + task))
    assert answer.code != 0
    assert "1 do not fit" in " ".join(answer.out.split())
    assert "Field required, at order.total" in " ".join(answer.out.split())
