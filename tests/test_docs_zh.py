"""The Chinese README says what the English one says: same chapters, commands, names, figures, links."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dingbridge.causes import CAUSES
from tests.pages import Chapter, anchor, chapters

ENGLISH, CHINESE = "README.md", "README.zh-CN.md"
PAGES = {
    ENGLISH: CHINESE,
    "examples/replicas/README.md": "examples/replicas/README.zh-CN.md",
    "examples/replicas/PLAN.md": "examples/replicas/PLAN.zh-CN.md",
}
TWINS = {"examples/dingbridge.en.toml": "examples/dingbridge.toml"}
HAN = re.compile(r"[\u4e00-\u9fff]")
SENTENCE = re.compile(r"[a-z]{2,} [a-z]{2,}")
PAIRS = [
    pytest.param(english, chinese, id=english.title)
    for pages in PAGES.items()
    for english, chinese in zip(*map(chapters, pages), strict=False)
]
each_chapter = pytest.mark.parametrize(("english", "chinese"), PAIRS)


def figures(chapter: Chapter) -> set[str]:
    """Numbers outside of code, links and list numbers."""
    text = re.sub(r"`[^`\n]+`|\]\([^)]*\)|^\d+\. ", "", chapter.prose, flags=re.MULTILINE)
    return set(re.findall(r"\d+(?:\.\d+)*", text))


def named(cell: str) -> tuple[list[str], list[str]]:
    """What of a table's cell is the same in every language."""
    return re.findall(r"`([^`]+)`", cell), re.findall(r"\d+", cell)


def pieces(chapter: Chapter) -> list[str]:
    """Title, paragraphs, list items and cells of tables."""
    blocks = re.split(r"\n\s*\n|\n(?=- |\d+\. |\|)", chapter.prose.strip())
    texts = [block for block in blocks if block.strip() and not block.startswith("|")]
    return [chapter.title, *texts, *(cell for row in chapter.rows for cell in row)]


def without_remarks(content: str) -> str:
    return re.sub(r"\s*#.*", "", content)


@pytest.mark.parametrize("pages", PAGES.items(), ids=lambda pages: pages[0])
def test_the_chapters_are_the_same(pages: tuple[str, str]) -> None:
    """As many headings, of the same levels, in the same order."""
    levels = [[chapter.level for chapter in chapters(page)] for page in pages]
    assert levels[0] == levels[1]


@each_chapter
def test_a_chapter_has_the_same_names(english: Chapter, chinese: Chapter) -> None:
    """Every verb, option, key, path, event and status in backquotes stands in both."""
    ours, theirs = set(chinese.code), set(english.code)
    assert ours == theirs, f"only in Chinese: {ours - theirs}; only in English: {theirs - ours}"


@each_chapter
def test_a_chapter_has_the_same_commands(english: Chapter, chinese: Chapter) -> None:
    """What is to be typed is the same, though what it prints may be in the reader's language."""
    assert chinese.commands == english.commands


@each_chapter
def test_a_chapter_has_the_same_blocks(english: Chapter, chinese: Chapter) -> None:
    """Blocks of the same languages in the same order; configuration and JSON mean the same."""
    assert [language for language, _ in chinese.fences] == [language for language, _ in english.fences]
    for (language, ours), (_, theirs) in zip(chinese.fences, english.fences, strict=True):
        if language == "toml":
            assert without_remarks(ours) == without_remarks(theirs)
        if language == "json":
            assert json.loads(ours) == json.loads(theirs)


@each_chapter
def test_a_chapter_has_the_same_tables(english: Chapter, chinese: Chapter) -> None:
    """As many rows and columns, and each row about the same thing."""
    assert [len(row) for row in chinese.rows] == [len(row) for row in english.rows]
    assert [named(row[0]) for row in chinese.rows] == [named(row[0]) for row in english.rows]
    quoted = [[row[0] for row in chapter.rows if row[0].startswith("…")] for chapter in (chinese, english)]
    assert quoted[0] == quoted[1]


@each_chapter
def test_a_chapter_has_the_same_links(english: Chapter, chinese: Chapter) -> None:
    """To the same places; one into the page itself leads to the same chapter."""
    ours, theirs = ([_twin(link) for link in chapter.links if link[0] != "#"] for chapter in (chinese, english))
    assert sorted(ours) == sorted(theirs)
    inside = [
        [[anchor(one.title) for one in chapters(page)].index(link[1:]) for link in chapter.links if link[0] == "#"]
        for page, chapter in ((CHINESE, chinese), (ENGLISH, english))
    ]
    assert inside[0] == inside[1]


def _twin(link: str) -> tuple[str, int]:
    """The English page, and which of its chapters."""
    page, _, heading = link.partition("#")
    number = [anchor(one.title) for one in chapters(Path(page).name)].index(heading) if heading else 0
    return TWINS.get(page, page.replace(".zh-CN.md", ".md")), number


@each_chapter
def test_a_chapter_has_the_same_figures(english: Chapter, chinese: Chapter) -> None:
    """Seconds, sizes and limits agree."""
    ours, theirs = figures(chinese), figures(english)
    assert ours == theirs, f"only in Chinese: {ours - theirs}; only in English: {theirs - ours}"


@each_chapter
def test_a_chapter_has_the_same_paragraphs(english: Chapter, chinese: Chapter) -> None:
    """Nothing is left out: as many paragraphs and list items, and each that has sentences is in Chinese."""
    ours, theirs = pieces(chinese), pieces(english)
    assert len(ours) == len(theirs)
    for mine, its in zip(ours, theirs, strict=True):
        assert HAN.search(mine) or not SENTENCE.search(re.sub(r"`[^`]+`", "", its)), mine


@pytest.mark.parametrize(("english", "chinese"), PAGES.items())
def test_each_leads_to_the_other(english: str, chinese: str) -> None:
    """Whoever opens the wrong one is one click away from the right one."""
    assert Path(chinese).name in chapters(english)[0].links
    assert Path(english).name in chapters(chinese)[0].links


@pytest.mark.parametrize(("page", "locale"), [(ENGLISH, "en"), (CHINESE, "zh-CN")])
def test_every_cause_is_explained_as_the_verbs_explain_it(page: str, locale: str) -> None:
    """The table of causes is the catalogue, word for word."""
    (index,) = [number for number, chapter in enumerate(chapters(ENGLISH)) if chapter.title == "Causes"]
    written = {tuple(row) for row in chapters(page)[index].rows[2:]}
    known = {(f"`{key}`", one.cause, one.remedy) for key, one in CAUSES[locale].items()}
    assert written == known, f"{page}: add {sorted(known - written)}, take away {sorted(written - known)}"
