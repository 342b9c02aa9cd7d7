"""Many jobs at once, and some by their ids."""

from __future__ import annotations

import json
import re

import pytest

import chancy_ops


@pytest.fixture
def failed(shell, tasks):
    """1,200 failed jobs of the queue mail, 30 cancelled, and one that waits."""
    jobs = shell.submit(*[tasks.welcome.bind(n) for n in range(1231)])
    shell.finish(*jobs[:1200])
    shell.finish(*jobs[1200:1230], state="cancelled")
    return jobs


def states(shell):
    return dict(shell.rows("SELECT state::text, count(*) FROM {}.any_job GROUP BY 1"))


def test_a_bulk_requeue_on_a_terminal_counts_asks_and_shows_how_far_it_is(shell, failed):
    answer = shell.terminal("requeue", "--queue", "mail", "--state", "failed", keys="y\n")
    assert answer.code == 0, answer.out
    assert answer.out.startswith("1,200 failed\nRequeue 1,200 jobs? [y/N]: y\n")
    assert "requeue ━" in answer.out
    assert "1200/1200" in answer.out
    assert answer.out.endswith("requeued 1,200 jobs\n")
    assert states(shell) == {"ready": 1201, "cancelled": 30}


@pytest.mark.parametrize("keys", ["n\n", "\n"])
def test_nothing_is_changed_unless_the_answer_is_yes(shell, failed, keys):
    answer = shell.terminal("delete", "--queue", "mail", keys=keys)
    assert answer.code == 1
    assert answer.out.startswith("1 ready, 1,200 failed, 30 cancelled\nDelete 1,231 jobs? [y/N]:")
    assert answer.out.endswith("chancy: nothing was changed\n")
    assert sum(states(shell).values()) == 1231


def test_ctrl_c_at_the_question_changes_nothing(shell, failed):
    answer = shell.terminal("delete", "--queue", "mail", keys="\x03")
    assert answer.code == 130
    assert answer.out.endswith("chancy: stopped\n")
    assert sum(states(shell).values()) == 1231


@pytest.mark.parametrize(
    ("verb", "listed"),
    [
        (["requeue", "--state", "failed"], "1,200 failed"),
        (["requeue", "--fingerprint", "5ade1fb7c0d3"], "1,200 failed"),
        (["cancel", "--queue", "mail"], "1 ready"),
        (["delete", "--task", "shop_tasks.welcome"], "1 ready, 1,200 failed, 30 cancelled"),
    ],
)
def test_in_a_pipe_it_is_refused_without_yes(shell, failed, verb, listed):
    answer = shell(*verb)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        f"chancy: {listed}: this is no terminal on which one could be asked; give --yes to {verb[0]} them\n"
    )
    assert states(shell) == {"failed": 1200, "cancelled": 30, "ready": 1}


def test_with_yes_it_goes_through_in_a_pipe_without_a_bar(shell, failed):
    answer = shell("requeue", "--state", "failed", "--attempts", 1, "--yes")
    assert (answer.code, answer.out, answer.err) == (0, "requeued 1,200 jobs\n", "")
    assert shell("cancel", "--queue", "mail", "--yes", "--json").document == {
        "counted": {"ready": 1201}, "more": [], "changed": 1201, "left": 0
    }  # fmt: skip
    assert shell("delete", "--state", "cancelled", "--yes").out == "deleted 1,231 jobs\n"
    assert states(shell) == {}


def test_jobs_that_could_not_be_changed_are_counted(shell, tasks):
    (first,) = shell.submit(tasks.invoice.bind(7))
    shell.finish(first)
    shell.submit(tasks.invoice.bind(7))
    answer = shell("requeue", "--state", "failed", "--yes")
    assert (answer.code, answer.out) == (0, "requeued 0 jobs, 1 left as they were\n")


def test_a_filter_that_no_job_fits_is_done(shell):
    for said in (["cancel", "--queue", "none"], ["requeue", "--state", "failed"], ["delete", "--error", "E"]):
        answer = shell(*said)
        assert (answer.code, answer.out, answer.err) == (0, "no job fits\n", "")


def test_jobs_are_chosen_by_error_and_age(shell, tasks, chancy_clock):
    jobs = shell.submit(*[tasks.welcome.bind(n) for n in range(3)])
    now = chancy_clock.now()
    chancy_clock.set(now.replace(microsecond=0))
    shell.finish(jobs[0], kind="TimeLimitExceeded")
    chancy_clock.move(chancy_days(2))
    shell.finish(jobs[1], kind="TimeLimitExceeded")
    shell.finish(jobs[2])
    by = ["--state", "failed", "--error", "TimeLimitExceeded"]

    def counted(*more):
        return json.loads(shell("requeue", *by, *more, "--yes", "--json").out)["counted"]

    assert counted("--until", "3d") == {}
    assert counted("--since", "1h", "--until", f"{now.year + 2}-01-01T00:00Z") == {"failed": 1}
    assert counted("--since", "3d") == {"failed": 1}
    assert shell.row(jobs[2]).state == "failed"


def test_what_a_deploy_broke_is_seen_in_a_line_and_requeued_by_one_command(shell, tasks):
    jobs = shell.submit(*[tasks.welcome.bind(n) for n in range(6)])
    shell.finish(*jobs[:3], kind="KeyError", message='no "total" \\', fingerprint="aa00aa00aa00")
    shell.finish(jobs[3], kind="KeyError", state="discarded", fingerprint="aa00aa00aa00")
    shell.finish(jobs[4], kind="KeyError", state="cancelled", fingerprint="aa00aa00aa00")
    shell.finish(jobs[5], kind="OSError", message="é" * 3000, fingerprint="bb11bb11bb11")
    many, one = shell("failures", "--json").document["failures"]
    assert (many["fingerprint"], many["count"], many["tasks"]) == ("aa00aa00aa00", 4, ["shop_tasks.welcome"])
    assert (one["kind"], one["count"], {*one["message"]}) == ("OSError", 1, {"é"})
    (line, *_) = [line for line in shell("failures").out.splitlines() if "aa00aa00aa00" in line]
    assert "KeyError: no" in line
    assert shell("failures", "--since", "1h", "--task", "another").out.count("\n") == 1
    answer = shell("requeue", "--fingerprint", "aa00aa00aa00", "--yes", "--json")
    assert answer.document == {"counted": {"failed": 3, "discarded": 1}, "more": [], "changed": 4, "left": 0}
    assert states(shell) == {"ready": 4, "cancelled": 1, "failed": 1}
    assert shell("cancel", "--fingerprint", "aa00aa00aa00", "--yes").out == "cancelled 4 jobs\n"
    assert shell("delete", "--fingerprint", "bb11bb11bb11", "--yes").out == "deleted 1 job\n"


def chancy_days(days):
    from datetime import timedelta

    return timedelta(days=days)


def test_jobs_by_their_ids_are_told_one_by_one(shell, tasks):
    ready, running, finished = shell.submit(*[tasks.welcome.bind(n) for n in range(3)])
    shell.run(running)
    shell.finish(finished)
    answer = shell("delete", running)
    assert (answer.code, answer.out) == (1, f"job {running}: left alone: it runs: cancel it first\n")
    answer = shell("requeue", ready)
    assert (answer.code, answer.out) == (1, f"job {ready}: left alone: it is not finished\n")
    answer = shell("cancel", ready, running, finished, 404)
    assert answer.code == 1
    assert answer.out.startswith(
        f"job {ready}: cancelled\njob {running}: asked to stop\njob {finished}: left alone: it is finished already\n"
        "job 404: job 404 is not in schema"
    )
    answer = shell("requeue", ready, finished, "--json")
    assert answer.code == 0
    assert answer.document == {
        "jobs": [{"id": ready, "done": True, "message": "requeued"}, {"id": finished, "done": True, "message": "requeued"}]
    }  # fmt: skip
    assert shell.row(finished).max_attempts == 1 + 5  # what its task declares


def test_a_requeue_whose_key_another_job_has_names_it(shell, tasks):
    (first,) = shell.submit(tasks.invoice.bind(7))
    shell.finish(first)
    (second,) = shell.submit(tasks.invoice.bind(7))
    answer = shell("requeue", first)
    assert answer.code == 1
    assert re.search(rf"job {first}: the unique key .* belongs to job {second}", answer.out)


def test_a_sweep_that_is_interrupted_says_how_far_it_came(shell, failed, monkeypatch):
    def interrupted(conn, planned, *, told, **_):
        told(500)
        raise KeyboardInterrupt

    monkeypatch.setattr(chancy_ops, "sweep", interrupted)
    answer = shell("delete", "--queue", "mail", "--yes")
    assert (answer.code, answer.out) == (130, "")
    assert answer.err == "chancy: stopped after 500 of 1,231 jobs; those stay deleted\n"
