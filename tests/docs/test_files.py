"""What pages show that is no Python: unit files, Dockerfiles, YAML, JSON, TOML."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib

import msgspec
import pytest
from snippets import ROOT, snippets

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
UNITS = [each for page in PAGES for each in snippets(page, "ini") if "[Service]" in each.text]
ITEM = re.compile(r"(?:[-*+]|\d+\.) ")
KNOWN = {"console", "dockerfile", "ini", "json", "mermaid", "python", "sh", "sql", "text", "toml", "yaml"}


def of(language):
    return [each for page in PAGES for each in snippets(page, language)]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit_files(unit, tmp_path):
    program = shutil.which("true")
    file = tmp_path / "shop.service"
    text = re.sub(r"(?m)^User=.*\n", "", unit.text)
    file.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={program}", text), encoding="utf-8")
    run = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    assert [line for line in run.stderr.splitlines() if "shop.service" in line] == []


def test_there_is_a_unit_for_a_module_and_one_for_an_app_and_no_password_in_either():
    started = [re.findall(r"(?m)^ExecStart=\S+/chancy-worker (\S+)", unit.text) for unit in UNITS]
    assert started == [["shop.tasks"], ["shop.worker:app"]]
    assert all("EnvironmentFile=" in unit.text and "postgresql://" not in unit.text for unit in UNITS)


@pytest.mark.parametrize("shown", of("yaml"), ids=lambda shown: shown.name)
def test_yaml_can_be_read(shown):
    pytest.importorskip("yaml")
    assert msgspec.yaml.decode(shown.text)


@pytest.mark.parametrize("shown", [*of("json"), *of("toml")], ids=lambda shown: shown.name)
def test_json_and_toml_can_be_read(shown):
    assert json.loads(shown.text) if shown.language == "json" else tomllib.loads(shown.text)


@pytest.mark.parametrize("shown", of("dockerfile"), ids=lambda shown: shown.name)
def test_a_container_starts_its_command_without_a_shell(shown):
    (command,) = re.findall(r"^CMD (.*)$", shown.text, re.MULTILINE)
    assert json.loads(command)


def test_every_block_says_what_it_is():
    fences = [
        (page.name, found) for page in PAGES for found in re.findall(r"^ *```(\w*)\n", page.read_text(), re.MULTILINE)
    ]
    assert {language for _, language in fences} - {""} <= KNOWN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_list_stands_apart_from_the_text_before_it(page):
    """Otherwise the site shows it as more of the paragraph, though GitHub does not."""
    run_in, before, in_code = [], "", False
    for line in page.read_text(encoding="utf-8").splitlines():
        if re.match(r" *(```|~~~)", line):
            in_code = not in_code
        elif not in_code and ITEM.match(line) and before.strip() and not re.match(r"\s|#|<!--", before):
            run_in += [] if ITEM.match(before) else [line]
        before = line
    assert run_in == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_with_underscores_around_them_are_written_as_code(page):
    """Otherwise Markdown takes the underscores for bold type."""
    plain = re.sub(r"`[^`]*`", "", re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text(encoding="utf-8")))
    assert re.findall(r"(?<![\w.])__\w+__", plain) == []


def test_the_glossary_is_sorted_and_has_each_word_once():
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"(?m)^\| (?!word|---)(.+?) \|", text)
    assert words == sorted(set(words), key=str.lower)
    assert len(words) > 50


@pytest.mark.parametrize(
    "page",
    [page for folder in ("guides", "operations", "tutorial") for page in sorted((ROOT / "docs" / folder).glob("*.md"))],
    ids=lambda page: page.stem,
)
def test_a_page_that_says_how_ends_with_what_can_go_wrong(page):
    if page.name == "README.md" and page.parent.name == "operations":
        return  # the list of the others
    headings = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert "what can go wrong" in headings[-1].lower()


@pytest.mark.parametrize("file", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda file: file.stem)
def test_a_workflow_is_read_and_calls_what_there_is(file):
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert all(job["runs-on"] and job["timeout-minutes"] for job in jobs.values())
    assert all(("uses" in step) != ("run" in step) for step in steps)
    named = [word for step in steps for word in step.get("run", "").split() if "/" in word or word.endswith(".py")]
    assert [path for path in named if not (ROOT / path).exists()] == []
