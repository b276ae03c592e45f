"""Logging: constant dotted events with fields, as JSON lines to stderr unless it is a terminal; secrets redacted."""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import re
import sys
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

MASK = "***"
# By name of the field, whatever its value.
_KEYS = re.compile(
    r"(?i)secret|passw|ticket|api_?key|access_?key|authorization|webhook|credential|cookie|(?<!first_)token"
)
# By look of the value, wherever it stands: an error's text, a traceback, a URL.
_VALUES = (
    (
        re.compile(
            r"(?i)\b((?:session|ticket|access_token|token|sign|signature|client_?secret|api_?key)=)[^&\s\"'<>]+"
        ),
        r"\1***",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"), r"\1 ***"),
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^/\s:@\"']+:[^/\s@\"']+@"), r"\1***@"),
    (
        re.compile(
            r"(?i)([\"'](?:client_?secret|app_?secret|api_?key|access_?token|ticket|session_?webhook)[\"']\s*:\s*)[\"'][^\"']*[\"']"
        ),
        r'\1"***"',
    ),
    (re.compile(r"(?<![\d.])1[3-9]\d{9}(?!\d)"), MASK),  # a mobile number
    (re.compile(r"(?<!\d)\d{17}[\dXx](?![\dA-Za-z])"), MASK),  # an identity card number
)


class Redactor:
    """Masks by key, by look, and the very secrets it was given. Use one for everything that leaves the process."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for pattern, replacement in _VALUES:
            text = pattern.sub(replacement, text)
        return text

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ARG002 - structlog's shape
        for key, value in event.items():
            event[key] = MASK if _KEYS.search(key) and value else self._value(value)
        return event

    def _value(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {k: MASK if _KEYS.search(str(k)) and v else self._value(v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(one) for one in value]
        return self.text(str(value))


class Sink:
    """An open file that never fails and never blocks its caller: a thread writes, and what does not fit is dropped.

    A log on a full disk, or in a pipe that nobody reads any more, must not stop the daemon.
    """

    def __init__(self, stream: TextIO, *, lines: int = 10_000) -> None:
        self._stream = stream
        self._descriptor = stream.fileno()
        self._lines: queue.Queue[str | None] = queue.Queue(lines)
        self._thread = threading.Thread(target=self._main, name="log", daemon=True)
        self.dropped = 0
        self._thread.start()

    def write(self, text: str) -> int:
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self.dropped += 1
        return len(text)

    def flush(self) -> None:
        """Lines are flushed by the thread."""

    def isatty(self) -> bool:
        return self._stream.isatty()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is left, as far as it can be written in time."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
            self._thread.join(timeout_s)

    def _main(self) -> None:
        while (text := self._lines.get()) is not None:
            try:
                self._write(text.encode("utf-8", "backslashreplace"))
            except (OSError, ValueError):
                self.dropped += 1

    def _write(self, line: bytes) -> None:
        """Past Python's buffer: what stays in there is tried again at the exit, and fails it with 120."""
        while line:
            line = line[os.write(self._descriptor, line) :]


def configure(
    redactor: Redactor, *, stream: TextIO | Sink | None = None, cache: bool = True, level: int = logging.INFO
) -> None:
    """stream: default stderr; JSON lines unless it is a terminal. cache: False where it will be configured again."""
    out = cast("TextIO", stream or sys.stderr)
    as_json = not out.isatty()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Without locals: they hold the very things that must not be printed.
        structlog.processors.format_exc_info,
        redactor,
    ]
    renderer = structlog.processors.JSONRenderer(ensure_ascii=False) if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=cache,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared[:3],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redactor,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


def pseudonym(robot: str, person: str) -> str:
    """The same person always, but nobody's name."""
    return hashlib.sha256(f"{robot}\0{person}".encode()).hexdigest()[:12]
