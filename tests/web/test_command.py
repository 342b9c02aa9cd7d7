"""`chancy dashboard`: one person, on this machine."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest


class Served:
    """The command in a process, and the link that it has printed."""

    def __init__(self, shell, *arguments, env=None):
        command = [sys.executable, "-m", "chancy_ops", "dashboard", "--port", "0", *arguments]
        self.popen = subprocess.Popen(
            command, env=os.environ | {"CHANCY_DSN": shell.dsn, "CHANCY_SCHEMA": shell.schema} | (env or {}),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.line = self.popen.stdout.readline()
        found = re.search(r"http://\S+", self.line)
        self.link = found[0] if found else ""
        self.port = int(re.search(r":(\d+)/", self.link)[1]) if found else 0

    def end(self):
        self.popen.kill()
        return self.popen.communicate()


@pytest.fixture
def serve(shell):
    served = []

    def start(*arguments, **more):
        served.append(Served(shell, *arguments, **more))
        assert served[-1].link, served[-1].end()
        return served[-1]

    yield start
    for each in served:
        each.end()


def asked(port, path, host=None, cookie=None):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Host": host or f"127.0.0.1:{port}"} | ({"Cookie": cookie} if cookie else {})
    conn.request("GET", path, headers=headers)
    answer = conn.getresponse()
    body = answer.read().decode()
    conn.close()
    return answer.status, body, answer.headers


def test_it_prints_a_link_that_lets_in_whoever_opens_it(serve):
    served = serve()
    path = served.link.partition(f":{served.port}")[2]
    assert re.fullmatch(r"/\?token=\S{30,}", path)
    assert asked(served.port, "/")[0] == 401
    status, body, headers = asked(served.port, path)
    assert status == 200
    cookie = headers["Set-Cookie"].partition(";")[0]
    status, body, _ = asked(served.port, "/", cookie=cookie)
    assert status == 200
    assert "No worker is alive" in body
    assert asked(served.port, "/healthz")[:2] == (200, "")
    assert asked(served.port, "/", "evil.example", cookie)[0] == 421


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_it_ends_when_it_is_told_while_a_page_is_open_and_says_nothing_more(serve, number):
    served = serve()
    open_ = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)  # and stays so
    open_.request("GET", "/static/live.js", headers={"Host": "localhost"})
    assert b"data-live" in open_.getresponse().read()
    began = time.monotonic()
    served.popen.send_signal(number)
    served.popen.wait(timeout=30)
    assert time.monotonic() - began < 15
    assert "Traceback" not in served.popen.stderr.read()
    open_.close()


def test_a_port_that_somebody_has_is_said(shell):
    with socket.create_server(("127.0.0.1", 0)) as other:
        answer = shell("dashboard", "--port", other.getsockname()[1])
    assert answer.code == 2
    assert "cannot listen at 127.0.0.1 port" in answer.err


def test_or_it_takes_another_one_if_it_may(serve):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        served = serve("--port", str(taken), "--or-another")
        assert served.port != taken
        assert asked(served.port, "/healthz")[0] == 200


def test_another_address_wants_a_proxy_that_knows_who_comes(shell, monkeypatch):
    monkeypatch.delenv("CHANCY_DASHBOARD_SECRET", raising=False)
    answer = shell("dashboard", "--host", "0.0.0.0")
    assert answer.code == 2
    assert "let a proxy say who comes" in answer.err
    answer = shell("dashboard", "--host", "0.0.0.0", "--auth-header", "X-User")
    assert "set CHANCY_DASHBOARD_SECRET" in answer.err
    monkeypatch.setenv("CHANCY_DASHBOARD_SECRET", "s" * 20)
    answer = shell("dashboard", "--host", "0.0.0.0", "--auth-header", "X-User")
    assert "say with --name by which host" in answer.err


def test_behind_a_proxy_it_lets_in_whom_the_proxy_names(serve):
    served = serve(
        "--host", "0.0.0.0", "--auth-header", "X-User", "--name", "queue.example.com",
        env={"CHANCY_DASHBOARD_SECRET": "s" * 20},
    )  # fmt: skip
    assert "token" not in served.link
    request = urllib.request.Request(
        f"http://127.0.0.1:{served.port}/",
        headers={"Host": "queue.example.com", "X-User": "ann", "X-Chancy-Secret": "s" * 20},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert "ann" in answer.read().decode()
    with pytest.raises(urllib.error.HTTPError, match="421"):
        urllib.request.urlopen(f"http://127.0.0.1:{served.port}/", timeout=20)


def test_a_schema_that_is_not_there_is_said_before_anything_is_served(shell):
    answer = shell("dashboard", "--port", 0, schema="nowhere")
    assert answer.code == 2
    assert "chancy migrate" in answer.err


def test_without_what_it_needs_it_says_what_to_install(shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn.config", None)
    answer = shell("dashboard", "--port", 0)
    assert answer.code == 2
    assert "pip install 'chancy-ops[web]'" in answer.err
