"""`chancy doctor`."""

from __future__ import annotations

from typing import Any

import click

import chancy

from .faults import DONE, NOT_DONE
from .screen import Table, document
from .site import Site, command


@command("doctor")
@click.option("--strict", is_flag=True, help="End with 1 for warnings, too.")
def doctor(site: Site, strict: bool) -> int:
    """Look for what keeps the queue from working well, and say what to do about it.

    Ends with 1 when something is an error.
    """
    with site.connect() as conn:
        findings: list[Any] = chancy.doctor(conn, schema=site.schema)  # type: ignore[attr-defined]
    bad = {"error", "warning"} if strict else {"error"}
    code = NOT_DONE if any(found.severity in bad for found in findings) else DONE
    if site.json:
        keys = ("check", "severity", "message", "remedy")
        document({"findings": [{key: getattr(found, key) or None for key in keys} for found in findings]})
        return code
    Table(
        ("CHECK", "SEVERITY", "FOUND"),
        [
            (found.check, found.severity, found.message + (f"; {found.remedy}" if found.remedy else ""))
            for found in findings
        ],
        long="fold",
    ).show()
    return code
