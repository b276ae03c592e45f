"""The forms in which a secret may appear in a text: as it is, escaped for a URL, JSON, a repr or HTML, in base64."""

from __future__ import annotations

import base64
import html
import re
import string
from collections.abc import Iterator
from urllib.parse import unquote

# Nothing that escapes changes these.
_PLAIN = frozenset(string.ascii_letters + string.digits + "-_.~")
_ADDRESS = re.compile(r"(?i)(?:https?|socks[45]h?)://")
_BASE64_SURE = 8  # shorter pieces of base64 stand in many a text


def parts_of(secret: str) -> Iterator[str]:
    """What is secret of a secret: of an address its user and password, as written and as meant; else all of it."""
    address = _ADDRESS.match(secret)
    if address is None:
        yield secret
        return
    user, at, _ = secret[address.end() :].rpartition("@")
    if not at:
        return  # where a proxy stands is no secret
    password = user.partition(":")[2] or user
    yield from {user, unquote(user), password, unquote(password)}


def plain_run(secret: str) -> Iterator[str]:
    """Texts of which one is in every form of this secret: what no escaping changes. The longest, for speed."""
    yield max(re.findall(r"[\w.~-]+", secret, re.ASCII), key=len, default="")
    yield from (max(re.split("[+/]", piece), key=len) for piece in _base64_of(secret))


def disguised(secret: str) -> Iterator[str]:
    """Regular expressions for all forms of this secret; each takes time in proportion to the text."""
    yield "".join(_forms(char) for char in secret)
    for piece in _base64_of(secret):
        yield "".join({"+": "(?:[+-]|%2[Bb])", "/": "(?:[/_]|%2[Ff])"}.get(char, char) for char in piece)


def _base64_of(secret: str) -> Iterator[str]:
    """What is the same in the base64 of whatever the secret is a part of, at each of the three places it may have."""
    coded = secret.encode("utf-8", "surrogatepass")
    for before in range(3):
        whole = base64.b64encode(bytes(before) + coded).decode().rstrip("=")
        # Characters that also hold bits of what stands before or behind may be others.
        first = -(-before * 4 // 3)
        last = (before + len(coded)) * 8 // 6
        if last - first >= _BASE64_SURE:
            yield whole[first:last]


def _forms(char: str) -> str:
    if char in _PLAIN:
        return re.escape(char)
    utf8 = char.encode("utf-8", "surrogatepass")
    utf16 = char.encode("utf-16-be", "surrogatepass")
    units = [utf16[at : at + 2].hex() for at in range(0, len(utf16), 2)]
    forms = [
        r"\\{0,64}" + re.escape(char),
        _any_case("".join(f"%(?:25){{0,3}}{byte:02x}" for byte in utf8)),
        _any_case("".join(rf"\\{{1,64}}u{unit}" for unit in units)),
        _any_case("".join(rf"\\{{1,64}}x{byte:02x}" for byte in utf8)),
        _any_case(rf"\\{{1,64}}U{ord(char):08x}"),
    ]
    if ord(char) < 256:
        forms.append(_any_case(rf"\\{{1,64}}x{ord(char):02x}"))
    if (entity := html.escape(char)) != char:
        forms.append(re.escape(entity))
    if char == " ":
        forms.append(r"\+")
    return f"(?:{'|'.join(forms)})"


def _any_case(pattern: str) -> str:
    return f"(?i:{pattern})"
