"""What could act in a chat, found by a reader that shares nothing with the writer but the grammar."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

# With HTML on, so that a tag would be noticed.
READER = MarkdownIt("commonmark", {"html": True, "maxNesting": 100}).enable(["table", "strikethrough"])
UNSEEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e0fff]"
)
E_MAIL = re.compile(r"(?<=[A-Za-z0-9])@(?=(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2})")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9.@:%-]*|(?<![A-Za-z0-9])www\.[A-Za-z0-9]", re.IGNORECASE)


def faults(written: str, hosts: frozenset[str]) -> list[str]:
    """Each foreign link, image, tag, mention, bare address and invisible character in markdown that will be sent."""
    allowed = "|".join(map(re.escape, hosts)) or "(?!)"
    found = [f"invisible {unseen!r}" for unseen in UNSEEN.findall(written)]
    if "@" in E_MAIL.sub("", written):
        found.append(f"mention in {written!r}")
    found += [
        f"address {address!r}"
        for address in ADDRESS.findall(written)
        if re.fullmatch(rf"https?://(?:{allowed})(:[0-9]+)?", address.rstrip(".:%-")) is None
    ]
    for token in flat(READER.parse(written)):
        if token.type == "text" and re.search(r"(?<![\w./-])evil\.example/", token.content):
            found.append(f"address in {token.content!r}")
        if token.type in ("image", "html_inline", "html_block"):
            found.append(f"{token.type} {token.content!r}")
        if token.type == "link_open":
            href = str(token.attrs["href"])
            if not re.match(rf"https?://(?:{allowed})(?=[/:?#]|$)", href):
                found.append(f"link to {href!r}")
    return found


def flat(tokens: Sequence[Token]) -> Iterator[Token]:
    """The tokens, and those inside of them."""
    for token in tokens:
        if token.type != "inline":
            yield token
        yield from flat(token.children or ())


def words(written: str) -> str:
    """What a reader sees, without white space."""
    return re.sub(r"\s+", "", "".join(token.content for token in flat(READER.parse(written))))
