"""Logging: constant dotted events with fields, as JSON lines to stderr unless it is a terminal; secrets redacted."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import queue
import sys
import threading
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO, cast

import structlog

from dingbridge.redaction import Redactor

__all__ = ["Redactor", "Sink", "configure", "pseudonym"]

logger = structlog.get_logger("dingbridge.log")


RECENT = 2_000
RECENT_CHARACTERS = 4_000  # of one line; a traceback may be longer


class Sink:
    """An open file that never fails and never blocks its caller: a thread writes, and what does not fit is dropped.

    A log on a full disk, or in a pipe that nobody reads any more, must not stop the daemon.
    """

    def __init__(self, stream: TextIO, *, lines: int = 10_000) -> None:
        self._stream = stream
        self._descriptor = stream.fileno()
        self._lines: queue.SimpleQueue[str | threading.Event] = queue.SimpleQueue()
        self._most = lines
        self._recent: deque[str] = deque(maxlen=RECENT)
        self.dropped = 0
        threading.Thread(target=self._main, name="log", daemon=True).start()
        atexit.register(self.close)  # what is logged while the interpreter ends

    def recent(self) -> list[str]:
        """The last lines, oldest first."""
        return list(self._recent)

    def write(self, text: str) -> int:
        self._recent.append(text if len(text) <= RECENT_CHARACTERS else text[:RECENT_CHARACTERS] + "\n")
        if self._is_full:
            self.dropped += 1
        else:
            self._lines.put(text)
        return len(text)

    @property
    def _is_full(self) -> bool:
        return self._lines.qsize() >= self._most

    def flush(self) -> None:
        """Lines are flushed by the thread."""

    def isatty(self) -> bool:
        return self._stream.isatty()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is left, as far as it can be written in time. What comes later is written, too."""
        written = threading.Event()
        if not self._is_full:
            self._lines.put(written)
            written.wait(timeout_s)

    def _main(self) -> None:
        while True:
            line = self._lines.get()
            if isinstance(line, threading.Event):
                line.set()
                continue
            try:
                self._write(line.encode("utf-8", "backslashreplace"))
            except (OSError, ValueError):
                self.dropped += 1

    def _write(self, line: bytes) -> None:
        """Past Python's buffer: what stays in there is tried again at the exit, and fails it with 120."""
        while line:
            line = line[os.write(self._descriptor, line) :]


class _Handler(logging.StreamHandler[TextIO]):
    """For what libraries log by the standard library."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """A record that cannot be formatted: the library's own way prints its arguments, whatever they are."""
        why, where = type(sys.exc_info()[1]).__name__, f"{record.pathname}:{record.lineno}"
        with suppress(Exception):
            logger.error("log.unprintable", why=why, where=where)


def configure(
    redactor: Redactor,
    *,
    stream: TextIO | Sink | None = None,
    cache: bool = True,
    level: int = logging.INFO,
    own_process: bool = False,
) -> None:
    """stream: default stderr; JSON lines unless it is a terminal. cache: False where it will be configured again.

    own_process: what nobody catches, and warnings, are logged as well, instead of printed as they are.
    """
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
    renderer = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=cache,
    )
    handler = _Handler(out)
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
    if own_process:
        _log_what_nobody_catches(stream if isinstance(stream, Sink) else None)


def _log_what_nobody_catches(sink: Sink | None) -> None:
    """Python prints such errors as they are. asyncio's own go through the standard library's logging."""

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        logger.error("process.uncaught", exc_info=(kind, error, trace))
        if sink is not None:
            sink.close()

    def uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_type is not SystemExit:
            name = found.thread.name if found.thread else ""
            logger.error(
                "process.uncaught", thread=name, exc_info=(found.exc_type, found.exc_value, found.exc_traceback)
            )

    def unraisable(found: sys.UnraisableHookArgs) -> None:
        trace = (found.exc_type, found.exc_value, found.exc_traceback)
        logger.error("process.unraisable", where=found.object, why=found.err_msg, exc_info=trace)

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    sys.unraisablehook = unraisable
    logging.captureWarnings(capture=True)


def pseudonym(robot: str, person: str) -> str:
    """The same person always, but nobody's name."""
    return hashlib.sha256(f"{robot}\0{person}".encode()).hexdigest()[:12]
