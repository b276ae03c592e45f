"""What an answer may consist of, and how it is written in DingTalk's markdown.

DingTalk documents h1-h6, quote, bold, italic, link, image, `- ` and `1. ` lists, and asks for two spaces around a
line break (https://open.dingtalk.com/document/orgapp/robot-message-type). Blocks here are flat and a line of text
is self-contained: nothing nests and no emphasis spans lines, so any renderer copes and any block can be split.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from dingbridge.dingtalk.inert import mute, tame


class Kind(Enum):
    TEXT = ""
    ITALIC = "*"
    BOLD = "**"
    CODE = "`"
    LINK = "["


@dataclass(frozen=True, slots=True)
class Run:
    """Characters of one kind, as a reader sees them; `url` only for a link."""

    text: str
    kind: Kind = Kind.TEXT
    url: str = ""

    def saying(self, text: str) -> Run:
        """The same in other words."""
        return self if text == self.text else Run(text, self.kind, self.url)


Line = tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Heading:
    level: int
    line: Line


@dataclass(frozen=True, slots=True)
class Paragraph:
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Quote:
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """`start` is the first number, None for bullets; an item is one or more lines."""

    items: tuple[tuple[Line, ...], ...]
    start: int | None = None


@dataclass(frozen=True, slots=True)
class Fence:
    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Every row has as many cells as the head."""

    head: tuple[Line, ...]
    rows: tuple[tuple[Line, ...], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    pass


Block = Heading | Paragraph | Quote | Listing | Fence | Table | Rule

STYLED = (Kind.BOLD, Kind.ITALIC)
_CLAUSE_END = frozenset("：:，,。.；;！!？?、")
_LINE_BREAK = "  \n"  # a single "\n" is swallowed by some clients
# A character is escaped only where it would be read as markup; phones show some backslashes.
_MARKUP = re.compile(r"\\(?=[!-/:-@\[-`{-~]|\Z)|`|\*+|_+|~+")
_LINE_START = re.compile(r"[#>]|[+-](?=\s|\Z)|[-=:|][-=:|\s]*\Z")
_NUMBER_START = re.compile(r"([0-9]{1,9})([.)])(?=\s|\Z)")


def line_text(line: Iterable[Run]) -> str:
    return "".join(run.text for run in line)


def bold(line: Line) -> Line:
    return tuple(replace(run, kind=Kind.BOLD) if run.kind in (Kind.TEXT, Kind.ITALIC) else run for run in line)


def visible(block: Block) -> str:
    """The words of a block, one line a line; a table's cells stand on lines of their own."""
    match block:
        case Heading(line=line):
            return line_text(line)
        case Paragraph(lines=lines) | Quote(lines=lines):
            return "\n".join(map(line_text, lines))
        case Listing(items=items):
            return "\n".join(line_text(line) for item in items for line in item)
        case Fence(text=text):
            return text
        case Table(head=head, rows=rows):
            return "\n".join(line_text(cell) for row in (head, *rows) for cell in row)
        case Rule():
            return ""


LABEL_CHARS = 40  # a first cell that is a text of its own is no label


def as_listing(table: Table) -> Listing:
    """Each row as `head **cell**：head cell；head cell`: phones show no tables."""
    rows = (_row_line(table.head, row) for row in table.rows)
    lines = [line for line in rows if line] if table.rows else [_row_line((), table.head)]
    return Listing(tuple((line,) for line in lines if line))


def _row_line(head: tuple[Line, ...], row: tuple[Line, ...]) -> Line:
    runs: list[Run] = []
    cells = [(head[column] if column < len(head) else (), cell) for column, cell in enumerate(row)]
    for position, (name, cell) in enumerate((name, cell) for name, cell in cells if line_text(cell).strip()):
        if position:
            runs.append(Run("：" if position == 1 else "；"))
        if line_text(name).strip():
            runs += [*name, Run(" ")]
        label = not position and len(cells) > 1 and len(line_text(cell)) <= LABEL_CHARS
        runs += bold(cell) if label else cell
    return settle(runs)


def settle(runs: Iterable[Run]) -> Line:
    """The line as it can be written: neighbours joined, emphasis where every CommonMark reader sees it.

    Emphasis may not begin or end with a space, and not with punctuation towards a letter (`**注意：**请` shows
    its asterisks): the punctuation moves out, or a space comes between.
    """
    joined = _joined(runs)
    if not any(run.kind in STYLED for run in joined):
        return tuple(_trimmed([_tamed(run) for run in joined]))
    joined = _joined(_loosened(joined))
    kinds = [run.kind for run in joined]
    for at, run in enumerate(joined):
        # Two kinds of asterisks side by side read as one; bold is the one that matters.
        if run.kind is Kind.ITALIC and Kind.BOLD in kinds[max(at - 1, 0) : at + 2]:
            joined[at] = replace(run, kind=Kind.BOLD)
    return tuple(_trimmed(_joined(_flanked([_tamed(run) for run in _joined(joined)]))))


def _tamed(run: Run) -> Run:
    return run if run.kind in (Kind.CODE, Kind.LINK) else run.saying(tame(run.text))


def _joined(runs: Iterable[Run]) -> list[Run]:
    joined: list[Run] = []
    for run in runs:
        if not run.text:
            continue
        last = joined[-1] if joined else None
        if last is None or last.kind is not run.kind or run.kind is Kind.LINK:
            joined.append(run)
        elif run.kind is Kind.CODE:
            joined += [Run(" "), run]
        else:
            joined[-1] = last.saying(last.text + run.text)
    return joined


def _loosened(runs: Iterable[Run]) -> Iterator[Run]:
    for run in runs:
        core = run.text.strip()
        if run.kind not in STYLED or core == run.text:
            yield run
            continue
        lead, _, tail = run.text.partition(core) if core else (run.text, "", "")
        yield from (Run(lead), run.saying(core), Run(tail))


def _flanked(runs: list[Run]) -> list[Run]:
    for at, run in enumerate(runs):
        if run.kind not in STYLED:
            continue
        if at and needs_air(run.text[0], runs[at - 1].text[-1], runs[at - 1].kind):
            runs[at - 1] = runs[at - 1].saying(runs[at - 1].text + " ")
        if at + 1 == len(runs) or not needs_air(run.text[-1], runs[at + 1].text[0], runs[at + 1].kind):
            continue
        air = run.text[-1] if run.text[-1] in _CLAUSE_END else " "
        runs[at] = run.saying(run.text.removesuffix(air))
        runs[at + 1] = runs[at + 1].saying(air + runs[at + 1].text)
    return runs


def needs_air(inside: str, outside: str, neighbour: Kind = Kind.TEXT) -> bool:
    """Whether an asterisk between these two is no emphasis; code and links begin and end with punctuation."""
    if neighbour is not Kind.TEXT or outside.isspace() or outside in string.punctuation:
        return False
    return unicodedata.category(inside)[0] in "PS" and unicodedata.category(outside)[0] != "P"


def _trimmed(runs: list[Run]) -> list[Run]:
    if runs and runs[0].kind is Kind.TEXT:
        runs[0] = runs[0].saying(runs[0].text.lstrip())
    if runs and runs[-1].kind is Kind.TEXT:
        runs[-1] = runs[-1].saying(runs[-1].text.rstrip())
    return [run for run in runs if run.text]


def render(blocks: Iterable[Block]) -> str:
    return "\n\n".join(map(render_block, blocks))


def render_block(block: Block) -> str:
    match block:
        case Heading(level=level, line=line):
            text = _render_runs(line)
            written = "#" * level + " " + (text[:-1] + "\\#" if text.endswith("#") else text)
        case Paragraph(lines=lines):
            written = _LINE_BREAK.join(map(render_line, lines))
        case Quote(lines=lines):
            written = _LINE_BREAK.join("> " + render_line(line) for line in lines)
        case Listing(items=items, start=start):
            written = "\n".join(_render_item(item, at, start) for at, item in enumerate(items))
        case Fence(text=text, language=language):
            ticks = _ticks(text, 3)
            written = f"{ticks}{language}\n{mute(text)}\n{ticks}"
        case Table(head=head, rows=rows):
            written = "\n".join([_render_row(head), "| --- " * len(head) + "|", *map(_render_row, rows)])
        case _:
            written = "---"
    return written


def _render_item(item: tuple[Line, ...], at: int, start: int | None) -> str:
    mark = "- " if start is None else f"{start + at}. "
    return mark + (_LINE_BREAK + " " * len(mark)).join(map(render_line, item))


def _render_row(row: tuple[Line, ...]) -> str:
    return "| " + " | ".join(_render_runs(cell).replace("|", "\\|") for cell in row) + " |"


def render_line(line: Line) -> str:
    """A line that begins no other block: what looks like a list, heading, rule or table there is escaped."""
    text = _render_runs(line)
    if _LINE_START.match(text):
        return "\\" + text
    return _NUMBER_START.sub(r"\1\\\2", text, count=1) if _NUMBER_START.match(text) else text


def _render_runs(line: Line) -> str:
    runs = settle(line)
    written: list[str] = []
    for run, follower in zip(runs, (*runs[1:], None), strict=False):
        if run.kind is Kind.CODE:
            written.append(_render_code(mute(run.text)))
        elif run.kind is Kind.LINK:
            words = tame(run.text).replace("[", "［").replace("]", "］")
            written.append(f"[{_escaped(words)}]({run.url})")
        else:
            words = tame(run.text)
            if follower is not None and follower.kind is Kind.LINK and words.endswith("!"):
                words = words[:-1] + "！"  # "!" before "[" is an image
            written.append(run.kind.value + _escaped(words) + run.kind.value)
    return "".join(written)


def _render_code(text: str) -> str:
    ticks = _ticks(text, 1)
    air = " " if text[0] == "`" or text[-1] == "`" else ""
    return ticks + air + text + air + ticks


def _ticks(text: str, least: int) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


def _escaped(text: str) -> str:
    return _MARKUP.sub(_escaped_mark, text)


def _escaped_mark(found: re.Match[str]) -> str:
    mark, before = found[0], found.string[max(found.start() - 1, 0) : found.start()]
    after = found.string[found.end() : found.end() + 1]
    inert = before == after == " "
    if mark[0] == "_":
        inert = inert or (_in_word(before) and _in_word(after))
    elif mark == "~":
        inert = inert or after == "/"
    elif mark[0] in "\\`":
        inert = False
    return mark if inert else "".join("\\" + character for character in mark)


def _in_word(character: str) -> bool:
    return character != "" and not character.isspace() and unicodedata.category(character)[0] not in "PS"
