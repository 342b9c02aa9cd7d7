"""A release: `hatch run release --dry-run` does all of one but the upload, and leaves the checkout as it is.

    hatch run release --set 0.2.0    writes the version to all packages, and to what they want of each other
    hatch run release --gather       moves `changes/` into CHANGELOG.md, under that version and today's date
    hatch run release --dry-run      builds, checks and installs all packages in a folder of its own

What is uploaded is then what the dry run has built: `twine upload dist/*` by hand, by somebody who may.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = sorted((ROOT / "packages").glob("chancy-*"))
ABOUT = "__version__ = "
CHANGES = ROOT / "changes"
KINDS = {"added": "Added", "changed": "Changed", "fixed": "Fixed", "removed": "Removed", "security": "Security"}
UNRELEASED = "## [Unreleased]\n"


def version() -> str:
    """The one of chancy-core, which all others have (tests/house/test_release.py)."""
    return about(ROOT / "packages/chancy-core").read_text(encoding="utf-8").split('"')[1]


def about(package: Path) -> Path:
    """The file that says the version of a package."""
    (found,) = package.glob("src/*/__about__.py")
    return found


def set_version(new: str) -> None:
    """Write it to every package, and to what the packages want of each other."""
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", new):
        sys.exit(f"release: {new!r} is no version such as 0.2.0")
    for package in PACKAGES:
        about(package).write_text(f'{ABOUT}"{new}"\n', encoding="utf-8")
        project = package / "pyproject.toml"
        text = project.read_text(encoding="utf-8")
        project.write_text(re.sub(r"(chancy-\w+(?:\[\w+\])?==)[\w.]+", rf"\g<1>{new}", text), encoding="utf-8")


def fragments() -> dict[str, list[str]]:
    """The changes that no version has yet, by their kind: `changes/what-it-is.added.md` has one sentence or two."""
    found: dict[str, list[str]] = {}
    for path in sorted(CHANGES.glob("*.md")):
        if path.name != "README.md":
            kind = path.suffixes[-2].removeprefix(".") if len(path.suffixes) > 1 else ""
            if kind not in KINDS:
                sys.exit(f"release: {path.name} is of no kind: name it {path.stem}.added.md, or {', '.join(KINDS)}")
            found.setdefault(kind, []).append(" ".join(path.read_text(encoding="utf-8").split()))
    return found


def gather(new: str) -> None:
    """Move the fragments into CHANGELOG.md, under the version."""
    parts = [f"### {KINDS[kind]}\n\n" + "".join(f"- {text}\n" for text in texts) for kind, texts in fragments().items()]
    path = ROOT / "CHANGELOG.md"
    text = path.read_text(encoding="utf-8")
    head = f"## [{new}] - {datetime.now(UTC):%Y-%m-%d}\n"
    path.write_text(
        text.replace(UNRELEASED, f"{UNRELEASED}\n{head}" + "".join(f"\n{part}" for part in parts), 1), "utf-8"
    )
    for fragment in CHANGES.glob("*.*.md"):
        fragment.unlink()


def run(*command: str | Path, cwd: Path) -> None:
    """Run it, or end with what it said."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"release: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def dry_run(place: Path) -> None:
    """Everything but the upload, in this folder."""
    new, dist = version(), place / "dist"
    for package in PACKAGES:
        # An sdist, and a wheel that is made of the sdist.
        run(sys.executable, "-m", "build", "--installer", "uv", "--outdir", dist, package, cwd=place)
        print(f"built {package.name} {new}")
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(dist.iterdir()), cwd=place)
    print("twine has no complaint")
    for package in PACKAGES:
        name = package.name.replace("-", "_")
        wrong = problems(package, dist / f"{name}-{new}-py3-none-any.whl", dist / f"{name}-{new}.tar.gz")
        if wrong:
            sys.exit(f"release: {package.name}: " + "; ".join(wrong))
    print("wheels and sdists have what they should")
    venv.create(place / "env", with_pip=True)
    programs = place / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    run(programs / "python", "-m", "pip", "install", "--quiet", *sorted(dist.glob("*.whl")), cwd=place)
    run(programs / "python", "-m", "pip", "check", cwd=place)
    modules = ", ".join(about(package).parent.name for package in PACKAGES)
    run(programs / "python", "-c", f"import {modules}, chancy_testing.plugin", cwd=place)
    for command in ("chancy", "chancy-worker"):
        run(programs / command, "--version", cwd=place)
    run(programs / "python", "-m", "chancy", "migrate", "--print", cwd=place)
    print(f"all of {new} is installed and works in an empty environment")


def problems(package: Path, wheel: Path, sdist: Path) -> list[str]:
    """What is in them and should not be, or the other way round."""
    module = about(package).parent
    with zipfile.ZipFile(wheel) as file:
        there = set(file.namelist())
    wanted = {
        path.relative_to(module.parent).as_posix()
        for path in module.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    outside = {name for name in there if not name.startswith((f"{module.name}/", f"{wheel.name.split('-')[0]}-"))}
    found = [f"the wheel lacks {name}" for name in sorted(wanted - there)]
    found += [f"the wheel has {name}" for name in sorted(outside)]
    found += [] if f"{module.name}/py.typed" in there else ["it has no py.typed"]
    found += [] if any(name.endswith("licenses/LICENSE") for name in there) else ["the wheel has no licence"]
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    return found + [
        f"the sdist lacks {name}" for name in ("LICENSE", "README.md", "pyproject.toml") if name not in names
    ]


def main() -> int:
    """Do what is asked."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--version", action="version", version=version(), help="print the version and end")
    options.add_argument("--set", metavar="VERSION", help="write the version")
    options.add_argument("--gather", action="store_true", help="gather the changes under the version")
    options.add_argument("--dry-run", action="store_true", help="build, check and install, and upload nothing")
    options.add_argument("--keep", metavar="FOLDER", type=Path, help="with --dry-run: put dist there")
    asked = options.parse_args()
    if asked.set:
        set_version(asked.set)
    if asked.gather:
        gather(version())
    if asked.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            dry_run(Path(folder))
            if asked.keep:
                shutil.copytree(Path(folder) / "dist", asked.keep, dirs_exist_ok=True)
    if not (asked.set or asked.gather or asked.dry_run):
        options.print_help()
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
