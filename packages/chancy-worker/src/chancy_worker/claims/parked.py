"""What a round is told about parked jobs: which circles to go, and behind which marks a limit flows."""

from __future__ import annotations

from typing import Any

from chancy.wires.literals import of_numbers, of_texts

from .wanted import CLAIM_BYTES, Flow, Wanted


def params_of_parked(wanted: Wanted) -> dict[str, Any]:
    """What the form for this has to be told beside the rest. Nothing where no parked jobs are wanted."""
    if wanted.flow is not None:
        return _of_flow(wanted.flow, wanted)
    return _of_circles(wanted) if wanted.gated else {}


def _of_circles(wanted: Wanted) -> dict[str, Any]:
    gated = wanted.gated
    marks = [(queue, key, lane, mark) for queue, circle in gated.items() for (lane, key), mark in circle.marks.items()]
    share = CLAIM_BYTES // len(gated)
    return {
        "gated": of_texts(gated),
        "flows": of_texts(circle.flows for circle in gated.values()),
        "goes_round": of_texts(circle.goes_round for circle in gated.values()),
        "spots": of_texts(circle.after for circle in gated.values()),
        "gated_bytes": of_numbers(wanted.large.get(queue, share) for queue in gated),
        "gated_suspects": of_numbers(circle.suspects for circle in gated.values()),
        "marked_queues": of_texts(queue for queue, _, _, _ in marks),
        "marked_keys": of_texts(key for _, key, _, _ in marks),
        "marked_lanes": of_numbers(lane for _, _, lane, _ in marks),
        "marked_run_at": of_texts(run_at for _, _, _, (run_at, _) in marks),
        "marked_ids": of_numbers(id_ for _, _, _, (_, id_) in marks),
    }


def _of_flow(flow: Flow, wanted: Wanted) -> dict[str, Any]:
    holds, keeps = wanted.holds_of(("gate", flow.key))
    return {
        "flow_queue": flow.queue,
        "flow_key": flow.key,
        "flow_gates": flow.gates,
        "flow_holds": holds,
        "flow_keeps": keeps,
        "flow_lanes": of_numbers(flow.marks),
        "flow_run_at": of_texts(run_at for run_at, _ in flow.marks.values()),
        "flow_ids": of_numbers(id_ for _, id_ in flow.marks.values()),
    }
