"""An answer's markdown as HTML that shows and does nothing else, and what its sources say with key words marked.

Markup is written here and nowhere else; from the answer comes text, always escaped. Links lead only to hosts that
the sources name, images are named instead of loaded, and every character that nobody sees is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from functools import cache
from html import escape
from typing import Any, Final
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from dingbridge.emphasis import Emphasis, highlights
from dingbridge.markup import clean, destination, emphasis, host_of
from dingbridge.texts import Texts

MAX_MARKDOWN: Final = 200_000  # characters; a longer answer is shown as it was written
MAX_BOLD: Final = 20  # where all is bold, nothing is
_NESTING: Final = 60
_SHOWN: Final = 80  # characters of an address that is not linked


def marked(text: str, words: Iterable[str]) -> str:
    """A plain text as HTML, with the words in `<mark>`."""
    text = clean(text)
    return _with_tag("mark", text, highlights(text, words))


def _with_tag(tag: str, text: str, places: Iterable[tuple[int, int]]) -> str:
    pieces, done = [], 0
    for start, end in places:
        pieces += [escape(text[done:start]), f"<{tag}>{escape(text[start:end])}</{tag}>"]
        done = end
    return "".join([*pieces, escape(text[done:])])


def hosts_of(addresses: Iterable[str]) -> frozenset[str]:
    """The hosts that an answer may link to."""
    return frozenset(host_of(address) for address in addresses) - {""}


def markdown(text: str, hosts: frozenset[str], important: Emphasis, texts: Texts) -> str:
    """HTML that says all of `text`, with what is important in bold where it is said first. Never raises.

    What cannot be read as markdown is shown as it was written.
    """
    text = clean(text)
    if len(text) <= MAX_MARKDOWN:
        try:
            tokens = _parser().parse(text)
            if _depth(tokens) < _NESTING - 1:  # deeper than that the parser drops what stands there
                env = {
                    "hosts": hosts,
                    "texts": texts,
                    "links": [],
                    "prominent": 0,
                    "important": important,
                    "said": set(),
                }
                return str(_parser().renderer.render(tokens, _parser().options, env))
        except (RecursionError, ValueError, IndexError):
            pass
    return f'<p class="as-written">{escape(text)}</p>\n'


def _depth(tokens: Sequence[Token]) -> int:
    inner = (max((child.level for child in token.children or ()), default=0) for token in tokens)
    return max((token.level for token in tokens), default=0) + max(inner, default=0)


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": _NESTING})
    parser.enable(["table", "strikethrough"])
    parser.disable(["html_block", "html_inline"])
    parser.disable("reference")  # a definition, or a footnote, would not be seen
    # Every link has to be seen as one, also `javascript:`, or its source would be shown as text.
    parser.validateLink = lambda url: True  # type: ignore[method-assign] # noqa: ARG005 - its interface
    parser.normalizeLink = lambda url: url  # type: ignore[method-assign]
    parser.inline.ruler.at("emphasis", emphasis)
    rules = {
        "text": _text,
        "strong_open": _strong,
        "strong_close": _strong,
        "th_close": _cell_close,
        "link_open": _link_open,
        "link_close": _link_close,
        "image": _image,
        "fence": _code,
        "code_block": _code,
        "heading_open": _heading,
        "heading_close": _heading,
        "table_open": _table_open,
        "table_close": _table_close,
        "th_open": _cell_open,
        "td_open": _cell_open,
    }
    for name, rule in rules.items():
        parser.add_render_rule(name, rule)
    return parser


Env = MutableMapping[str, Any]


def _text(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, env: Env) -> str:
    """Each thing is bold where it is said first; not in headings and links, which are prominent already."""
    text, said = tokens[at].content, env["said"]
    if env["prominent"] or env["links"] or len(said) >= MAX_BOLD:
        return escape(text)
    places = []
    for mark in env["important"].marks(text):
        if mark.said not in said and len(said) < MAX_BOLD:
            said.add(mark.said)
            places.append((mark.start, mark.end))
    return _with_tag("strong", text, places)


def _strong(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, env: Env) -> str:
    env["prominent"] += tokens[at].nesting
    return "<strong>" if tokens[at].nesting > 0 else "</strong>"


def _link_open(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, env: Env) -> str:
    href = str(tokens[at].attrGet("href") or "")
    address = destination(href, env["hosts"])
    label = tokens[at + 1].content if at + 1 < len(tokens) else ""
    env["links"].append("</a>" if address else _shown(href, label))
    return anchor(address) if address else ""


def _link_close(_: RendererHTML, __: Sequence[Token], ___: int, ____: Any, env: Env) -> str:
    return str(env["links"].pop())


def anchor(address: str) -> str:
    """The beginning of a link; the page it leads to learns nothing of this one."""
    return f'<a href="{escape(address)}" target="_blank" rel="noopener noreferrer nofollow">'


def _shown(href: str, label: str) -> str:
    """Host and path of a web address that is not linked, behind its text; nothing for any other scheme."""
    try:
        parts = urlsplit(clean(href))
        host = parts.hostname or ""
    except ValueError:
        return ""
    if parts.scheme not in {"http", "https"} or not host or label in {href, host}:
        return ""
    where = (host + parts.path).rstrip("/")
    return f' <span class="address">({escape(where if len(where) <= _SHOWN else where[: _SHOWN - 1] + "…")})</span>'


def _image(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, env: Env) -> str:
    alt = clean(tokens[at].content).strip()
    return escape(env["texts"]("page_image", name=alt) if alt else env["texts"]("page_image_unnamed"))


def _code(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, ___: Env) -> str:
    return f'<pre tabindex="0"><code>{escape(tokens[at].content)}</code></pre>\n'


def _heading(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, env: Env) -> str:
    """Below the page's own two levels."""
    env["prominent"] += tokens[at].nesting
    level = min(int(tokens[at].tag[1:]) + 2, 6)
    return f"<h{level}>" if tokens[at].nesting > 0 else f"</h{level}>\n"


def _table_open(_: RendererHTML, __: Sequence[Token], ___: int, ____: Any, env: Env) -> str:
    name = escape(env["texts"]("page_table"))
    return f'<div class="table" tabindex="0" role="group" aria-label="{name}"><table>\n'


def _table_close(_: RendererHTML, __: Sequence[Token], ___: int, ____: Any, _____: Env) -> str:
    return "</table></div>\n"


def _cell_close(_: RendererHTML, __: Sequence[Token], ___: int, ____: Any, env: Env) -> str:
    env["prominent"] -= 1
    return "</th>\n"


def _cell_open(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, env: Env) -> str:
    env["prominent"] += tokens[at].tag == "th"
    style = str(tokens[at].attrGet("style") or "")  # refused by the page's policy as it is
    side = style.partition(":")[2]
    return f'<{tokens[at].tag} class="{side}">' if side in {"right", "center"} else f"<{tokens[at].tag}>"
