"""Fixtures beside those of pytest-django. Nothing of Django is imported before one of them is used."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def django_chancy_drain(db: None) -> Any:
    """`chancy_django.testing.drain`, in a test that has pytest-django's database."""
    from .testing import drain

    return drain
