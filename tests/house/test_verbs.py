"""A verb is there once: what `@verb` gives is written nowhere else."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from rooms import rooms_of

BY_HAND = {
    "chancy": {
        "batches/batch.batch": "gives a block, and not an answer",
        "migrations/migrate.migrate": "is driven in a transaction of its own",
        "batches/block.around": "gives a block, and not an answer",
    },
    "chancy_ops": {
        "diagnosis/doctor.doctor": "looks at the connection itself",
    },
}
"""Functions that write their overloads themselves, and why."""


@pytest.mark.parametrize("package", BY_HAND)
def test_a_function_for_both_kinds_of_connection_has_its_overloads_from_verb(package):
    by_hand = {
        f"{room.path}.{node.name}"
        for room in rooms_of(package)
        for node in ast.parse(room.file.read_text()).body
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(each) == "overload" for each in node.decorator_list)
        if any(each.arg == "conn" for each in node.args.posonlyargs + node.args.args)
    }
    assert by_hand == set(BY_HAND[package])
