"""A graph on the command line."""

from __future__ import annotations

import json

import chancy
from chancy import result_of, task


@task(name="flow_screen.part")
def part(number: int) -> int:
    return number


@task(name="flow_screen.join")
def join(numbers: list[int]) -> int:
    return sum(numbers)


def a_graph(shell):
    one = join.bind([result_of(part.bind(n)) for n in range(3)])
    two = join.bind([result_of(one)])
    end, *_ = shell.submit(join.bind([result_of(two), result_of(one), result_of(part.bind(9))]))
    return end


def test_a_graph_is_a_tree_in_which_jobs_of_one_task_side_by_side_are_one_line(shell):
    end = a_graph(shell)
    one, two = sorted(chancy.get(shell.conn, end.id, schema=shell.schema).needs)[:2]
    said = shell("graph", str(end.id)).out
    lines = [line.rstrip() for line in said.splitlines()]
    assert lines[0] == f"{end.id}  flow_screen.join  blocked"
    assert "├─ 2 × flow_screen.join  2 blocked" in lines
    assert any("3 × flow_screen.part  3 ready" in line for line in lines) or any("4 ×" in line for line in lines)
    assert one != two


def test_a_graph_is_told_to_whoever_draws_it(shell):
    end = a_graph(shell)
    needs = chancy.get(shell.conn, end.id, schema=shell.schema).needs
    mermaid, dot = shell("graph", str(end.id), "--mermaid").out, shell("graph", str(end.id), "--dot").out
    for need in needs:
        assert f"    {need} --> {end.id}\n" in mermaid
        assert f"    {need} -> {end.id};\n" in dot
    told = json.loads(shell("--json", "graph", str(end.id)).out)
    assert (told["root"], told["complete"], len(told["nodes"])) == (end.id, True, 7)


def test_a_graph_of_a_job_that_there_is_not_is_code_1(shell):
    assert shell("graph", "987654321").code == 1
