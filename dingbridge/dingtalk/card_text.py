"""What a card shows while an answer is still growing: whole markdown at every moment, inert, no larger than it takes.

A frame replaces the card's whole text and has to be complete markdown; a single line feed breaks no line there, `<br>`
does. (DingTalk's pages on streaming updates of AI cards and on the card's markdown.)
"""

from __future__ import annotations

import re

from dingbridge.dingtalk import markdown, split

CARD_BYTES = 20_000  # JSON-escaped; DingTalk suggests 3 K, takes far more in practice, and refuses some 200 000
_HEAD_BYTES = CARD_BYTES - 2_000  # what is written of it is hardly longer
MORE = "\n\n…"
EMPTY = "…"  # DingTalk refuses a frame without a character

_FENCE = re.compile(r"^([ ]*)(`{3,}|~{3,})(.*)$")
_FENCE_BEGUN = re.compile(r"^[ ]*(?:`{1,2}|~{1,2})$")
_ITEM = re.compile(r"^[ ]*(?:[-*+][ ]|[0-9]{1,9}[.)][ ]|#{1,6}[ ]|>)")
_DELIMITER = re.compile(r"^[ ]*\|[-:| ]*$")
_BLOCK_BEGUN = re.compile(r"^[ ]*[-=*+#>]{1,3}[ ]*$")  # behind a line of text, "-" makes a heading of it
_LINK_BEGUN = re.compile(r"(!?)\[([^\[\]\n]*)\]\([^)\n]{0,2000}\Z")
_MARK = re.compile(r"\\.|`+|\*+|__|~{1,2}", re.DOTALL)
_BREAK = re.compile(r" {2}\n *(?!> )(?=\S)")


def head(text: str) -> str:
    """As much of an answer as its frames are made of."""
    if len(text) <= _HEAD_BYTES // 4:
        return text
    return text[:_HEAD_BYTES].encode("utf-8", "replace")[:_HEAD_BYTES].decode("utf-8", "ignore")


def frame(text: str) -> str:
    """What a card shows of an answer so far; never empty, never more than `CARD_BYTES`. Links stay text."""
    begun = head(text)
    written = capped(final(whole_so_far(begun)))
    return written if len(begun) == len(text) or written.endswith(MORE) else written + MORE


def final(text: str, *, link_hosts: frozenset[str] = frozenset()) -> str:
    """A whole answer as a card shows it; as `markdown.write`, with tables. Never empty, but maybe too long."""
    return _with_breaks(markdown.write(text, link_hosts=link_hosts, tables="keep")) or EMPTY


def fits(written: str) -> bool:
    """Whether a card takes what `final` returned."""
    return split.encoded(written) <= CARD_BYTES


def capped(written: str) -> str:
    """The beginning that fits, and "…" where something is left out."""
    if fits(written):
        return written
    room = CARD_BYTES - split.encoded(MORE) - 1_000  # for the breaks that are written again
    first = split.split(written, max_bytes=room, max_chars=CARD_BYTES)[0]
    return _with_breaks(first) + MORE


def _with_breaks(written: str) -> str:
    """Line breaks as the card's markdown knows them, outside of code and quotes."""
    pieces: list[str] = []
    prose: list[str] = []
    fence = ""
    for line in written.split("\n"):
        found = _FENCE.match(line)
        if found and not fence:
            pieces += [*_broken(prose), line]
            prose, fence = [], found[2]
        elif fence:
            pieces.append(line)
            fence = "" if line == fence else fence
        else:
            prose.append(line)
    return "\n".join([*pieces, *_broken(prose)])


def _broken(lines: list[str]) -> list[str]:
    return [_BREAK.sub("<br>", "\n".join(lines))] if lines else []


def whole_so_far(text: str) -> str:
    """The beginning of a markdown text as a text of its own: what is open at its end is closed, or left out.

    Closed are fences, tables, code, bold, italic and strikethrough; a half link is its words. Only the last block
    changes. Nothing is added to what is complete.
    """
    fence, at = _open_fence(text)
    if not fence:
        text = _whole_prose(text, at)
        fence, _ = _open_fence(text)  # without what was half a mark, a line may have become a fence
    else:
        text = _without_begun(text, _FENCE_BEGUN)
    return f"{text.rstrip()}\n{fence}" if fence else text


def _whole_prose(text: str, at: int) -> str:
    """at: where the last fence ended."""
    text = _without_begun(_without_begun(text, _FENCE_BEGUN), _BLOCK_BEGUN).rstrip()
    at = max(at, text.rfind("\n\n") + 2 if "\n\n" in text else 0)
    before, tail = text[:at], text[at:]
    lines = tail.split("\n")
    if lines[-1].lstrip().startswith("|"):
        return before + _whole_table(lines)
    last = next((number for number in range(len(lines) - 1, -1, -1) if _ITEM.match(lines[number])), 0)
    unit = _whole_line("\n".join(lines[last:]))
    return before + "\n".join([*lines[:last], unit])


def _open_fence(text: str) -> tuple[str, int]:
    """The line that closes the fence open at the end, "" where none is; and where the last closed one ends."""
    closing, at, position = "", 0, 0
    for line in text.split("\n"):
        position += len(line) + 1
        found = _FENCE.match(line)
        if found is None:
            continue
        indent, ticks, rest = found.groups()
        if not closing:
            if ticks[0] == "~" or "`" not in rest:
                closing = indent + ticks
        elif ticks.startswith(closing.strip()) and not rest.strip():
            closing, at = "", min(position, len(text))
    return closing, at


def _without_begun(text: str, begun: re.Pattern[str]) -> str:
    """Without a last line that is the first characters of something."""
    before, _, last = text.rpartition("\n")
    return before if begun.match(last) else text


def _whole_table(lines: list[str]) -> str:
    first = len(lines)
    while first and lines[first - 1].lstrip().startswith("|"):
        first -= 1
    rows = lines[first:]
    if len(rows) == 2 and _DELIMITER.match(rows[1]):
        rows = rows[:1]
    complete = len(rows) > 1
    rows[-1] = _whole_row(rows[-1])
    if not complete:
        columns = max(1, len(re.findall(r"(?<!\\)\|", rows[0])) - 1)
        rows.append("|" + " --- |" * columns)
    return "\n".join([*lines[:first], *rows])


def _whole_row(row: str) -> str:
    row = row.rstrip()
    if row.endswith("|") and not row.endswith("\\|") and row.strip() != "|":
        return row
    cells, bar, cell = row.rpartition("|")
    return f"{cells}{bar}{_whole_line(cell)} |"


def _whole_line(text: str) -> str:
    """A paragraph or a line of its own with every mark that is open at its end closed."""
    text = _LINK_BEGUN.sub(lambda found: "" if found[1] else found[2], text).rstrip()
    if text.endswith("\\") and not text.endswith("\\\\"):
        text = text[:-1].rstrip()
    opened: list[tuple[str, int]] = []
    for found in _MARK.finditer(text):
        mark, start, end = found[0], found.start(), found.end()
        if mark[0] == "\\":
            continue
        inner = opened[-1][0] if opened else ""
        if inner[:1] == "`":
            if mark == inner:
                opened.pop()
        elif mark == inner and start > opened[-1][1] and not text[start - 1].isspace():
            opened.pop()
        elif end == len(text) or mark[0] == "`" or (mark != "~" and len(mark) <= 3 and not text[end].isspace()):
            opened.append((mark, end))
    return _closed(text, opened)


def _closed(text: str, opened: list[tuple[str, int]]) -> str:
    """A mark that opens nothing yet, or is half of a closing one, is left out."""
    while opened and opened[-1][1] == len(text):
        text = text[: -len(opened.pop()[0])].rstrip()
    return text + "".join(mark for mark, _ in reversed(opened))
