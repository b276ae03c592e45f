"""What strangers write, for every place that shows it: without what nobody sees, where it may lead, what is bold."""

from __future__ import annotations

import re
from unicodedata import category, east_asian_width
from urllib.parse import quote

from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.emphasis import tokenize

MAX_ADDRESS = 1_000  # characters; a longer address is shown, never linked

_BREAKS = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
# Control characters, surrogates, noncharacters, and Unicode's Default_Ignorable_Code_Point (bidi controls,
# zero-width characters, tags, variation selectors) without U+FE0F, which makes ❤ into ❤️.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb"
    "\ufffe\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_ACTING, _ESCAPED = re.compile(r"([!-/:-@\[-`{-~])"), r"\\\1"  # ASCII punctuation, as CommonMark lets it be escaped
_HREF = re.compile(r"(https?)://([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)(:[0-9]{1,5})?([/?#][^\s\\]*)?", re.IGNORECASE)


def clean(text: str) -> str:
    """The text without what nobody sees; every kind of line end is a line feed, a tab or hard space plain ones."""
    text = _BREAKS.sub("\n", text).replace("\t", "    ").replace("\u00a0", " ")
    return _UNSEEN.sub("", text)


def phrase(words: str, most: int) -> str:
    """Somebody's words, at most so many, as one line of markdown that is nothing but these words."""
    line = " ".join(clean(words).split())
    return _ACTING.sub(_ESCAPED, line if len(line) <= most else line[: most - 1] + "…")


def said(text: str, most: int) -> str:
    """Somebody's plain text, at most so many characters, as a markdown quote: it cannot pass for what stands around."""
    text = clean(text)
    lines = (text if len(text) <= most else text[: most - 1] + "…").split("\n")
    return "\n".join(f"> {_ACTING.sub(_ESCAPED, line.strip())}".rstrip() for line in lines).strip()


def quote_of(markdown: str, most: int) -> str:
    """A markdown text, at most so many characters of it, as a quote."""
    text = clean(markdown)
    lines = (text if len(text) <= most else text[: most - 1] + "…").split("\n")
    return "\n".join(f"> {line}".rstrip() for line in lines)


def destination(href: str, hosts: frozenset[str] | None) -> str:
    """The address as it may be linked, or "": absolute, http(s), no userinfo, an ASCII host out of `hosts`.

    None for `hosts` lets every host through; it is for text that has been written before.
    """
    found = _HREF.fullmatch(clean(href))
    if found is None:
        return ""
    scheme, host, port, rest = found[1].lower(), found[2].lower(), found[3] or "", found[4] or ""
    if ".." in host or (hosts is not None and host not in hosts):
        return ""
    rest = quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", rest), safe="/?#:!$&+,;=~%")
    # Nothing inside may look like a second address, and no entity may be decoded out of a query.
    rest = re.sub(r"&(#?\w+);", r"&\1%3B", rest.replace("://", "%3A//"))
    address = f"{scheme}://{host}{port}{rest}"
    return address if len(address) <= MAX_ADDRESS else ""


def host_of(address: str) -> str:
    """The host of what `destination` returned."""
    found = _HREF.fullmatch(address)
    return found[2].lower() if found else ""


def emphasis(state: StateInline, silent: bool) -> bool:
    """CommonMark's emphasis, also beside Chinese punctuation: models write `**注意：**请` and mean bold."""
    start, first = state.pos, len(state.delimiters)
    if not tokenize(state, silent):
        return False
    before, after = state.src[max(start - 1, 0) : start], state.src[state.pos : state.pos + 1]
    if state.src[start] == "*" and before and after and (_is_wide(before) or _is_wide(after)):
        for delimiter in state.delimiters[first:]:
            delimiter.open = delimiter.open or (_is_mark(after) and not before.isspace())
            delimiter.close = delimiter.close or (_is_mark(before) and not after.isspace())
    return True


def _is_wide(character: str) -> bool:
    return east_asian_width(character) in "WF"


def _is_mark(character: str) -> bool:
    return category(character)[0] in "PS"
