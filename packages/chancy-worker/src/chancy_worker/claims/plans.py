"""Plans that are made before they are needed.

Postgres makes the plan of a statement, and of each in a function, when a session sends it for the first time. Those of
rounds that go through gates take as long as some rounds do; and where workers wait for the first jobs with limits, all
of them would make them then.
"""

from __future__ import annotations

from chancy.model import Statement

from .statement import play_round
from .wanted import Circle, Flow, Wanted

# Of a queue and a gate that nobody can have: their names are empty.
FUNCTIONS_OF_GATES = """
    SELECT count(*)
    FROM {schema}.let_in(
        ROW(0, '', '{}', '{}', '{}', 0, 0, NULL, '{}', '{}', '{}', '{}', '{}', '{}', '{}')::{schema}.claim,
        0::smallint, '', 1, 1, NULL) AS entered
    CROSS JOIN {schema}.free_slots('', 0, 1, '', '') AS vacant
    CROSS JOIN {schema}.next_open('', 0::smallint, '', NULL, 1) AS head
"""


def plans_of_gates() -> list[Statement[object]]:
    """Statements that change nothing and find nothing: the forms of a round that go through parked jobs, and what they
    call. To be sent on the connection of the rounds.
    """
    nowhere = {"": 1}
    return [
        play_round(0, (), Wanted(nowhere, gated={"": Circle(goes_round=True)})),
        play_round(0, (), Wanted(nowhere, gated={"": Circle(hands_on=True)})),
        play_round(0, (), Wanted(nowhere, flow=Flow("-", "", "{}", {}))),
        Statement(FUNCTIONS_OF_GATES, {}, lambda rows: None),
    ]
