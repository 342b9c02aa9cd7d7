"""What the README and `examples/` show does what they say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def env(chancy_dsn, chancy_schema):
    return os.environ | {"CHANCY_DSN": chancy_dsn, "CHANCY_SCHEMA": chancy_schema}


def test_the_example_of_the_readme_runs(tmp_path, env):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    (printed,) = re.findall(r"^    python shop\.py +# (.*)$", readme, re.MULTILINE)
    (tmp_path / "shop.py").write_text(example, encoding="utf-8")
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "chancy_worker", "shop", "--migrate"]
        worker = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=log)
    try:
        run = subprocess.run(
            [sys.executable, "shop.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        worker.terminate()
        code = worker.wait(timeout=60)
    assert (run.returncode, run.stdout.strip()) == (0, printed), run.stderr + (tmp_path / "log").read_text()
    assert code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_the_program_with_its_worker_in_one_file_greets_and_stops_when_told(env, number):
    app = subprocess.Popen([sys.executable, "app.py"], cwd=EXAMPLES, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert app.stdout.readline() == "Hello, world!\n"
        app.send_signal(number)
        assert app.wait(timeout=30) == 0
    finally:
        app.kill()
        app.communicate()


FIRST_PROGRAM = """
import asyncio
from chancy import Chancy, Limit, Queue, task
from chancy_worker import Worker

@task(queue="default", limits=[Limit(Limit.Type.MEMORY, 1 * 1024**3), Limit(Limit.Type.TIME, 60)])
def my_task(*, x: int) -> None:
    print("performed", x, flush=True)

async def main():
    async with Chancy(dsn=None, queues=[Queue(name="default", concurrency=100)], schema=None) as app:
        await app.migrate()
        await app.submit(my_task.bind(x=1))
        await Worker(app).start()

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_the_first_users_program_runs_as_they_wrote_it_with_its_limits(tmp_path, env):
    (tmp_path / "program.py").write_text(FIRST_PROGRAM, encoding="utf-8")
    program = subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout.readline() == "performed 1\n"
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=30) == 0
    finally:
        program.kill()
        program.communicate()


@pytest.mark.long
@pytest.mark.skipif("CHANCY_TEST_DSN" in os.environ, reason="the demo starts a Postgres of its own")
def test_the_demo_counts_the_files_of_a_folder_and_names_the_one_that_no_parser_takes(tmp_path):
    (tmp_path / "good.py").write_text("def one():\n    return 1\n")
    (tmp_path / "bad.py").write_text("def (:\n")
    command = [sys.executable, "demo.py", str(tmp_path)]
    run = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    assert re.search(r"files +│ 1 of 2", run.stdout)
    assert re.search(r"SyntaxError +│ bad\.py: invalid syntax", run.stdout)


@pytest.mark.parametrize("file", ["tree_tasks.py", "demo.py"])
def test_the_files_to_copy_from_are_under_sixty_lines(file):
    assert len((EXAMPLES / file).read_text().splitlines()) < 60
