"""`shop_tasks`, `cli_help` and what core has for its own tests are found under their plain names, here and in processes of the command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
sys.path.insert(0, str(Path(__file__).parent))

import shop_tasks
from cli_help import Shell


@pytest.fixture
def shell(capsys, chancy_dsn, chancy_schema):
    shell = Shell(capsys, chancy_dsn, chancy_schema)
    yield shell
    shell.close()


@pytest.fixture
def tasks():
    return shop_tasks
