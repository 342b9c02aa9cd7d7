"""A graph on the command line."""

from __future__ import annotations

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
