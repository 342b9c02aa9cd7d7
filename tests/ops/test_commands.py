"""What each command answers: a table, a document, a code."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

import chancy
import chancy_ops
from chancy import Limit
from chancy.__about__ import __version__
from chancy.migrations.migrate import newest, steps
from chancy_ops.cli import COMMANDS, main


def test_the_list_of_commands_needs_none_of_them():
    code = "import sys; from chancy_ops.cli import main; main(['--help']); print('psycopg' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in run.stdout for name in COMMANDS)
    assert run.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_each_command_the_beginning_of_what_it_says_itself(name, shell):
    answer = shell(name, "--help")
    assert answer.code == 0
    words = COMMANDS[name][1].rstrip(".").split()
    assert " ".join(answer.out.split()).find(" ".join(words)) > 0
    assert "--json" in answer.out


@pytest.mark.parametrize("name", COMMANDS)
def test_names_of_commands_and_rooms_agree(name):
    room = importlib.import_module(f"chancy_ops.command.{COMMANDS[name][0]}")
    assert getattr(room, name.replace("-", "_")).name == name


def test_without_a_command_it_says_which_there_are(capsys):
    assert main([]) == 2
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["nothing"], "No such command 'nothing'; see chancy --help"),
        (["jobs", "--nothing"], "No such option '--nothing'"),
        (["job", "x"], "Invalid value for 'ID': 'x' is not a valid integer; see chancy job --help"),
        (["jobs", "--state", "lost"], "Invalid value for '--state': 'lost' is not one of"),
        (["limit", "mail", "many"], "expected a number or none, got 'many'; see chancy limit --help"),
        (["limit", "mail"], "Missing argument 'N|none'; see chancy limit --help"),
        (["pause"], "name one: QUEUE, --task or --schedule; see chancy pause --help"),
        (["pause", "mail", "--task", "x"], "name one: QUEUE, --task or --schedule"),
        (["resume"], "name one: QUEUE, --task or --schedule"),
        (["pause", "mail", "--for", "soon"], "expected how long, as 90s, 10m, 2h, 3d or 1w, got 'soon'"),
        (["pause", "mail", "--until", "2026-11-25T18:00"], "is another instant in each time zone: add Z, or +01:00"),
        (["pause", "mail", "--until", "2026-11-25T18:00Z", "--for", "2h"], "give either --until or --for"),
        (["edit", "7"], "say what to change: --priority, --run-at or --delay"),
        (["edit", "7", "--priority", "101"], "expected -100 to 100, got 101"),
        (["edit", "7", "--delay", "9999999w"], "is more than a hundred years"),
        (["cancel"], "say which jobs: either their ids, or --queue"),
        (["cancel", "7", "--queue", "mail"], "say which jobs: either their ids, or --queue"),
        (["cancel", "--state", "failed"], "jobs that are failed cannot be cancelled: --state is one of blocked, ready, scheduled"),
        (["requeue", "--queue", "mail"], "say which finished jobs: --state failed, discarded, cancelled or succeeded"),
        (["delete", "--state", "running"], "jobs that are running cannot be deleted"),
        (["cancel", "--since", "yesterday"], "expected an instant as 2026-11-25T18:00Z, got 'yesterday'"),
        (["requeue", "7", "--attempts", "0"], "0 is not in the range"),
        (["migrate", "--print", "--check"], "give one of them"),
        (["migrate", "--after", "3"], "--after belongs to --print"),
        (["--schema", "a b", "jobs"], "'a b' cannot be the name of Chancy's schema"),
        (["top"], "this is no terminal; --once prints one frame"),
    ],
)  # fmt: skip
def test_bad_usage_is_one_line_and_code_2(shell, said, message):
    answer = shell(*said)
    assert answer.code == 2
    assert answer.out == ""
    assert message in answer.err
    assert answer.err.startswith("chancy: ")
    assert answer.err.count("\n") == 1


def test_jobs_are_listed_newest_first_and_by_pages(shell, tasks):
    first, second, third = shell.submit(*[tasks.welcome.bind(n) for n in range(3)])
    shell.finish(first, message="the server\nsaid no")
    shell.finish(second, state="succeeded")
    answer = shell("jobs")
    assert answer.code == 0
    assert answer.lines[0] == ["ID", "TASK", "QUEUE", "STATE", "ATTEMPT", "PRIORITY", "WHEN", "NOTE"]
    assert [line[0] for line in answer.lines[1:]] == [str(third), str(second), str(first)]
    assert answer.lines[3][1:6] == ["shop_tasks.welcome", "mail", "failed", "1/5", "0"]
    assert answer.out.splitlines()[3].endswith("ValueError: the server said no")
    assert [line[0] for line in shell("jobs", "--limit", 1, "--before", third).lines[1:]] == [str(second)]
    assert [line[0] for line in shell("jobs", "--state", "failed", "--queue", "mail").lines[1:]] == [str(first)]
    assert shell("jobs", "--task", "other").lines[1:] == []
    (found,) = shell("jobs", "--state", "failed", "--json").document["jobs"]
    assert found["id"] == first
    assert found["arguments"] == {"user_id": 0}
    assert found["errors"][0]["message"] == "the server\nsaid no"
    assert datetime.fromisoformat(found["finished_at"]).utcoffset() == timedelta(0)


def test_a_job_is_told_with_all_that_is_known(shell, tasks):
    (job,) = shell.submit(tasks.welcome.bind(7, copies=[1, 2]))
    shell.run(job, '{"fraction": 0.25, "note": "a quarter"}')
    answer = shell("job", job)
    assert answer.code == 0
    for fact in ("task          shop_tasks.welcome", "state         running", "attempt       1 of 5", "25% a quarter"):
        assert fact in answer.out
    assert '  "user_id": 7,' in answer.out
    shell.rows("UPDATE {}.job SET state = 'ready', worker = NULL RETURNING id")
    shell.finish(job)
    answer = shell("job", job)
    assert "attempt 1 failed on web-1:77\n  Traceback (most recent call last):\n" in answer.out
    assert "ago" in answer.out
    told = shell("job", job, "--json").document
    assert told["state"] == "failed"
    assert told["arguments"]["copies"] == [1, 2]
    assert "logs" in told


def test_what_travels_beside_a_job_is_told(shell, tasks):
    (job,) = shell.submit(msgspec.structs.replace(tasks.welcome.bind(7), meta=b'{"tenant":"acme"}'))
    assert 'meta\n  {\n    "tenant": "acme"\n  }\n' in shell("job", job).out
    assert shell("job", job, "--json").document["meta"] == {"tenant": "acme"}


def test_a_job_that_there_is_not_is_code_1(shell):
    for said in (["job", 404], ["edit", 404, "--priority", 1], ["cancel", 404], ["requeue", 404], ["delete", 404]):
        answer = shell(*said)
        assert answer.code == 1, said
        assert "job 404 is not in schema" in answer.out + answer.err


def test_what_a_job_says_cannot_command_a_terminal(shell, tasks):
    (job,) = shell.submit(tasks.welcome.bind(7, greeting="\x1b[2J\x9b31m\x07 \u202e"))
    shell.finish(job, message="\x1b]0;owned\x07")
    for said in (["jobs"], ["job", job]):
        for answer in (shell(*said), shell.terminal(*said)):
            assert answer.code == 0
            assert not set(answer.out) & set("\x1b\x9b\x07\u202e")
            assert "\\x1b]0;owned\\x07" in answer.out


def test_queues_are_told_with_what_waits_and_what_holds_them_up(shell, tasks):
    shell.submit(tasks.welcome.bind(1), tasks.welcome.using(delay=timedelta(hours=1)).bind(2))
    assert shell("pause", "mail").out == "queue mail is paused until it is resumed\n"
    assert shell("limit", "mail", 5).out == "queue mail runs at most 5 at a time\n"
    answer = shell("queues")
    assert answer.lines[0][:5] == ["QUEUE", "READY", "WAITING", "SCHEDULED", "BLOCKED"]
    assert answer.lines[1][:8] == ["mail", "1", "0", "1", "0", "0", "0", "5"]
    assert answer.out.splitlines()[1].endswith("until resumed")
    (told,) = shell("queues", "--json").document["queues"]
    assert (told["name"], told["ready"], told["scheduled"], told["limit"]) == ("mail", 1, 1, 5)
    assert told["paused_until"].startswith("9999-12-31T")
    assert shell("resume", "mail").out == "queue mail goes on\n"
    assert shell("resume", "mail").out == "queue mail was not paused\n"
    assert shell("limit", "mail", "none").out == "queue mail has no limit\n"
    assert shell("queues", "--json").document["queues"][0]["paused_until"] is None


def test_a_name_that_nobody_knows_is_done_as_it_says_and_warned_of(shell, tasks):
    strange = [
        ("pause", "nosuch"), ("limit", "nosuch", 3), ("resume", "nosuch"), ("pause", "--task", "shop_tasks.nosuch"),
        ("resume", "--task", "shop_tasks.nosuch"), ("resume", "--schedule", "nosuch"),
    ]  # fmt: skip
    for said in strange:
        answer = shell(*said)
        assert answer.code == 0
        assert answer.err.startswith("chancy: is ")
        assert "nosuch misspelt? " in answer.err
        assert "nosuch" in answer.out
    assert shell("pause", "--schedule", "nosuch").code == 1


def test_a_name_that_somebody_knows_is_not_warned_of(shell, tasks):
    held = tasks.welcome.using(limits=[Limit.concurrency(1)], queue="held").bind(1)
    later = tasks.welcome.using(delay=timedelta(hours=1), queue="later").bind(1)
    (job, *_) = shell.submit(tasks.welcome.bind(1), held, later)
    shell.run(job, queues=["mail", "taken"])
    for queue in ("mail", "held", "later", "taken"):
        assert shell("pause", queue).err == ""
    assert shell("pause", "--task", "shop_tasks.welcome").err == ""


def test_a_pause_has_an_end_by_the_databases_clock(shell, chancy_clock):
    chancy_clock.set(datetime(2026, 3, 1, 12, tzinfo=UTC))
    answer = shell("pause", "--task", "shop_tasks.welcome", "--for", "1h30m")
    assert answer.out == "task shop_tasks.welcome is paused until 2026-03-01 13:30:00Z\n"
    told = shell("pause", "mail", "--until", "2026-03-02T00:00+01:00", "--json").document
    assert (told["queue"], told["paused"]) == ("mail", True)
    assert datetime.fromisoformat(told["until"]) == datetime(2026, 3, 1, 23, tzinfo=UTC)
    assert [until for (until,) in shell.rows("SELECT until FROM {}.pause ORDER BY kind")] == [
        datetime(2026, 3, 1, 23, tzinfo=UTC),
        datetime(2026, 3, 1, 13, 30, tzinfo=UTC),
    ]


def test_workers_are_told(shell, tasks):
    (job,) = shell.submit(tasks.welcome.bind(1))
    worker = shell.run(job)
    answer = shell("workers")
    assert answer.lines[0][:4] == ["ID", "WORKER", "VERSION", "RUNNING"]
    assert answer.lines[1][:4] == [str(worker), "web-1:77", __version__, "1"]
    assert "+0.004 s" in answer.out
    assert " 336 MiB " in answer.out
    (told,) = shell("workers", "--json").document["workers"]
    assert (told["name"], told["running"], told["queues"], told["clock_ahead"]) == ("web-1:77", 1, ["mail"], 0.004)
    assert (told["memory"], told["memory_of_children"]) == (96 * 1024**2, 240 * 1024**2)
    assert datetime.fromisoformat(told["memory_at"]) > datetime.fromisoformat(told["started_at"]) - timedelta(seconds=9)
    shell.rows("UPDATE {}.worker SET memory = NULL, memory_of_children = NULL, memory_at = NULL RETURNING 1")
    assert "MiB" not in shell("workers").out


def test_a_job_that_waits_is_edited_and_another_is_left_alone(shell, tasks, chancy_clock):
    chancy_clock.set(datetime(2026, 3, 1, 12, tzinfo=UTC))
    (job,) = shell.submit(tasks.welcome.bind(1))
    answer = shell("edit", job, "--priority", 9, "--delay", "10m")
    assert (answer.code, answer.out) == (0, f"job {job} has priority 9 and is due at 2026-03-01 12:10:00Z\n")
    assert shell("edit", job, "--run-at", "2026-03-01T11:00Z", "--json").document == {
        "id": job, "done": True, "state": "ready", "priority": 9, "run_at": "2026-03-01T11:00:00Z"
    }  # fmt: skip
    shell.run(job)
    answer = shell("edit", job, "--priority", 0)
    assert answer.code == 1
    assert answer.out == f"job {job} is running and was left alone: only jobs that wait can be edited\n"


def test_migrate_brings_a_schema_up_to_date_and_says_before_what_is_missing(shell, tmp_path):
    schema = f"{shell.schema}_cli"
    names = [step.name for step in steps()]
    try:
        assert shell("migrate", "--check", schema=schema).code == 1
        assert shell("migrate", "--check", "--json", schema=schema).document == {"schema": schema, "missing": names}
        assert shell.rows("SELECT to_regnamespace(%s)", schema) == [(None,)]
        answer = shell("migrate", schema=schema)
        assert (answer.code, answer.out) == (0, f"schema {schema}: applied {', '.join(names)}\n")
        assert shell("migrate", schema=schema).out == f"schema {schema}: is up to date\n"
        answer = shell("migrate", "--check", schema=schema)
        assert (answer.code, answer.out) == (0, f"schema {schema}: is up to date\n")
    finally:
        shell.conn.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')


def test_migrations_are_printed_without_a_database(shell):
    printed = shell("migrate", "--print", dsn="host=127.0.0.1 port=1")
    assert (printed.code, printed.err) == (0, "")
    assert 'CREATE SCHEMA "' in printed.out
    assert f"'{steps()[0].name}'" in printed.out
    later = shell("migrate", "--print", "--after", newest(), dsn="host=127.0.0.1 port=1").out
    assert "CREATE" not in later


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_asks_the_command(shell, name):
    answer = shell("completion", name)
    assert answer.code == 0
    assert "_CHANCY_COMPLETE" in answer.out


MAIN = "from chancy_ops.cli import main; main()"


def test_a_shell_that_completes_is_told_names_and_options():
    def completed(words, number):
        env = os.environ | {"_CHANCY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        run = subprocess.run([sys.executable, "-c", MAIN], env=env, capture_output=True, text=True, check=False)
        return run.stdout.split()

    assert completed("chancy que", 1) == ["plain,queues"]
    assert completed("chancy jobs --st", 2) == ["plain,--state"]
    assert set(completed("chancy ", 1)) == {f"plain,{name}" for name in COMMANDS}


def test_the_version_is_that_of_the_package(shell):
    from chancy_ops.__about__ import __version__

    answer = shell("--version")
    assert (answer.code, answer.out) == (0, f"chancy, version {__version__}\n")


def test_a_pipe_that_is_closed_early_is_no_error(shell, tasks):
    shell.submit(*[tasks.welcome.bind(n, greeting="x" * 500) for n in range(500)])
    line = f"'{sys.executable}' -m chancy_ops --dsn '{shell.dsn}' --schema {shell.schema} jobs --limit 500 --json"
    run = subprocess.run(f"{line} | head -c 1; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash",
                         capture_output=True, text=True, check=False)  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr) == (0, "{", "")


def test_what_an_encoding_lacks_is_escaped(shell, tasks):
    (job,) = shell.submit(tasks.welcome.bind(1, greeting="ť"))
    env = os.environ | {"PYTHONIOENCODING": "latin-1", "CHANCY_DSN": shell.dsn, "CHANCY_SCHEMA": shell.schema}
    command = [sys.executable, "-m", "chancy_ops", "job", str(job)]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "\\u0165" in run.stdout


@pytest.mark.parametrize("said", [["jobs"], ["queues"], ["workers"], ["top", "--once"]], ids=" ".join)
def test_a_terminal_gets_colours_and_a_pipe_none(shell, tasks, said):
    (job,) = shell.submit(tasks.welcome.bind(1))
    shell.run(job)
    on_terminal = shell.terminal(*said)
    assert on_terminal.code == 0
    in_pipe = shell(*said)
    assert "\x1b" not in in_pipe.out
    names = {
        word for word in in_pipe.out.split() if (word.isalpha() and word.isupper()) or word.startswith("shop_tasks")
    }
    assert names - set(on_terminal.out.split()) == set()
    assert "─" in on_terminal.out
    assert "─" not in in_pipe.out


def test_the_site_can_be_said_before_the_command_and_after_it(shell, tasks):
    shell.submit(tasks.welcome.bind(1))
    before = shell("--json", "queues").document
    after = shell(
        "queues", "--dsn", shell.dsn, "--schema", shell.schema, "--json", dsn="host=127.0.0.1 port=1"
    ).document
    assert [row["ready"] for row in before["queues"]] == [row["ready"] for row in after["queues"]] == [1]


def test_the_dsn_comes_from_the_environment(shell, monkeypatch, capsys):
    monkeypatch.setenv("CHANCY_DSN", shell.dsn)
    assert main(["queues", "--schema", shell.schema]) == 0
    assert "QUEUE" in capsys.readouterr().out


def test_a_defect_keeps_its_traceback(shell, monkeypatch):
    def broken(*_, **__):
        raise TypeError("a defect")

    monkeypatch.setattr(chancy_ops, "search", broken)
    with pytest.raises(TypeError, match="a defect"):
        shell("jobs")


# What other parts of the issue bring.


def test_why_is_a_sentence(shell, tasks):
    (job,) = shell.submit(tasks.welcome.using(delay=timedelta(hours=1)).bind(1))
    answer = shell("why", job)
    assert answer.code == 0
    assert "scheduled" in answer.out
    told = shell("why", job, "--json").document
    assert told["reason"] == "scheduled"
    assert told["until"]
    assert shell("why", 404).code == 1


def test_doctor_ends_with_1_for_what_it_finds_and_if_asked_for_errors_only(shell, tasks, monkeypatch):
    (finding, *_) = chancy_ops.doctor(shell.conn, schema=shell.schema)
    kind = type(finding)
    for severity, code, lenient in (("ok", 0, 0), ("warning", 1, 0), ("error", 1, 1)):
        found = [kind(check="queues", severity=severity, message="mail waits", remedy="start a worker")]
        monkeypatch.setattr(chancy_ops, "doctor", lambda *_, found=found, **__: found)
        answer = shell("doctor")
        assert answer.code == code
        assert answer.lines[1][:2] == ["queues", severity]
        assert shell("doctor", "--errors-only").code == lenient
        told = {"check": "queues", "severity": severity, "message": "mail waits", "remedy": "start a worker"}
        assert shell("doctor", "--json").document == {"findings": [told]}


def test_schedules_are_told_run_paused_and_resumed(shell, tasks):
    every = chancy.every(minutes=5)
    chancy.schedule(shell.conn, "greet", tasks.welcome.bind(1), every, schema=shell.schema)
    answer = shell("schedules")
    assert answer.code == 0
    assert answer.lines[1][:2] == ["greet", "shop_tasks.welcome"]
    (told,) = shell("schedules", "--json").document["schedules"]
    assert (told["name"], told["declared"], told["arguments"]["user_id"]) == ("greet", False, 1)
    assert shell("run-now", "greet").code == 0
    answer = shell("run-now", "other")
    assert answer.code == 1
    assert "other" in answer.err
    if "schedule" in inspect.signature(chancy_ops.pause).parameters:
        assert shell("pause", "--schedule", "greet", "--for", "2h").code == 0
        assert shell("schedules", "--json").document["schedules"][0]["paused_until"]
        assert shell("run-now", "greet").code == 1
        assert shell("resume", "--schedule", "greet").code == 0


def test_a_batch_is_told_by_what_has_become_of_its_jobs(shell, tasks):
    with chancy.batch(shell.conn, schema=shell.schema) as batch:
        batch.submit(tasks.welcome.bind(1))
    answer = shell("batch", batch.id)
    assert answer.code == 0
    assert answer.lines[1][:3] == [str(batch.id), "1", "1"]
    assert shell("batch", batch.id, "--json").document["total"] == 1


def test_a_job_is_told_with_its_logs(shell, tasks):
    (job,) = shell.submit(tasks.welcome.bind(1))
    entry = '{"level":"INFO","logger":"shop","message":"one \\u0000 line"}'
    shell.rows(
        "INSERT INTO {0}.log (job, attempt, n, at, entry) VALUES (%s, 1, 1, {0}.clock(), %s) RETURNING n", job, entry
    )
    assert "INFO     shop: one \\x00 line" in shell("job", job).out
    assert shell("job", job, "--json").document["logs"][0]["logger"] == "shop"


DEEP = """SELECT {}.submit('shop_tasks.welcome', ('{{"user_id":' || repeat('[', 3000) || repeat(']', 3000) || '}}')::json)"""


def test_arguments_nested_a_thousand_deep_are_shown(shell, tasks):
    ((job,),) = shell.rows(DEEP)
    assert "[" * 3000 in shell("job", job).out
    assert shell("jobs").code == 0
    assert "[" * 3000 in shell("--json", "jobs").out
    assert shell("check", "shop_tasks").code == 1


def test_arguments_nested_too_deeply_for_a_task_that_the_code_knows_are_told_by_check(shell, tasks):
    shell.submit(tasks.everything.bind(1, "a"))
    nested = f'{{"number":1,"text":"","anything":{"[" * 3000 + "]" * 3000}}}'
    shell.rows("UPDATE {}.job SET arguments = %s::text::json RETURNING id", nested)
    answer = shell("check", "shop_tasks")
    assert (answer.code, answer.err) == (1, "")
    assert "RecursionError" in " ".join(answer.out.split())


def test_json_commands_no_terminal(shell, tasks):
    (job,) = shell.submit(tasks.welcome.bind(7))
    shell.finish(job, message="\x9b31m \u202e \U000e0001")
    answer = shell("--json", "job", job)
    assert not {"\x9b", "\u202e", "\U000e0001"} & set(answer.out)
    assert answer.document["errors"][0]["message"] == "\x9b31m \u202e \U000e0001"


@pytest.mark.parametrize(
    "line",
    [
        ["pause", "mail", "--until", "0001-01-01T00:00+14:00"],
        ["pause", "mail", "--until", "9999-12-31T23:59-14:00"],
        ["top", "--every", "1e400", "--once"],
        ["top", "--every", "nan", "--once"],
        ["jobs", "--limit", "99999999999999999999"],
        ["job", "99999999999999999999"],
        ["jobs", "--before", "99999999999999999999"],
        ["cancel", "99999999999999999999"],
        ["limit", "mail", "99999999999"],
        ["edit", "7", "--priority", "101"],
        ["edit", "7", "--run-at", "0001-01-01T00:00+14:00"],
    ],
    ids=" ".join,
)
def test_an_odd_number_or_date_is_refused_and_changes_nothing(shell, tasks, line):
    answer = shell(*line)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer
    assert "Postgres says" not in answer.err
    assert shell.rows("SELECT count(*) FROM {}.pause") == [(0,)]


@pytest.mark.parametrize("text", ["x = = 1", "import nowhere_to_be_found", "1 / 0", "def f(:\n  pass"])
def test_a_module_that_cannot_be_imported_is_told_with_its_file_and_line(shell, tmp_path, monkeypatch, text):
    (tmp_path / "broken_inside.py").write_text(f"\n{text}\n", encoding="utf-8")
    (tmp_path / "broken_module.py").write_text("import broken_inside\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    answer = shell("check", "broken_module")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert f"({tmp_path / 'broken_inside.py'}, line 2)" in answer.err
