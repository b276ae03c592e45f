"""Outbound HTTP and WebSocket: one place for proxy, private CA, client certificate and body limits.

The process environment's proxies are not read: aiohttp's `trust_env` ignores `https_proxy` for `wss://`
(measured with aiohttp 3.14), so the proxy is passed explicitly everywhere.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from yarl import URL

from dingbridge.model import Secret


@dataclass(frozen=True, slots=True)
class Network:
    """How one remote side is reached. `no_proxy` entries: host, .suffix, *.suffix, IP, CIDR, or `*`."""

    proxy: Secret = Secret()  # noqa: RUF009 - frozen and empty
    no_proxy: tuple[str, ...] = ()
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None

    def ssl_context(self) -> ssl.SSLContext:
        """The system's roots, plus `ca_file`, plus the client certificate; verification is never off."""
        context = ssl.create_default_context()
        if self.ca_file is not None:
            context.load_verify_locations(cafile=self.ca_file)
            # Python 3.13 turned this on; inspection CAs without key usage extensions fail it.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.client_cert is not None:
            context.load_cert_chain(self.client_cert, self.client_key)
        return context

    def proxy_for(self, url: URL) -> URL | None:
        """The proxy for this address, or None where `no_proxy` names its host."""
        if not self.proxy or self._bypassed(url.host or ""):
            return None
        return URL(self.proxy.reveal())

    def _bypassed(self, host: str) -> bool:
        return any(_host_matches(host.lower().rstrip("."), entry.lower()) for entry in self.no_proxy)

    def open_session(
        self, *, keepalive_s: float = 15.0, limit: int = 0, plain_calls: bool = False
    ) -> aiohttp.ClientSession:
        """A session that follows nothing by itself: no environment, no cookies; timeouts are the caller's.

        A redirect that a call does not forbid, as the WebSocket handshake cannot, raises RedirectRefused.
        plain_calls: every call forbids redirects by itself; watching for them costs each one some hundredths of a ms.
        """
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(_refuse_redirect)
        connector = aiohttp.TCPConnector(
            ssl=self.ssl_context(), keepalive_timeout=keepalive_s, limit=limit, limit_per_host=0
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=True,
            trace_configs=[] if plain_calls else [trace],
        )


class RedirectRefused(aiohttp.ClientError):
    """The answer names another address."""


# OpenSSL's verify codes (x509_vfy.h): not yet valid, expired; another host, another address.
_OUT_OF_DATE = (9, 10)
_OTHER_NAME = (62, 64)
_CLIENT_CERT_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED")


def cause_of(error: BaseException) -> str:  # noqa: PLR0911 - a table, the most specific row first
    """What kept a connection from coming up, or broke it off: the key in `causes.py`."""
    match error:
        case aiohttp.ClientResponseError(status=407):
            return "proxy.auth"
        case aiohttp.ClientHttpProxyError():
            return "proxy.refused"
        case aiohttp.ClientProxyConnectionError():
            return "proxy.down"
        case aiohttp.ClientConnectorDNSError():
            return "dns"
        case RedirectRefused() | BodyTooLarge():
            return "network.intercepted"
        case TimeoutError():
            return "network.timeout"
    if tls := _tls_cause(error):
        return tls
    reset = isinstance(getattr(error, "os_error", None), ConnectionResetError)
    return "network.refused" if isinstance(error, aiohttp.ClientConnectorError) and not reset else "network.cut"


def _tls_cause(error: BaseException) -> str:
    """Empty where TLS is not to blame. A refused client certificate shows itself at the first read only."""
    inner = [getattr(error, name, None) for name in ("certificate_error", "os_error", "__cause__")]
    failed = [one for one in (*inner, error) if isinstance(one, ssl.SSLError | ssl.CertificateError)]
    if not failed:
        return ""
    if isinstance(failed[0], ssl.CertificateError):
        code = getattr(failed[0], "verify_code", 0)
        return "tls.expired" if code in _OUT_OF_DATE else "tls.name" if code in _OTHER_NAME else "tls.untrusted"
    told = str(failed[0]).upper()
    alert = "ALERT" in told and any(word in told for word in _CLIENT_CERT_ALERTS)
    return "tls.client_cert" if alert else "tls.failed"


async def _refuse_redirect(
    _session: aiohttp.ClientSession, _context: object, parameters: aiohttp.TraceRequestRedirectParams
) -> None:
    parameters.response.close()
    raise RedirectRefused


def _host_matches(host: str, entry: str) -> bool:
    if entry in ("*", host):
        return True
    if entry.startswith("*."):
        entry = entry[1:]
    if entry.startswith("."):
        return host.endswith(entry) or host == entry[1:]
    if "/" in entry:
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    return host.endswith("." + entry)


class BodyTooLarge(Exception):
    """The body went past the cap; nothing more of it was read."""


async def read_capped(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body up to `limit` bytes, counted after decompression (0.5 MB of gzip can become 1 GB)."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(16_384):
        body += chunk
        if len(body) > limit:
            response.close()
            raise BodyTooLarge
    return bytes(body)
