"""A written answer in as many messages as it needs, cut where a reader would cut it.

DingTalk refuses a request body over 20 000 bytes (`460101`), so a part is measured as it travels: as a JSON
string in UTF-8, where a quote, a backslash and a line end take two bytes.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dingbridge.dingtalk.blocks import (
    Block,
    Fence,
    Heading,
    Kind,
    Line,
    Listing,
    Paragraph,
    Quote,
    Run,
    Table,
    as_listing,
    line_text,
    render_block,
    settle,
    visible,
)
from dingbridge.dingtalk.inert import is_joint
from dingbridge.dingtalk.markdown import read

LEAST_BYTES = 200
_NUMBER = "\n\n({}/{})"
_RESERVE = _NUMBER.format(9999, 9999)
# Where a line may be cut, best first; behind one of these, if no closing mark follows.
_STOPS = ("。！？；…!?", "，、：,;:", " \u3000")
_CLOSERS = "”’」』）)】》"
_NEAR = 60  # characters a cut may move back to spare a word

Fits = Callable[[Block], bool]


def encoded(text: str) -> int:
    """Bytes of the text inside a JSON body written with `ensure_ascii=False`."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")) - 2


def split(
    markdown: str, *, max_bytes: int, max_chars: int = 4_000, measure: Callable[[str], int] | None = None
) -> list[str]:
    """The parts of what `write` returned, none empty, none over `max_bytes` (by `measure`, default `encoded`).

    Parts end between blocks where they can: tables and code stay whole if they fit into one part, lists part
    between items, a heading, or a short line with a colon at its end, stays with what follows. A longer block is
    cut between its lines (code is fenced again, a table's head repeated), a longer line behind a sentence, a clause,
    a word, never inside a link or a composed character. Room for `number` is kept. No words are lost; "" has no
    parts. The asker's own mention is put in afterwards: here it would be muted like any other.
    """
    if max_bytes < LEAST_BYTES or max_chars < LEAST_BYTES:
        raise ValueError(f"a part of less than {LEAST_BYTES} cannot be cut to")
    measure = measure or encoded
    markdown = markdown.strip()
    if len(markdown) <= max_chars and measure(markdown) <= max_bytes:
        return [markdown] if markdown else []
    room = _Room(max_bytes - measure(_RESERVE), max_chars - len(_RESERVE), measure)
    return _packed(deque(read(markdown, None)), room)


def number(parts: list[str]) -> list[str]:
    """`(1/3)` on a line of its own at the end of each part, where there is more than one."""
    if len(parts) < 2:
        return list(parts)
    return [part + _NUMBER.format(at, len(parts)) for at, part in enumerate(parts, 1)]


@dataclass(slots=True)
class _Room:
    """The part that is being filled."""

    max_size: int
    max_chars: int
    measure: Callable[[str], int]
    blocks: list[Block] = field(default_factory=list)
    text: str = ""

    @property
    def has_body(self) -> bool:
        return not all(map(_announces, self.blocks))

    def fits(self, block: Block) -> bool:
        return self._holds(self.text, block)

    def fits_anew(self, block: Block) -> bool:
        """Whether the block would stand in the next part, with the headings that move on with it."""
        return self._holds("\n\n".join(map(render_block, self._moving())), block)

    def _holds(self, before: str, block: Block) -> bool:
        # Spares writing a long rest again for each part.
        if _count(block) > self.max_chars or len(visible(block)) > self.max_chars:
            return False
        text = f"{before}\n\n{render_block(block)}" if before else render_block(block)
        return len(text) <= self.max_chars and self.measure(text) <= self.max_size

    def add(self, block: Block) -> None:
        self.blocks.append(block)
        self.text = f"{self.text}\n\n{render_block(block)}" if self.text else render_block(block)

    def close(self) -> str:
        """The finished part; headings and the like at its end open the next one."""
        moving = self._moving()
        blocks = self.blocks[: len(self.blocks) - len(moving)] or moving
        text = "\n\n".join(map(render_block, blocks))
        moving = moving if blocks is not moving else []
        self.blocks, self.text = [], ""
        for block in moving:
            self.add(block)
        return text

    def _moving(self) -> list[Block]:
        at = len(self.blocks)
        while at and _announces(self.blocks[at - 1]):
            at -= 1
        return self.blocks[at:] if at else []


def _announces(block: Block) -> bool:
    """A heading, or a short line that ends in a colon, says nothing without what follows it."""
    if isinstance(block, Paragraph) and len(block.lines) == 1:
        text = line_text(block.lines[0])
        return len(text) <= _NEAR and text.endswith(("：", ":"))
    return isinstance(block, Heading)


def _packed(waiting: deque[Block], room: _Room) -> list[str]:
    parts: list[str] = []
    while waiting:
        block = waiting.popleft()
        if room.fits(block):
            room.add(block)
            continue
        if room.has_body and not isinstance(block, Listing) and room.fits_anew(block):
            parts.append(room.close())
            waiting.appendleft(block)
            continue
        head, rest = _cut(block, room.fits)
        if head is None and not room.has_body:
            head, rest = _broken(block, room.fits, force=not room.blocks)
        waiting.extendleft(reversed(rest))
        if head is not None:
            room.add(head)
        if head is not None or rest == [block]:
            parts.append(room.close())
    if room.blocks:
        parts.append(room.text)
    return parts


def _cut(block: Block, fits: Fits) -> tuple[Block | None, list[Block]]:
    """The most lines, items or rows that fit, and the others; None where not one does."""
    count = _count(block)
    most = _most(lambda end: fits(_slice(block, 0, end)), count - 1) if count > 1 else 0
    if not most:
        return None, [block]
    rest = _slice(block, most, count)
    return _slice(block, 0, most), [rest] if visible(rest).strip() else []


def _count(block: Block) -> int:
    match block:
        case Paragraph(lines=lines) | Quote(lines=lines):
            return len(lines)
        case Listing(items=items):
            return len(items)
        case Table(rows=rows):
            return len(rows)
        case Fence(text=text):
            return text.count("\n") + 1
        case _:
            return 1


def _slice(block: Block, start: int, end: int) -> Block:
    match block:
        case Paragraph(lines=lines) | Quote(lines=lines):
            return replace(block, lines=lines[start:end])
        case Listing(items=items, start=first):
            return Listing(items[start:end], None if first is None else first + start)
        case Table(rows=rows):
            return replace(block, rows=rows[start:end])
        case Fence(text=text):
            return replace(block, text="\n".join(text.split("\n")[start:end]).strip("\n"))
        case _:
            return block


def _most(fits: Callable[[int], bool], limit: int) -> int:
    """The largest number up to `limit` that fits, 0 for none; a long rest is not touched to find it."""
    low, high = 0, 1
    while high <= limit and fits(high):
        low, high = high, high * 2
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _broken(block: Block, fits: Fits, *, force: bool) -> tuple[Block | None, list[Block]]:
    """Like `_cut`, for a block whose first line, item or row is too long; `force` cuts off something at least."""
    match block:
        case Table():
            return None, _first_row_listed(block)
        case Listing():
            return _broken_listing(block, fits, force=force)
        case Fence(text=text):
            size = _most(lambda end: fits(replace(block, text=text[:end])), len(text))
            size = _stop(text, size, lambda place: place, stops=_STOPS[-1:]) or int(force)
            head = replace(block, text=text[:size]) if size else None
            return head, [replace(block, text=text[size:].lstrip("\n"))]
        case Heading(level=level, line=line):
            first, others = _cut_line(line, lambda line: fits(Heading(level, line)), force=force)
            return (Heading(level, first), _paragraph(others)) if first else (None, [block])
        case Paragraph(lines=lines) | Quote(lines=lines):
            first, others = _cut_line(lines[0], lambda line: fits(replace(block, lines=(line,))), force=force)
            rest = (*others, *lines[1:])
            return (
                (replace(block, lines=(first,)), [replace(block, lines=rest)] if rest else [])
                if first
                else (None, [block])
            )
        case _:
            return block, []


def _first_row_listed(table: Table) -> list[Block]:
    first = as_listing(replace(table, rows=table.rows[:1]))
    others = replace(table, rows=table.rows[1:])
    return [*([first] if first.items else []), *([others] if others.rows else [])]


def _broken_listing(block: Listing, fits: Fits, *, force: bool) -> tuple[Block | None, list[Block]]:
    """The first item's beginning; what is left of it goes on as a paragraph."""

    def alone(*lines: Line) -> Listing:
        return replace(block, items=(lines,))

    item = block.items[0]
    size = _most(lambda end: fits(alone(*item[:end])), len(item) - 1)
    head, rest = item[:size], item[size:]
    if not size:
        first, others = _cut_line(item[0], lambda line: fits(alone(line)), force=force)
        if not first:
            return None, [block]
        head, rest = (first,), (*others, *item[1:])
    following = [_slice(block, 1, len(block.items))] if len(block.items) > 1 else []
    return alone(*head), _paragraph(rest) + following


def _paragraph(lines: tuple[Line, ...]) -> list[Block]:
    return [Paragraph(lines)] if lines else []


def _cut_line(line: Line, fits: Callable[[Line], bool], *, force: bool) -> tuple[Line, tuple[Line, ...]]:
    """As much of a line as fits, and the rest as one line or none; an empty first one where nothing fits."""
    text, outside = line_text(line), _outside_links(line)
    size = _most(lambda end: fits(_runs(line, 0, outside(end))), len(text))
    at = _stop(text, size, outside)
    if not at and not force:
        return (), (line,)
    if not at and line[0].kind is Kind.LINK:  # a link longer than a message: its words remain
        return _cut_line((Run(line[0].text), *line[1:]), fits, force=force)
    at = at or 1
    while at < len(text) and text[at].isspace() and outside(at) == at:
        at += 1
    rest = _runs(line, at, len(text))
    return settle(_runs(line, 0, at)), (rest,) if rest else ()


def _runs(line: Line, start: int, end: int) -> Line:
    runs: list[Run] = []
    at = 0
    for run in line:
        following = at + len(run.text)
        if at >= end:
            break
        if start <= at and following <= end:
            runs.append(run)
        elif following > start:
            runs.append(run.saying(run.text[max(start - at, 0) : end - at]))
        at = following
    return tuple(runs)


def _outside_links(line: Line) -> Callable[[int], int]:
    """A function that moves a place inside a link to the link's beginning."""
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    for run in line:
        if run.kind is Kind.LINK:
            starts.append(at)
            ends.append(at + len(run.text))
        at += len(run.text)

    def outside(place: int) -> int:
        link = bisect_left(starts, place) - 1
        return starts[link] if link >= 0 and place < ends[link] else place

    return outside


def _stop(text: str, limit: int, outside: Callable[[int], int], stops: tuple[str, ...] = _STOPS) -> int:
    """The best place for a cut up to `limit`, 0 where there is none."""

    def may(at: int) -> bool:
        return is_joint(text, at) and outside(at) == at

    for characters in stops:
        for at in range(limit, limit // 2, -1):
            if _pauses(text, at, characters) and may(at):
                return at
    places = range(limit, max(limit - _NEAR, 0), -1)
    whole_words = (at for at in places if not (_is_word(text[at - 1 : at]) and _is_word(text[at : at + 1])))
    best = next(filter(may, whole_words), 0) or next(filter(may, places), 0)
    return best or outside(limit)


def _pauses(text: str, at: int, stops: str) -> bool:
    """Whether one of the stops, and the marks that close behind it, end there; `3.5` and `12:30` hold none."""
    before, after = text[max(at - 3, 0) : at].rstrip(_CLOSERS)[-1:], text[at : at + 1]
    if not before or before not in stops or (after and after in _CLOSERS):
        return False
    return not before.isascii() or before == " " or not after or after.isspace()


def _is_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character in "._-@/:%")
