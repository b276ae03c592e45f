"""An answer's markdown as HTML that shows and does nothing else, and what its sources say with key words marked.

Markup is written here and nowhere else; from the answer comes text, always escaped. Links lead only to hosts that
the sources name, images are named instead of loaded, and every character that nobody sees is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping, Sequence
from functools import cache
from html import escape
from typing import Any, Final
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from dingbridge.markup import clean, destination, emphasis, host_of
from dingbridge.texts import Texts

MAX_MARKDOWN: Final = 200_000  # characters; a longer answer is shown as it was written
_NESTING: Final = 60
_SHOWN: Final = 80  # characters of an address that is not linked

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.\-]*[A-Za-z0-9]")
_WIDE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]+")
# What a question consists of besides what it asks for.
_FILLER = re.compile(
    "什么|怎么样|怎么|怎样|如何|哪些|哪个|哪里|多少|几个|是否|有没有|可不可以|能不能|可以|需要|请问|请|帮我|告诉|关于|一下|"
    "我们|你们|他们|我|您|你|的|了|吗|呢|吧|啊|和|与|或|及|在|是|有|要|能|会|把|被|给|到|从|对|为|就|都|也|那|这|个|谁"
)
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are at be by can do does for from how i in is it me my of on or our the this to was we what when "
        "where which who why will with you your",
    )
)
_LONGEST: Final = 8  # characters of a Chinese key word
_MOST_WORDS: Final = 400


def keywords(question: str) -> re.Pattern[str] | None:
    """What finds the question's key words in a text, the longest first; None where it has none."""
    words = {word.lower() for word in _WORD.findall(question) if word.lower() not in _STOP}
    for run in _WIDE.findall(question):
        for part in _FILLER.split(run):
            lengths = range(2, min(len(part), _LONGEST) + 1)
            words.update(part[at : at + length] for length in lengths for at in range(len(part) - length + 1))
            if len(words) > _MOST_WORDS:
                break
    if not words:
        return None
    longest = sorted(words, key=lambda word: (-len(word), word))
    either = [rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])" if word.isascii() else word for word in longest]
    return re.compile("|".join(either), re.IGNORECASE)


def marked(text: str, words: re.Pattern[str] | None) -> str:
    """A plain text as HTML, with what `words` finds in `<mark>`."""
    text = clean(text)
    if words is None:
        return escape(text)
    pieces, end = [], 0
    for found in words.finditer(text):
        pieces += [escape(text[end : found.start()]), f"<mark>{escape(found[0])}</mark>"]
        end = found.end()
    return "".join([*pieces, escape(text[end:])])


def hosts_of(addresses: Iterable[str]) -> frozenset[str]:
    """The hosts that an answer may link to."""
    return frozenset(host_of(address) for address in addresses) - {""}


def markdown(text: str, *, hosts: frozenset[str], texts: Texts) -> str:
    """HTML that says all of `text`. What cannot be read as markdown is shown as it was written. Never raises."""
    text = clean(text)
    if len(text) <= MAX_MARKDOWN:
        try:
            tokens = _parser().parse(text)
            if _depth(tokens) < _NESTING - 1:  # deeper than that the parser drops what stands there
                env = {"hosts": hosts, "texts": texts, "open": []}
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


def _link_open(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, env: Env) -> str:
    href = str(tokens[at].attrGet("href") or "")
    address = destination(href, env["hosts"])
    label = tokens[at + 1].content if at + 1 < len(tokens) else ""
    env["open"].append("</a>" if address else _shown(href, label))
    return anchor(address) if address else ""


def _link_close(_: RendererHTML, __: Sequence[Token], ___: int, ____: Any, env: Env) -> str:
    return str(env["open"].pop())


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


def _heading(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, ___: Env) -> str:
    """Below the page's own two levels."""
    level = min(int(tokens[at].tag[1:]) + 2, 6)
    return f"<h{level}>" if tokens[at].nesting > 0 else f"</h{level}>\n"


def _table_open(_: RendererHTML, __: Sequence[Token], ___: int, ____: Any, env: Env) -> str:
    name = escape(env["texts"]("page_table"))
    return f'<div class="table" tabindex="0" role="group" aria-label="{name}"><table>\n'


def _table_close(_: RendererHTML, __: Sequence[Token], ___: int, ____: Any, _____: Env) -> str:
    return "</table></div>\n"


def _cell_open(_: RendererHTML, tokens: Sequence[Token], at: int, __: Any, ___: Env) -> str:
    style = str(tokens[at].attrGet("style") or "")  # refused by the page's policy as it is
    side = style.partition(":")[2]
    return f'<{tokens[at].tag} class="{side}">' if side in {"right", "center"} else f"<{tokens[at].tag}>"
