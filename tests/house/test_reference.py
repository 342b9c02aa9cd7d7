"""The reference is whole: each public name says what it is, and each option is found in the documentation."""

from __future__ import annotations

import ast
import contextlib
import enum
import inspect
import re
import sys
import textwrap
from pathlib import Path

import click
import pytest

sys.path.append(str(Path(__file__).parent))

from rooms import FOLDERS, ROOT

import chancy
import chancy_ops
import chancy_testing
import chancy_worker
from chancy.task import OptionChanges
from chancy_ops.cli import COMMANDS
from chancy_ops.cli import chancy as command
from chancy_worker.cli import parser

TEXT = "\n".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def public():
    """Package, name, and the file in which it is made."""
    for package, folder in FOLDERS.items():
        tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
        rooms, names = {}, []
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                rooms |= {alias.name: folder / f"{node.module.replace('.', '/')}.py" for alias in node.names}
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names = ast.literal_eval(node.value)
        yield from ((package, name, rooms[name]) for name in names)


NAMES = list(public())


def summaries(body):
    """What each name of a module, or of a class, says of itself: of an assignment it is the text after it."""
    said = {}
    for node, after in zip(body, [*body[1:], None], strict=False):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            said[node.name] = ast.get_docstring(node) or said.get(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            name = ast.unparse(node.target if isinstance(node, ast.AnnAssign) else node.targets[0])
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            said[name] = after.value.value if is_text else None
        elif isinstance(node, ast.If):  # what is said to type checkers
            said = summaries(node.body) | summaries(node.orelse) | said
    return said


def test_a_public_name_says_what_it_is():
    silent = []
    for package, name, file in NAMES:
        body = ast.parse(file.read_text(encoding="utf-8")).body
        silent += [] if summaries(body).get(name) else [f"{package}.{name}"]
        for found in [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]:
            methods = [node.name for node in found.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
            said = summaries(found.body)
            silent += [f"{package}.{name}.{each}" for each in methods if not said[each]]
    assert silent == [], "they have no docstring"
    assert len(NAMES) > 150


CALLS = {
    "@task": [each.name for each in inspect.signature(chancy.task).parameters.values() if each.kind is each.KEYWORD_ONLY],
    "using": list(OptionChanges.__annotations__),
    **{
        f"{module.__name__}.{name}": [
            each.name
            for each in inspect.signature(getattr(module, name)).parameters.values()
            if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]
        for module in (chancy, chancy_worker, chancy_ops, chancy_testing)
        for name in module.__all__
        if callable(getattr(module, name)) and name in {
            "Backoff", "Chancy", "Keep", "Queue", "Timing", "Unique", "WorkerConfig", "Snooze", "Retry", "Discard",
            "JobFilter", "cron", "every", "eager", "drain", "configure",
        } | {each for each in module.__all__ if inspect.isfunction(getattr(module, each))}
    },
}  # fmt: skip
POSITIONAL = {"number", "expression", "jobs", "roles", "row", "when", "wire"}
"""What is given by its place, and has no name for who reads an example."""
FENCED = "\n".join(re.findall(r"^```.*?^```", TEXT, re.DOTALL | re.MULTILINE))
PROSE = re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE)
INLINE = " ".join(re.findall(r"`[^`\n]+`", PROSE))
EXPLAINED = set(re.findall(r"\w+", INLINE))


@pytest.mark.parametrize("call", CALLS)
def test_each_option_of_what_is_called_has_a_sentence_and_an_example(call):
    options = set(CALLS[call]) - POSITIONAL
    assert options - EXPLAINED == set(), "it stands in no sentence"
    assert {each for each in options if not re.search(rf"\b{each}\s*=", FENCED + INLINE)} - NAMELESS == set()


NAMELESS = {"conn", "job_id"}
"""What is given by its place in every example, and by its name in none."""


@pytest.mark.parametrize("name", ["chancy-worker", *COMMANDS])
def test_each_option_of_a_command_has_a_sentence_and_an_example(name):
    if name == "chancy-worker":
        options = [each for action in parser()._actions for each in action.option_strings]
    else:
        found = command.get_command(click.Context(command), name)
        options = [each for param in found.params if isinstance(param, click.Option) for each in param.opts]
    options = {each for each in options if each.startswith("--")} - {"--dsn", "--schema", "--json", "--help"}
    assert {each for each in options if each not in PROSE} == set(), "it stands in no sentence"
    lines = [each for each in re.findall(r"`[^`\n]+`|^    \S.*", PROSE, re.MULTILINE) if " " in each.strip()]
    used = "\n".join([FENCED, *lines])
    assert {each for each in options if not re.search(rf"\S {each}\b", used)} == set(), "it stands in no command line"


VARIABLES = {
    match
    for folder in FOLDERS.values()
    for file in folder.rglob("*.py")
    for match in re.findall(r"[\"']((?:CHANCY|NOTIFY|WATCHDOG)_[A-Z_]+)[\"']", file.read_text(encoding="utf-8"))
}
BETWEEN_PROCESSES = {f"CHANCY_WORKER_{word}" for word in ("ENDS_WITH", "KNOWN_BY", "PARENT", "TELLS")}
"""By which a worker's own processes know each other."""


def test_each_variable_of_the_environment_is_in_the_table_of_settings():
    table = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    assert [name for name in VARIABLES - BETWEEN_PROCESSES if f"`{name}`" not in table] == []
    assert len(VARIABLES) > 5


LOOKED_FOR = [
    "Backoff", "SQLAlchemy", "Django", "Pydantic", "dataclass", "msgspec", "OpenTelemetry", "Prometheus", "dashboard",
    "Docker", "Kubernetes", "GRANT", "upgrade", "reload", "systemd", "FastAPI", "Celery", "asyncpg", "PgBouncer", "cron",
]  # fmt: skip


@pytest.mark.parametrize("word", LOOKED_FOR)
def test_a_word_that_people_look_for_is_found(word):
    assert re.search(rf"(?i)\b{word}", TEXT)


PAGES = [*(ROOT / "docs/guides").glob("*.md"), *(ROOT / "docs/operations").glob("[a-z]*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_begins_with_what_the_reader_wants_and_ends_with_what_can_go_wrong(page):
    _, first, *rest = page.read_text(encoding="utf-8").split("\n\n")
    assert re.match(r"You \w+", first), first
    last = [part for part in rest if part.startswith("## ")][-1].splitlines()[0]
    assert "what can go wrong" in last.lower(), last


SIMPLY = {"cls", "conn", "schema", "self"}
"""What every verb takes, said once for all of them (docs/guides/submitting.md)."""
OUR_OWN = {
    "AsyncChancy", "AsyncTask", "Batch", "CurrentJob", "Job", "NewJob", "SyncChancy", "Task", "Completion",
}  # fmt: skip
"""Classes whose objects users are given and never make."""
UNIT = re.compile(r"\b(seconds?|minutes?|hours?|days?|bytes?|fraction|timedelta|age|instant|how long)\b", re.IGNORECASE)


def fields_said(made):
    """What the fields of a class say of themselves, those of the classes that it is made of, too."""
    said = {}
    for each in made.__mro__[:-1]:
        with contextlib.suppress(OSError, TypeError):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
            said = {name: text for name, text in summaries(tree.body).items() if text} | said
    return said


def parameters():
    """Each public function, class and method, with its parameters and what is said of them at its own place."""
    for module in (chancy, chancy_worker, chancy_ops, chancy_testing):
        for name in module.__all__:
            made = getattr(module, name)
            said = inspect.getdoc(made) or ""
            if inspect.isclass(made):
                if name in OUR_OWN or issubclass(made, enum.Enum | BaseException):
                    continue
                fields = fields_said(made)
                yield f"{module.__name__}.{name}", made, said + " ".join(fields), fields
                for key, value in vars(made).items():
                    method = getattr(value, "__func__", value)
                    if inspect.isfunction(method) and not key.startswith("_"):
                        yield f"{module.__name__}.{name}.{key}", method, said + (inspect.getdoc(method) or ""), {}
            elif inspect.isfunction(made):
                yield f"{module.__name__}.{name}", made, said, {}


def named(call):
    with contextlib.suppress(ValueError, TypeError):
        found = inspect.signature(call).parameters.values()
        return [each for each in found if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    return []


def test_each_parameter_has_a_meaning_and_each_number_its_unit():
    without_meaning, without_unit, seen = [], [], 0
    for name, call, said, fields in parameters():
        asked = [each for each in named(call) if each.name not in SIMPLY]
        told = {each.name for each in asked if fields.get(each.name) or re.search(rf"\b{each.name}\b", said)}
        without_meaning += [(name, each) for each in {each.name for each in asked} - told - EXPLAINED]
        numbers = [each.name for each in asked if re.search(r"\b(float|timedelta|Duration)\b", str(each.annotation))]
        without_unit += [(name, each) for each in numbers if not UNIT.search(fields.get(each, "") + said)]
        seen += 1
    assert without_meaning == []
    assert without_unit == []
    assert seen > 150
