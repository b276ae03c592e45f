"""Markdown by a stranger in, markdown that only says something out.

What a model or a document wrote is parsed, and from the tokens only what is listed here is written again; there is
no other way into an answer. What that means for a reader:

links     only absolute http(s) addresses without userinfo whose host is in `link_hosts`. Any other web address
          stays readable beside its text, `手册（a．example/b）`, but no client can make it clickable; any other
          scheme (dtmd, javascript, mailto, …) leaves its text alone. A link whose text looks like another
          address names its host.
images    become `〔图：alt〕`; loading one would tell its owner who read the answer.
HTML      is text: `<` outside code is written `＜`, because phones drop what looks like a tag.
mentions  `@` is written `＠` unless it stands in an e-mail address; in code too, where DingTalk also looks.
layout    single line breaks are kept (two spaces before them); nested lists become lines with `•` and `（1）` in
          their item; code, tables and quotes inside lists stand after their item; strikethrough becomes plain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, reference
from markdown_it.token import Token

from dingbridge.dingtalk.blocks import (
    Block,
    Fence,
    Heading,
    Kind,
    Line,
    Listing,
    Paragraph,
    Quote,
    Rule,
    Run,
    Table,
    as_listing,
    bold,
    line_text,
    render,
    render_line,
    settle,
    visible,
)
from dingbridge.dingtalk.inert import is_joint, label, mute, shown, spans, tame
from dingbridge.markup import clean, destination, emphasis, host_of

MAX_CHARS = 60_000  # 15 full messages; the worst input found takes 3 s
_NESTING = 50
_LAST_NUMBER = 999_999_999  # CommonMark reads no longer ones
TITLE_CHARS = 40
_TITLE_FROM = 4_000  # characters that are read for a title

_BR = re.compile(r"<br\s*/?>", re.IGNORECASE)
_LANGUAGE = re.compile(r"[A-Za-z0-9_+#.-]{1,20}")
_BULLETS = "•◦▪"

Tables = Literal["list", "keep"]


def write(text: str, *, link_hosts: frozenset[str] = frozenset(), tables: Tables = "list") -> str:
    """DingTalk markdown that says what `text` says and does nothing; "" when it says nothing.

    link_hosts: lower-case host names (punycode for others than ASCII) that may be linked, on any port.
    tables: "list" writes each row as a list item, which phones can show; "keep" leaves tables to cards.
    Never raises. Takes about 20 ms per 10 KB: call it in a thread for longer texts. Writing what has been
    written changes nothing. From `MAX_CHARS` on the text is cut and ends with "…".
    """
    if len(text) > MAX_CHARS:
        text = text[:MAX_CHARS] + "…"
    return render(read(text, link_hosts, tables=tables))


def phrase(words: str, url: str = "", *, link_hosts: frozenset[str] = frozenset()) -> str:
    """Words that are not markdown (a document's title) as inert markdown, linked where `url` may be."""
    words = " ".join(clean(words).split())
    address = destination(url, link_hosts)
    if address:
        return render_line((Run(label(words, host_of(address)), Kind.LINK, address),))
    return render_line(tuple(Run(piece) for piece, _ in spans(words, frozenset())))


def has_table(text: str) -> bool:
    """Whether a reader would see a table; a few milliseconds for what fits one message."""
    if "|" not in text:
        return False
    return any(token.type == "table_open" for token in _parser().parse(clean(text[:MAX_CHARS])))


def plain(text: str, *, limit: int = TITLE_CHARS, fallback: str = "") -> str:
    """The beginning as one line without markup, for a title or a preview: at most `limit` characters.

    `fallback` where the text says nothing; DingTalk refuses a markdown message with an empty title.
    """
    return shortened(read(text[:_TITLE_FROM], None), limit) or fallback


def shortened(blocks: Iterable[Block], limit: int) -> str:
    words = ""
    for block in blocks:
        words = " ".join(f"{words} {visible(block)}".split())
        if len(words) > limit:
            break
    words = tame("".join(piece for piece, _ in spans(words[: 2 * _TITLE_FROM], frozenset())))
    if len(words) > limit:
        end = limit - 1
        while end > 1 and not is_joint(words, end):
            end -= 1
        words = words[:end].rstrip() + "…"
    return words


def read(text: str, hosts: frozenset[str] | None, *, tables: Tables = "keep") -> list[Block]:
    """The blocks of a markdown text, everything in them already inert.

    None for `hosts` keeps links to every host: right for text that `write` returned, and for nothing else.
    """
    return _merged(_Reader(hosts, tables).blocks(_parser().parse(clean(text)), depth=0))


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _NESTING})
    parser.enable(["table", "strikethrough"])
    parser.disable(["html_block", "html_inline"])  # they would be asked everywhere, to find nothing
    # Every link has to be seen as one, also `javascript:`, or its source would be written out as text.
    parser.validateLink = lambda url: True  # type: ignore[method-assign] # noqa: ARG005 - its interface
    parser.normalizeLink = lambda url: url  # type: ignore[method-assign]
    parser.inline.ruler.at("emphasis", emphasis)
    parser.block.ruler.at("reference", _reference, {"alt": []})
    return parser


def _reference(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Definitions of links; `[^1]: 说明` is a footnote, and a reader wants to see it."""
    at = state.bMarks[start] + state.tShift[start]
    return not state.src.startswith("[^", at) and reference(state, start, end, silent)


def _merged(blocks: Iterable[Block]) -> list[Block]:
    """Neighbouring lists of one kind are one list, as every parser would read them."""
    merged: list[Block] = []
    for block in blocks:
        last = merged[-1] if merged else None
        if isinstance(block, Listing) and isinstance(last, Listing) and (block.start is None) == (last.start is None):
            merged[-1] = replace(last, items=last.items + block.items)
        else:
            merged.append(block)
    return merged


def _nodes(tokens: Sequence[Token]) -> Iterator[tuple[Token, Sequence[Token]]]:
    """Each token of this level with the tokens it encloses."""
    at = 0
    while at < len(tokens):
        end = at
        depth: int = tokens[at].nesting
        while depth > 0 and end + 1 < len(tokens):
            end += 1
            depth += tokens[end].nesting
        yield tokens[at], tokens[at + 1 : end]
        at = end + 1


class _Reader:
    def __init__(self, hosts: frozenset[str] | None, tables: Tables) -> None:
        self._hosts = hosts
        self._tables = tables

    def blocks(self, tokens: Sequence[Token], depth: int) -> Iterator[Block]:
        for token, inner in _nodes(tokens):
            match token.type:
                case "heading_open" | "paragraph_open":
                    yield from self._words(token, inner)
                case "bullet_list_open" | "ordered_list_open":
                    yield from self._listing(token, inner, depth + 1)
                case "blockquote_open":
                    yield from self._quote(inner, depth)
                case "fence" | "code_block":
                    yield from self._fence(token)
                case "table_open":
                    yield from self._table(inner)
                case "hr":
                    yield Rule()

    def _words(self, token: Token, inner: Sequence[Token]) -> Iterator[Block]:
        lines = self._lines(inner)
        if lines and token.type == "heading_open":
            yield Heading(int(token.tag[1:]), _one_line(lines))
        elif lines:
            yield Paragraph(lines)

    def _fence(self, token: Token) -> Iterator[Block]:
        text = self._code(clean(token.content).rstrip()).strip("\n")
        language = _LANGUAGE.match(token.info.strip())
        if text.strip():
            yield Fence(text, language[0] if language else "")

    def _table(self, tokens: Sequence[Token]) -> Iterator[Block]:
        rows = [
            tuple(_one_line(self._lines(cell)) for _, cell in _nodes(cells))
            for _, part in _nodes(tokens)
            for _, cells in _nodes(part)
        ]
        table = Table(rows[0], tuple(rows[1:]))
        if not visible(table).strip():
            return
        listing = as_listing(table)
        if self._tables == "keep":
            yield table
        elif listing.items:
            yield listing

    def _quote(self, tokens: Sequence[Token], depth: int) -> Iterator[Block]:
        for block in self._grouped(tokens, depth, quotes=True):
            yield Quote(block.lines) if isinstance(block, Paragraph) else block

    def _listing(self, token: Token, tokens: Sequence[Token], depth: int) -> Iterator[Block]:
        """The list, in pieces where something stands in an item that is no line of text."""
        number = int(token.attrs.get("start", 1)) if token.type == "ordered_list_open" else None
        if number is not None and number + len(tokens) > _LAST_NUMBER:
            number = 1
        items: list[tuple[Line, ...]] = []
        for _, inner in _nodes(tokens):
            rest = list(self._grouped(inner, depth, quotes=False))
            first = rest[0] if rest else None
            if isinstance(first, Paragraph):
                items.append(first.lines)
                del rest[0]
            if not rest:
                continue
            if items:
                yield Listing(tuple(items), number)
            if number is not None:
                number += len(items) or 1
            items = []
            yield from rest
        if items:
            yield Listing(tuple(items), number)

    def _grouped(self, tokens: Sequence[Token], depth: int, *, quotes: bool) -> Iterator[Block]:
        """What stands in a list item or a quote: paragraphs of lines, and blocks that cannot be lines."""
        lines: list[Line] = []
        for block in self.blocks(tokens, depth):
            flat = _flat(block, depth + 1) if quotes or not isinstance(block, Quote) else ()
            lines += flat
            if not flat:
                if lines:
                    yield Paragraph(tuple(lines))
                lines = []
                yield block
        if lines:
            yield Paragraph(tuple(lines))

    def _lines(self, tokens: Sequence[Token]) -> tuple[Line, ...]:
        """The lines of a paragraph that say something."""
        inline = _Inline(self._hosts)
        for token in tokens:
            inline.read(token.children or ())
        settled = (settle(self._addressed(line)) for line in inline.lines)
        return tuple(line for line in settled if line)

    def _addressed(self, line: Iterable[Run]) -> Iterator[Run]:
        """Bare addresses as links where they may be, as inert text elsewhere."""
        for run in settle(line):
            if run.kind is Kind.CODE:
                yield run.saying(self._code(run.text))
            elif run.kind is Kind.LINK:
                yield run
            else:
                for piece, url in spans(run.text, self._hosts):
                    yield Run(piece, Kind.LINK, url) if url else run.saying(piece)

    def _code(self, text: str) -> str:
        return mute("".join(piece for piece, _ in spans(text, self._hosts, code=True)))


def _one_line(lines: Iterable[Line]) -> Line:
    return settle(run for line in lines for run in (Run(" "), *line))


def _flat(block: Block, level: int) -> tuple[Line, ...]:
    """A block as lines of the item or quote around it; nothing where it cannot be."""
    match block:
        case Paragraph(lines=lines) | Quote(lines=lines):
            return lines
        case Heading(line=line):
            return (settle(bold(line)),)
        case Listing(items=items, start=start):
            bullet = _BULLETS[min(max(level - 2, 0), len(_BULLETS) - 1)] + " "
            return tuple(
                settle([Run(mark), *line])
                for at, item in enumerate(items)
                for mark, line in zip(
                    [bullet if start is None else f"（{start + at}）", *[""] * (len(item) - 1)], item, strict=True
                )
            )
        case _:
            return ()


class _Inline:
    """The tokens of one paragraph as lines of runs."""

    def __init__(self, hosts: frozenset[str] | None) -> None:
        self.lines: list[list[Run]] = [[]]
        self._hosts = hosts
        self._bold = 0
        self._italic = 0
        self._outside: list[tuple[str, list[list[Run]]]] = []

    def read(self, tokens: Iterable[Token]) -> None:
        for token in tokens:
            match token.type:
                case "strong_open" | "strong_close":
                    self._bold += token.nesting
                case "em_open" | "em_close":
                    self._italic += token.nesting
                case "softbreak" | "hardbreak":
                    self.lines.append([])
                case "link_open":
                    self._outside.append((str(token.attrs.get("href", "")), self.lines))
                    self.lines = [[]]
                case "link_close":
                    self._close_link()
                case "code_inline":
                    self._add(" ".join(clean(token.content).split("\n")).strip(), Kind.CODE)
                case "image":
                    self._add(_alternative(token))
                case _:
                    self._text(token.content)

    def _text(self, content: str) -> None:
        # An entity can bring back what was cleaned away before parsing.
        first, *others = _BR.split(clean(content).replace("\n", " "))
        self._add(first)
        for text in others:
            self.lines.append([])
            self._add(text)

    def _add(self, text: str, kind: Kind | None = None) -> None:
        if kind is None:
            kind = Kind.BOLD if self._bold else Kind.ITALIC if self._italic else Kind.TEXT
        if text:
            self.lines[-1].append(Run(text, kind))

    def _close_link(self) -> None:
        inside = self.lines
        href, self.lines = self._outside.pop()
        words = " ".join(line_text(line) for line in inside)
        address = destination(href, self._hosts)
        if address:
            self.lines[-1].append(Run(label(words, host_of(address)), Kind.LINK, address))
            return
        self.lines[-1] += inside[0]
        self.lines += inside[1:]
        where = shown(href)
        if where and where.replace("．", ".").partition("/")[0] not in words.replace("．", "."):
            self.lines[-1].append(Run(f"（{where}）"))


def _alternative(image: Token) -> str:
    """What stands for an image: its description, taken from inside links and nested images too."""
    words = "".join(
        " " if token.type.endswith("break") else token.content if token.type != "image" else _alternative(token)
        for token in image.children or ()
    )
    words = " ".join(clean(words).split())
    return f"〔图：{words}〕" if words else "〔图〕"
