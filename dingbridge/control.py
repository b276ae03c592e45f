"""The control socket beside the store: HTTP over a Unix socket that only the daemon's user and root can open."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from aiohttp import web
from yarl import URL

from dingbridge.errors import BridgeError, ConfigError
from dingbridge.journal.thrift import POOLS, decode_used
from dingbridge.net import BodyTooLarge, read_capped
from dingbridge.operations import NotFound, Operations

log = structlog.get_logger("dingbridge.control")

ANSWER_LIMIT = 16 * 1024 * 1024
CALL_S = 90.0
HEAR_S = 3.0
LISTED = 1000
_ADDRESS_BYTES = 100  # sun_path holds 108 (man 7 unix)


def socket_path(store: Path) -> Path:
    return store.with_name(store.name + ".sock")


@asynccontextmanager
async def _reachable(path: Path) -> AsyncIterator[str]:
    """A name for the socket that is short enough for its address, whatever the folder's."""
    if len(os.fsencode(path)) <= _ADDRESS_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class ControlServer:
    """`run()` serves until cancelled. Where it cannot listen it says so; answering questions goes on without it."""

    def __init__(self, store: Path, operations: Operations) -> None:
        self.path = socket_path(store)
        self._operations = operations

    async def run(self) -> None:
        app = web.Application(client_max_size=64 * 1024)
        app.router.add_get("/status", self._status)
        app.router.add_get("/trace/{wanted:.+}", self._trace)
        app.router.add_get("/inbox", self._inbox)
        app.router.add_get("/inbox/{wanted:.+}", self._show)
        app.router.add_post("/retry/{wanted:.+}", self._retry)
        app.router.add_post("/drop/{wanted:.+}", self._drop)
        app.router.add_post("/reload", self._reload)
        app.router.add_post("/quota", self._quota)
        app.router.add_get("/support", self._support)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            async with _reachable(self.path) as name:
                await web.SockSite(runner, _bind(self.path, name)).start()
            await asyncio.Event().wait()
        except OSError as error:
            log.warning("control.not_listening", why=f"{self.path}: {error.strerror}")
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()
            with suppress(OSError):
                self.path.unlink()

    async def _status(self, _: web.Request) -> web.Response:
        return await _answered(self._operations.status())

    async def _trace(self, request: web.Request) -> web.Response:
        return await _answered(self._operations.trace(request.match_info["wanted"]))

    async def _inbox(self, request: web.Request) -> web.Response:
        which = request.query.get("which", "open")
        limit = request.query.get("limit", "50")
        if which not in ("open", "failed", "all") or not limit.isdecimal():
            return _refusal(400, "which: open, failed or all; limit: a number")
        return await _answered(self._operations.inbox(which, min(int(limit), LISTED)))  # type: ignore[arg-type]

    async def _show(self, request: web.Request) -> web.Response:
        texts = request.query.get("texts") == "1"
        return await _answered(self._operations.show(request.match_info["wanted"], texts=texts))

    async def _retry(self, request: web.Request) -> web.Response:
        return await _answered(self._operations.retry(request.match_info["wanted"]))

    async def _drop(self, request: web.Request) -> web.Response:
        tell = request.query.get("tell", "1") == "1"
        return await _answered(self._operations.drop(request.match_info["wanted"], tell=tell))

    async def _reload(self, _: web.Request) -> web.Response:
        return await _answered(self._operations.reload())

    async def _quota(self, request: web.Request) -> web.Response:
        values = {pool: decode_used(value) for pool, value in request.query.items()}
        used = {pool: value for pool, value in values.items() if pool in POOLS and value is not None}
        if not used or len(used) != len(request.query):
            return _refusal(400, f"{' or '.join(POOLS)}: what was used of it this month, a whole number")
        return await _answered(self._operations.set_used(used))

    async def _support(self, _: web.Request) -> web.Response:
        return await _answered(self._operations.support())


def _bind(path: Path, name: str) -> socket.socket:
    """In place of what a killed daemon left; whoever listens holds the store's lock, so nobody else does."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            listening.bind(name)
        finally:
            os.umask(old)
    except OSError:
        listening.close()
        raise
    return listening


async def _answered(work: Awaitable[Any]) -> web.Response:
    try:
        return web.json_response(await work, dumps=_dumps)
    except NotFound as error:
        return _refusal(404, error.detail)
    except ConfigError as error:
        return web.json_response({"error": error.detail, "faults": error.faults}, status=422, dumps=_dumps)
    except BridgeError as error:
        return _refusal(409, error.detail)
    except Exception as error:
        log.exception("control.failed")
        return _refusal(500, f"a bug, its traceback is in the daemon's log: {type(error).__name__}")


def _refusal(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status, dumps=_dumps)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class NoDaemon(BridgeError):
    """Nobody listens on the control socket."""


class Refused(BridgeError):
    """The daemon said no; a refused configuration with its faults."""

    def __init__(self, detail: str, faults: list[str] | None = None) -> None:
        super().__init__(detail)
        self.faults = faults or []


class Deaf(BridgeError):
    """Somebody listens on the control socket, and says nothing."""


async def hears(store: Path) -> None:
    """Ask for nothing. Raises NoDaemon, Deaf, and BridgeError where it cannot be asked."""
    with suppress(Refused):  # nothing is served there
        try:
            async with asyncio.timeout(HEAR_S):
                await call(store, "GET", "/")
        except TimeoutError:
            raise Deaf(f"{socket_path(store)}: the daemon did not answer within {HEAR_S:.0f} s, is it stuck?") from None


async def call(store: Path, method: str, path: str, **query: str) -> Any:
    """A running daemon's answer. Raises NoDaemon, Refused, and BridgeError where it cannot be asked.

    path: quoted, like `/trace/msgA%2Fb%3D%3D`.
    """
    address = socket_path(store)
    try:
        async with _reachable(address) as name, aiohttp.ClientSession(connector=aiohttp.UnixConnector(name)) as session:
            timeout = aiohttp.ClientTimeout(total=CALL_S)
            url = URL(f"http://dingbridge{path}", encoded=True).with_query(query)
            async with session.request(method, url, timeout=timeout) as response:
                if response.status != 200 and response.content_type != "application/json":
                    raise Refused(f"{path}: {response.status} {response.reason}")
                body = json.loads(await read_capped(response, ANSWER_LIMIT))
                if response.status != 200:
                    raise Refused(str(body.get("error", "refused")), body.get("faults"))
                return body
    except (aiohttp.ClientConnectorError, FileNotFoundError, NotADirectoryError) as error:
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        if cause.errno in (errno.EACCES, errno.EPERM):
            raise BridgeError(f"{address}: permission denied: call this as root or as the service's user") from None
        raise NoDaemon(f"no daemon answers on {address}") from None
    except PermissionError:
        raise BridgeError(f"{address}: permission denied: call this as root or as the service's user") from None
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError, BodyTooLarge) as error:
        raise BridgeError(f"{address}: the daemon did not answer ({type(error).__name__})") from None
