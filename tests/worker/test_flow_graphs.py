"""Random graphs on workers that are killed: every result is the one that is computed beside, and nothing is left."""

from __future__ import annotations

import asyncio
import random
import signal
import time

import flow_graphs
import pytest
from worker_help import eventually

import chancy


async def perform(site, path, graphs, kills, workers, spawn, within):
    """Submit each graph in one call and kill workers until all is over; the handles by the nodes' numbers."""
    jobs = {}
    for nodes in graphs:
        made = chancy.submit_many(site.conn, [node.job for node in nodes], schema=site.schema)
        jobs |= {node.number: job for node, job in zip(nodes, made, strict=True)}
    deadline, chance = time.monotonic() + within, random.Random(1)
    while kills:
        await asyncio.sleep(chance.uniform(0.2, 0.6))
        if not site.one("SELECT EXISTS (SELECT FROM {}.job)"):
            break
        victim = chance.choice([worker for worker in workers if worker.code is None])
        victim.signal(signal.SIGKILL)
        workers.append(spawn())
        kills -= 1
    await eventually(lambda: not site.one("SELECT EXISTS (SELECT FROM {}.job)"), deadline - time.monotonic())
    return jobs


def compare(site, path, graphs, jobs):
    """Of each node what became of it, and that no edge is left but those of the doomed."""
    found = site.rows("SELECT id, state::text, result #>> '{{}}' FROM {}.history")
    rows = {id_: (state, result) for id_, state, result in found}
    wrong = [
        (node, rows[jobs[node.number].id])
        for nodes in graphs
        for node in nodes
        if rows[jobs[node.number].id] != (node.state, node.result)
    ]
    assert wrong == []
    assert site.one("SELECT count(*) FROM {}.need WHERE doomed_at IS NULL") == 0
    assert [flow_graphs.began_before_their_needs(path, nodes) for nodes in graphs] == [[]] * len(graphs)


@pytest.mark.long
async def test_a_random_graph_is_right_whoever_is_killed(site, tmp_path):
    path = str(tmp_path / "ran")
    (tmp_path / "ran").touch()
    graphs = [flow_graphs.graph(path, 1000 * n, 60, random.Random(n)) for n in range(2)]
    workers = [site.spawn() for _ in range(2)]
    await site.started(*workers)
    jobs = await perform(site, path, graphs, 2, workers, site.spawn, 60)
    compare(site, path, graphs, jobs)
