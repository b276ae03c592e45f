"""Bold in an answer: what its reader looks for, and the sources say too. Works on blocks, never on markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from dingbridge.dingtalk.blocks import (
    STYLED,
    Block,
    Kind,
    Line,
    Listing,
    Paragraph,
    Quote,
    Run,
    line_text,
    needs_air,
    settle,
)
from dingbridge.dingtalk.inert import is_joint
from dingbridge.emphasis import Emphasis, Mark

MAX_BOLD = 20  # runs in an answer, those included that it came with; where all is bold, nothing is
_MARKUP = frozenset("*_`~\\")


def emphasise(blocks: Iterable[Block], emphasis: Emphasis) -> list[Block]:
    """The blocks with the same words, some of them bold: each thing where it is said first.

    Headings are prominent already, a table shows what is what by itself, code and links stay as they are; in quotes
    only key words are bold, wherever they stand. Doing it again changes nothing.
    """
    blocks = list(blocks)
    if not emphasis.words and not emphasis.facts:
        return blocks
    writer = _Writer(emphasis, MAX_BOLD - sum(run.kind is Kind.BOLD for line in _lines(blocks) for run in line))
    return [writer.block(block) for block in blocks]


def _lines(blocks: Iterable[Block]) -> Iterator[Line]:
    for block in blocks:
        match block:
            case Paragraph(lines=lines) | Quote(lines=lines):
                yield from lines
            case Listing(items=items):
                yield from (line for item in items for line in item)


class _Writer:
    def __init__(self, emphasis: Emphasis, left: int) -> None:
        self._emphasis = emphasis
        self._left = left
        self._said: set[str] = set()

    def block(self, block: Block) -> Block:
        match block:
            case Paragraph(lines=lines):
                return replace(block, lines=tuple(map(self._line, lines)))
            case Quote(lines=lines):
                return replace(block, lines=tuple(self._line(line, quoted=True) for line in lines))
            case Listing(items=items):
                return replace(block, items=tuple(tuple(map(self._line, item)) for item in items))
        return block

    def _line(self, line: Line, *, quoted: bool = False) -> Line:
        if self._left <= 0:
            return line
        text = line_text(line)
        places = self._places(line, text, quoted=quoted)
        return settle(_with_bold(line, places)) if places else line

    def _places(self, line: Line, text: str, *, quoted: bool) -> list[tuple[int, int]]:
        """Where bold begins and ends; marks side by side are one run."""
        places: list[tuple[int, int]] = []
        for mark in self._emphasis.marks(text, facts=not quoted):
            start, end = _writable(text, mark)
            where = _run_around(line, start, end)
            if where is None:
                continue
            kind, free = where
            if kind is Kind.BOLD:
                self._said.add(mark.said)
            if kind is not Kind.TEXT or not free or (mark.said in self._said and not quoted):
                continue
            self._said.add(mark.said)
            if places and places[-1][1] == start:
                places[-1] = (places[-1][0], end)
            elif self._left > 0:
                self._left -= 1
                places.append((start, end))
        return places


def _writable(text: str, mark: Mark) -> tuple[int, int]:
    """The mark without signs that no asterisk may touch there: in `共￥800` the number alone is bold."""
    start, end = mark.start, mark.end
    while start < end and start and needs_air(text[start], text[start - 1]):
        start += 1
    while start < end < len(text) and needs_air(text[end - 1], text[end]):
        end -= 1
    return start, end


def _run_around(line: Line, start: int, end: int) -> tuple[Kind, bool] | None:
    """The kind of the one run that holds the place, and whether asterisks may stand around it there."""
    at = 0
    for position, run in enumerate(line):
        low, high = start - at, end - at
        if low >= len(run.text):
            at += len(run.text)
            continue
        if low >= high or high > len(run.text):
            return None
        neighbours = [*(line[position - 1 : position] if low == 0 and position else ())]
        neighbours += line[position + 1 : position + 2] if high == len(run.text) else ()
        beside = run.text[max(low - 1, 0) : low] + run.text[high : high + 1]
        joints = is_joint(run.text, low) and is_joint(run.text, high)
        styled = any(neighbour.kind in STYLED for neighbour in neighbours)
        return run.kind, joints and not styled and not _MARKUP.intersection(beside)
    return None


def _with_bold(line: Line, places: list[tuple[int, int]]) -> Iterator[Run]:
    at = 0
    waiting = iter(places)
    place = next(waiting, None)
    for run in line:
        done = 0
        while place is not None and place[0] < at + len(run.text):
            start, end = place[0] - at, place[1] - at
            yield run.saying(run.text[done:start])
            yield Run(run.text[start:end], Kind.BOLD)
            done = end
            place = next(waiting, None)
        yield run.saying(run.text[done:])
        at += len(run.text)
