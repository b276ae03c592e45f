"""What a demo page shows, and who looks at it: messages and the wire, kept bounded and told to every open page.

The dictionaries are those of the page's API, times are milliseconds since 1970.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any, Final

MESSAGES: Final = 500
WIRE: Final = 300
UNREAD: Final = 500

Event = Mapping[str, Any]
Queue = asyncio.Queue[Event]


def now_ms() -> int:
    return int(time.time() * 1000)


@dataclass(frozen=True, slots=True)
class Message:
    """One bubble. `author` is a person's id or "bot"; `state` is sent, held, lost or acked; `html` is inert.

    kind: text, markdown, card, picture, file or audio. card: how it stands and what each person sees, see `bubbles`.
    buttons: those of an action card. quoted: what it answers to. file: {"name", "size"}. emotion: sticks to it.
    """

    id: str
    chat: str
    author: str
    nick: str
    at: int
    kind: str
    title: str
    text: str
    html: Mapping[str, str]
    mentions: tuple[str, ...] = ()
    notice: bool = False
    state: str = "sent"
    webhook_expires_at: int | None = None
    note: str = ""
    card: Mapping[str, Any] | None = None
    buttons: tuple[Mapping[str, str], ...] = ()
    quoted: str = ""
    file: Mapping[str, Any] | None = None
    emotion: str = ""

    def as_json(self) -> dict[str, Any]:
        facts = asdict(self)
        return {"from": facts.pop("author"), **facts}


@dataclass(frozen=True, slots=True)
class Wire:
    """One line beside the chat. `direction` is down, up or info; `detail` holds no secret; `bot` is ours or bare."""

    kind: str
    title: str
    direction: str = "info"
    detail: Any = None
    ok: bool = True
    bot: str = "ours"


class Board:
    """`listen()` gives a page its events; one that does not keep up is told to fetch the state anew."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._messages: dict[str, Message] = {}
        self._wire: deque[dict[str, Any]] = deque(maxlen=WIRE)
        self._listeners: set[Queue] = set()

    @property
    def watched(self) -> bool:
        return bool(self._listeners)

    @property
    def messages(self) -> list[Message]:
        return list(self._messages.values())

    @property
    def wire(self) -> list[dict[str, Any]]:
        return list(self._wire)

    def new_id(self, prefix: str) -> str:
        return f"{prefix}{next(self._numbers)}"

    def put(self, message: Message) -> None:
        """Add a message, or change the one with its id."""
        self._messages[message.id] = message
        while len(self._messages) > MESSAGES:
            del self._messages[next(iter(self._messages))]
        self.tell("message", message.as_json())

    def has(self, message_id: str) -> bool:
        return message_id in self._messages

    def get(self, message_id: str) -> Message | None:
        return self._messages.get(message_id)

    def change(self, message_id: str, **facts: Any) -> None:
        """New facts about a message, if it is still there."""
        if (message := self._messages.get(message_id)) is not None:
            self.put(replace(message, **facts))

    def note(self, entry: Wire) -> None:
        row = {"id": self.new_id("w"), "at": now_ms(), **asdict(entry)}
        self._wire.append(row)
        self.tell("wire", row)

    def clear(self) -> None:
        self._messages.clear()
        self._wire.clear()
        for queue in self._listeners:
            _restart(queue)

    def tell(self, kind: str, value: Any) -> None:
        """One event to every page; its value travels under the kind's own name."""
        event = {"type": kind, kind: value}
        for queue in self._listeners:
            if queue.full():
                _restart(queue)
            else:
                queue.put_nowait(event)

    @contextmanager
    def listen(self) -> Iterator[Queue]:
        queue: Queue = asyncio.Queue(UNREAD)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)


def _restart(queue: Queue) -> None:
    """What was not read is not needed: the page fetches everything."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait({"type": "reset"})
