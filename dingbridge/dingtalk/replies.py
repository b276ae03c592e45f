"""An answer into the chat it came from: this message's webhook, the conversation's newest one, then OpenAPI.

The session webhook has no idempotency key and tells failure in the body of an HTTP 200; its bodies end at 20 000
bytes, the OpenAPI's at 15 000. (DingTalk's pages on robot message types and custom robots.)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
import structlog
from yarl import URL

from dingbridge import trail
from dingbridge.dingtalk import composing, errcodes, markdown, split
from dingbridge.dingtalk.allowance import API, WEBHOOK_STREAM, Budget, Unlimited, counted
from dingbridge.dingtalk.composing import Part
from dingbridge.dingtalk.openapi import OpenAPI
from dingbridge.dingtalk.pace import NOTICE_RESERVE, Pace
from dingbridge.dingtalk.post import post_json
from dingbridge.errors import (
    ReplyError,
    ReplyPaced,
    ReplyRejected,
    ReplyTooLong,
    ReplyUncertain,
    ReplyUnsafe,
    StoreError,
)
from dingbridge.model import Answer, Message, Secret
from dingbridge.net import Network
from dingbridge.shape import Shape
from dingbridge.texts import NOTICE, Texts

log = structlog.get_logger("dingbridge.reply")

TIMEOUT_S = 10.0
THREAD_ABOVE = 8_000  # characters; parsing takes about 7 ms per 10 KB
HALF_SLACK_BYTES = 100
EXPIRY_MARGIN_S = 30.0
NOTICE_CHARS = 500
PLAIN_S = 1800.0  # without buttons, after DingTalk has refused them

# The newest session webhook of (robot, conversation) and its expiry in epoch seconds.
NewestWebhook = Callable[[str, str], Awaitable[tuple[Secret, float | None]]]
Send = Callable[[Part, str], Awaitable[None]]


class Replies:
    """clock: the seconds since the epoch that expiries are compared with. uncertain: "repeat" or "drop".

    links: a document's title → its address, for sources that have none.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        network: Network,
        openapi: OpenAPI,
        *,
        newest_webhook: NewestWebhook,
        texts: Texts,
        clock: Callable[[], float],
        uncertain: str = "repeat",
        timeout_s: float = TIMEOUT_S,
        pace: Pace | None = None,
        links: Mapping[str, str] | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._session = session
        self._network = network
        self._openapi = openapi
        self._newest_webhook = newest_webhook
        self._texts = texts
        self._clock = clock
        self._repeat = uncertain == "repeat"
        self._timeout_s = timeout_s
        self._pace = pace or Pace(clock)
        self._links = dict(links or {})
        self._budget: Budget = budget or Unlimited()
        self._plain_until = -math.inf
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="compose")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- composing

    async def compose(self, answer: Answer, shape: Shape) -> list[Part]:
        """The answer as parts that fit; the same answer and shape always give the same parts."""
        if len(answer.text) + sum(len(source.text) for source in answer.sources) > THREAD_ABOVE:
            # Threads of our own: those of the loop may all be busy with somebody's handler.
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, composing.compose, answer, shape, self._links)
        return composing.compose(answer, shape, self._links)

    def wants_page(self, answer: Answer, parts: Sequence[Part]) -> bool:
        """Whether a page would show more: the answer was split, has a table, or a source has no link."""
        return composing.wants_page(answer, len(parts), self._links)

    # -- sending

    async def send(self, message: Message, part: Part, *, uncertain: bool = False) -> bool:
        """Put one part into the chat; False where nobody knows whether it arrived and no more is tried.

        uncertain: an earlier try may have arrived; this one is marked, and is the last.
        Raises ReplyPaced, ReplyUnsafe, ReplyRejected (no rung will ever take it), ReplyUnavailable (later),
        ReplyUncertain (later, and then with `uncertain`).
        """
        if uncertain and not self._repeat:
            return False
        if wait_s := await self._pace.take(message.conversation.id, f"{message.id}/{part.number}"):
            trail.note("send.paced", part=part.number, wait_s=round(wait_s, 1))
            raise ReplyPaced("this conversation has had its messages of the minute", retry_after=wait_s)
        failure: ReplyError | None = None
        async with aclosing(self._rungs(message)) as rungs:
            async for name, rung in rungs:
                error = await self._try_both(name, rung, part, marked=uncertain)
                if error is None:
                    return True
                if isinstance(error, ReplyTooLong):
                    unknown = failure is not None and not failure.certain
                    return await self._send_halves(message, part, uncertain=uncertain, unknown=unknown)
                log.info(
                    "reply.degraded",
                    code=message.code,
                    rung=name,
                    why=error.detail,
                    cause=error.cause,
                    certain=error.certain,
                )
                if not error.certain and (uncertain or not self._repeat):
                    return False
                uncertain = uncertain or not error.certain
                failure = _weighed(failure, error)
                if await self._ends_the_ladder(message, error):
                    break
        raise failure or ReplyRejected("no way to this chat is left", cause="webhook.none")

    async def _try_both(self, name: str, rung: Send, part: Part, *, marked: bool) -> ReplyError | None:
        """One rung, with buttons if there are any, else or then without."""
        if part.buttons and self._clock() >= self._plain_until:
            error = await self._try(name, rung, part, marked=marked)
            if error is None or not _may_be_the_buttons(error):
                return error
            plain = await self._try(name, rung, part.without_buttons(), marked=marked)
            if plain is None:
                log.warning("reply.buttons_refused", rung=name, why=error.detail, pause_s=PLAIN_S)
                self._plain_until = self._clock() + PLAIN_S
            return plain
        return await self._try(name, rung, part.without_buttons(), marked=marked)

    async def _try(self, name: str, rung: Send, part: Part, *, marked: bool) -> ReplyError | None:
        """One try; the error it ended with, None where the part has arrived."""
        mark = part.mark or self._texts("repeat_mark")
        try:
            buttons = bool(part.buttons) or None
            with trail.timed("send.tried", part=part.number, rung=name, marked=marked or None, buttons=buttons):
                await rung(part, mark if marked else "")
        except ReplyError as error:
            return error
        return None

    async def _ends_the_ladder(self, message: Message, error: ReplyError) -> bool:
        """Too fast or unsafe is said of the conversation or the text: the next rung would hear the same."""
        if isinstance(error, ReplyPaced):
            await self._pace.pause(message.conversation.id, error.retry_after or errcodes.TOO_FAST_S)
        return isinstance(error, ReplyPaced | ReplyUnsafe)

    async def _send_halves(self, message: Message, part: Part, *, uncertain: bool, unknown: bool) -> bool:
        """unknown: the whole part may have arrived in this very try, so nothing certain can be said of a failure."""
        part = part.without_buttons()  # cutting reads the text again, and lets no quick reply through
        # A little more than half: cuts at paragraphs are never even, and a third piece would be a third message.
        half_bytes = split.encoded(part.text) // 2 + HALF_SLACK_BYTES
        halves = split.split(part.text, max_bytes=max(split.LEAST_BYTES, half_bytes))
        if len(halves) < 2:
            raise ReplyRejected("DingTalk finds even a short part too long", cause="chat.too_long")
        certain = True
        for position, text in enumerate(halves):
            half = replace(part, text=text, number=part.number + position)
            try:
                certain &= await self.send(message, half, uncertain=uncertain)
            except ReplyUnsafe:
                raise
            except ReplyError as error:
                if position == 0 and not unknown:
                    raise
                # Something of this part is in the chat already: the next try is marked.
                raise ReplyUncertain(error.detail, retry_after=error.retry_after, cause=error.cause) from None
        return certain

    async def notice(self, message: Message, text: str | None = None) -> bool:
        """The waiting notice; the first to be dropped when conversation or month are busy. True when it went out."""
        if not self._budget.notice_allowed():
            trail.note("notice.saved")
            return False
        if await self._pace.take(message.conversation.id, reserve=NOTICE_RESERVE):
            return False
        said = markdown.plain(text, limit=NOTICE_CHARS) if text else ""
        body = {"msgtype": "text", "text": {"content": said or self._texts(NOTICE)}}
        async with aclosing(self._webhooks(message)) as webhooks:
            async for rung, url in webhooks:
                try:
                    with trail.timed("notice.sent", rung=rung):
                        await self._post_webhook(url, body, "notice")
                except ReplyError as error:
                    log.info("reply.notice_failed", code=message.code, why=error.detail, cause=error.cause)
                    # Better none than two.
                    if await self._ends_the_ladder(message, error) or not error.certain:
                        return False
                else:
                    return True
        return False

    async def _rungs(self, message: Message) -> AsyncGenerator[tuple[str, Send]]:
        """Where the month's allowance is better spent on the OpenAPI, it comes first."""

        async def by_openapi(part: Part, mark: str) -> None:
            text = f"{mark}\n\n{part.text}" if mark else part.text
            buttons = [(button.title, button.url) for button in part.buttons]
            with counted(self._budget, API, "send"):
                await self._openapi.send(message, part.title, text, buttons)

        alone = not message.conversation.is_group and bool(message.sender.staff_id)
        # Webhooks have no common rate: nobody waits for the month's sake.
        first = self._budget.reply_path(alone) == "openapi" and self._openapi.has_turn(message)
        if first:
            yield "openapi", by_openapi
        async with aclosing(self._webhooks(message)) as webhooks:
            async for rung, url in webhooks:

                async def by_webhook(part: Part, mark: str, url: Secret = url) -> None:
                    await self._post_webhook(url, _body(message, part, mark), "reply")

                yield rung, by_webhook
        if not first:
            yield "openapi", by_openapi

    async def _webhooks(self, message: Message) -> AsyncGenerator[tuple[str, Secret]]:
        """This message's session webhook, then the conversation's newest, as far as they live; each named."""
        own = message.webhook
        expires = message.webhook_expires.timestamp() if message.webhook_expires else None
        if self._usable("webhook", own, expires):
            yield "webhook", own
        try:
            newest, expires = await self._newest_webhook(message.robot, message.conversation.id)
        except StoreError as error:  # the OpenAPI needs no store
            log.warning("reply.webhook_unknown", code=message.code, why=error.detail, cause=error.cause)
            trail.note("send.skipped", rung="newest_webhook", why=error.detail, cause=error.cause)
            return
        if (not newest or newest != own) and self._usable("newest_webhook", newest, expires):
            yield "newest_webhook", newest

    def _usable(self, rung: str, url: Secret, expires: float | None) -> bool:
        if not url:
            # One's own is forgotten with the end of a message: only without the newest one there is none.
            cause = "webhook.none" if rung == "newest_webhook" else None
            trail.note("send.skipped", rung=rung, why="none", cause=cause)
            return False
        if expires is None or self._clock() < expires - EXPIRY_MARGIN_S:
            return True
        moment = datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds")
        trail.note("send.skipped", rung=rung, why=f"expired at {moment}", cause="webhook.expired")
        return False

    async def _post_webhook(self, url: Secret, body: dict[str, Any], kind: str) -> None:
        with counted(self._budget, WEBHOOK_STREAM, kind):
            status, answer = await post_json(
                self._session, self._network, URL(url.reveal(), encoded=True), body, timeout_s=self._timeout_s
            )
            errcodes.read(status, answer)


def _weighed(before: ReplyError | None, error: ReplyError) -> ReplyError:
    """What to tell of two failures: an unknown outcome outlives both others, what may work later what never will."""
    if before is None or isinstance(error, ReplyUnsafe):
        return error
    if not before.certain:
        return ReplyUncertain(before.detail, retry_after=error.retry_after, cause=before.cause)
    return before if before.retryable and not error.retryable else error


def _may_be_the_buttons(error: ReplyError) -> bool:
    """A refusal that says nothing of the chat or the person: the form of the message, or a link's, may be why."""
    return isinstance(error, ReplyUnsafe) or (isinstance(error, ReplyRejected) and error.cause == ReplyRejected.cause)


def _body(message: Message, part: Part, mark: str) -> dict[str, Any]:
    staff_id = message.sender.staff_id
    asker = staff_id if part.number == 1 and message.conversation.is_group else ""
    # Both are needed: the id in the list, and the literal @id in the text.
    first = " ".join(filter(None, (mark, asker and f"@{asker}")))
    text = f"{first}\n\n{part.text}" if first else part.text
    body: dict[str, Any] = {"msgtype": "markdown", "markdown": {"title": part.title, "text": text}}
    if part.buttons:
        buttons = [{"title": button.title, "actionURL": button.url} for button in part.buttons]
        card = {"title": part.title, "text": text, "btnOrientation": "0", "btns": buttons}
        body = {"msgtype": "actionCard", "actionCard": card}
    if asker:
        body["at"] = {"atUserIds": [asker], "isAtAll": False}
    return body
