"""The stand-in gateway's files: what users sent, behind a download code, and that behind a URL that expires.

`file_fault` and `file_faults` (one per fetch of a URL) plant: an HTTP status, "slow" or "slow<seconds>" (in ten pieces,
a pause before each), "huge" (zeros without end or length), "huge_declared" (its length is said first), "redirect" (to
`file_redirect_to`), "type" (a page instead of the file), "expired" (as OSS says it), "half" (cut in the middle),
"hang", "reset". `file_base` puts another origin into download URLs, `file_code_ttl_s` and `file_url_ttl_s` end both.
(open.dingtalk.com/document/development/download-the-file-content-of-the-robot-receiving-message)
"""

from __future__ import annotations

import contextlib
import math
import re
import secrets
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from dingbridge.sim.gateway_base import HTML, Fault, reset, take
from dingbridge.sim.gateway_cards import CardSide
from dingbridge.sim.gateway_sends import Refused

FILE_FAULT: Final = re.compile(r"slow(\d{1,3}(\.\d{1,3})?)?|huge|huge_declared|redirect|type|expired|half|hang|reset")
PIECES: Final = 10
HUGE: Final = 1 << 30
EXPIRED: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>'
    "<Message>Request has expired.</Message></Error>"
)


@dataclass(slots=True, eq=False)
class File:
    """What a user sent. `ends_at` (monotonic) is the end of its code; `fetched` counts whole downloads."""

    content: bytes
    content_type: str
    name: str = ""
    ends_at: float = math.inf
    resolved: int = 0
    fetched: int = 0


class FileSide(CardSide):
    """`files` by download code. The shorter code of a picture's preview is known too, and refused as DingTalk does."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        super().__init__(client_id, client_secret)
        self.file_fault: Fault = None
        self.file_faults: deque[Fault] = deque()
        self.file_redirect_to = "http://127.0.0.1:1/"
        self.file_base: str | None = None
        self.file_code_ttl_s: float | None = None
        self.file_url_ttl_s: float | None = None
        self.files: dict[str, File] = {}
        self._previews: dict[str, None] = {}
        self._links: dict[str, tuple[File, float]] = {}
        self._tables += [self.files, self._previews, self._links]
        self._secrets += [self.files, self._previews, self._links]

    # ---- what a test or a chat page does

    def add_file(self, content: bytes, content_type: str = "application/octet-stream", name: str = "") -> str:
        """A file for a message's `content`; its download code."""
        code = secrets.token_hex(16)
        ends_at = math.inf if self.file_code_ttl_s is None else time.monotonic() + self.file_code_ttl_s
        self.files[code] = File(content, content_type, name, ends_at)
        return code

    def add_preview(self) -> str:
        """A pictureDownloadCode, which no call takes."""
        code = secrets.token_hex(16)
        self._previews[code] = None
        return code

    def expire_files(self) -> None:
        """Every code and URL given so far has ended."""
        for file in self.files.values():
            file.ends_at = 0.0
        for key, (file, _) in self._links.items():
            self._links[key] = (file, 0.0)

    # ---- routes

    async def _download(self, request: web.Request) -> web.StreamResponse:
        def accept(body: dict[str, Any]) -> dict[str, Any]:
            self._check_robot(body)
            code = body.get("downloadCode")
            if isinstance(code, str) and code in self._previews:
                raise Refused("unknownError", "未知错误", 500)
            file = self.files.get(code) if isinstance(code, str) else None
            if file is None or file.ends_at <= time.monotonic():
                raise Refused("invalidParameter.downloadCode", "downloadCode有误或者已经过期")
            file.resolved += 1
            return {"downloadUrl": self._link(file)}

        return await self._call(request, accept)

    def _link(self, file: File) -> str:
        key = secrets.token_hex(16)
        ttl_s = math.inf if self.file_url_ttl_s is None else self.file_url_ttl_s
        self._links[key] = (file, time.monotonic() + ttl_s)
        expires = int(time.time() + min(ttl_s, 3600.0))
        return f"{self.file_base or self.url}/files/{key}.file?Expires={expires}&Signature={secrets.token_hex(8)}"

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """No token here: who has the URL has the file."""
        fault = take(self.file_faults, self.file_fault)
        file, ends_at = self._links.get(request.match_info["key"], (None, 0.0))
        outcome = fault if fault is not None else 404 if file is None else "sent"
        if fault is None and file is not None and ends_at <= time.monotonic():
            outcome = fault = "expired"
        leaked = "x-acs-dingtalk-access-token" in request.headers
        self.note("file", outcome=str(outcome), token_given=leaked, name=file.name if file is not None else "")
        if file is None:
            return web.Response(status=404)
        if fault is None:
            file.fetched += 1
            return web.Response(body=file.content, content_type=file.content_type)
        return await self._spoil(request, file, fault)

    async def _spoil(self, request: web.Request, file: File, fault: Fault) -> web.StreamResponse:
        kind = re.sub(r"[\d.]+$", "", fault) if isinstance(fault, str) else fault
        match kind:
            case "redirect":
                return web.Response(status=302, headers={"Location": self.file_redirect_to})
            case "type":
                return web.Response(text=HTML, content_type="text/html")
            case "expired":
                return web.Response(status=403, text=EXPIRED, content_type="application/xml")
            case "slow" | "half" | "huge" | "huge_declared":
                with contextlib.suppress(ConnectionError):
                    return await self._trickle(request, file, str(fault))
                return web.Response()
        return await self.play(request, fault, lambda status: web.Response(status=status))

    async def _trickle(self, request: web.Request, file: File, fault: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": file.content_type})
        if not fault.startswith("huge"):
            response.content_length = len(file.content)
        elif fault == "huge_declared":
            response.content_length = HUGE
        await response.prepare(request)
        if fault.startswith("huge"):
            piece = bytes(64 * 1024)
            for _ in range(HUGE // len(piece)):
                await response.write(piece)
        elif fault == "half":
            await response.write(file.content[: len(file.content) // 2])
            reset(request.transport)
            return response
        else:
            pause_s = float(fault.removeprefix("slow") or 1.0)
            step = -(-len(file.content) // PIECES) or 1
            for start in range(0, len(file.content), step):
                await self.pause(pause_s)
                await response.write(file.content[start : start + step])
            file.fetched += 1
        await response.write_eof()
        return response
