"""An answer into the chat it came from: this message's webhook, the conversation's newest one, then OpenAPI.

The session webhook has no idempotency key and tells failure in the body of an HTTP 200; its bodies end at 20 000
bytes, the OpenAPI's at 15 000. (DingTalk's pages on robot message types and custom robots.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import structlog
from yarl import URL

from dingbridge.dingtalk import markdown, split
from dingbridge.dingtalk.inert import clean
from dingbridge.dingtalk.openapi import OpenAPI
from dingbridge.dingtalk.pace import NOTICE_RESERVE, Pace
from dingbridge.dingtalk.post import post_json
from dingbridge.errors import (
    ReplyError,
    ReplyPaced,
    ReplyRejected,
    ReplyTooLong,
    ReplyUnavailable,
    ReplyUncertain,
    ReplyUnsafe,
    SessionExpired,
    StoreError,
)
from dingbridge.model import Answer, Message, Secret, Source
from dingbridge.net import Network
from dingbridge.texts import NOTICE, Texts

log = structlog.get_logger("dingbridge.reply")

TIMEOUT_S = 10.0
PART_BYTES = 13_000  # JSON-escaped; fits both ways to the chat with title, mention and marks
THREAD_ABOVE = 8_000  # characters; parsing takes about 7 ms per 10 KB
SHOWN_SOURCES = 5
TITLE_CHARS = 120
HALF_SLACK_BYTES = 100
EXPIRY_MARGIN_S = 30.0
TOO_FAST_S = 60.0  # DingTalk refuses for ten minutes who goes on
NOTICE_CHARS = 500

# The newest session webhook of (robot, conversation) and its expiry in epoch seconds.
NewestWebhook = Callable[[str, str], Awaitable[tuple[Secret, float | None]]]
Send = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Part:
    """One message of a reply, already safe markdown. `number` from 1; part 1 mentions the asker in groups."""

    number: int
    title: str
    text: str


class Replies:
    """clock: the seconds since the epoch that expiries are compared with. uncertain: "repeat" or "drop"."""

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
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="compose")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- composing

    async def compose(self, answer: Answer) -> list[Part]:
        """The answer as parts that fit; the same answer always gives the same parts."""
        if len(answer.text) > THREAD_ABOVE:
            # Threads of our own: those of the loop may all be busy with somebody's handler.
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._compose, answer)
        return self._compose(answer)

    def _compose(self, answer: Answer) -> list[Part]:
        hosts = frozenset(host for source in answer.sources if (host := _host(source.url)))
        title, written = markdown.titled(answer.text, link_hosts=hosts)
        blocks = [written]
        if len(answer.text) > markdown.MAX_CHARS:
            blocks.append(self._texts("answer_cut"))
        if answer.partial:
            blocks.append(self._texts("partial"))
        if answer.question_cut:
            blocks.append(self._texts("question_cut"))
        if answer.sources:
            blocks.append(self._sources(answer.sources, hosts))
        whole = "\n\n".join(block for block in blocks if block)
        title = title or self._texts("title")
        parts = split.number(split.split(whole or title, max_bytes=PART_BYTES))
        return [Part(number, title, text) for number, text in enumerate(parts, start=1)]

    def _sources(self, sources: tuple[Source, ...], hosts: frozenset[str]) -> str:
        """Names what the answer came from, each linked where a person can open it."""
        names = [_named(source, hosts) for source in sources[:SHOWN_SOURCES]]
        if (more := len(sources) - SHOWN_SOURCES) > 0:
            names.append(self._texts("sources_more", count=more))
        if len(names) == 1:
            return self._texts("sources") + names[0]
        listed = "\n".join(f"- {name}" for name in names)
        return f"{self._texts('sources')}\n\n{listed}"

    # -- sending

    async def send(self, message: Message, part: Part, *, uncertain: bool = False) -> bool:
        """Put one part into the chat; False where nobody knows whether it arrived and no more is tried.

        uncertain: an earlier try may have arrived; this one is marked, and is the last.
        Raises ReplyPaced, ReplyUnsafe, ReplyRejected (no rung will ever take it), ReplyUnavailable (later),
        ReplyUncertain (later, and then with `uncertain`).
        """
        if uncertain and not self._repeat:
            return False
        if wait_s := self._pace.take(message.conversation.id, f"{message.id}/{part.number}"):
            raise ReplyPaced("this conversation has had its messages of the minute", retry_after=wait_s)
        failure: ReplyError | None = None
        async with aclosing(self._rungs(message, part)) as rungs:
            async for name, rung in rungs:
                try:
                    await rung(self._texts("repeat_mark") if uncertain else "")
                except ReplyTooLong:
                    unknown = failure is not None and not failure.certain
                    return await self._send_halves(message, part, uncertain=uncertain, unknown=unknown)
                except ReplyError as error:
                    log.info("reply.degraded", code=message.code, rung=name, why=error.detail, certain=error.certain)
                    if not error.certain and (uncertain or not self._repeat):
                        return False
                    uncertain = uncertain or not error.certain
                    failure = _weighed(failure, error)
                    if self._ends_the_ladder(message, error):
                        break
                else:
                    return True
        raise failure or ReplyRejected("no way to this chat is left")

    def _ends_the_ladder(self, message: Message, error: ReplyError) -> bool:
        """Too fast or unsafe is said of the conversation or the text: the next rung would hear the same."""
        if isinstance(error, ReplyPaced):
            self._pace.pause(message.conversation.id, error.retry_after or TOO_FAST_S)
        return isinstance(error, ReplyPaced | ReplyUnsafe)

    async def _send_halves(self, message: Message, part: Part, *, uncertain: bool, unknown: bool) -> bool:
        """unknown: the whole part may have arrived in this very try, so nothing certain can be said of a failure."""
        # A little more than half: cuts at paragraphs are never even, and a third piece would be a third message.
        half_bytes = split.encoded(part.text) // 2 + HALF_SLACK_BYTES
        halves = split.split(part.text, max_bytes=max(split.LEAST_BYTES, half_bytes))
        if len(halves) < 2:
            raise ReplyRejected("DingTalk finds even a short part too long")
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
                raise ReplyUncertain(error.detail, retry_after=error.retry_after) from None
        return certain

    async def notice(self, message: Message, text: str | None = None) -> bool:
        """The waiting notice; the first to be dropped when a conversation is busy. True when it went out."""
        if self._pace.take(message.conversation.id, reserve=NOTICE_RESERVE):
            return False
        said = markdown.plain(text, limit=NOTICE_CHARS) if text else ""
        body = {"msgtype": "text", "text": {"content": said or self._texts(NOTICE)}}
        async with aclosing(self._webhooks(message)) as webhooks:
            async for url in webhooks:
                try:
                    await self._post_webhook(url, body)
                except ReplyError as error:
                    log.info("reply.notice_failed", code=message.code, why=error.detail)
                    # Better none than two.
                    if self._ends_the_ladder(message, error) or not error.certain:
                        return False
                else:
                    return True
        return False

    async def _rungs(self, message: Message, part: Part) -> AsyncGenerator[tuple[str, Send]]:
        async with aclosing(self._webhooks(message)) as webhooks:
            async for url in webhooks:

                async def by_webhook(mark: str, url: Secret = url) -> None:
                    await self._post_webhook(url, _body(message, part, mark))

                yield "webhook", by_webhook

        async def by_openapi(mark: str) -> None:
            await self._openapi.send(message, part.title, f"{mark}\n\n{part.text}" if mark else part.text)

        yield "openapi", by_openapi

    async def _webhooks(self, message: Message) -> AsyncGenerator[Secret]:
        """This message's session webhook, then the conversation's newest, as far as they live."""
        own = message.webhook
        expires = message.webhook_expires.timestamp() if message.webhook_expires else None
        if own and self._lives(expires):
            yield own
        try:
            newest, expires = await self._newest_webhook(message.robot, message.conversation.id)
        except StoreError as error:  # the OpenAPI needs no store
            log.warning("reply.webhook_unknown", code=message.code, why=error.detail)
            return
        if newest and newest != own and self._lives(expires):
            yield newest

    def _lives(self, expires: float | None) -> bool:
        return expires is None or self._clock() < expires - EXPIRY_MARGIN_S

    async def _post_webhook(self, url: Secret, body: dict[str, Any]) -> None:
        status, answer = await post_json(
            self._session, self._network, URL(url.reveal(), encoded=True), body, timeout_s=self._timeout_s
        )
        if status != 200:
            raise _by_status(status)
        errcode = _number(answer.get("errcode"))
        if errcode is None:
            raise ReplyUncertain("webhook: HTTP 200 without an errcode")
        if errcode != 0:
            raise _by_errcode(errcode)


def _weighed(before: ReplyError | None, error: ReplyError) -> ReplyError:
    """What to tell of two failures: an unknown outcome outlives both others, what may work later what never will."""
    if before is None or isinstance(error, ReplyUnsafe):
        return error
    if not before.certain:
        return ReplyUncertain(before.detail, retry_after=error.retry_after)
    return before if before.retryable and not error.retryable else error


def _body(message: Message, part: Part, mark: str) -> dict[str, Any]:
    staff_id = message.sender.staff_id
    asker = staff_id if part.number == 1 and message.conversation.is_group else ""
    # Both are needed: the id in the list, and the literal @id in the text.
    first = " ".join(filter(None, (mark, asker and f"@{asker}")))
    text = f"{first}\n\n{part.text}" if first else part.text
    body: dict[str, Any] = {"msgtype": "markdown", "markdown": {"title": part.title, "text": text}}
    if asker:
        body["at"] = {"atUserIds": [asker], "isAtAll": False}
    return body


def _named(source: Source, hosts: frozenset[str]) -> str:
    """A title is a stranger's text, not markdown; it is linked where a person can open it."""
    title = " ".join(clean(source.title).split())
    if len(title) > TITLE_CHARS:
        title = title[: TITLE_CHARS - 1] + "…"
    return markdown.phrase(title or "?", str(URL(source.url)) if _host(source.url) else "", link_hosts=hosts)


def _host(url: str) -> str:
    """The host as it stands in the link (punycode), "" where nobody should open it."""
    try:
        parsed = URL(url)
    except ValueError:
        return ""
    known = parsed.scheme in ("http", "https") and "@" not in parsed.raw_authority
    return (parsed.raw_host or "").lower() if known else ""


def _number(value: Any) -> int | None:
    """The errcode; the custom robot's page shows it as text."""
    if isinstance(value, bool):
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


# The session webhook's errcodes; the texts beside them change, so only the number counts.
_ERRCODES: dict[int, tuple[type[ReplyError], str, float | None]] = {
    -1: (ReplyUnavailable, "DingTalk is busy", None),
    300001: (SessionExpired, "the session webhook has expired", None),
    130101: (ReplyPaced, "too fast", TOO_FAST_S),
    410100: (ReplyPaced, "too fast", TOO_FAST_S),
    90018: (ReplyPaced, "too fast", 1.0),
    90002: (ReplyPaced, "too fast", 1.0),
    460101: (ReplyTooLong, "too long", None),
    101002: (ReplyTooLong, "too long", None),
    430101: (ReplyUnsafe, "the content check refused a link", None),
    430102: (ReplyUnsafe, "the content check refused the text", None),
    430103: (ReplyUnsafe, "the content check refused a picture", None),
    430104: (ReplyUnsafe, "the content check refused it", None),
    90030: (ReplyRejected, "the organisation's monthly Webhook & Stream allowance is spent", None),
    90020: (ReplyRejected, "the organisation's monthly API allowance is spent", None),
    400013: (ReplyRejected, "the group is disbanded", None),
    400102: (ReplyRejected, "the robot is stopped", None),
    400106: (ReplyRejected, "the robot is not in the group", None),
}


def _by_errcode(errcode: int) -> ReplyError:
    kind, why, retry_after = _ERRCODES.get(errcode, (ReplyRejected, "refused", None))
    return kind(f"webhook: errcode {errcode}: {why}", retry_after=retry_after)


def _by_status(status: int) -> ReplyError:
    """DingTalk answers 200 always; any other status comes from its front or from a proxy."""
    said = f"webhook: HTTP {status}"
    if status == 429:
        return ReplyPaced(said, retry_after=5.0)
    if status == 413:
        return ReplyTooLong(said)
    if status >= 500 and status != 503:
        return ReplyUncertain(said)
    return ReplyUnavailable(said)
