"""Puts the events of one stream together. Which event means what: AnythingLLM 1.0 to 1.16, recorded and read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dingbridge.backends.reasoning import ReasoningFilter
from dingbridge.backends.sse import whole_characters

AGENT_FAILED = "The agent model failed to respond:"


class Assembly:
    """One answer in the making.

    abort: the server's words when it gave up; everything after them is ignored, also the `finalize` event that
        says `error: false` and comes all the same.
    finished: the last event has been read; nothing more needs to be waited for.
    started: text arrived, reasoning included. From here on the server keeps what it wrote in its history.
    odd: a text was no text (version 1.1x sent `{}`).
    """

    def __init__(self) -> None:
        self.events = 0
        self.abort: str | None = None
        self.finished = False
        self.started = False
        self.odd = False
        self.whole = False
        self.sources: list[Any] = []
        self._closed = False
        self._finalized = False
        self._bare_text = False
        self._filter = ReasoningFilter()

    def add(self, event: Mapping[str, Any]) -> None:
        if self.finished:
            return
        self.events += 1
        match event.get("type"):
            case "abort":
                self._give_up(event)
            case "textResponseChunk" | "textResponse" | "finalizeResponseStream" if _only_error(event):
                self._give_up(event)
            case "textResponseChunk":
                self._append(event)
            case "textResponse":
                self._replace(event)
            case "finalizeResponseStream":
                self._finalize(event)
            case _:  # agent thoughts, metrics, files, and what later versions bring
                return
        self._keep_sources(event)

    def close(self) -> None:
        """The stream has ended, properly or not."""
        self._filter.close()

    @property
    def text(self) -> str:
        """What may be shown so far, without reasoning."""
        return whole_characters(self._filter.text)

    @property
    def complete(self) -> bool:
        """The text is all there is; False when it broke off."""
        return self.abort is None and (self._closed or self.whole or self._finalized)

    @property
    def refused(self) -> bool:
        """Query mode found nothing: a single `textResponse` without sources, metrics and chat id, no `finalize`."""
        return self._bare_text and self.complete and not self._finalized

    def _give_up(self, event: Mapping[str, Any]) -> None:
        error = event.get("error")
        self.abort = error if isinstance(error, str) else "no reason given"
        self.finished = True

    def _append(self, event: Mapping[str, Any]) -> None:
        text = self._text(event)
        self.started = self.started or bool(text)
        self._filter.feed(text)
        self._closed = self._closed or event.get("close") is True

    def _replace(self, event: Mapping[str, Any]) -> None:
        if text := self._agent_checked(event):
            self._bare_text = self.events == 1 and not (
                event.get("chatId") or event.get("metrics") or event.get("sources")
            )
            self.started = self.whole = True
            self._filter = ReasoningFilter()
            self._filter.feed(text)

    def _finalize(self, event: Mapping[str, Any]) -> None:
        if self._agent_checked(event):
            self._replace(event)
        self._finalized = self.abort is None
        self.finished = True

    def _agent_checked(self, event: Mapping[str, Any]) -> str:
        """An agent tells its provider's failure as an answer, with `error: null`."""
        text = self._text(event)
        if not text.startswith(AGENT_FAILED):
            return text
        self.abort, self.finished = text, True
        return ""

    def _text(self, event: Mapping[str, Any]) -> str:
        text = event.get("textResponse")
        if isinstance(text, str):
            return text
        self.odd = self.odd or text is not None
        return ""

    def _keep_sources(self, event: Mapping[str, Any]) -> None:
        """In `finalize` since 1.9, in every chunk before; the last list that has something wins."""
        found = event.get("sources")
        if isinstance(found, list) and found:
            self.sources = found


def _only_error(event: Mapping[str, Any]) -> bool:
    error = event.get("error")
    return isinstance(error, str) and bool(error) and not event.get("textResponse")
