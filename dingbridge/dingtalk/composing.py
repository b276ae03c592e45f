"""An answer as chat messages: text, marks, sources, quick replies. Pure: the same always gives the same parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from yarl import URL

from dingbridge.dingtalk import markdown, split
from dingbridge.dingtalk.blocks import render
from dingbridge.dingtalk.emphasis import emphasise
from dingbridge.dingtalk.inert import clean
from dingbridge.emphasis import emphasis
from dingbridge.model import Answer, Source
from dingbridge.shape import Shape
from dingbridge.texts import Texts

PART_BYTES = 13_000  # JSON-escaped; fits both ways to the chat with title, mention, marks and buttons
SHOWN_SOURCES = 5
_TITLE_CHARS = 120
_SEND = "dtmd://dingtalkclient/sendMessage?content="


@dataclass(frozen=True, slots=True)
class Button:
    """At most five fit one message. Only here an address is made that does something in the chat."""

    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Part:
    """One message of a reply, already safe markdown. `number` from 1; part 1 mentions the asker in groups.

    mark: what a repetition begins with. plain: the text for a DingTalk that takes neither buttons nor quick replies,
    "" where there are none. link_hosts: whom the text may link to, for who writes it again.
    """

    number: int
    title: str
    text: str
    mark: str = ""
    buttons: tuple[Button, ...] = ()
    plain: str = ""
    link_hosts: frozenset[str] = frozenset()

    def without_buttons(self) -> Part:
        return replace(self, text=self.plain or self.text, buttons=(), plain="")


def compose(answer: Answer, shape: Shape, links: Mapping[str, str]) -> list[Part]:
    """The answer as parts that fit. links: a document's title → its address, where its source has none.

    Takes about 20 ms per 10 KB. What may not act in a chat: see `markdown.py`.
    """
    texts = shape.texts
    sources = tuple(_linked(source, links) for source in answer.sources)
    hosts = frozenset(host for source in sources if (host := _host(source.url)))
    text = answer.text
    cut = len(text) > markdown.MAX_CHARS
    if cut:
        text = text[: markdown.MAX_CHARS] + "…"
    blocks = markdown.read(text, hosts, tables="keep" if shape.card else "list")
    title = markdown.shortened(blocks, markdown.TITLE_CHARS) or texts("title")
    blocks = emphasise(blocks, emphasis(shape.question, (source.text for source in sources)))
    quick = _quick_replies(shape)
    said = [
        render(blocks),
        texts("answer_cut") if cut else "",
        texts("partial") if answer.partial else "",
        texts("question_cut") if answer.question_cut else "",
        texts("file_unread", names=" / ".join(_named(Source(name)) for name in answer.unread)) if answer.unread else "",
        _examples(shape) if answer.refused else "",
        "" if shape.buttons and not shape.card else _page_link(shape),
        _row(quick) if shape.links else "" if shape.buttons else _commands(shape),
        texts("hint") if shape.hint else "",
        _sources(sources, texts) if sources else "",
    ]
    whole = "\n\n".join(filter(None, said))
    numbered = split.number(split.split(whole or title, max_bytes=PART_BYTES))
    hosts |= {_host(shape.page_url)} - {""}
    mark = texts("repeat_mark")
    parts = [Part(number, title, text, mark, link_hosts=hosts) for number, text in enumerate(numbered, start=1)]
    if shape.buttons and not shape.card:
        return [*parts[:-1], _with_buttons(parts[-1], shape, quick)]
    return _with_links(parts, shape, quick) if quick else parts


def wants_page(answer: Answer, parts: int, links: Mapping[str, str]) -> bool:
    """Whether a page shows more than the chat does: a whole where there are parts, a table, a source to read."""
    if answer.refused or not answer.text.strip():
        return False
    unlinked = any(not _host(_linked(source, links).url) for source in answer.sources)
    return parts > 1 or unlinked or markdown.has_table(answer.text)


def _quick_replies(shape: Shape) -> tuple[Button, ...]:
    """Tapped, each writes a command into the chat in the user's name."""
    if not shape.code or shape.card or not (shape.buttons or shape.links):
        return ()
    texts, code = shape.texts, shape.code
    said = [("👍", f"/good {code}"), ("👎", f"/bad {code}")]
    said += [(texts("button_deep"), f"/deep {code}")] if shape.deep else []
    said += [(texts("button_human"), texts("send_human", code=code))] if shape.human else []
    return tuple(Button(title, _SEND + quote(command, safe="")) for title, command in said)


def _with_buttons(part: Part, shape: Shape, quick: tuple[Button, ...]) -> Part:
    address = _page(shape)
    buttons = (*quick, *([Button(shape.texts("whole_answer"), address)] if address else []))
    if not buttons:
        return part
    plain = "\n\n".join(filter(None, (part.text, _page_link(shape), _commands(shape))))
    return replace(part, buttons=buttons, plain=plain)


def _with_links(parts: list[Part], shape: Shape, quick: tuple[Button, ...]) -> list[Part]:
    """The row's words become links where they stand last as a paragraph; what an answer says stands before.

    Not before: splitting reads the text again and lets no such link through.
    """
    linked = " · ".join(f"[{button.title}]({button.url})" for button in quick)
    row = re.compile(rf"(?:\A|(?<=\n\n)){re.escape(_row(quick))}(?=\n\n|\Z)")
    for at, part in reversed(list(enumerate(parts))):
        if places := list(row.finditer(part.text)):
            start, end = places[-1].span()
            before, after = part.text[:start], part.text[end:]
            with_links = replace(part, text=before + linked + after, plain=before + _commands(shape) + after)
            return [*parts[:at], with_links, *parts[at + 1 :]]
    return parts


def _row(quick: tuple[Button, ...]) -> str:
    return " · ".join(button.title for button in quick)


def _commands(shape: Shape) -> str:
    """What a user can send, in a line."""
    if not shape.code or shape.card:
        return ""
    keys = ["say_votes", *(["say_deep"] if shape.deep else []), *(["say_human"] if shape.human else [])]
    return " · ".join(shape.texts(key, code=shape.code) for key in keys)


def _page_link(shape: Shape) -> str:
    address = _page(shape)
    return (
        markdown.phrase(shape.texts("whole_answer"), address, link_hosts=frozenset({_host(address)})) if address else ""
    )


def _page(shape: Shape) -> str:
    return str(URL(shape.page_url)) if _host(shape.page_url) else ""


def _examples(shape: Shape) -> str:
    if not shape.examples:
        return ""
    listed = "\n".join(f"- {markdown.phrase(example)}" for example in shape.examples)
    return f"{shape.texts('examples')}\n\n{listed}"


def _sources(sources: tuple[Source, ...], texts: Texts) -> str:
    """Names what the answer came from, numbered for who wants to see the passage."""
    if len(sources) == 1:
        label = texts("sources")
        return label + ("" if label.endswith("：") else " ") + _named(sources[0])
    listed = "\n".join(f"{at}. {_named(source)}" for at, source in enumerate(sources[:SHOWN_SOURCES], start=1))
    more = len(sources) - SHOWN_SOURCES
    rest = "\n\n" + texts("sources_more", count=more) if more > 0 else ""
    return f"{texts('sources')}\n\n{listed}{rest}"


def _named(source: Source) -> str:
    """A title is a stranger's text, not markdown; it is linked where a person can open it."""
    title = " ".join(clean(source.title).split())
    if len(title) > _TITLE_CHARS:
        title = title[: _TITLE_CHARS - 1] + "…"
    host = _host(source.url)
    return markdown.phrase(title or "?", str(URL(source.url)) if host else "", link_hosts=frozenset({host}))


def _linked(source: Source, links: Mapping[str, str]) -> Source:
    """With the address that the operator gave for this title, with or without its extension."""
    if _host(source.url) or not links:
        return source
    title = " ".join(source.title.split())
    stem, _, extension = title.rpartition(".")
    known = links.get(title) or (links.get(stem) if stem and len(extension) <= 5 else None)
    return replace(source, url=known) if known else source


def _host(url: str) -> str:
    """The host as it stands in the link (punycode), "" where nobody should open it."""
    try:
        parsed = URL(url)
    except ValueError:
        return ""
    known = parsed.scheme in ("http", "https") and "@" not in parsed.raw_authority
    return (parsed.raw_host or "").lower() if known else ""
