"""Tests with Chancy: a Postgres for as long as they run, and pytest fixtures with a schema of their own."""

from .postgres import DURABLE, QUICK, Postgres

__all__ = ["DURABLE", "QUICK", "Postgres"]
