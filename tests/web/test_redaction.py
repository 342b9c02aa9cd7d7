"""No page shows a secret, or what the application hides."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import pytest
import shop_tasks
from web_help import Pages

import chancy_ops
from chancy import Secret, task
from chancy.registry import registered
from chancy.run import perform
from chancy_worker.parts.declarations import declare

PASSWORD = "correct-horse"


class Login(msgspec.Struct):
    user: str
    password: Annotated[str, Secret()]


@task(name="hidden.log_in")
def log_in(login: Login, pin: Annotated[str, Secret()] = PASSWORD) -> Annotated[str, Secret()]:
    return pin


@pytest.mark.parametrize("code", ["here", "not here"])
async def test_a_secret_is_on_no_page(shell, pages, code, monkeypatch):
    (job, other) = shell.submit(log_in.bind(Login("ann", PASSWORD), PASSWORD), log_in.bind(Login("bob", PASSWORD)))
    shell.finish(job, state="succeeded")
    shell.rows("UPDATE {}.history SET result = to_json(%s::text) RETURNING id", PASSWORD)
    shell.finish(other)
    if code == "not here":
        perform(shell.conn, declare([log_in]), shell.schema)
        without = {name: known for name, known in registered().items() if known is not log_in}
        monkeypatch.setattr(sys.modules["chancy.registry"], "tasks", without)
    for path in ("/", "/jobs", f"/jobs/{job}", f"/jobs/{other}", "/failures", "/failure?fingerprint=5ade1fb7c0d3"):
        page = await pages(path)
        assert PASSWORD not in page.html, path
    page = await pages(f"/jobs/{job}")
    assert page.text.count("[secret]") == 4  # two arguments, the result, and why it does not run
    assert "ann" in page.text
    assert f">{job}</a>" not in (await pages(f"/jobs?text={PASSWORD[:4]}")).html


async def test_what_the_application_hides_is_on_no_page(shell, open_dashboard):
    def redact(part, name, value):
        if part == "arguments":
            return value | {"greeting": "…"}
        return "…" if isinstance(value, str) else value

    (job, live) = shell.submit(*[shop_tasks.welcome.bind(n, greeting="hello-ann") for n in range(2)])
    shell.finish(job, message="no hello-ann")
    async with Pages(open_dashboard(redact=redact)) as pages:
        for path in (
            "/", "/jobs", "/jobs?state=failed", f"/jobs/{job}", f"/jobs/{live}", "/failures",
            "/failure?fingerprint=5ade1fb7c0d3", "/task?name=shop_tasks.welcome",
        ):  # fmt: skip
            page = await pages(path)
            assert "hello-ann" not in page.html, path
        assert "…" in (await pages(f"/jobs/{job}")).text
        page = await pages("/jobs?text=hello-ann")
        assert f">{live}</a>" in page.html  # nobody searches: it is a list of all
        assert 'name="text"' not in page.html
    async with Pages(open_dashboard()) as pages:
        assert "hello-ann" in (await pages(f"/jobs/{job}")).html


async def test_a_function_that_fails_to_hide_hides_all(shell, open_dashboard):
    (job,) = shell.submit(shop_tasks.welcome.bind(1, greeting="hello-ann"))
    async with Pages(open_dashboard(redact=lambda part, name, value: 1 / 0)) as pages:
        page = await pages(f"/jobs/{job}")
        assert "hello-ann" not in page.html
        assert "[secret]" in page.text


async def test_what_is_done_with_a_secret_is_noted_without_it(shell, pages):
    from act_help import press

    await press(
        pages, "/task/submit?name=hidden.log_in", "/task/submit",
        **{"argument-login": f'{{"user": "ann", "password": "{PASSWORD}"}}', "argument-pin": PASSWORD},
    )  # fmt: skip
    (row,) = chancy_ops.audit(shell.conn, schema=shell.schema)
    assert PASSWORD not in str(row)
    assert PASSWORD not in (await pages("/audit")).html
