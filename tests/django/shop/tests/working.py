"""A worker of the project, started as people start it, on the database of the test."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from django.db import connection

import chancy_ops

SHOP = Path(__file__).parents[1]


def eventually(condition, within=30):
    """Poll until it holds; what it gave."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.02)
    return value


@contextlib.contextmanager
def working(*options, **settings):
    """The process, once there are as many workers as it has; afterwards it must end well. Its log is in `log`."""
    env = os.environ | {"SHOP_NAME": connection.settings_dict["NAME"], "SHOP_SETTINGS": json.dumps(settings)}
    command = [sys.executable, "manage.py", "chancy_worker", "--grace", "5", "--children", "1", *options]
    expected = int(options[options.index("--processes") + 1]) if "--processes" in options else 1
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=SHOP, env=env, stdout=log, stderr=log)

        def text():
            log.seek(0)
            return log.read()

        process.log = text
        try:
            eventually(lambda: process.poll() is not None or len(chancy_ops.workers(connection)) == expected)
            assert process.poll() is None, text()
            yield process
            process.send_signal(signal.SIGTERM)
            code = process.wait(30)
            assert code == 0, text()
        finally:
            process.kill()
            process.wait()
