"""What the configuration decides of a message's way; declares what is needed of the way into the chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from dingbridge.answerer import Answerer
from dingbridge.model import Answer, Message
from dingbridge.shape import Shape
from dingbridge.texts import Texts


class Part(Protocol):
    """One message of a reply, numbered from 1."""

    @property
    def number(self) -> int: ...


P = TypeVar("P", bound=Part)


class Replies(Protocol[P]):
    """The way into the chat."""

    async def compose(self, answer: Answer, shape: Shape) -> list[P]:
        """The answer as chat messages; the same answer and shape always give the same parts."""

    def wants_page(self, answer: Answer, parts: Sequence[P]) -> bool:
        """Whether a page would show more than these parts."""

    async def send(self, message: Message, part: P, *, uncertain: bool = False) -> bool:
        """False: nobody knows whether it arrived, and it will not be tried again. Raises ReplyError."""

    async def notice(self, message: Message, text: str | None = None) -> bool:
        """Best effort."""


@dataclass(frozen=True, slots=True)
class Setup:
    """A reload replaces it whole; what runs keeps its own. workers: questions at once, 0 means no limit."""

    answerer: Answerer
    replies: Replies[Any]
    texts: Texts
    notice_after_s: float
    notice: bool = True
    waiting_per_lane: int = 8
    workers: int = 64
