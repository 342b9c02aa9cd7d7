"""`chancy doctor`."""

from __future__ import annotations

import click

import chancy_ops
from chancy_ops.terminal.faults import DONE, NOT_DONE
from chancy_ops.terminal.screen import Table, document
from chancy_ops.terminal.site import Site, command


@command("doctor")
@click.option("--errors-only", is_flag=True, help="End with 0 where there are no more than warnings.")
def doctor(site: Site, errors_only: bool) -> int:
    """Look for what keeps the queue from working well, and say what to do about it.

    Ends with 1 when anything is found.
    """
    with site.connect() as conn:
        findings = chancy_ops.doctor(conn, schema=site.schema)
    bad = {"error"} if errors_only else {"error", "warning"}
    code = NOT_DONE if any(found.severity in bad for found in findings) else DONE
    if site.json:
        keys = ("check", "severity", "message", "remedy")
        document({"findings": [{key: getattr(found, key) or None for key in keys} for found in findings]})
        return code
    Table(
        ("CHECK", "SEVERITY", "FOUND"),
        [(found.check, found.severity, f"{found.message} {found.remedy}".rstrip()) for found in findings],
        long="fold",
    ).show()
    return code
