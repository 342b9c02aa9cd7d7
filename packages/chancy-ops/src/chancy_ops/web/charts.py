"""Charts as SVG, made here: no script, nothing inline, and each bar says in words what it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from markupsafe import Markup

from chancy.tally.tally import Tallied
from chancy_ops.tally import Depth, Throughput

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 760, 150, 52, 20, 6
STACKED = (
    Tallied.FAILED, Tallied.DIED, Tallied.RETRIED, Tallied.DISCARDED, Tallied.CANCELLED, Tallied.SUCCEEDED,
)  # fmt: skip
"""From below: what went wrong is seen however much went well."""


def bars(points: Sequence[Throughput], now: datetime, minutes: int, *, name: str = "flow") -> Markup:
    """Attempts a minute by how they came out, the last on the right; that one is not over yet. Of these minutes, in
    which nothing was done is missing. `name` tells it from other charts of a page.
    """
    first = now.replace(second=0, microsecond=0) - timedelta(minutes=minutes - 1)
    by_minute = {int((point.since - first).total_seconds() // 60): point for point in points}
    sums = {outcome: sum(point.outcomes.get(outcome, 0) for point in points) for outcome in STACKED}
    highest = ceiling(max((_height(point) for point in points), default=1))
    step = (WIDTH - LEFT) / minutes
    parts = [
        Markup('<svg viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d" class="chart">').format(
            WIDTH, HEIGHT, name, name
        ),
        Markup('<title id="{}-t">Jobs a minute, the last {} minutes</title>').format(name, minutes),
        Markup('<desc id="{}-d">{}</desc>').format(name, _said(sums) or "nothing was done"),
    ]
    parts += [_line(share, highest) for share in (0.0, 0.5, 1.0)]
    for minute in range(minutes):
        at = first + timedelta(minutes=minute)
        parts.append(_bar(at, by_minute.get(minute), LEFT + minute * step, step, highest, over=minute < minutes - 1))
        if minute % 15 == 0:
            parts.append(
                Markup('<text x="{:.1f}" y="{}" class="tick">{:%H:%M}</text>').format(
                    LEFT + minute * step, HEIGHT - 3, at
                )
            )
    return Markup("").join([*parts, Markup("</svg>")])


def steps(points: Sequence[Depth], now: datetime, minutes: int, *, name: str = "depth") -> Markup:
    """How many jobs were ready or waited, minute by minute; of a minute of which nothing is known there is nothing."""
    first = now - timedelta(minutes=minutes)
    highest = ceiling(max((each.ready for each in points), default=1))
    step = (WIDTH - LEFT) / minutes
    last = f"{points[-1].ready:,} ready, {points[-1].waiting:,} of them waiting" if points else "nothing"
    parts = [
        Markup('<svg viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d" class="chart">').format(
            WIDTH, HEIGHT, name, name
        ),
        Markup('<title id="{}-t">Jobs that were due, the last {} minutes</title>').format(name, minutes),
        Markup('<desc id="{}-d">At the last look {}.</desc>').format(name, last),
    ]
    parts += [_line(share, highest) for share in (0.0, 0.5, 1.0)]
    for each in points:
        x = LEFT + max((each.at - first).total_seconds() / 60, 0) * step
        said = f"{each.at:%H:%M}Z: {each.ready:,} ready, {each.waiting:,} of them waiting, {each.running:,} running"
        parts.append(Markup('<g class="bar"><title>{}</title>').format(said))
        below = 0.0
        for kind, number in (("ready", max(each.ready - each.waiting, 0)), ("waiting", each.waiting)):
            share = number / highest
            parts.append(
                Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="d-{}"/>').format(
                    x - step + 1, _y(below + share), max(step - 2, 1), _y(below) - _y(below + share), kind
                )
            )
            below += share
        parts.append(Markup("</g>"))
    return Markup("").join([*parts, Markup("</svg>")])


def _height(point: Throughput) -> int:
    return sum(point.outcomes.get(outcome, 0) for outcome in STACKED)


def ceiling(most: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 …"""
    size = 10.0 ** (len(str(int(max(most, 1)))) - 1)
    return next(factor * size for factor in (1, 2, 5, 10) if factor * size >= most)


def _y(share: float) -> float:
    return TOP + (HEIGHT - BOTTOM - TOP) * (1 - share)


def _line(share: float, highest: float) -> Markup:
    return Markup(
        '<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}" class="grid"/>'
        '<text x="{}" y="{:.1f}" class="tick" text-anchor="end">{:,g}</text>'
    ).format(LEFT, WIDTH, _y(share), _y(share), LEFT - 6, _y(share) + 4, highest * share)


def _bar(at: datetime, point: Throughput | None, x: float, step: float, highest: float, *, over: bool) -> Markup:
    outcomes = {} if point is None else {each: point.outcomes.get(each, 0) for each in STACKED}
    parts = [
        Markup('<g class="{}"><title>{:%H:%M}Z: {}</title>').format(
            "bar" if over else "bar partial", at, _said(outcomes) or "nothing"
        ),
        Markup('<rect x="{:.1f}" y="{}" width="{:.1f}" height="{}" class="hit"/>').format(
            x, TOP, step, HEIGHT - BOTTOM - TOP
        ),
    ]
    below = 0.0
    for outcome, number in outcomes.items():
        if number:
            share = number / highest
            parts.append(
                Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="o-{}"/>').format(
                    x + 1, _y(below + share), max(step - 2, 1), max(_y(below) - _y(below + share), 0.6), outcome
                )
            )
            below += share
    return Markup("").join([*parts, Markup("</g>")])


def _said(outcomes: dict[Tallied, int]) -> str:
    return ", ".join(f"{number:,} {outcome}" for outcome, number in reversed(outcomes.items()) if number)
