"""A graph on the command line."""

from __future__ import annotations

from typing import Any

from chancy import Outcome, outcome_of, result_of, task


@task(name="flow_screen.part")
def part(number: int) -> int:
    return number


@task(name="flow_screen.join")
def join(numbers: list[int]) -> int:
    return sum(numbers)


def a_graph(shell):
    one = join.bind([result_of(part.bind(n)) for n in range(3)])
    two = join.bind([result_of(one)])
    (end,) = shell.submit(join.bind([result_of(two), result_of(one), result_of(part.bind(9))]))
    return end


def test_a_graph_is_a_tree_in_which_jobs_of_one_task_side_by_side_are_one_line(shell):
    end = a_graph(shell)
    lines = shell("graph", end).out.splitlines()
    assert lines[0] == f"{end}  flow_screen.join  blocked"
    assert lines[1] == "├─ 2 x flow_screen.join  2 blocked"
    assert lines[2].startswith("│  ├─ ")
    assert lines[2].endswith("  flow_screen.join  above")
    assert lines[3] == "│  └─ 3 x flow_screen.part  3 ready"
    assert lines[4].endswith("  flow_screen.part  ready")
    assert len(lines) == 5


def test_a_graph_is_told_to_whoever_draws_it(shell):
    end = a_graph(shell)
    needs = shell.row(end).needs
    mermaid, dot = shell("graph", end, "--mermaid").out, shell("graph", end, "--dot").out
    for need in needs:
        assert f"    {need} --> {end}\n" in mermaid
        assert f"    {need} -> {end};\n" in dot
    told = shell("--json", "graph", end).document
    assert (told["root"], told["complete"], len(told["nodes"])) == (end, True, 7)


def test_a_graph_of_a_job_that_there_is_not_is_code_1(shell):
    assert shell("graph", 987654321).code == 1


@task(name="flow_screen.told", queue="mail")
def told(parts: dict[str, Any], outcome: Outcome[int], pieces: list[str]) -> None: ...


def test_where_an_argument_comes_from_that_is_not_known_yet(shell):
    first, second = part.bind(1), part.bind(2)
    job, one, two = shell.submit(
        told.bind({"a": result_of(first), "b": [7, result_of(second)]}, outcome_of(first), pieces=["x"]), first, second
    )
    text = shell("job", job).out
    assert f'"a": from job {one}\'s result,' in text
    assert f"from job {two}'s result\n" in text
    assert f'"outcome": from job {one}\'s outcome' in text
    assert shell("--json", "job", job).document["arguments"] == {
        "parts": {"a": {"result_of": one}, "b": [7, {"result_of": two}]},
        "outcome": {"outcome_of": one},
        "pieces": ["x"],
    }
    (row,) = shell("--json", "jobs", "--state", "blocked").document["jobs"]
    assert row["arguments"]["pieces"] == ["x"]


def test_arguments_that_look_like_those_of_a_blocked_job_are_shown_as_they_are(shell):
    (job,) = shell.submit(looks_like_one.bind(["{", "}"]))
    assert shell("--json", "job", job).document["arguments"] == {"pieces": ["{", "}"]}


@task(name="flow_screen.looks_like_one")
def looks_like_one(pieces: list[str]) -> None: ...


def test_queues_count_what_is_blocked(shell):
    need = part.bind(1)
    shell.submit(need, *[told.bind({}, outcome_of(need), pieces=[]) for _ in range(3)])
    titles, *lines = shell("queues").lines
    blocked = {line[0]: line[titles.index("BLOCKED")] for line in lines}
    assert blocked == {"default": "0", "mail": "3"}
    default, mail = shell("--json", "queues").document["queues"]
    assert (default["name"], default["blocked"], mail["blocked"], mail["more"]) == ("default", 0, 3, [])
