"""The project's pages as a reader takes them in: chapters, tables, links, and what stands in backquotes or fences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_CELLS = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, slots=True)
class Chapter:
    """A heading and what stands below it, up to the next one."""

    level: int
    title: str
    text: str

    @property
    def fences(self) -> list[tuple[str, str]]:
        """(language, content) of each fenced block."""
        return _FENCE.findall(self.text)

    @property
    def prose(self) -> str:
        """Everything but fenced blocks and comments."""
        return re.sub(r"<!--.*?-->", "", _FENCE.sub("", self.text))

    @property
    def code(self) -> list[str]:
        """What stands in backquotes."""
        return re.findall(r"`([^`\n]+)`", self.prose)

    @property
    def links(self) -> list[str]:
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    @property
    def rows(self) -> list[list[str]]:
        """The cells of all tables, headings of columns and rules included."""
        lines = [line for line in self.prose.splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in _CELLS.split(line)[1:-1]] for line in lines]

    @property
    def commands(self) -> list[str]:
        """What a reader is to type, without the remark behind it."""
        lines = "\n".join(content for language, content in self.fences if language == "console").splitlines()
        return [re.sub(r"\s{2,}# .*", "", line).rstrip() for line in lines if line.startswith(("$ ", "# "))]


def read(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def chapters(page: str) -> list[Chapter]:
    """All of a page; a line of a fenced block is no heading, though it may begin like one."""
    found: list[Chapter] = []
    level, title, lines, fenced = 0, "", [""], False
    for line in read(page).splitlines(keepends=True):
        fenced ^= line.startswith("```")
        heading = None if fenced else re.fullmatch(r"(#+) (.+)\n", line)
        if heading:
            found.append(Chapter(level, title, "".join(lines)))
            level, title, lines = len(heading[1]), heading[2], []
        else:
            lines.append(line)
    return [*found[1:], Chapter(level, title, "".join(lines))]


def anchor(title: str) -> str:
    """The fragment that a heading is reached by."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def part(page: str, name: str) -> str:
    """What stands between `<!-- name -->` and `<!-- /name -->`."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", read(page), flags=re.DOTALL)
    assert found, f"{page} has no part {name!r}"
    return found[1]
