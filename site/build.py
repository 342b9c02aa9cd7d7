"""The documentation as a site: `hatch run docs`, and `--serve` to read it at http://localhost:8000 while you write.

The pages are those of `docs/`, as they are on disk. What is added here is made of the packages: the reference of every
public name (`reference.py`), of the commands, and `llms.txt` with `llms-full.txt`. Files outside of `docs/` that a page
links to become pages of their own. Everything lies in `.site`: `docs` is what was put together, `html` is the site.
"""

from __future__ import annotations

import argparse
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from finding import put_in_order, unanswered, unfound
from reference import as_text, commands, reference

HERE = Path(__file__).parent
ROOT = HERE.parent
DOCS = ROOT / "docs"
OUT = ROOT / ".site"
LINK = re.compile(r"(?<!!)(?<!\\)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2\s*$", re.DOTALL | re.MULTILINE)
ELSEWHERE = re.compile(r"[a-z]+:|#|/")
SHOWN = {".py": "python", ".toml": "toml", ".yml": "yaml", ".sql": "sql", ".md": "markdown"}

KINDS = {
    "Tutorial": ["tutorial"],
    "How-to": ["guides"],
    "Operations": ["operations"],
    "Reference": ["reference"],
    "Explanation": ["how-it-works", "decisions"],
}
"""What each part of the site is made of. In a folder the README says the order; what it does not name comes last."""
LAST = {
    "glossary.md": "Reference",
    "support.md": "Reference",
    "benchmarks.md": "Explanation",
    "compare.md": "Explanation",
}
"""Pages beside the folders, and where they stand."""


@dataclass
class Site:
    """What is put together: a text for each page, by its path."""

    pages: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    """What is copied as it is: pictures, figures."""

    def add_docs(self) -> None:
        """Every page of `docs/`; a README is the front of its folder."""
        for path in sorted(DOCS.rglob("*")):
            name = path.relative_to(DOCS).as_posix()
            if path.suffix == ".md":
                self.pages[_front(name)] = path.read_text(encoding="utf-8")
            elif path.is_file():
                self.files[name] = path

    def add_outside(self) -> None:
        """What pages link to outside of `docs/`: as a page with the file, or with the files of the folder, in it."""
        for page in list(self.pages):
            self.pages[page] = _each_link(self.pages[page], lambda target, page=page: self._inside(page, target))

    def _inside(self, page: str, target: str) -> str:
        if ELSEWHERE.match(target):
            return target
        path, _, anchor = target.partition("#")
        there = posixpath.normpath(posixpath.join(_folder(page), path))
        if not there.startswith(".."):
            there = _front(there) if there.endswith(".md") else there
            if (DOCS / there).is_dir():
                there = f"{there}/index.md"
            return _relative(page, there) + (anchor and f"#{anchor}")
        outside = (DOCS / there).resolve()
        if outside.is_relative_to(DOCS):
            return self._inside(page, _relative(page, outside.relative_to(DOCS).as_posix()) + (anchor and f"#{anchor}"))
        name = "project/" + _page_of(outside.relative_to(ROOT).as_posix())
        if name not in self.pages:
            self.pages[name] = _text_of(outside)
            if outside.suffix == ".md" or outside.is_dir():  # its own links, seen from where it is now
                home = posixpath.relpath((outside if outside.is_dir() else outside.parent).as_posix(), DOCS.as_posix())
                self.pages[name] = _each_link(
                    self.pages[name], lambda link: self._inside(name, _moved(name, home, link))
                )
        return _relative(page, name) + (anchor and f"#{anchor}")

    def write(self, place: Path) -> None:
        """All of it, in an empty folder."""
        shutil.rmtree(place, ignore_errors=True)
        for name, text in self.pages.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text, encoding="utf-8")
        for name, path in self.files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place / name)

    def in_order(self, folder: str) -> list[str]:
        """The pages of a folder: its front, those that this names, in its order, and then the others."""
        front = f"{folder}/index.md"
        there = [name for name in self.pages if name.startswith(f"{folder}/") and name != front]
        named = [
            posixpath.normpath(posixpath.join(folder, target.partition("#")[0]))
            for _, target in LINK.findall(self.pages.get(front, ""))
        ]
        ordered = [name for name in dict.fromkeys(named) if name in there]
        rest = [name for name in there if name not in ordered]
        return [*([front] if front in self.pages else []), *ordered, *rest]

    def title(self, page: str) -> str:
        """The first heading."""
        found = re.search(r"^# (.+)$", self.pages[page], re.MULTILINE)
        return re.sub(r"[`*]", "", found[1]) if found else page

    def nav(self) -> list[object]:
        """The map of the site, as MkDocs has it."""
        parts: list[object] = [{"Chancy": "index.md"}]
        for kind, folders in KINDS.items():
            pages: list[object] = []
            for folder in folders:
                own = [self._named(name) for name in self.in_order(folder)]
                pages += [{"Decisions": own}] if folder == "decisions" else own
            pages += [self._named(name) for name, part in LAST.items() if part == kind and name in self.pages]
            parts.append({kind: pages})
        project = [name for name in self.pages if name.startswith("project/")]
        fronts = [name for name in project if name.count("/") == 1]
        rest = sorted(set(project) - set(fronts))
        parts.append({"Project": [self._named(name) for name in [*fronts, *rest]]})
        return parts

    def _named(self, name: str) -> object:
        return name if name.endswith("/index.md") else {self.title(name): name}


def _front(name: str) -> str:
    return re.sub(r"(^|/)README\.md$", r"\1index.md", name)


def _folder(page: str) -> str:
    return page.rpartition("/")[0]


def _relative(page: str, target: str) -> str:
    return posixpath.relpath(target, _folder(page) or ".")


def _moved(page: str, home: str, link: str) -> str:
    """A link of a text that stood in the folder `home` of the site, and is on `page` now."""
    return link if ELSEWHERE.match(link) else _relative(page, posixpath.normpath(posixpath.join(home, link)))


def _page_of(path: str) -> str:
    return f"{path.removesuffix('.md').lower()}.md" if path.endswith(".md") else f"{path.strip('/')}.md"


def _each_link(text: str, change: object) -> str:
    """The text with every link that stands outside of code changed."""
    assert callable(change)
    whole, at = [], 0
    for fence in [*FENCE.finditer(text), None]:
        end = fence.start() if fence else len(text)
        whole.append(LINK.sub(lambda found: f"[{found[1]}]({change(found[2])})", text[at:end]))
        if fence:
            whole.append(fence[0])
            at = fence.end()
    return "".join(whole)


def _text_of(outside: Path) -> str:
    """A file as a page; of a folder its files, one after the other."""
    name = outside.relative_to(ROOT).as_posix()
    if outside.suffix == ".md":
        return outside.read_text(encoding="utf-8")
    if outside.is_file():
        return f"# `{name}`\n\n{_fenced(outside)}"
    files = [path for path in sorted(outside.rglob("*")) if path.suffix in SHOWN and path.is_file()]
    files = [path for path in files if not {"__pycache__", "migrations"} & set(path.parts)]
    readme = outside / "README.md"
    head = readme.read_text(encoding="utf-8") if readme.exists() else f"# `{name}`\n"
    parts = [f"## `{path.relative_to(outside).as_posix()}`\n\n{_fenced(path)}" for path in files if path != readme]
    return "\n\n".join([head, *[part for part in parts if part]])


def _fenced(path: Path) -> str:
    text = path.read_text(encoding="utf-8").rstrip()
    ticks = "````" if "```" in text else "```"
    return f"{ticks}{SHOWN.get(path.suffix, 'text')}\n{text}\n{ticks}\n" if text else "(empty)\n"


def llms(site: Site) -> Iterator[tuple[str, str]]:
    """`llms.txt`, a list of what there is, and `llms-full.txt`, all of it in one text."""
    names = [name for part in site.nav() for name in _leaves(part)]
    lines = ["# Chancy", "", _first_sentence(site.pages["index.md"]), ""]
    for part in site.nav()[1:]:
        assert isinstance(part, dict)
        ((kind, pages),) = part.items()
        lines += [f"## {kind}", ""]
        for name in _leaves(pages):
            lines.append(f"- [{site.title(name)}]({name}): {_first_sentence(site.pages[name])}")
        lines.append("")
    yield "llms.txt", "\n".join(lines)
    whole = (f"<!-- {name} -->\n\n{as_text(site.pages[name]).strip()}\n" for name in names)
    yield "llms-full.txt", "\n\n".join(whole)


def _leaves(part: object) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        for value in part.values():
            yield from _leaves(value)
    elif isinstance(part, list):
        for value in part:
            yield from _leaves(value)


def _first_sentence(text: str) -> str:
    plain = FENCE.sub("", text)
    for paragraph in re.split(r"\n\s*\n", plain):
        if paragraph.strip() and not re.match(r"\s*([#|<>\-:!]|    )", paragraph):
            words = LINK.sub(lambda found: found[1], " ".join(paragraph.split()))
            return re.split(r"(?<=[.?!])\s", words)[0].rstrip(":")
    return ""


def misread(site: Site, html: Path) -> Iterator[str]:
    """What is written for people and would not be shown as it is written, each with its page.

    Markdown takes `__init__` outside of code for bold type, and a list that follows a line of a paragraph, in a page or
    in a docstring, for more of the paragraph.
    """
    for name, text in site.pages.items():
        plain = re.sub(r"`[^`]*`", "", FENCE.sub("", text))
        yield from (f"{name}: {found}" for found in re.findall(r"(?<![\w.])__\w+__", plain))
    for page in sorted(html.rglob("*.html")):
        plain = re.sub(r"<pre.*?</pre>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for found in re.findall(r"<p>(?:(?!</p>).)*?\n((?:[-*+]|\d+\.) [^\n]{0,60})", plain, re.DOTALL):
            yield f"{page.relative_to(html)}: the list of {found!r} runs into the text before it"


def put_together() -> Site:
    """The whole site, before it is made HTML."""
    site = Site()
    site.add_docs()
    site.pages |= reference()
    site.pages["reference/commands.md"] = commands()
    site.add_outside()
    return site


def main() -> int:
    """Put the pages together and build them, strictly: a broken link or anchor is an error."""
    options = argparse.ArgumentParser(description=main.__doc__)
    options.add_argument("--serve", action="store_true", help="show the site at http://localhost:8000 instead")
    serve = options.parse_args().serve
    site = put_together()
    for name, text in llms(site):
        OUT.mkdir(exist_ok=True)
        (OUT / name).write_text(text, encoding="utf-8")
        site.files[name] = OUT / name
    site.write(OUT / "docs")
    settings = (HERE / "mkdocs.yml").read_text(encoding="utf-8")
    (OUT / "mkdocs.yml").write_text(settings + yaml.safe_dump({"nav": site.nav()}, sort_keys=False), encoding="utf-8")
    shutil.copyfile(HERE / "verbs.py", OUT / "verbs.py")
    what = ["serve"] if serve else ["build", "--strict", "--clean"]
    code = subprocess.run([sys.executable, "-m", "zensical", *what], cwd=OUT, check=False).returncode
    if code == 0 and not serve:
        put_in_order(OUT / "html" / "search.json")
        if lost := unfound(OUT / "html" / "search.json"):
            print(f"the search would not find: {', '.join(lost)}")
            return 1
        if lost := unanswered(OUT / "html"):
            print(f"the search would not answer as it should: {'; '.join(lost)}")
            return 1
        if wrong := list(misread(site, OUT / "html")):
            print("\n".join(wrong))
            return 1
        print(f"{len(site.pages)} pages: {OUT / 'html' / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
