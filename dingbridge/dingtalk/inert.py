r"""Characters and addresses: what a chat client might act on, written so that it cannot.

Markdown escapes (`\[`) and entities (`&lt;`) are honoured by some of DingTalk's renderers and shown or dropped
by others, so nothing here relies on them: whatever could act is replaced by its full-width twin, which every
renderer shows and none obeys (`＜`, `＠`, `＆`, `：//`, `．`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import category

from dingbridge.markup import MAX_ADDRESS, clean, destination

_SHOWN = 80  # characters of a foreign address beside its text

_IN_ADDRESS = r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]"
_MARKED = rf"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]{{0,30}})://{_IN_ADDRESS}*|(?<![A-Za-z0-9])[Ww]{{3}}\.{_IN_ADDRESS}+"
_IN_CODE = re.compile(_MARKED)
_IN_PROSE = re.compile(
    _MARKED + r"|(?<![A-Za-z0-9.\-])(?:[A-Za-z0-9][A-Za-z0-9\-]{0,62}\.)+[A-Za-z]{2,24}(?::[0-9]{1,5})?/"
    rf"{_IN_ADDRESS}*"
)
_DOMAIN = re.compile(r"(?<![A-Za-z0-9.．\-])(?:[A-Za-z0-9\-]{1,63}[.．]){1,30}[A-Za-z]{2,24}(?![A-Za-z0-9])")
_FILE_NAMES = re.compile(r"csv|docx?|html?|jpe?g|md|pdf|png|pptx?|txt|xlsx?")

_AT = re.compile(r"(?<=[A-Za-z0-9])@(?=(?:[A-Za-z0-9\-]{1,63}\.){1,8}[A-Za-z]{2})|(@)")
_ENTITY = re.compile(r"&(?=(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)")
_RANGE = re.compile(r"(?<=[^\W_])~(?=[^\W_])")
_TWINS = (("<", "＜"), ("](", "]（"), ("]:", "]："))


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
