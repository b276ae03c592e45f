"""The stand-in gateway's traffic as JSON lines, fit for a bug report: wall-clock times, nothing secret.

{"time": "2026-03-04T05:06:07.089+08:00", "number": 12, "kind": "ack", "connection": "…", "code": 200, …}
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

MASK: Final = "***"
STRING_LIMIT: Final = 16 * 1024
FILE_LIMIT: Final = 16 * 1024 * 1024

_KEYS: Final = (
    "clientSecret",
    "appSecret",
    "accessToken",
    "access_token",
    "ticket",
    "session",
    "sign",
    "Authorization",
)
# A member of an object, also where that object is a string in another one, with its quotes escaped.
_MEMBER: Final = re.compile(rf"""(\\*"(?:{"|".join(_KEYS)})\\*"\s*:\s*\\*")[^"\\]*""", re.IGNORECASE)
_QUERY: Final = re.compile(r"\b((?:session|ticket|access_token|appsecret|sign)=)[^&\"'\\\s]+", re.IGNORECASE)
_TOKEN: Final = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Mask:
    """Hides what a secret's name stands before, each token that `known` knows, and `words` wherever they stand."""

    def __init__(self, words: Callable[[], list[str]], known: Callable[[str], bool]) -> None:
        self._words = words
        self._known = known

    def line(self, entry: dict[str, Any], at: float) -> str:
        """One entry of the traffic; `at` is its time in epoch seconds."""
        time = datetime.fromtimestamp(at, UTC).astimezone().isoformat(timespec="milliseconds")
        facts = {key: self.clean(value) for key, value in entry.items() if key != "at"}
        return json.dumps({"time": time} | facts, ensure_ascii=False)

    def clean(self, value: Any) -> Any:
        """The same without secrets, each string at most `STRING_LIMIT` characters."""
        if isinstance(value, dict):
            return {key: self._member(str(key), part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean(part) for part in value]
        if isinstance(value, str):
            return _shorten(self._text(value))
        return value if value is None or isinstance(value, bool | int | float) else str(value)

    def _member(self, key: str, value: Any) -> Any:
        secret = key.casefold() in {name.casefold() for name in _KEYS}
        return MASK if secret and isinstance(value, str) and value else self.clean(value)

    def _text(self, text: str) -> str:
        text = _QUERY.sub(rf"\g<1>{MASK}", _MEMBER.sub(rf"\g<1>{MASK}", text))
        text = _TOKEN.sub(lambda found: MASK if self._known(found[0]) else found[0], text)
        for word in self._words():
            for written in {word, json.dumps(word)[1:-1], json.dumps(word, ensure_ascii=False)[1:-1]} - {""}:
                text = text.replace(written, MASK)
        return text


class Tape:
    """Lines into a file or a stream. A file that is full becomes FILE.1, so at most two are kept."""

    def __init__(self, target: str | Path | TextIO, limit_bytes: int = FILE_LIMIT) -> None:
        self.error = ""
        self._path = Path(target) if isinstance(target, str | Path) else None
        self._limit = limit_bytes
        self._size = 0
        self._stream: TextIO | None = self._open(Path(target)) if isinstance(target, str | Path) else target

    def write(self, line: str) -> None:
        """Write a line and hand it to the system; after an error nothing more is written, and `error` says why."""
        if self._stream is None:
            return
        try:
            self._turn(len(line.encode()) + 1)
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            self.error = str(error)
            self.close()

    def close(self) -> None:
        """Close a file of its own; a stream stays its owner's."""
        stream, self._stream = self._stream, None
        if stream is not None and self._path is not None:
            try:
                stream.close()
            except OSError as error:
                self.error = self.error or str(error)

    def _turn(self, more: int) -> None:
        full = self._size and self._size + more > self._limit
        if full and self._stream is not None and self._path is not None and self._path.is_file():  # never a device
            self._stream.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._stream = self._open(self._path)
        self._size += more

    def _open(self, path: Path) -> TextIO:
        path.touch(mode=0o600)
        self._size = 0
        return path.open("w", encoding="utf-8")


def _shorten(text: str) -> str:
    return text if len(text) <= STRING_LIMIT else f"{text[:STRING_LIMIT]}… ({len(text)} characters)"
