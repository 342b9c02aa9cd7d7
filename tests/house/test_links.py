"""The documentation as plain Markdown: what a page links to is there, down to the heading."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(path for folder in ("docs", "packages", "examples") for path in (ROOT / folder).rglob("*.md")),
    ]
)
FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2\s*$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


@functools.cache
def prose(page: Path) -> str:
    """The page without its code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


@functools.cache
def anchors(page: Path) -> set[str]:
    """What a link may name in it: GitHub's ids of its headings, which are those of the site."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?)\s*#*$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 1
        while (unique := slug if number == 1 else f"{slug}-{number - 1}") in found:
            number += 1
        found.add(unique)
    return found


def links(page: Path) -> list[str]:
    return [target for target in LINK.findall(CODE.sub("", prose(page))) if not re.match(r"[a-z]+:", target)]


def problem(page: Path, target: str) -> str | None:
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    if not there.exists():
        return f"{target}: there is no such file"
    if anchor and there.is_dir():
        there /= "README.md"
    if anchor and anchor not in anchors(there):
        return f"{target}: there is no such heading; there are {', '.join(sorted(anchors(there)))}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_links_to_is_there(page):
    assert [found for target in links(page) if (found := problem(page, target))] == []


def test_links_are_found_as_they_are_written():
    assert len([link for page in PAGES for link in links(page)]) > 150
    assert problem(ROOT / "README.md", "docs/nowhere.md")
    assert problem(ROOT / "README.md", "docs/glossary.md#nowhere")
    assert problem(ROOT / "README.md", "docs/guides/arguments.md#what-is-carried") is None


def test_every_page_is_reached_from_the_front():
    seen: set[Path] = set()
    ahead = [ROOT / "docs/README.md"]
    while ahead:
        page = ahead.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in links(page):
            there = (page.parent / target.partition("#")[0]).resolve() if target[0] != "#" else page
            there = there / "README.md" if there.is_dir() else there
            if there.suffix == ".md" and there.exists():
                ahead.append(there)
    lost = [
        page.relative_to(ROOT).as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in seen
    ]
    assert lost == [], "name it in docs/README.md, with what a reader gets there"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.is_relative_to(ROOT / "docs")], ids=lambda page: page.stem
)
def test_a_page_has_one_title_and_it_is_its_first_line(page):
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert len(re.findall(r"^# ", prose(page), re.MULTILINE)) == 1
