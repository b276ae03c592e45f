"""One POST to DingTalk over real sockets: what is certain, what is not, how much is read, and that no secret shows."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from yarl import URL

from dingbridge.dingtalk.post import BODY_LIMIT, post_json
from dingbridge.errors import ReplyError, ReplyUnavailable, ReplyUncertain
from dingbridge.model import Secret
from dingbridge.net import Network
from dingbridge.sim.gateway import Gateway
from tests.certificates import sloppy
from tests.replying import PROXY_PASSWORD, Direct, chatting, raw, serving, told_by

SESSION = "76da0123456789abcdef"
DIRECT = Direct()


async def post(base: str, network: Network = DIRECT, timeout_s: float = 5.0) -> tuple[int, dict[str, Any]]:
    url = URL(f"{base}/robot/sendBySession?session={SESSION}")
    async with network.open_session() as session:
        return await post_json(session, network, url, {"msgtype": "text"}, timeout_s=timeout_s)


async def failure(base: str, network: Network = DIRECT, timeout_s: float = 5.0) -> ReplyError:
    """The error of one POST, searched for secrets in its text, its cause and its context."""
    with pytest.raises(ReplyError) as caught:
        await post(base, network, timeout_s)
    for secret in (SESSION, PROXY_PASSWORD, "p@ss", "session="):
        assert secret not in told_by(caught.value)
    assert caught.value.__context__ is None
    return caught.value


def saying(body: bytes, status: int = 200, encoding: str = "") -> Callable[[web.Request], Any]:
    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        headers = {"Content-Encoding": encoding} if encoding else {}
        return web.Response(status=status, body=body, headers=headers)

    return answer


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<!DOCTYPE html><p>Please sign in", ReplyUnavailable),
        (b"\xef\xbb\xbf\r\n <html>", ReplyUnavailable),
        (b'<?xml version="1.0"?>', ReplyUnavailable),
        (b"", ReplyUncertain),
        (b"ok", ReplyUncertain),
        (b"[]", ReplyUncertain),
        (b'"ok"', ReplyUncertain),
        (b"\xff\xfe{", ReplyUncertain),
        (b"[" * 100_000, ReplyUncertain),
        (b"1" * 5000, ReplyUncertain),
    ],
)
async def test_a_200_that_is_no_json_object(body: bytes, told: type) -> None:
    """A page is a proxy's, so nothing arrived; anything else nobody can read leaves it open."""
    async with serving(saying(body)) as url:
        error = await failure(url)
    assert type(error) is told
    assert error.cause == ("network.intercepted" if told is ReplyUnavailable else "chat.unknown_outcome")


@pytest.mark.parametrize("status", [301, 400, 403, 407, 500, 503])
async def test_other_statuses_need_no_body(status: int) -> None:
    """The status speaks; a body that is no JSON object is none."""
    async with serving(saying(b"<html>", status)) as url:
        assert await post(url) == (status, {})


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"errcode": 0}, True),
        ({"errcode": "0", "errmsg": "ok"}, True),
        ({"errcode": 0.0}, True),
        ({"errcode": "300001"}, "oto"),
        ({"errcode": 300001.0}, "oto"),
        ({}, ReplyUncertain),
        ({"errcode": None}, ReplyUncertain),
        ({"errcode": False}, ReplyUncertain),
        ({"errcode": "soon"}, ReplyUncertain),
        ({"errcode": [0]}, ReplyUncertain),
        ({"errcode": float("inf")}, ReplyUncertain),
        ({"errcode": float("nan")}, ReplyUncertain),
        ({"errcode": "9" * 5000}, ReplyUncertain),
    ],
)
async def test_errcodes_of_every_type(gateway: Gateway, answer: dict[str, Any], told: Any) -> None:
    """The errcode counts as a number, also as text; where there is none, nobody knows."""
    async with serving(saying(json.dumps(answer).encode())) as url, chatting(gateway) as chat:
        message = await chat.hear()
        part = await chat.part()
        gateway.openapi_fault = (400, "group.disbanded")
        if told == "oto":
            gateway.openapi_fault = None
        message = replace(message, webhook=Secret(f"{url}/robot/sendBySession?session={SESSION}"))
        result = await chat.outcome(chat.replies.send(message, part))
        assert result is True or type(result) is told
        assert [path for path, _ in chat.shown] == (["oto"] if told == "oto" else [])


async def test_redirects_are_not_followed() -> None:
    """A redirect is an answer like any other: what was to be said goes nowhere else."""
    seen: list[str] = []

    async def redirecting(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with serving(redirecting) as url:
        assert await post(url) == (307, {})
    assert seen == ["/robot/sendBySession"]


async def test_an_endless_body_is_left() -> None:
    """A server that never stops talking is read up to the cap and left."""
    left = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * 65_536)
        except ConnectionError:
            left.set()
            raise

    async with serving(endless) as url:
        assert type(await failure(url)) is ReplyUncertain
        async with asyncio.timeout(10):
            await left.wait()


async def test_a_compressed_bomb_is_counted_unpacked() -> None:
    """64 MiB in 64 KiB of gzip ends at the cap, not in memory."""
    bomb = gzip.compress(b"[" + b" " * (64 * 1024 * 1024))
    assert len(bomb) < BODY_LIMIT
    async with serving(saying(bomb, encoding="gzip")) as url:
        error = await failure(url)
    assert type(error) is ReplyUncertain
    assert error.cause == "network.intercepted"
    assert "too long" in error.detail


async def test_a_compressed_answer_is_read() -> None:
    """A small gzip answer is an answer."""
    async with serving(saying(gzip.compress(b'{"errcode":0}'), encoding="gzip")) as url:
        assert await post(url) == (200, {"errcode": 0})


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    ],
)
async def test_broken_http_leaves_it_open(answer: bytes) -> None:
    """Whatever breaks after the request was written may have followed a delivery."""
    async with raw(answer) as port:
        error = await failure(f"http://127.0.0.1:{port}")
    assert type(error) is ReplyUncertain
    assert error.cause == "network.cut"
    assert not error.certain


async def test_silence_is_uncertain_and_bounded() -> None:
    """A server that takes the request and says nothing is left after the time given."""
    async with raw(None) as port:
        error = await failure(f"http://127.0.0.1:{port}", timeout_s=0.3)
    assert type(error) is ReplyUncertain
    assert error.cause == "network.timeout"
    assert "in time" in error.detail


async def test_a_handshake_that_hangs_is_certain() -> None:
    """As long as TLS is not up, nothing was said: the message certainly did not arrive."""
    async with raw(None) as port:
        error = await failure(f"https://127.0.0.1:{port}", timeout_s=0.6)
    assert type(error) is ReplyUnavailable
    assert error.cause == "network.timeout"


async def test_nobody_listening_is_certain() -> None:
    """Refused connections and unknown names are certain failures that name what to check."""
    async with raw(b"") as port:
        pass
    for base, cause in ((f"http://127.0.0.1:{port}", "network.refused"), ("http://no-such-host.invalid", "dns")):
        error = await failure(base)
        assert type(error) is ReplyUnavailable
        assert error.cause == cause
        assert "DNS" in error.detail


async def test_an_unreadable_address_is_certain() -> None:
    """An address without a host is refused before anything is sent."""
    async with DIRECT.open_session() as session:
        with pytest.raises(ReplyError) as caught:
            await post_json(session, DIRECT, URL("http:///x?session=" + SESSION), {}, timeout_s=1)
    assert caught.value.certain
    assert caught.value.cause == "webhook.foreign"
    assert SESSION not in told_by(caught.value)


# -- proxy and TLS


def through(port: int, **more: Any) -> Network:
    return Network(proxy=Secret(f"http://bridge:{PROXY_PASSWORD}@127.0.0.1:{port}"), **more)


@pytest.mark.parametrize("status", [403, 407, 502, 504])
async def test_a_proxy_that_refuses_the_tunnel_is_certain(status: int) -> None:
    """CONNECT refused, whatever the status: nothing got through, and the text names the setting, not the password."""
    async with raw(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()) as port:
        error = await failure("https://oapi.dingtalk.com", through(port))
    assert type(error) is ReplyUnavailable
    assert error.cause == ("proxy.auth" if status == 407 else "proxy.refused")
    assert "[dingtalk] proxy" in error.detail


async def test_a_proxy_that_is_down_is_certain() -> None:
    """A proxy nobody runs is named as the reason."""
    async with raw(b"") as port:
        pass
    error = await failure("http://oapi.dingtalk.com", through(port))
    assert type(error) is ReplyUnavailable
    assert error.cause == "proxy.down"
    assert "proxy cannot be reached" in error.detail


async def test_a_407_for_plain_http_comes_as_a_status() -> None:
    """Without a tunnel the proxy's refusal is the answer."""
    async with raw(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n") as port:
        assert await post("http://oapi.dingtalk.com", through(port)) == (407, {})


async def test_a_host_outside_the_proxy_is_reached_directly(gateway: Gateway) -> None:
    """no_proxy holds for replies."""
    async with raw(b"") as port:
        pass
    network = through(port, no_proxy=("127.0.0.0/8",))
    async with chatting(gateway, network=network) as chat:
        assert await chat.send(await chat.hear())


async def test_certificates_are_checked(tmp_path: Path) -> None:
    """A private CA works through ca_file; without it nothing is sent, and the setting is named."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with Gateway(ssl_context=server, public_host="localhost") as gateway:
        async with chatting(gateway, network=Network(ca_file=tmp_path / "ca.pem")) as chat:
            assert await chat.send(await chat.hear())
        async with chatting(gateway) as chat:
            error = await chat.send(await chat.hear())
        assert type(error) is ReplyUnavailable
        assert error.cause == "tls.untrusted"
        assert "ca_file" in error.detail
        assert len(gateway.posts) == 1


@pytest.mark.parametrize(("ca_days", "days"), [(1, -1), (-1, 1)], ids=["server", "ca"])
async def test_an_expired_certificate_is_told_as_such(tmp_path: Path, ca_days: int, days: int) -> None:
    """Nothing was sent, and the operator reads that something has expired."""
    ca_file, context = sloppy(tmp_path, "localhost", ca_days=ca_days, days=days)
    async with Gateway(ssl_context=context, public_host="localhost") as gateway:
        error = await failure(gateway.url, Network(ca_file=ca_file))
    assert type(error) is ReplyUnavailable
    assert error.cause == "tls.expired"
    assert "has expired" in error.detail
