"""What the configuration decides of a message's way; declares what is needed of the way into the chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from dingbridge.answerer import Answerer
from dingbridge.model import Answer, Attachment, CardState, Message, Route
from dingbridge.shape import Shape
from dingbridge.texts import Texts


class Part(Protocol):
    """One message of a reply, numbered from 1."""

    @property
    def number(self) -> int: ...

    @property
    def text(self) -> str: ...

    @property
    def link_hosts(self) -> frozenset[str]: ...


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


class Card(Protocol):
    """One answer as a card. newest: what was to be shown last, "" before that."""

    @property
    def newest(self) -> str: ...

    def update(self, text: str) -> None:
        """The whole text so far, shown when there is time for it."""

    async def show(self, text: str) -> bool:
        """As `update`; whether it is seen when this returns."""

    def stop(self) -> None:
        """Nothing new is shown any more; somebody else ends it."""

    async def finish(self, text: str, *, params: Mapping[str, str], link_hosts: frozenset[str]) -> None:
        """The whole answer; a card that was finished before is finished. Raises ReplyError."""

    async def fail(self, text: str) -> CardState:
        """Nothing more will come. CLOSED: it says so. SHOWN: another last word stands on it. OPEN: nobody knows.

        NONE: it takes no last word, or is still being made.
        """


class Cards(Protocol):
    """Answers as cards."""

    def wanted(self, message: Message) -> bool:
        """Whether its answer may become one; asked before anything is kept or sent."""

    async def open(self, message: Message, text: str, *, forward: bool, params: Mapping[str, str]) -> Card | None:
        """None: there is none, and none will appear."""

    def resume(self, track: str, code: str) -> Card:
        """One that was opened before, by whichever process. code: of its message."""


class Emotions(Protocol):
    """A face on a message that is being answered."""

    async def show(self, message: Message) -> bool: ...

    async def recall(self, message: Message) -> None: ...


class Files(Protocol):
    """What people send along."""

    def hold(self, message: Message) -> AbstractAsyncContextManager[tuple[Attachment, ...]]:
        """All of them, for as long as they are needed. Raises BridgeError."""


class Pages(Protocol):
    """Where answers can be read whole."""

    async def link(self, row: int) -> str:
        """Another one at each call. Raises StoreError."""


@dataclass(frozen=True, slots=True)
class Setup:
    """A reload replaces it whole; what runs keeps its own. workers: questions at once, 0 means no limit.

    emotions: where the waiting notice is one. quick_replies: "commands", "buttons" or "off", see `ReplyConfig`.
    locales: the texts of those routes that have their own.
    """

    robot: str
    answerer: Answerer
    replies: Replies[Any]
    texts: Texts
    notice_after_s: float
    notice: bool = True
    waiting_per_lane: int = 8
    workers: int = 64
    quick_replies: str = "off"
    cards: Cards | None = None
    files: Files | None = None
    pages: Pages | None = None
    emotions: Emotions | None = None
    locales: Mapping[str, Texts] = field(default_factory=dict)

    def texts_for(self, message: Message) -> Texts:
        """Before there is an answer: in the language of the first route that may give one."""
        matching = self.answerer.matching(message)
        return self.texts_of(matching[0] if matching else None)

    def texts_of(self, route: Route | None) -> Texts:
        return self.locales.get(route.locale, self.texts) if route is not None else self.texts
