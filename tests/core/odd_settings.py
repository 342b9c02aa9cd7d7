"""Settings that a session may have, each tried with each encoding of the client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

ENCODINGS = ["utf8", "latin1", "sql_ascii"]


def each_with_each(settings: Mapping[str, Any]) -> list[Any]:
    """Of which on every commit each setting is tried with one encoding, and each encoding with a third of them."""
    return [
        pytest.param(
            each, encoding, id=f"{name}-{encoding}", marks=() if (row + column) % 3 == 0 else pytest.mark.every_stack
        )
        for row, (name, each) in enumerate(settings.items())
        for column, encoding in enumerate(ENCODINGS)
    ]
