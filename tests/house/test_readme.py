"""The README's example does what the README says."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_example_of_the_readme_runs(tmp_path, chancy_dsn, chancy_schema):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    (printed,) = re.findall(r"^    python shop\.py +# (.*)$", readme, re.MULTILINE)
    (tmp_path / "shop.py").write_text(example, encoding="utf-8")
    env = os.environ | {"CHANCY_DSN": chancy_dsn, "CHANCY_SCHEMA": chancy_schema}
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
