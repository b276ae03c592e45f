"""The client for AnythingLLM's developer API: one question, one streamed answer.

Facts behind it were read in its source (1.0 to 1.16) and recorded from a real server: errors come as HTTP 200 too,
unknown addresses answer 200 with a web page, a stream may never end, an `abort` is followed by a success event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_exponential, wait_random

from dingbridge import trail
from dingbridge.backends.api import MAX_BODY, MAX_ERROR_BODY, Api
from dingbridge.backends.assembly import Assembly
from dingbridge.backends.attachments import Enclosed, enclose, mode_for
from dingbridge.backends.faults import KEY_COMES_FROM, WorkspaceUnknown
from dingbridge.backends.question import clean_question
from dingbridge.backends.sources import group_sources
from dingbridge.backends.sse import EventStream, read_object
from dingbridge.errors import BackendError, BackendMalformed, BackendRejected, BackendUnavailable, BridgeError
from dingbridge.model import Answer, Attachment, Secret
from dingbridge.net import BodyTooLarge, Network, read_capped

AFTER_TEXT_S = 5.0  # a whole text is here; `finalize` or the stream's end follow at once, or never
TERMINATOR_S = 0.05  # worth waiting for, because the connection can then be used again


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits in seconds. total_s bounds a whole ask with all its attempts and pauses."""

    attempts: int = 4
    connect_s: float = 5.0
    first_token_s: float = 60.0
    idle_s: float = 30.0
    total_s: float = 180.0
    wait_initial_s: float = 0.5
    wait_max_s: float = 8.0


@dataclass(slots=True)
class _Asking:
    """One `ask` while it runs."""

    sent: Enclosed
    mode: str
    workspace: str
    on_text: Callable[[str], None] | None
    began: float
    deadline: float
    tries: int = 0
    attempt_began: float = 0.0
    slug: str = ""
    first_token_s: float | None = None
    broke_off: BackendError | None = None
    shown: str = ""
    assembly: Assembly = field(default_factory=Assembly)

    def worth_repeating(self, error: BaseException) -> bool:
        """Only before the first token: the server keeps a cut answer in the session's history."""
        return isinstance(error, BackendError) and error.retryable and not self.assembly.started

    def facts(self) -> dict[str, trail.Fact]:
        """Of the attempt, for the trail; of a text that broke off also why."""
        first_s = self.first_token_s
        return {
            "workspace": self.slug or self.workspace,
            "first_token_ms": None if first_s is None else round((self.began + first_s - self.attempt_began) * 1000),
            "chars": len(self.assembly.text),
            "partial": True if self.broke_off else None,
            "why": self.broke_off.detail if self.broke_off else None,
            "cause": self.broke_off.cause if self.broke_off else None,
        }

    def show(self, now: float) -> None:
        if self.first_token_s is None and self.assembly.started:
            self.first_token_s = now - self.began
        if self.on_text is not None and (text := self.assembly.text) and text != self.shown:
            self.shown = text
            self.on_text(text)


class AnythingLLM:
    """Use as an async context manager; one instance serves any number of concurrent asks.

    base_url: with or without a trailing slash, `/api` or `/api/v1`. mode: always sent explicitly.
    on_retry: called with the error, the attempt that failed (from 1) and the pause in seconds.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: Secret,
        mode: str = "query",
        limits: Limits | None = None,
        network: Network | None = None,
        on_retry: Callable[[BridgeError, int, float], None] | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._api = Api(base_url, api_key, network or Network(), connect_s=self._limits.connect_s)
        self._mode = mode
        self._on_retry = on_retry
        self._names: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        self._api.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._api.close()

    async def ask(
        self,
        question: str,
        *,
        workspace: str,
        session: str,
        on_text: Callable[[str], None] | None = None,
        attachments: Sequence[Attachment] = (),
    ) -> Answer:
        """The answer to a question, cleaned here, in a workspace (slug or exact name) and a session.

        on_text gets the whole text so far, without reasoning, whenever it has changed; it may also shrink.
        Answer.tries counts the attempts; first_token_s runs from the call, pauses included; partial means that the
        text broke off and is not asked for again; refused, in query mode, that the documents do not say; unread names
        the attached documents that were not looked at.
        Raises BackendUnavailable, BackendRejected or BackendMalformed; a question or session that is empty is
        BackendMalformed and nothing is sent.
        """
        message, cut = clean_question(question)
        if not message or not session:
            raise BackendMalformed("nothing was asked: the question or its session is empty", cause="question.empty")
        now = asyncio.get_running_loop().time()
        mode = mode_for(self._mode, attachments)
        sent = await enclose({"message": message, "mode": mode, "sessionId": session}, attachments)
        asking = _Asking(sent, mode, workspace, on_text, now, now + self._limits.total_s)
        try:
            await self._retrying(asking)(self._attempt, asking)
        except BackendError as error:
            failed = error
        else:
            return self._answer(asking, question_cut=cut)
        raise _told(failed, asking.tries)

    async def check_key(self) -> None:
        """Returns when the key is accepted; says nothing about the model behind (no endpoint does)."""
        if (await self._api.get("auth")).get("authenticated") is not True:
            raise BackendRejected(
                f"AnythingLLM does not accept the API key: renew it {KEY_COMES_FROM}", cause="backend.key"
            )

    async def workspaces(self) -> dict[str, str]:
        """Slug to name of all workspaces, in the server's order."""
        listed = (await self._api.get("workspaces")).get("workspaces")
        if not isinstance(listed, list):
            raise BackendMalformed("AnythingLLM's list of workspaces cannot be read", retryable=True)
        found = [entry for entry in listed if isinstance(entry, dict) and isinstance(entry.get("slug"), str)]
        return {entry["slug"]: str(entry.get("name") or "") for entry in found}

    async def resolve(self, wanted: str) -> str | None:
        """The slug for a slug or an exact name; None when there is none, or several workspaces of that name.

        A slug wins over a name. The list is kept; it is read again when it does not have what is wanted.
        """
        if (slug := self._find(wanted)) is None:
            self._names = await self.workspaces()
            slug = self._find(wanted)
        return slug

    def _find(self, wanted: str) -> str | None:
        if wanted in self._names:
            return wanted
        named = [slug for slug, name in self._names.items() if wanted and name.strip() == wanted.strip()]
        return named[0] if len(named) == 1 else None

    def _retrying(self, asking: _Asking) -> AsyncRetrying:
        limits = self._limits
        backoff = wait_exponential(multiplier=limits.wait_initial_s, max=limits.wait_max_s)
        jitter = wait_random(0, limits.wait_initial_s)

        def pause(state: RetryCallState) -> float:
            error = _error_of(state)
            asked_for = error.retry_after if error is not None else None
            return max(asked_for or 0.0, backoff(state)) + jitter(state)

        def tell(state: RetryCallState) -> None:
            error = _error_of(state)
            trail.note("backend.wait", delay_s=round(state.upcoming_sleep, 2))
            if self._on_retry is not None and error is not None:
                self._on_retry(error, state.attempt_number, state.upcoming_sleep)

        return AsyncRetrying(
            retry=retry_if_exception(asking.worth_repeating),
            stop=stop_after_attempt(limits.attempts) | stop_before_delay(limits.total_s),
            wait=pause,
            before_sleep=tell,
            sleep=asyncio.sleep,
            reraise=True,
        )

    async def _attempt(self, asking: _Asking) -> None:
        asking.tries += 1
        asking.assembly = Assembly()
        asking.attempt_began = asyncio.get_running_loop().time()
        with trail.timed("backend.attempt", attempt=asking.tries) as found:
            try:
                await self._try(asking)
            finally:
                found.update(asking.facts())

    async def _try(self, asking: _Asking) -> None:
        slug = await self._slug(asking)
        try:
            await self._stream(asking, slug)
        except WorkspaceUnknown as error:
            unknown = error
        else:
            return
        self._names = {}
        fresh = await self._slug(asking)
        if fresh == slug:
            raise unknown
        asking.assembly = Assembly()
        await self._stream(asking, fresh)

    async def _slug(self, asking: _Asking) -> str:
        slug: str | None = None
        timed_out = False
        try:
            async with asyncio.timeout_at(asking.deadline):
                slug = await self.resolve(asking.workspace)
        except TimeoutError:
            timed_out = True
        if timed_out:
            raise self._timed_out(asking)
        if slug is None:
            raise WorkspaceUnknown(
                f"AnythingLLM has no workspace, or several, called {self._api.faults.quote(asking.workspace)!r}: "
                "put its slug into the route"
            )
        asking.slug = slug
        return slug

    async def _stream(self, asking: _Asking, slug: str) -> None:
        """Fills the assembly; returns when it has something to show, raises otherwise."""
        fault: BackendError | None = None
        try:
            await self._listen(asking, slug)
        except BackendError as error:
            fault = error
        except aiohttp.ClientError as error:
            fault = self._api.faults.of_client(error)
        except TimeoutError:
            fault = self._timed_out(asking)
        except OSError as error:
            fault = self._api.faults.of_client(error)
        assembly = asking.assembly
        assembly.close()
        if assembly.abort is not None:
            fault = self._api.faults.of_abort(assembly.abort)
        if not assembly.text.strip():
            raise fault or _nothing_said(assembly)
        if not assembly.complete:
            asking.broke_off = fault or _nothing_said(assembly)

    async def _listen(self, asking: _Asking, slug: str) -> None:
        now = asyncio.get_running_loop().time
        limit = min(now() + self._limits.first_token_s, asking.deadline)
        path = f"workspace/{quote(slug, safe='')}/stream-chat"
        async with (
            asyncio.timeout_at(limit) as clock,
            self._api.request("POST", path, accept="text/event-stream", body=asking.sent.body) as response,
        ):
            if response.status != 200 or response.content_type != "text/event-stream":
                await self._read_other(response, asking)
                return
            stream, size = EventStream(), 0
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > MAX_BODY:
                    raise BackendMalformed(f"AnythingLLM sent an answer of more than {MAX_BODY} bytes")
                if self._take(asking, stream.feed(chunk)):
                    clock.reschedule(min(now() + self._patience(asking), asking.deadline))
                if asking.assembly.finished:
                    await _until_terminator(response)
                    return
            self._take(asking, stream.close())

    def _take(self, asking: _Asking, events: Iterable[dict[str, Any]]) -> bool:
        """True when there were any: comments that keep a connection alive are no progress."""
        before = asking.assembly.events
        try:
            for event in events:
                asking.assembly.add(event)
        finally:
            asking.show(asyncio.get_running_loop().time())
        return asking.assembly.events > before

    def _patience(self, asking: _Asking) -> float:
        return min(self._limits.idle_s, AFTER_TEXT_S) if asking.assembly.whole else self._limits.idle_s

    async def _read_other(self, response: aiohttp.ClientResponse, asking: _Asking) -> None:
        """A whole answer in JSON is taken, as from something in between that collects streams; else it raises."""
        try:
            body = await read_capped(response, MAX_ERROR_BODY)
        except BodyTooLarge:
            body = b""
        if response.status == 200 and response.content_type == "application/json" and body:
            self._take(asking, [read_object(body)])
            if asking.assembly.text or asking.assembly.abort:
                return
        raise self._api.fault_of(response, body)

    def _answer(self, asking: _Asking, *, question_cut: bool) -> Answer:
        assembly = asking.assembly
        unread = asking.sent.unread(assembly.sources) if assembly.complete else ()  # the sources come at the end
        if unread:
            trail.note("backend.unread", documents=len(unread), cause="backend.collector")
        return Answer(
            text=assembly.text.strip(),
            sources=group_sources(asking.sent.named(assembly.sources)),
            refused=asking.mode == "query" and assembly.refused,
            partial=not assembly.complete,
            question_cut=question_cut,
            tries=asking.tries,
            first_token_s=asking.first_token_s,
            origin=asking.workspace,
            unread=unread,
        )

    def _timed_out(self, asking: _Asking) -> BackendError:
        limits = self._limits
        if asyncio.get_running_loop().time() >= asking.deadline:
            what = f"had no answer within the total {limits.total_s:g} s"
        elif asking.assembly.events == 0:
            what = f"was silent for {limits.first_token_s:g} s"
        else:
            what = f"stopped in the middle for {limits.idle_s:g} s"
        return BackendUnavailable(f"AnythingLLM {what}", cause="backend.slow")


async def _until_terminator(response: aiohttp.ClientResponse) -> None:
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(TERMINATOR_S):
            while await response.content.readany():
                pass


def _nothing_said(assembly: Assembly) -> BackendError:
    if assembly.odd:
        return BackendMalformed("AnythingLLM's answer is no text")
    if assembly.events == 0:
        return BackendMalformed("AnythingLLM answered with an empty stream", retryable=True, cause="backend.empty")
    if assembly.complete:
        return BackendMalformed(
            "the model's answer is empty, apart from reasoning; check the model", cause="backend.empty"
        )
    where = "in the middle" if assembly.started else "before it began"
    return BackendUnavailable(f"AnythingLLM's answer ended {where}", cause="backend.cut")


def _error_of(state: RetryCallState) -> BackendError | None:
    error = state.outcome.exception() if state.outcome is not None else None
    return error if isinstance(error, BackendError) else None


def _told(error: BackendError, tries: int) -> BackendError:
    """The last error with all its facts, and how often it was tried."""
    if tries < 2:
        return error
    return type(error)(
        f"{error.detail} (tried {tries} times)",
        retryable=error.retryable,
        retry_after=error.retry_after,
        certain=error.certain,
        public=error.public,
        cause=error.cause,
    )
