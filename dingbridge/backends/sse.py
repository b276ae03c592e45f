"""Server-sent events as AnythingLLM writes them: bytes in, decoded JSON objects out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from dingbridge.errors import BackendMalformed

MAX_EVENT = 1024 * 1024
_SURROGATE = re.compile("[\ud800-\udfff]")


def whole_characters(text: str) -> str:
    """Joins surrogate pairs that arrived as two JSON escapes; a lone half becomes U+FFFD.

    JavaScript cuts strings between the halves of an emoji, and a lone half cannot be encoded as UTF-8 later.
    """
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class EventStream:
    """An incremental parser. Chunks may be cut anywhere, also inside a character.

    `feed` and `close` yield the objects that became complete; comments, other fields and `[DONE]` are skipped.
    A line or an event over `max_event` bytes, and data that is no JSON object, raise BackendMalformed, after
    everything before them has been yielded.
    """

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max = max_event
        self._buffer = bytearray()
        self._searched = 0
        self._data: list[bytes] = []
        self._size = 0
        self._at_start = True

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        self._buffer += chunk
        while (end := self._buffer.find(b"\n", self._searched)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._searched = 0
            yield from self._line(line)
        self._searched = len(self._buffer)
        self._check(self._searched)

    def close(self) -> Iterator[dict[str, Any]]:
        """What the end of the stream completes: a last event without its blank line, if it can be read."""
        rest, self._buffer, self._searched = bytes(self._buffer), bytearray(), 0
        with suppress(BackendMalformed):
            yield from self._line(rest)
            yield from self._line(b"")

    def _line(self, line: bytes) -> Iterator[dict[str, Any]]:
        self._check(len(line))
        line = line.removesuffix(b"\r")
        if self._at_start:
            line, self._at_start = line.removeprefix(b"\xef\xbb\xbf"), False
        if not line:
            data, self._data, self._size = b"\n".join(self._data), [], 0
            if data and data != b"[DONE]":
                yield read_object(data)
        elif line.startswith(b"data:"):
            value = line[5:].removeprefix(b" ")
            self._size += len(value)
            self._check(self._size)
            self._data.append(value)

    def _check(self, size: int) -> None:
        if size > self._max:
            raise BackendMalformed(f"AnythingLLM sent an event of more than {self._max} bytes")


def read_object(data: bytes) -> dict[str, Any]:
    """A JSON object, or BackendMalformed."""
    try:
        value = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BackendMalformed("AnythingLLM sent something that is no JSON object", retryable=True)
    return value
