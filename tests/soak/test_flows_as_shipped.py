"""Graphs at scale, with workers that die: every result is the one that is computed beside, and no job is left behind."""

from __future__ import annotations

import random
import time

import flow_graphs
import pytest
from test_flow_graphs import compare, perform
from worker_help import states

pytestmark = [pytest.mark.patience, pytest.mark.timeout(600)]


@pytest.mark.parametrize("seed", [7, 11, 12])
async def test_20_graphs_of_500_nodes_come_out_right_while_25_workers_are_killed(site, tmp_path, say, seed):
    path = str(tmp_path / "ran")
    (tmp_path / "ran").touch()
    chance = random.Random(seed)
    graphs = [flow_graphs.graph(path, 1000 * n, 500, chance) for n in range(20)]

    def spawn():
        where = ["--dsn", site.dsn, "--schema", site.schema, "--queue", "default=20"]
        return site.run("-m", "chancy_worker", "flow_graphs", *where)

    workers = [spawn() for _ in range(3)]
    await site.started(*workers)
    start = time.monotonic()
    jobs = await perform(site, path, graphs, 25, workers, spawn, 500)
    doomed = sum(node.state != "succeeded" for nodes in graphs for node in nodes)
    say(f"seed {seed}: 10,000 nodes in {time.monotonic() - start:.0f} s, {doomed} without a result, {states(site)}")
    compare(site, path, graphs, jobs)
