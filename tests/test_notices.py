"""When the waiting notice goes out, and when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from dingbridge.model import Conversation, ConversationKind, Message, MessageKind, Person
from dingbridge.notices import Notices

MESSAGE = Message(
    id="m",
    robot="r",
    conversation=Conversation("c", ConversationKind.SINGLE),
    sender=Person("p", "p"),
    kind=MessageKind.TEXT,
    text="x",
    sent_at=datetime(2026, 1, 1, tzinfo=UTC),
)


class Chat:
    """Stands for the store's claim and the way into the chat."""

    def __init__(self, *, takes_s: float = 0.0, claims: bool = True) -> None:
        self.sent: list[str | None] = []
        self.done = asyncio.Event()
        self._takes_s = takes_s
        self._claims = claims

    async def claim(self, row: int) -> Message | None:
        return MESSAGE if self._claims else None

    async def send(self, row: int, message: Message, text: str | None) -> bool:
        await asyncio.sleep(self._takes_s)
        self.sent.append(text)
        self.done.set()
        return True


@asynccontextmanager
async def running(chat: Chat, *, after_s: float = 0.05, enabled: bool = True) -> AsyncIterator[Notices]:
    notices = Notices(after_s=after_s, claim=chat.claim, send=chat.send, enabled=enabled)
    task = asyncio.create_task(notices.run())
    try:
        yield notices
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_it_goes_out_when_it_is_due() -> None:
    """An unanswered question gets its notice."""
    chat = Chat()
    async with running(chat) as notices:
        notices.arm(1)
        async with asyncio.timeout(5):
            await chat.done.wait()

    assert chat.sent == [None]


async def test_an_answered_question_gets_none() -> None:
    """Settled before it is due means never sent; a later question still gets its own."""
    chat = Chat()
    async with running(chat) as notices:
        notices.arm(1)
        await notices.settle(1)
        notices.arm(2)
        notices.replace(2, "第二个")
        async with asyncio.timeout(5):
            await chat.done.wait()

    assert chat.sent == ["第二个"]


async def test_settle_waits_for_a_notice_on_its_way() -> None:
    """The answer must not overtake the notice: when settle returns, it has arrived."""
    chat = Chat(takes_s=0.3)
    async with running(chat, after_s=0.0) as notices:
        notices.arm(1)
        await asyncio.sleep(0.05)
        await notices.settle(1)

        assert chat.sent == [None]


async def test_the_store_has_the_last_word() -> None:
    """A lane that has had its notice, or an answered row, is not claimed and so not sent."""
    chat = Chat(claims=False)
    async with running(chat, after_s=0.0) as notices:
        notices.arm(1)
        await asyncio.sleep(0.1)

    assert chat.sent == []


async def test_after_a_restart_the_time_already_waited_counts() -> None:
    """A question that waited long before the restart is told at once."""
    chat = Chat()
    async with running(chat, after_s=60.0) as notices:
        notices.arm(1, waited_s=100.0)
        async with asyncio.timeout(5):
            await chat.done.wait()

    assert chat.sent == [None]


async def test_off_means_off() -> None:
    """With notice = off nothing is armed."""
    chat = Chat()
    async with running(chat, after_s=0.0, enabled=False) as notices:
        notices.arm(1)
        await asyncio.sleep(0.1)

    assert chat.sent == []
