"""Markdown as DingTalk's clients show it, as HTML that shows and does nothing else.

DingTalk documents headings, quotes, bold, italics, links, images and lists; the rest is what bot authors report. A PC
draws tables and code blocks and shows what looks like a tag; a phone shows a table as its source and code as plain
lines, and drops what looks like a tag. A single line break is a space on both. Images are named here, not loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence
from functools import cache
from html import escape
from typing import Any, Final, Literal

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

Client = Literal["pc", "phone"]
CLIENTS: Final[tuple[Client, ...]] = ("pc", "phone")
MOST: Final = 25_000  # characters; DingTalk takes messages of 20 000 bytes
QUICK_REPLY: Final = "dtmd://dingtalkclient/sendMessage?content="
_LINK = re.compile(rf"https?://[^\s\\]+|{re.escape(QUICK_REPLY)}[^\s\\]*", re.IGNORECASE)
_FONT = re.compile(r"<font\s+color=[\"']?(#[0-9a-fA-F]{3,8}|[a-zA-Z]{3,20})[\"']?\s*>|</font\s*>", re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>?")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)

Rendered = Mapping[str, str]


def markdown(text: str, names: Mapping[str, str]) -> Rendered:
    """HTML for each client. `names`: what stands for a mention, user id to display name."""
    return {client: _parser(client).render(text[:MOST], {"names": names}) for client in CLIENTS}


def card(text: str, names: Mapping[str, str]) -> Rendered:
    """A card's markdown has tables and code on both."""
    return dict.fromkeys(CLIENTS, _parser("pc").render(text[:MOST], {"names": names}))


def plain(text: str, names: Mapping[str, str]) -> Rendered:
    """A text message: line breaks stay, nothing is markup."""
    html = "<p>" + _named(text[:MOST], names).replace("\n", "<br>") + "</p>"
    return dict.fromkeys(CLIENTS, html)


def named(text: str, names: Mapping[str, str]) -> str:
    """`@user` as `@name`, for those who are named."""
    for user, name in names.items():
        text = text.replace(f"@{user}", f"@{name}")
    return text


def _named(text: str, names: Mapping[str, str]) -> str:
    return escape(named(text, names))


@cache
def _parser(client: Client) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": True})
    parser.validateLink = _is_link  # type: ignore[method-assign]
    if client == "pc":
        parser.enable("table")
    rules = {
        "text": _text,
        "image": _image,
        "link_open": _link_open,
        "th_open": _cell_open,
        "td_open": _cell_open,
        "html_inline": _tag_shown if client == "pc" else _tag_dropped,
        "html_block": _tag_shown if client == "pc" else _tag_dropped,
        **(dict.fromkeys(("fence", "code_block", "code_inline"), _code_as_lines) if client == "phone" else {}),
    }
    for name, rule in rules.items():
        parser.add_render_rule(name, rule)
    return parser


def _is_link(url: str) -> bool:
    return _LINK.fullmatch(url) is not None


Env = MutableMapping[str, Any]


def _text(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, env: Env) -> str:
    return _named(tokens[at].content, env["names"])


def _image(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, env: Env) -> str:
    alt = tokens[at].content.strip()
    return f"〔图片{'：' if alt else ''}{_named(alt, env['names'])}〕"


def _link_open(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, ___: Env) -> str:
    address = str(tokens[at].attrGet("href") or "")
    return f'<a href="{escape(address)}" target="_blank" rel="noopener noreferrer nofollow">'


def _cell_open(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, ___: Env) -> str:
    return f"<{tokens[at].tag}>"  # an alignment would be an inline style


def _tag_shown(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, ___: Env) -> str:
    return _known_tag(tokens[at].content) or _in_block(tokens[at], escape(tokens[at].content))


def _tag_dropped(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, ___: Env) -> str:
    content = tokens[at].content
    return _known_tag(content) or _in_block(tokens[at], escape(_TAG.sub("", content)))


def _in_block(token: Token, html: str) -> str:
    return f"<p>{html.strip()}</p>\n" if token.type == "html_block" else html


def _known_tag(content: str) -> str:
    """Colours and line breaks work on both clients."""
    if _BREAK.fullmatch(content.strip()):
        return "<br>"
    found = _FONT.fullmatch(content.strip())
    if found is None:
        return ""
    return f'<font color="{found[1]}">' if found[1] else "</font>"


def _code_as_lines(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, ___: Env) -> str:
    token = tokens[at]
    lines = escape(token.content.rstrip("\n")).replace("\n", "<br>")
    return lines if token.type == "code_inline" else f"<p>{lines}</p>\n"
