r"""Characters and addresses: what a chat client might act on, written so that it cannot.

Markdown escapes (`\[`) and entities (`&lt;`) are honoured by some of DingTalk's renderers and shown or dropped
by others, so nothing here relies on them: whatever could act is replaced by its full-width twin, which every
renderer shows and none obeys (`＜`, `＠`, `＆`, `：//`, `．`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import category
from urllib.parse import quote

MAX_ADDRESS = 1_000  # characters; a longer address is shown, never linked
_SHOWN = 80  # characters of a foreign address beside its text

_BREAKS = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
# Control characters, surrogates, noncharacters, and Unicode's Default_Ignorable_Code_Point (bidi controls,
# zero-width characters, tags, variation selectors) without U+FE0F, which makes ❤ into ❤️.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb"
    "\ufffe\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

_IN_ADDRESS = r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]"
_MARKED = rf"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]{{0,30}})://{_IN_ADDRESS}*|(?<![A-Za-z0-9])[Ww]{{3}}\.{_IN_ADDRESS}+"
_IN_CODE = re.compile(_MARKED)
_IN_PROSE = re.compile(
    _MARKED + r"|(?<![A-Za-z0-9.\-])(?:[A-Za-z0-9][A-Za-z0-9\-]{0,62}\.)+[A-Za-z]{2,24}(?::[0-9]{1,5})?/"
    rf"{_IN_ADDRESS}*"
)
_HREF = re.compile(r"(https?)://([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)(:[0-9]{1,5})?([/?#][^\s\\]*)?", re.IGNORECASE)
_DOMAIN = re.compile(r"(?<![A-Za-z0-9.．\-])(?:[A-Za-z0-9\-]{1,63}[.．]){1,30}[A-Za-z]{2,24}(?![A-Za-z0-9])")
_FILE_NAMES = re.compile(r"csv|docx?|html?|jpe?g|md|pdf|png|pptx?|txt|xlsx?")

_AT = re.compile(r"(?<=[A-Za-z0-9])@(?=(?:[A-Za-z0-9\-]{1,63}\.){1,8}[A-Za-z]{2})|(@)")
_ENTITY = re.compile(r"&(?=(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)")
_RANGE = re.compile(r"(?<=[^\W_])~(?=[^\W_])")
_TWINS = (("<", "＜"), ("](", "]（"), ("]:", "]："))


def clean(text: str) -> str:
    """The text without what nobody sees; every kind of line end is a line feed, a tab or hard space plain ones."""
    text = _BREAKS.sub("\n", text).replace("\t", "    ").replace("\u00a0", " ")
    return _UNSEEN.sub("", text)


def is_joint(text: str, at: int) -> bool:
    """Whether the text may be cut there: not before a combining mark or a skin tone, not in a flag."""
    before, after = text[at - 1 : at], text[at : at + 1]
    if not before or not after:
        return True
    if category(after)[0] == "M" or "\U0001f3fb" <= after <= "\U0001f3ff":
        return False
    return not (_is_flag_half(before) and _is_flag_half(after)) or _flag_halves_before(text, at) % 2 == 0


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _flag_halves_before(text: str, at: int) -> int:
    start = at
    while start and _is_flag_half(text[start - 1]):
        start -= 1
    return at - start


def mute(text: str) -> str:
    """Without mentions: `@` stays only inside what reads as an e-mail address.

    DingTalk looks for `@` and an id in the raw text, so code is no shelter either
    (https://open.dingtalk.com/document/orgapp/robot-message-type).
    """
    return _AT.sub(lambda found: "＠" if found[1] else "@", text) if "@" in text else text


def tame(text: str) -> str:
    """Prose in which nothing is a mention, a tag, an entity, a link's joint or a definition.

    `8~10 天` gets the full-width tilde that Chinese typography has for ranges: two of them would otherwise
    strike through what stands between, in renderers that take a single tilde for that.
    """
    for mark, twin in _TWINS:
        text = text.replace(mark, twin)
    text = mute(text)
    text = _ENTITY.sub("＆", text) if "&" in text else text
    return _RANGE.sub("～", text) if "~" in text else text


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


def shown(href: str) -> str:
    """Host and path of a web address that is not linked, as inert text; "" for every other scheme."""
    scheme, _, rest = clean(href).partition("://")
    if scheme.lower() not in ("http", "https"):
        return ""
    where = re.split(r"[?#\s]", rest.rpartition("@")[2] if "@" in rest.split("/")[0] else rest)[0]
    where = _defused(where.rstrip("/"))
    return where if len(where) <= _SHOWN else where[: _SHOWN - 1] + "…"


def _defused(address: str) -> str:
    return address.replace(".", "．").replace("://", "：//")


def spans(text: str, hosts: frozenset[str] | None, *, code: bool = False) -> Iterator[tuple[str, str]]:
    """The text in pieces `(what to show, address to link or "")`.

    A client makes bare addresses clickable by itself, so an address outside `hosts` loses what it is recognised
    by: `https://a.example/b` is shown as `https：//a．example/b`, everything still readable. That holds in code
    too, which phones show as plain text. Names without a scheme, `www.` or a path stay: `report.md` is one.
    """
    end = 0
    # Most texts have none: every address has a dot, or a scheme.
    addresses = (_IN_CODE if code else _IN_PROSE).finditer(text) if "." in text or "://" in text else ()
    for found in addresses:
        address = _trimmed(found[0])
        yield text[end : found.start()], ""
        end = found.start() + len(address)
        link = destination(address if found["scheme"] else f"https://{address}", hosts)
        if link and found["scheme"]:
            yield link, "" if code else link
        elif link and "://" not in address:
            yield address, ""
        else:
            yield _defused(address), ""
    yield text[end:], ""


def _trimmed(address: str) -> str:
    """Without the punctuation of the sentence around it."""
    floor = address.find("://") + 3
    while floor < len(address) <= MAX_ADDRESS and (
        address[-1] in "?!.,:*_~'[];" or (address[-1] == ")" and address.count(")") > address.count("("))
    ):
        address = address[:-1]
    return address


def label(text: str, host: str) -> str:
    """The text of a link to `host`: names the host where the text looks like an address somewhere else."""
    pieces = list(spans(" ".join(text.split()), frozenset({host})))
    words = "".join(piece for piece, _ in pieces).strip()
    note = f"（{host}）"
    lures = (name for piece, link in pieces if not link for name in _DOMAIN.findall(piece))
    if any(_is_lure(name, host) for name in lures) and not words.endswith(note):
        return words + note
    return words or host


def _is_lure(name: str, host: str) -> bool:
    name = name.replace("．", ".").lower()
    return name != host and not _FILE_NAMES.fullmatch(name.rpartition(".")[2])
