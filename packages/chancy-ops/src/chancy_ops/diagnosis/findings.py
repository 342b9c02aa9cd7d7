"""What a check has found: all well, or what is wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It will become an error, or costs more than it should."""
    ERROR = "error"
    """Jobs do not run, or soon will not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found about one thing."""

    check: str
    """Its name, a word."""
    severity: Severity
    message: str
    """With the figures, also where all is well. Texts of others are on one line, and cut."""
    remedy: str = ""
    """What to do; empty where all is well."""


@dataclass(frozen=True, slots=True)
class Patience:
    """From which age on something is a warning, and from which an error."""

    warning: timedelta
    error: timedelta

    def with_age(self, age: timedelta) -> Severity:
        """How bad something of this age is."""
        return Severity.ERROR if age >= self.error else Severity.WARNING if age >= self.warning else Severity.OK


def unless_any(bad: Sequence[Finding], check: str, message: str) -> list[Finding]:
    """What was found; or, if that is nothing, that all is well."""
    return [*bad] or [Finding(check, Severity.OK, message)]
