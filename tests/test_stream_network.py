"""The way out of a company network: proxy with credentials, private CA, client certificate, foreign addresses."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from dingbridge.dingtalk.gateway import gateway_allowed
from dingbridge.model import Secret
from dingbridge.net import Network
from dingbridge.sim.anythingllm import AnythingLLM
from dingbridge.sim.gateway import Gateway
from tests.certificates import Authority, sloppy
from tests.house import House
from tests.linked import QUICK, Bot, linked, names, running, told
from tests.proxy import TunnelProxy

API, WSS = "api.internal.example", "wss.internal.example"  # known to the proxy alone
PATIENT = replace(QUICK, open_s=5.0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


@asynccontextmanager
async def behind_proxy(authority: Authority | None) -> AsyncIterator[tuple[Gateway, TunnelProxy]]:
    """A gateway whose two names only the proxy knows; with an authority over TLS."""
    context = authority.server(API, WSS) if authority is not None else None
    async with (
        Gateway(ssl_context=context, public_host=API) as gateway,
        TunnelProxy(addresses={API: gateway.port, WSS: gateway.port}) as proxy,
    ):
        gateway.endpoint = gateway.endpoint.replace(API, WSS)
        yield gateway, proxy


def through(proxy: TunnelProxy, base: Network | None = None, *, credentials: str | None = None) -> Network:
    return replace(base or Network(), proxy=Secret(proxy.url(credentials)))


SECRETS = (TunnelProxy.password, "p%40ss", "bridge:")


async def test_tls_through_a_proxy(authority: Authority) -> None:
    """The open call and the WebSocket each take a tunnel of the authenticated proxy, and messages flow."""
    async with behind_proxy(authority) as (gateway, proxy):
        with told(*SECRETS, gateway.client_secret) as events:
            async with linked(gateway, timing=PATIENT, network=through(proxy, authority.trusted)) as (bot, connection):
                await bot.works()
                await connection.ping_opaque()
        assert proxy.tunnels == {f"CONNECT {API}:{gateway.port}": 1, f"CONNECT {WSS}:{gateway.port}": 1}
        assert "Proxy-Authorization" not in gateway.opens[0].headers
        assert "Proxy-Authorization" not in connection.headers
    assert names(events) == ["stream.connected"]


async def test_plain_through_a_proxy() -> None:
    """Without TLS both are asked of the proxy under http, the scheme it knows; the password stays there."""
    async with behind_proxy(None) as (gateway, proxy):
        with told(*SECRETS, gateway.client_secret) as events:
            async with linked(gateway, timing=PATIENT, network=through(proxy)) as (bot, connection):
                await bot.works()
        methods = Counter(line.split("?")[0] for line in proxy.lines)
        assert methods == {
            f"POST http://{API}:{gateway.port}/v1.0/gateway/connections/open": 1,
            f"GET http://{WSS}:{gateway.port}/connect": 1,
        }
        assert "Proxy-Authorization" not in connection.headers
    assert names(events) == ["stream.connected"]


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
async def test_a_wrong_proxy_password(authority: Authority, tls: bool) -> None:
    """407 is told with the key to look at, never with the password; nothing reaches the gateway."""
    async with behind_proxy(authority if tls else None) as (gateway, proxy):
        network = through(proxy, authority.trusted, credentials="bridge:wrong-pass-9")
        with told("wrong-pass-9", gateway.client_secret) as events:
            async with running(Bot(gateway, timing=PATIENT, network=network)) as bot:
                await bot.count("lost", 2)
    assert names(events) == ["stream.lost"]
    assert "407" in events[0]["why"]
    assert events[0]["cause"] == "proxy.auth"
    assert "[dingtalk] proxy" in events[0]["why"]
    assert not gateway.opens


async def test_a_proxy_that_is_down(authority: Authority) -> None:
    """It is told as the proxy's trouble, and the link comes up when the proxy does."""
    async with behind_proxy(authority) as (gateway, proxy):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        address = Secret(f"http://{proxy.credentials}@127.0.0.1:{port}")
        with told(*SECRETS) as events:
            async with running(Bot(gateway, timing=PATIENT, network=replace(authority.trusted, proxy=address))) as bot:
                await bot.count("lost", 2)
    assert names(events) == ["stream.lost"]
    assert "the proxy cannot be reached" in events[0]["why"]
    assert events[0]["cause"] == "proxy.down"


async def test_a_proxy_that_refuses_the_gateway_only(authority: Authority) -> None:
    """When the open call passes and the WebSocket's host does not, the text names the WebSocket and the proxy."""
    async with behind_proxy(authority) as (gateway, proxy):
        proxy.refused.add(WSS)
        with told(*SECRETS) as events:
            async with running(Bot(gateway, timing=PATIENT, network=through(proxy, authority.trusted))) as bot:
                await bot.count("lost", 2)
                proxy.refused.clear()
                await bot.up()
    assert names(events) == ["stream.lost", "stream.connected"]
    assert events[0]["why"] == f"the WebSocket to {WSS}: the proxy refused the connection (403)"
    assert events[0]["cause"] == "proxy.refused"


@pytest.mark.parametrize("entry", ["localhost", "*", "LOCALHOST"])
async def test_no_proxy_goes_straight(authority: Authority, entry: str) -> None:
    """A host named in no_proxy is reached without the proxy, by both calls."""
    async with Gateway(ssl_context=authority.server(), public_host="localhost") as gateway, TunnelProxy() as proxy:
        network = replace(through(proxy, authority.trusted), no_proxy=(entry,))
        async with linked(gateway, timing=PATIENT, network=network) as (bot, _):
            await bot.works()
        assert proxy.lines == []


@pytest.mark.parametrize(
    ("entry", "host", "bypassed"),
    [
        ("example.com", "example.com", True),
        ("example.com", "api.example.com", True),
        ("example.com", "badexample.com", False),
        (".example.com", "api.example.com", True),
        ("*.example.com", "api.example.com", True),
        ("*.example.com", "badexample.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "example.com", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("*", "anything.example", True),
        ("Example.COM", "example.com.", True),
    ],
)
def test_no_proxy_entries(entry: str, host: str, bypassed: bool) -> None:
    """Hosts, suffixes, addresses and networks are understood the way curl and browsers do."""
    network = Network(proxy=Secret("http://127.0.0.1:1"), no_proxy=(entry,))
    url = URL.build(scheme="https", host=host)
    assert (network.proxy_for(url) is None) is bypassed


async def test_the_environments_proxies_are_not_read(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell exports does not reroute the daemon."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with linked(gateway) as (bot, _):
        await bot.works()


# ---- TLS


async def test_a_private_ca(authority: Authority) -> None:
    """Named in ca_file it is trusted for both calls."""
    async with (
        Gateway(ssl_context=authority.server(), public_host="localhost") as gateway,
        linked(gateway, timing=PATIENT, network=authority.trusted) as (bot, _),
    ):
        await bot.works()


@pytest.mark.parametrize("proxied", [False, True])
async def test_an_unknown_ca(authority: Authority, proxied: bool) -> None:
    """Without ca_file the connection is refused, and the text names it."""
    async with (
        behind_proxy(authority) as (named, proxy),
        Gateway(ssl_context=authority.server(), public_host="localhost") as local,
    ):
        gateway, network = (named, through(proxy)) if proxied else (local, Network())
        with told(*SECRETS, gateway.client_secret) as events:
            async with running(Bot(gateway, timing=PATIENT, network=network)) as bot:
                await bot.count("lost", 2)
        assert not gateway.opens
    assert names(events) == ["stream.lost"]
    assert "[dingtalk] ca_file" in events[0]["why"]
    assert events[0]["cause"] == "tls.untrusted"


@pytest.mark.parametrize(("ca_days", "days"), [(1, -1), (-1, 1)], ids=["server", "ca"])
async def test_an_expired_certificate(tmp_path: Path, ca_days: int, days: int) -> None:
    """That of the gateway, or of the CA in ca_file: told as expired, which is another remedy than untrusted."""
    ca_file, context = sloppy(tmp_path, "localhost", ca_days=ca_days, days=days)
    async with Gateway(ssl_context=context, public_host="localhost") as gateway:
        with told(gateway.client_secret) as events:
            async with running(Bot(gateway, timing=PATIENT, network=Network(ca_file=ca_file))) as bot:
                await bot.count("lost", 1)
    assert "certificate has expired" in events[0]["why"]
    assert events[0]["cause"] == "tls.expired"


async def test_a_certificate_for_another_name(authority: Authority) -> None:
    """A trusted CA is not enough, and the text says what is wrong with the certificate."""
    async with Gateway(ssl_context=authority.server("other.example"), public_host="localhost") as gateway:
        with told() as events:
            async with running(Bot(gateway, timing=PATIENT, network=authority.trusted)) as bot:
                await bot.count("lost", 1)
    assert not gateway.opens
    assert "Hostname mismatch" in events[0]["why"]
    assert events[0]["cause"] == "tls.name"


async def test_a_sloppy_ca(tmp_path: Path) -> None:
    """An inspection CA that strict checking refuses is accepted once it is named in ca_file."""
    ca_file, context = sloppy(tmp_path, "localhost")
    async with Gateway(ssl_context=context, public_host="localhost") as gateway:
        strict = ssl.create_default_context(cafile=ca_file)
        strict.verify_flags |= ssl.VERIFY_X509_STRICT
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(gateway.url, ssl=strict)
        network = Network(ca_file=ca_file)
        assert not network.ssl_context().verify_flags & ssl.VERIFY_X509_STRICT
        async with linked(gateway, timing=PATIENT, network=network) as (bot, _):
            await bot.works()


async def test_a_client_certificate(authority: Authority) -> None:
    """A gateway that wants one gets it, on both calls."""
    async with (
        Gateway(ssl_context=authority.server(wants_client=True), public_host="localhost") as gateway,
        linked(gateway, timing=PATIENT, network=authority.known) as (bot, _),
    ):
        await bot.works()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_missing_client_certificate(authority: Authority, version: ssl.TLSVersion) -> None:
    """A gateway that wants one refuses us without, and the text names the key."""
    context = authority.server(wants_client=True)
    context.maximum_version = version
    async with Gateway(ssl_context=context, public_host="localhost") as gateway:
        with told(gateway.client_secret) as events:
            async with running(Bot(gateway, timing=PATIENT, network=authority.trusted)) as bot:
                await bot.count("lost", 2)
        assert not gateway.opens
    assert names(events) == ["stream.lost"]
    assert "client certificate" in events[0]["why"]
    # With TLS 1.3 it is told at the first read, and a reset may come first.
    assert events[0]["cause"] in ("tls.client_cert", "network.cut")


async def test_tls_on_a_plain_port(gateway: Gateway) -> None:
    """Https to a port that speaks http is told as such."""
    with told() as events:
        async with running(Bot(gateway, timing=PATIENT, api_base=gateway.url.replace("http", "https"))) as bot:
            await bot.count("lost", 1)
    assert "no TLS on the other side" in events[0]["why"]
    assert events[0]["cause"] == "tls.failed"


# ---- where the gateway may be


@pytest.mark.parametrize(
    ("endpoint", "api_base", "allowed"),
    [
        ("wss://wss-open-connection.dingtalk.com:443/connect", "https://api.dingtalk.com", True),
        ("wss://wss-open-connection-union.dingtalk.com:443/connect", "https://api.dingtalk.com", True),
        ("wss://gateway.dingtalk.io/connect", "https://api.dingtalk.com", True),
        ("wss://gateway.example/connect", "https://api.dingtalk.com", False),
        ("wss://evildingtalk.com/connect", "https://api.dingtalk.com", False),
        ("wss://dingtalk.com.example/connect", "https://api.dingtalk.io", False),
        ("wss://127.0.0.1/connect", "https://api.dingtalk.com", False),
        ("ws://wss-open-connection.dingtalk.com/connect", "https://api.dingtalk.com", False),
        ("ws://gateway.example/connect", "http://api.dingtalk.com", False),
        ("https://wss-open-connection.dingtalk.com/connect", "https://api.dingtalk.com", False),
        ("wss://user:word@wss-open-connection.dingtalk.com/connect", "https://api.dingtalk.com", False),
        ("/connect", "https://api.dingtalk.com", False),
        ("wss://gateway.intern.example/connect", "https://dingtalk.intern.example", True),
        ("ws://gateway.intern.example/connect", "https://dingtalk.intern.example", False),
        ("ws://127.0.0.1:9/connect", "http://127.0.0.1:8", True),
        ("wss://127.0.0.1:9/connect", "http://127.0.0.1:8", True),
        ("http://127.0.0.1:9/connect", "http://127.0.0.1:8", False),
    ],
)
def test_where_the_gateway_may_be(endpoint: str, api_base: str, allowed: bool) -> None:
    """Beside DingTalk's API only DingTalk's own domains over TLS; beside a private one any, and plain only if it is."""
    assert gateway_allowed(URL(endpoint), api_base) is allowed


@pytest.mark.parametrize(
    "endpoint", ["wss://gateway.example/connect", "ws://wss-open-connection.dingtalk.com/connect", "wss://[/"]
)
async def test_a_foreign_gateway_is_refused(authority: Authority, endpoint: str) -> None:
    """What DingTalk's API names elsewhere is never connected to; the next answer that is right is taken."""
    api, wss = "api.dingtalk.com", "wss-open-connection.dingtalk.com"
    async with (
        Gateway(ssl_context=authority.server(api, wss)) as gateway,
        TunnelProxy(addresses={api: gateway.port, wss: gateway.port}) as proxy,
    ):
        gateway.endpoint = endpoint
        network = through(proxy, authority.trusted)
        with told(*SECRETS, gateway.client_secret) as events:
            bot = Bot(gateway, timing=PATIENT, network=network, api_base=f"https://{api}")
            async with running(bot):
                await bot.count("lost", 2)
                assert set(proxy.lines) == {f"CONNECT {api}:443"}
                gateway.endpoint = f"wss://{wss}:443/connect"
                await bot.up()
                await bot.works()
        assert proxy.tunnels[f"CONNECT {wss}:443"] == 1
    assert names(events) == ["stream.lost", "stream.connected"]


async def test_a_plain_gateway_beside_tls_is_refused(authority: Authority) -> None:
    """With an https api_base no ws:// address is taken, wherever it is."""
    async with Gateway(ssl_context=authority.server(), public_host="localhost") as gateway:
        gateway.endpoint = gateway.endpoint.replace("wss:", "ws:")
        with told(gateway.client_secret) as events:
            async with running(Bot(gateway, timing=PATIENT, network=authority.trusted)) as bot:
                await bot.count("lost", 2)
        assert not [note for note in gateway.traffic if note["kind"] == "handshake"]
    assert "refused" in events[0]["why"]
    assert events[0]["cause"] == "link.foreign"


# ---- the whole daemon


async def test_everything_goes_through_the_proxy(authority: Authority, tmp_path: Path) -> None:
    """Open call, WebSocket, session webhook, token and proactive message: none of them leaves another way."""
    async with AnythingLLM() as backend, behind_proxy(authority) as (gateway, proxy):
        house = House(gateway, backend, tmp_path)
        dingtalk = {"proxy": proxy.url(), "ca_file": str(authority.ca_file)}
        with told(*SECRETS, gateway.client_secret):
            async with house.app(dingtalk=dingtalk):
                by_webhook = await gateway.say("北京出差住宿标准是多少？")
                assert "600" in (await gateway.next_post(by_webhook)).text
                expired = await gateway.say("年假有几天？", user="043", webhook_ttl_s=-1.0)
                post = await gateway.next_post(expired)
        assert (post.path, post.user) == ("oto", "043")
        assert {line.split(":")[0] for line in proxy.lines} == {f"CONNECT {API}", f"CONNECT {WSS}"}
