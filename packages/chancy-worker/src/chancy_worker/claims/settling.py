"""What became of verdicts whose row a round did not find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chancy.model import Statement
from chancy.wires.literals import of_numbers, of_texts
from chancy_worker.attempts.verdict import Claimed, Completion

SETTLE = """
    SELECT sent.id, sent.fence,
        CASE
            WHEN job.state = 'running' THEN CASE WHEN job.worker = sent.lease THEN 'busy' ELSE 'lost' END
            WHEN job.state = 'blocked' OR past.becomes IS NOT NULL THEN 'became'
            WHEN job.id IS NOT NULL THEN 'done'
            WHEN past.worker <> sent.lease THEN 'lost'
            WHEN past.state = 'succeeded' AND sent.state <> 'succeeded' THEN 'completed'
            WHEN past.id IS NOT NULL THEN 'done'
            WHEN EXISTS (SELECT FROM {schema}.retention WHERE days = 0)
                AND (SELECT rule.days FROM {schema}.retention AS rule
                     WHERE rule.queue = sent.queue AND rule.days = 0 AND rule.what <> 'results' LIMIT 1) IS NOT NULL
                AND (SELECT job.id FROM {schema}.job AS job WHERE job.id = sent.id LIMIT 1) IS NULL
                AND (SELECT past.id FROM {schema}.history AS past WHERE past.id = sent.id LIMIT 1) IS NULL THEN 'done'
            ELSE 'lost'
        END
    FROM unnest(
        %(ids)s::bigint[], %(fences)s::integer[], %(leases)s::bigint[], %(states)s::text[], %(queues)s::text[]
    ) AS sent (id, fence, lease, state, queue)
    LEFT JOIN LATERAL (
        SELECT id, state, worker FROM {schema}.job AS job WHERE job.id = sent.id AND job.claims = sent.fence LIMIT 1
    ) AS job ON true
    LEFT JOIN LATERAL (
        SELECT id, state, worker, becomes FROM {schema}.history AS past
        WHERE past.id = sent.id AND past.claims = sent.fence
        LIMIT 1
    ) AS past ON true
"""


def settle(
    under: int, verdicts: Sequence[Completion], held: Mapping[tuple[int, int], Claimed]
) -> Statement[dict[tuple[int, int], str]]:
    """What became of verdicts, by (id, fence); `held` knows the queues and leases of their jobs, and of one that it
    does not know the lease is `under`.

    'done'; 'busy' (still ours, the row was locked); 'completed' (as succeeded, by the handler's own transaction);
    'became' (it waits for another one, or has waited, by the same); 'lost' (another claim has it). A job that is
    nowhere any more is done if its queue has ends that leave no row: a lost job that has ended so since is told as
    done, too.
    """
    jobs = [held.get((v.id, v.fence)) for v in verdicts]
    params = {
        "ids": of_numbers(v.id for v in verdicts),
        "fences": of_numbers(v.fence for v in verdicts),
        "leases": of_numbers(under if job is None else job.lease for job in jobs),
        "states": of_texts(v.state.value for v in verdicts),
        "queues": of_texts(None if job is None else job.queue for job in jobs),
    }
    return Statement(SETTLE, params, lambda rows: {(id_, fence): fate for id_, fence, fate in rows})
