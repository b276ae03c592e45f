"""Text in columns on a terminal, where a Chinese character is two wide."""

from __future__ import annotations

from collections.abc import Iterable
from unicodedata import east_asian_width


def width(text: str) -> int:
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def padded(text: str, to: int) -> str:
    return text + " " * max(0, to - width(text))


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Each column as wide as its widest cell."""
    rows = list(rows)
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(padded(*cell) for cell in zip(row, widths, strict=True)).rstrip() for row in rows]


def labelled(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """`label  text`, the texts below one another."""
    return table(pairs)
