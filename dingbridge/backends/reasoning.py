"""Keeps a model's reasoning out of the answer, while the answer is still arriving."""

from __future__ import annotations

import re

_TAG = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE | re.ASCII)
_CLOSE = re.compile(r"</think(?:ing)?>", re.IGNORECASE | re.ASCII)
_TAGS = ("<think>", "<thinking>", "</think>", "</thinking>")
_LONGEST = max(map(len, _TAGS))


class ReasoningFilter:
    """Drops `<think>…</think>` (also `<thinking>`, any case), however the text is cut into pieces.

    An unclosed tag hides all that follows it. A closing tag without an opening one hides all before it: some
    models' templates put the opening tag into the prompt, and the stream begins inside the reasoning.
    """

    def __init__(self) -> None:
        self._text = ""
        self._held = ""
        self._inside = False
        self._removed = False
        self._closed = False

    def feed(self, piece: str) -> None:
        self._held += piece
        while self._step():
            pass

    def close(self) -> None:
        """No more text will come: what looked like the beginning of a tag was none."""
        if not self._inside:
            self._text += self._held
        self._held = ""
        self._closed = True

    @property
    def text(self) -> str:
        """What may be shown so far.

        After reasoning, a bare `null` is how AnythingLLM prints an answer whose content was missing
        (recorded with version 1.16); what may become one is held back too.
        """
        if not self._removed:
            return self._text
        shown = self._text.lstrip()
        word = shown.rstrip()
        hidden = word == "null" if self._closed else "null".startswith(word)
        return "" if hidden else shown

    def _step(self) -> bool:
        match = (_CLOSE if self._inside else _TAG).search(self._held)
        if match is None:
            self._keep_possible_tag()
            return False
        if not self._inside:
            self._enter_or_restart(self._held[: match.start()], opening=not match.group(1))
        else:
            self._inside = False
        self._removed = True
        self._held = self._held[match.end() :]
        return True

    def _enter_or_restart(self, before: str, *, opening: bool) -> None:
        if opening or self._removed:
            self._text += before
        else:
            self._text = ""
        self._inside = opening

    def _keep_possible_tag(self) -> None:
        start = self._held.rfind("<", max(0, len(self._held) - _LONGEST))
        tail = self._held[start:].lower() if start >= 0 else ""
        if not tail or not any(tag.startswith(tail) for tag in _TAGS):
            start = len(self._held)
        if not self._inside:
            self._text += self._held[:start]
        self._held = self._held[start:]
