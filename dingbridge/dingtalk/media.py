"""What somebody sent along, fetched from DingTalk: where it lies is asked with a code, then it is read from there.

`POST /v1.0/robot/messageFiles/download` gives an address for a download code; both expire (DingTalk's page on the
content of files that a robot receives). The address is not trusted more than any other that came from outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp
import structlog
from yarl import URL

from dingbridge import trail
from dingbridge.dingtalk.allowance import API, Budget, Unlimited, counted
from dingbridge.dingtalk.filetypes import document, picture
from dingbridge.dingtalk.origins import download_origin_check
from dingbridge.dingtalk.payload import host_of
from dingbridge.errors import MediaError, ReplyError
from dingbridge.model import Attachment, File, Message, MessageKind
from dingbridge.net import BodyTooLarge, Network, cause_of, read_capped

log = structlog.get_logger("dingbridge.media")

PICTURE_BYTES = 10_000_000
FILE_BYTES = 20_000_000  # also for all files of one message
HELD_BYTES = 80_000_000  # of all messages at once
AT_ONCE = 4
DOWNLOAD_S = 15.0
IDLE_S = 5.0
MESSAGE_S = 45.0
ROOM_S = 60.0  # a turn comes when somebody else's question is answered
IN_LOOP_BYTES = 256_000  # looking at more would hold up the loop

_PATH = "/v1.0/robot/messageFiles/download"
_GONE = (403, 404, 410)  # storage says 403 for an address that has expired


class Calls(Protocol):
    """DingTalk's API with a robot's token."""

    async def call(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]: ...


class Media:
    """Fetches files; bounded in time, in number and in bytes. robot: the `robotCode` that the codes were given to."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        network: Network,
        api: Calls,
        *,
        api_base: str,
        robot: str,
        budget: Budget | None = None,
        download_s: float = DOWNLOAD_S,
        idle_s: float = IDLE_S,
        room_s: float = ROOM_S,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self._session = session
        self._network = network
        self._api = api
        self._robot = robot
        self._budget: Budget = budget or Unlimited()
        self._allowed = download_origin_check(api_base)
        self._download_s, self._room_s = download_s, room_s
        self._timeout = aiohttp.ClientTimeout(total=None, connect=idle_s, sock_read=idle_s)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._room = _Room(held_bytes)

    async def fetch(self, message: Message) -> tuple[Attachment, ...]:
        """As `hold`, for who answers for the memory: it counts only until this returns."""
        async with self.hold(message) as attachments:
            return attachments

    @asynccontextmanager
    async def hold(self, message: Message) -> AsyncIterator[tuple[Attachment, ...]]:
        """The message's files, counted among the bytes held at once until the block ends. Raises MediaError.

        All or none: an answer that looked at half of what was sent would mislead.
        """
        if not message.files:
            yield ()
            return
        held = min(sum(map(_limit_of, message.files)), FILE_BYTES)
        await self._room.take(held, within_s=self._room_s)
        try:
            attachments = await self._fetch_all(message.files)
            kept = sum(len(one.content) for one in attachments)
            held = self._room.swap(held, kept)
            yield attachments
        finally:
            self._room.swap(held, 0)

    async def _fetch_all(self, files: tuple[File, ...]) -> tuple[Attachment, ...]:
        found: list[Attachment] = []
        left = FILE_BYTES
        limit = asyncio.timeout(MESSAGE_S)
        try:
            async with limit:
                for number, file in enumerate(files, start=1):
                    content = await self._content(file, min(left, _limit_of(file)))
                    left -= len(content)
                    found.append(await _recognised(file, number, content))
        except TimeoutError:
            if not limit.expired():
                raise
        else:
            return tuple(found)
        raise MediaError(f"{len(files)} files did not arrive within {MESSAGE_S:g} s", retryable=True)

    async def _content(self, file: File, most: int) -> bytes:
        async with self._turns:
            with trail.timed("media.fetched", kind=file.kind.value) as facts:
                content = await self._download(await self._address(file), most)
                facts["bytes"] = len(content)
        return content

    async def _address(self, file: File) -> URL:
        try:
            with counted(self._budget, API, "download"):
                answer = await self._api.call("POST", _PATH, {"downloadCode": file.code, "robotCode": self._robot})
        except ReplyError as error:
            failed = _refused(error)
        else:
            address = answer.get("downloadUrl")
            if isinstance(address, str) and self._allowed(address):
                return URL(address, encoded=True)
            host = host_of(address) if isinstance(address, str) else ""
            log.warning("media.foreign", host=host[:100])
            failed = MediaError(
                f"DingTalk gave an address for a file that is not its own: {host[:100]!r}", cause="media.foreign"
            )
        raise failed

    async def _download(self, url: URL, most: int) -> bytes:
        try:
            async with (
                asyncio.timeout(self._download_s),
                self._session.get(
                    url,
                    headers={"Accept-Encoding": "identity"},
                    proxy=self._network.proxy_for(url),
                    allow_redirects=False,
                    timeout=self._timeout,
                ) as response,
            ):
                if response.status == 200 and (response.content_length or 0) <= most:
                    return await read_capped(response, most)
                response.close()
                failed = _unusable(response.status, url, most)
        except BodyTooLarge:
            failed = _too_large(most)
        except TimeoutError:
            failed = MediaError(f"{url.host} did not hand a file over in time", retryable=True, cause="network.timeout")
        except (aiohttp.ClientError, OSError) as error:
            kind = type(error).__name__
            failed = MediaError(f"{url.host} did not hand a file over: {kind}", retryable=True, cause=cause_of(error))
        # Outside of the handler: the libraries' texts contain the address, and that its signature.
        raise failed


class _Room:
    """Bytes that may be held at once. First come, first served."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    async def take(self, size: int, *, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s), self._turn:
                while self._free < size:
                    self._freed.clear()
                    await self._freed.wait()
                self._free -= size
        except TimeoutError:
            raise MediaError(
                f"other people's files have filled the memory for {within_s:g} s", retryable=True, cause="media.busy"
            ) from None

    def swap(self, held: int, kept: int) -> int:
        """Gives back what is held and holds `kept` instead."""
        self._free += held - kept
        self._freed.set()
        return kept


def _limit_of(file: File) -> int:
    return PICTURE_BYTES if file.kind is MessageKind.PICTURE else FILE_BYTES


async def _recognised(file: File, number: int, content: bytes) -> Attachment:
    recognise: Callable[[str, bytes], Attachment | None]
    recognise, name = document, file.name
    if file.kind is MessageKind.PICTURE:
        recognise, name = picture, f"picture-{number}.file"
    if len(content) > IN_LOOP_BYTES:
        found = await asyncio.to_thread(recognise, name, content)
    else:
        found = recognise(name, content)
    if found is None:
        raise MediaError(
            f"a {file.kind.value} of {len(content)} bytes is of no kind that can be read",
            public="file_kind",
            cause="media.kind",
        )
    return found


def _refused(error: ReplyError) -> MediaError:
    if error.cause == "media.expired":
        return MediaError(error.detail, public="file_expired", cause="media.expired")
    return MediaError(
        error.detail, retryable=error.retryable, retry_after=error.retry_after, cause=error.cause or MediaError.cause
    )


def _unusable(status: int, url: URL, most: int) -> MediaError:
    if status == 200:
        return _too_large(most)
    if status in _GONE:
        return MediaError(f"{url.host} has the file no more ({status})", public="file_expired", cause="media.expired")
    if 300 <= status < 400:
        return MediaError(f"{url.host} sends elsewhere for a file ({status})", cause="media.foreign")
    cause = "proxy.auth" if status == 407 else MediaError.cause
    return MediaError(f"{url.host} answers {status} for a file", retryable=True, cause=cause)


def _too_large(most: int) -> MediaError:
    return MediaError(f"a file has more than {most} bytes", public="file_too_large", cause="media.too_large")
