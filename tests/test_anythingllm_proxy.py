"""Proxy, private CA and client certificate of the AnythingLLM client; its texts hold no secret."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from pathlib import Path

import pytest
import trustme

from dingbridge.backends.anythingllm import Limits
from dingbridge.errors import BackendError, BackendMalformed, BackendRejected, BackendUnavailable
from dingbridge.model import Secret
from dingbridge.net import Network
from tests.anythingllm_asking import KEY, client, failure, free_port
from tests.anythingllm_peer import Peer, Proxy, abort, answer, stream
from tests.certificates import Authority, sloppy


def through(proxy: Proxy, password: str = "p%40ss%2Fword-7", **more: object) -> Network:
    address = Secret(f"http://bridge:{password}@127.0.0.1:{proxy.port}")
    return Network(proxy=address, **more)  # type: ignore[arg-type] # handed through


async def test_a_plain_address_goes_through_the_proxy() -> None:
    """An http address is asked in absolute form, with Basic credentials for the proxy alone."""
    async with Proxy() as proxy, Peer() as peer, client(peer.url, network=through(proxy)) as backend:
        got = await backend.ask("问", workspace="finance", session="s")
    assert got.text == "好的。"
    assert proxy.lines[-1] == f"POST {peer.url}/api/v1/workspace/finance/stream-chat"
    assert peer.asked[0].headers["authorization"] == f"Bearer {KEY}"


async def test_no_proxy_goes_straight() -> None:
    """A host named in no_proxy is reached without the proxy."""
    async with (
        Proxy() as proxy,
        Peer() as peer,
        client(peer.url, network=through(proxy, no_proxy=("127.0.0.0/8",))) as backend,
    ):
        await backend.ask("问", workspace="finance", session="s")
    assert proxy.lines == []


class Authorities:
    """A private CA, a server's certificate and a client's, as files."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.ca_file)
        self.cert, self.key = folder / "client.pem", folder / "client.key"
        issued = self.ca.issue_cert("bridge@example.com")
        issued.cert_chain_pems[0].write_to_path(self.cert)
        issued.private_key_pem.write_to_path(self.key)

    def server(self, *, wants_client: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ca.issue_cert("localhost").configure_cert(context)
        if wants_client:
            self.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture
def authorities(tmp_path: Path) -> Authorities:
    return Authorities(tmp_path)


@pytest.mark.parametrize("proxied", [False, True])
async def test_private_ca_and_client_certificate(authorities: Authorities, proxied: bool) -> None:
    """A server with a private CA that wants a client certificate is asked, directly and through the proxy."""
    async with Proxy() as proxy, Peer(tls=authorities.server(wants_client=True)) as peer:
        address = Secret(f"http://bridge:p%40ss%2Fword-7@127.0.0.1:{proxy.port}" if proxied else "")
        network = Network(
            proxy=address,
            ca_file=authorities.ca_file,
            client_cert=authorities.cert,
            client_key=authorities.key,
        )
        async with client(peer.url, network=network) as backend:
            got = await backend.ask("问", workspace="finance", session="s")
    assert got.text == "好的。"
    assert (f"CONNECT localhost:{peer.port}" in proxy.lines) is proxied


async def test_an_untrusted_certificate_is_configuration(authorities: Authorities) -> None:
    """Without the CA the connection is refused, told with its remedy and not repeated."""
    async with Peer(tls=authorities.server()) as peer:
        error = await failure(peer.url)
    assert isinstance(error, BackendRejected)
    assert "ca_file" in error.detail
    assert error.cause == "tls.untrusted"
    assert error.public == "backend_failed"
    assert "tried" not in error.detail


@pytest.mark.parametrize(("ca_days", "days"), [(1, -1), (-1, 1)], ids=["server", "ca"])
@pytest.mark.parametrize("proxied", [False, True])
async def test_an_expired_certificate_is_told_as_such(tmp_path: Path, ca_days: int, days: int, proxied: bool) -> None:
    """That of the server, and that of the CA in ca_file: expired is another remedy than untrusted."""
    ca_file, context = sloppy(tmp_path, "localhost", ca_days=ca_days, days=days)
    async with Proxy() as proxy, Peer(tls=context) as peer:
        network = through(proxy, ca_file=ca_file) if proxied else Network(ca_file=ca_file)
        error = await failure(peer.url, network=network)
    assert isinstance(error, BackendRejected)
    assert "expired" in error.detail
    assert error.cause == "tls.expired"


async def test_a_certificate_for_another_name_is_told_as_such(tmp_path: Path) -> None:
    """A trusted CA is not enough: the name has to fit the one in base_url."""
    authority = Authority(tmp_path / "pki")
    async with Peer(tls=authority.server("other.example")) as peer:
        error = await failure(peer.url, network=authority.trusted)
    assert isinstance(error, BackendRejected)
    assert error.cause == "tls.name"


async def alert(context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A handshake whose refusal reaches the client before the connection ends, as web servers do it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    refused = False
    while not refused:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            incoming.write(await reader.read(65_536))
        except ssl.SSLError:
            refused = True
    writer.write(outgoing.read())
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_a_missing_client_certificate_is_configuration(authorities: Authorities) -> None:
    """A server that says it wants a client certificate is told as such; nothing is repeated."""
    context = authorities.server(wants_client=True)
    server = await asyncio.start_server(partial(alert, context), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    error = await failure(f"https://localhost:{port}", network=Network(ca_file=authorities.ca_file))
    server.close()
    assert isinstance(error, BackendRejected)
    assert "client_cert" in error.detail
    assert error.cause == "tls.client_cert"
    assert "tried" not in error.detail


async def test_a_reset_after_the_handshake_hints_at_the_client_certificate(authorities: Authorities) -> None:
    """A server that only resets when it misses the certificate may also be restarting: retryable, with a hint."""
    async with Peer(tls=authorities.server(wants_client=True)) as peer:
        error = await failure(peer.url, network=Network(ca_file=authorities.ca_file))
    assert isinstance(error, BackendUnavailable)
    assert "client_cert" in error.detail
    assert error.cause == "backend.cut"
    assert peer.asked == []


async def test_the_wrong_scheme_is_told(authorities: Authorities) -> None:
    """Https to a plain port and http to a TLS port name base_url."""
    async with Peer() as plain, Peer(tls=authorities.server()) as secure:
        over = await failure(plain.url.replace("http:", "https:"), Limits(attempts=1))
        under = await failure(secure.url.replace("https:", "http:"), Limits(attempts=1))
    assert isinstance(over, BackendRejected)
    assert "http or https" in over.detail
    assert over.cause == "tls.failed"
    assert isinstance(under, BackendUnavailable | BackendMalformed)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_refused_proxy_password_is_configuration(authorities: Authorities, tls: bool) -> None:
    """A 407 is told as the proxy's, for http and https, and shows no password."""
    async with Proxy() as proxy, Peer(tls=authorities.server() if tls else None) as peer:
        network = through(proxy, password="wr0ng-p%40ss", ca_file=authorities.ca_file)
        error = await failure(peer.url, network=network)
    assert isinstance(error, BackendRejected)
    assert "407" in error.detail
    assert error.cause == "proxy.auth"
    assert "[anythingllm] proxy" in error.detail
    assert "wr0ng" not in error.detail
    assert error.public == "backend_failed"


@pytest.mark.parametrize(
    ("refused", "kind"), [(502, BackendUnavailable), (503, BackendUnavailable), (403, BackendRejected)]
)
async def test_a_proxy_that_does_not_let_through(
    authorities: Authorities, refused: int, kind: type[BackendError]
) -> None:
    """A tunnel that the proxy refuses is told as the proxy's doing."""
    async with Proxy(refuse=answer(refused, "", "text/html")) as proxy, Peer(tls=authorities.server()) as peer:
        error = await failure(peer.url, network=through(proxy, ca_file=authorities.ca_file))
    assert isinstance(error, kind)
    assert "the proxy does not" in error.detail
    assert f"HTTP {refused}" in error.detail
    assert error.cause == "proxy.refused"


async def test_a_proxy_that_is_down_is_told() -> None:
    """A proxy that cannot be reached is named, without its password."""
    network = Network(proxy=Secret(f"http://bridge:p%40ss%2Fword-7@127.0.0.1:{free_port()}"))
    error = await failure("http://127.0.0.1:9", Limits(attempts=1), network)
    assert isinstance(error, BackendUnavailable)
    assert "[anythingllm] proxy" in error.detail
    assert error.cause == "proxy.down"


async def test_secrets_in_the_servers_words_are_not_repeated() -> None:
    """A server that echoes the key, the proxy's password or a query does not get them into our texts."""
    words = f"500 key={KEY} pass={Proxy.password} p%40ss%2Fword-7 http://u:bridge:x@h.example/?token=geheim"
    async with Proxy() as proxy, Peer(stream(abort(words))) as peer:
        error = await failure(peer.url, Limits(attempts=1), through(proxy))
    assert "geheim" not in error.detail
    assert "500" in error.detail
