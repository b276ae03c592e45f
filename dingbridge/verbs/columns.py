"""Text in columns on a terminal, where a Chinese character is two wide."""

from __future__ import annotations

from collections.abc import Iterable
from unicodedata import east_asian_width


def width(text: str) -> int:
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def padded(text: str, to: int) -> str:
    return text + " " * max(0, to - width(text))


def labelled(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """`label  text`, the texts below one another."""
    rows = list(pairs)
    widest = max((width(label) for label, _ in rows), default=0)
    return [f"{padded(label, widest)}  {text}".rstrip() for label, text in rows]
