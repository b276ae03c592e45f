"""An answer as chat messages: text, marks, sources, quick replies. Pure: the same always gives the same parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from yarl import URL

from dingbridge.dingtalk import markdown, split
from dingbridge.dingtalk.blocks import render
from dingbridge.dingtalk.emphasis import emphasise
from dingbridge.emphasis import emphasis
from dingbridge.markup import clean
from dingbridge.model import Answer, Source
from dingbridge.shape import Shape
from dingbridge.texts import Texts

PART_BYTES = 13_000  # JSON-escaped; fits both ways to the chat with title, mention, marks and buttons
SHOWN_SOURCES = 5
MAX_BUTTONS = 5  # of the OpenAPI's largest vertical action card
_TITLE_CHARS = 120
_QUOTED_CHARS = 80
_SEND = "dtmd://dingtalkclient/sendMessage?content="


@dataclass(frozen=True, slots=True)
class Button:
    """Of an action card. Only here an address is made that does something in the chat."""

    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Part:
    """One message of a reply, already safe markdown. `number` from 1; part 1 mentions the asker in groups.

    mark: what a repetition begins with. instead: said at the end where DingTalk takes no buttons.
    link_hosts: where its links may lead, for who writes it once more.
    """

    number: int
    title: str
    text: str
    mark: str = ""
    buttons: tuple[Button, ...] = ()
    instead: str = ""
    link_hosts: frozenset[str] = frozenset()

    def without_buttons(self) -> Part:
        text = f"{self.text}\n\n{self.instead}" if self.instead else self.text
        return replace(self, text=text, buttons=(), instead="")


def compose(answer: Answer, shape: Shape, links: Mapping[str, str]) -> list[Part]:
    """The answer as parts that fit. links: a document's title → its address, where its source has none.

    Takes about 20 ms per 10 KB. What may not act in a chat: see `markdown.py`.
    """
    texts = shape.texts
    sources = tuple(linked(source, links) for source in answer.sources)
    hosts = frozenset(host for source in sources if (host := _host(source.url)))
    text = answer.text
    cut = len(text) > markdown.MAX_CHARS
    if cut:
        text = text[: markdown.MAX_CHARS] + "…"
    blocks = markdown.read(text, hosts, tables="keep" if shape.card else "list")
    title = markdown.shortened(blocks, markdown.TITLE_CHARS) or texts("title")
    blocks = emphasise(blocks, emphasis(shape.question, (source.text for source in sources)))
    buttons = _buttons(shape, refused=answer.refused)
    said = [
        _asked(shape.question) if answer.late and not shape.card else "",
        render(blocks),
        texts("answer_cut") if cut else "",
        texts("partial") if answer.partial else "",
        texts("question_cut") if answer.question_cut else "",
        texts("file_unread", names=" / ".join(_named(Source(name)) for name in answer.unread)) if answer.unread else "",
        _steps(shape) if answer.refused else "",
        _examples(shape) if answer.refused else "",
        *([] if buttons else _instead(shape)),
        texts("hint") if shape.hint else "",
        _sources(sources, texts) if sources else "",
    ]
    whole = "\n\n".join(filter(None, said))
    numbered = split.number(split.split(whole or title, max_bytes=PART_BYTES))
    if page := _page(shape):
        hosts |= {_host(page)}
    mark = texts("repeat_mark")
    parts = [Part(number, title, text, mark, link_hosts=hosts) for number, text in enumerate(numbered, start=1)]
    if buttons:
        named = replace(shape, commands=bool(shape.code))
        parts[-1] = replace(parts[-1], buttons=buttons, instead="\n\n".join(_instead(named)))
    return parts


def wants_page(answer: Answer, parts: int, links: Mapping[str, str]) -> bool:
    """Whether a page shows more than the chat does: a whole where there are parts, a table, a source to read."""
    if answer.refused or not answer.text.strip():
        return False
    unlinked = any(not _host(linked(source, links).url) for source in answer.sources)
    return parts > 1 or unlinked or markdown.has_table(answer.text)


def _buttons(shape: Shape, *, refused: bool) -> tuple[Button, ...]:
    if not shape.buttons or shape.card:
        return ()
    texts, code = shape.texts, shape.code
    buttons = [_quick("👍", f"/good {code}"), _quick("👎", f"/bad {code}")] if code else []
    if code and shape.deep:
        buttons.append(_quick(texts("button_deep"), f"/deep {code}"))
    if code and shape.human and refused:
        buttons.append(_quick(texts("button_human"), texts("send_human", code=code)))
    if address := _page(shape):
        buttons.append(Button(texts("whole_answer"), address))
    return tuple(buttons[:MAX_BUTTONS])


def _quick(title: str, said: str) -> Button:
    """Tapped, it writes that into the chat in the user's name."""
    return Button(title, _SEND + quote(said, safe=""))


def _instead(shape: Shape) -> Iterator[str]:
    """The page's link, and what a user can send, each in a line."""
    if address := _page(shape):
        yield markdown.phrase(shape.texts("whole_answer"), address, link_hosts=frozenset({_host(address)}))
    if shape.commands and not shape.card:
        yield shape.texts("commands_deep" if shape.deep else "commands")


def _page(shape: Shape) -> str:
    return str(URL(shape.page_url)) if _host(shape.page_url) else ""


def _asked(question: str) -> str:
    """In one line, as a quote."""
    line = " ".join(clean(question).split())
    if not line:
        return ""
    return "> " + markdown.phrase(line if len(line) <= _QUOTED_CHARS else line[: _QUOTED_CHARS - 1] + "…")


def _steps(shape: Shape) -> str:
    """What else can be tried."""
    steps = [shape.texts("next_deep")] if shape.deep else []
    return "\n\n".join([*steps, *([shape.texts("next_human")] if shape.human else [])])


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


def linked(source: Source, links: Mapping[str, str]) -> Source:
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
