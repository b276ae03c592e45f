"""How far a long piece of work has come: in one line of a terminal, or now and then in a line of a file."""

from __future__ import annotations

import time
from typing import TextIO

DRAW_S = 0.2
LINE_S = 10.0


class Progress:
    """Quiet for what is done at once. Gives percent and rows a second, where rows are counted."""

    def __init__(self, stream: TextIO, *, lines: bool = True) -> None:
        """lines: also where nobody sits before it."""
        self._stream = stream
        self._terminal = stream.isatty()
        self._every_s = DRAW_S if self._terminal else LINE_S if lines else float("inf")
        self._drawn = False
        self._next = time.monotonic() + self._every_s
        self._what = ""
        self._began = (0.0, 0)

    def tell(self, what: str, done: int, total: int) -> None:
        at = time.monotonic()
        if what != self._what:
            self._what, self._began = what, (at, done)
        if at < self._next:
            return
        self._next = at + self._every_s
        since, before = self._began
        rate = (done - before) / max(at - since, 0.001)
        text = f"{what} {100 * done / total:.0f} %  {rate:,.0f}/s" if total else what
        self._stream.write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
        self._stream.flush()
        self._drawn = True

    def end(self) -> None:
        if self._drawn and self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
