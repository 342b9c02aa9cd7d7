"""The packages have one version, and the changes can be gathered."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools"))

import release

PROJECTS = {package.name: tomllib.loads((package / "pyproject.toml").read_text()) for package in release.PACKAGES}


@pytest.mark.parametrize("package", release.PACKAGES, ids=lambda package: package.name)
def test_each_package_has_the_version_of_all_and_wants_it_of_the_others(package):
    assert release.about(package).read_text() == f'__version__ = "{release.version()}"\n'
    project = PROJECTS[package.name]["project"]
    extras = project.get("optional-dependencies", {}).values()
    own = [each for some in [project["dependencies"], *extras] for each in some if each.startswith("chancy-")]
    assert {re.sub(r".*==", "", each) for each in own} <= {release.version()}
    assert all("==" in each for each in own)


def test_the_changes_are_of_a_kind_and_gathered_under_their_version(tmp_path, monkeypatch):
    release.fragments()  # of this checkout
    (tmp_path / "changes").mkdir()
    (tmp_path / "changes/README.md").write_text("# How\n")
    (tmp_path / "changes/the-bell.fixed.md").write_text("A worker hears\nthe bell.\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\nFirst.\n")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(release, "CHANGES", tmp_path / "changes")
    release.gather("0.2.0")
    text = (tmp_path / "CHANGELOG.md").read_text()
    assert re.search(
        r"\[Unreleased\]\n\n## \[0\.2\.0\] - \d{4}-\d\d-\d\d\n\n### Fixed\n\n- A worker hears the bell\.\n", text
    )
    assert [path.name for path in (tmp_path / "changes").iterdir()] == ["README.md"]


def test_a_change_of_no_kind_is_refused(tmp_path, monkeypatch):
    (tmp_path / "the-bell.md").write_text("A worker hears the bell.\n")
    monkeypatch.setattr(release, "CHANGES", tmp_path)
    with pytest.raises(SystemExit, match=r"name it the-bell\.added\.md"):
        release.fragments()


def test_the_oldest_row_of_the_stacks_has_what_core_says_is_old_enough():
    root = Path(__file__).parents[2]
    wants = tomllib.loads((root / "packages/chancy-core/pyproject.toml").read_text(encoding="utf-8"))["project"]
    row = tomllib.loads((root / "hatch.toml").read_text(encoding="utf-8"))["envs"]["stacks"]["overrides"]["matrix"]
    old = {
        re.split(r"[\[=]", each["value"])[0]: each["value"].partition("==")[2]
        for each in row["versions"]["extra-dependencies"]
        if each["if"] == ["old"]
    }
    floors = {re.split(r"[\[>]", each)[0]: each.partition(">=")[2] for each in wants["dependencies"]}
    for name in "msgspec", "psycopg":
        assert old[name].removesuffix(".0") == floors[name]
