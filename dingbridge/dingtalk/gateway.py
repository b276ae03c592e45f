"""A ticket from the open call, and a WebSocket for it. A ticket lives 90 s, serves one connection, is never stored."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any, NoReturn

import aiohttp
from dingtalk_stream.version import VERSION_STRING
from yarl import URL

from dingbridge.errors import CredentialsRejected, LinkError
from dingbridge.model import Secret
from dingbridge.net import BodyTooLarge, Network, RedirectRefused, cause_of, read_capped

OPEN_PATH = "/v1.0/gateway/connections/open"
BODY_LIMIT = 64 * 1024
CHECKLIST = (
    "DingTalk refuses the credentials. Check, in the developer console: Client ID and Client Secret belong together "
    "and were copied without blanks; the app has the robot capability with message mode Stream; a version of it is "
    "published; the egress IP is in the app's whitelist, if that is filled"
)


_CA_HINT = "where TLS is inspected, name that CA in [dingtalk] ca_file"
_RESET_HINT = " (by a firewall, or because it wants a client certificate: see [dingtalk] client_cert)"
_STATUS_CAUSES = {
    403: ("; is this address in the proxy's or the app's allow list?", "link.blocked"),
    407: ("; the proxy wants a user name and a password: see [dingtalk] proxy", "proxy.auth"),
}


async def open_ticket(
    session: aiohttp.ClientSession,
    network: Network,
    *,
    api_base: str,
    client_id: str,
    client_secret: Secret,
    topics: tuple[str, ...],
    open_s: float,
) -> URL:
    """The address to connect to, its one-time ticket in the query. Raises LinkError, CredentialsRejected."""
    url = URL(api_base + OPEN_PATH)
    body = {
        "clientId": client_id,
        "clientSecret": client_secret.reveal(),
        "subscriptions": [{"type": "CALLBACK", "topic": topic} for topic in topics],
        "ua": f"dingtalk-sdk-python/v{VERSION_STRING}-union",  # what the official SDK sends; others were refused
    }
    try:
        async with (
            asyncio.timeout(open_s),
            session.post(
                url,
                data=json.dumps(body).encode(),
                # Without Accept the API answers in XML.
                headers={"Accept": "application/json", "Content-Type": "application/json"},
                proxy=network.proxy_for(url),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response,
        ):
            answer = await read_capped(response, BODY_LIMIT)
            return _endpoint(response, answer, api_base)
    except (aiohttp.ClientError, OSError, BodyTooLarge, TimeoutError, ValueError) as error:
        _raise(error, url, "the open call")


async def open_connection(
    session: aiohttp.ClientSession,
    network: Network,
    *,
    api_base: str,
    client_id: str,
    client_secret: Secret,
    topics: tuple[str, ...],
    open_s: float,
    close_s: float,
    frame_limit: int,
) -> aiohttp.ClientWebSocketResponse:
    """Both steps; raises LinkError, CredentialsRejected."""
    url = await open_ticket(
        session,
        network,
        api_base=api_base,
        client_id=client_id,
        client_secret=client_secret,
        topics=topics,
        open_s=open_s,
    )
    # The same request under the names that a proxy knows.
    url = url.with_scheme("https" if url.scheme == "wss" else "http")
    try:
        async with asyncio.timeout(open_s):
            return await session.ws_connect(
                url,
                autoping=False,
                max_msg_size=frame_limit,
                proxy=network.proxy_for(url),
                timeout=aiohttp.ClientWSTimeout(ws_close=close_s),
            )
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        _raise(error, url, "the WebSocket")


def _endpoint(response: aiohttp.ClientResponse, body: bytes, api_base: str) -> URL:
    status = response.status
    answer = _json(body)
    code = str(answer.get("code", ""))[:60]
    if status in (400, 401):
        raise CredentialsRejected(f"{CHECKLIST} (HTTP {status} {code})")
    if status != 200:
        hint, cause = _STATUS_CAUSES.get(status, ("", "link.unavailable"))
        raise LinkError(
            f"the open call was answered with HTTP {status} {code}{hint}",
            retry_after=_seconds(response.headers),
            cause="network.intercepted" if 300 <= status < 400 else cause,
        )
    endpoint, ticket = answer.get("endpoint"), answer.get("ticket")
    if not isinstance(endpoint, str) or not isinstance(ticket, str) or not endpoint or not ticket:
        raise LinkError(
            "the open call was answered without endpoint and ticket (a captive portal's or a proxy's page?)",
            cause="network.intercepted",
        )
    url = URL(endpoint)
    if not gateway_allowed(url, api_base):
        raise LinkError(
            f"the open call names a foreign gateway ({url.scheme}://{url.host}): refused", cause="link.foreign"
        )
    return url.update_query(ticket=ticket)


def gateway_allowed(url: URL, api_base: str) -> bool:
    """Only wss on DingTalk's own domains; any wss where `api_base` is elsewhere, and ws where that is http."""
    base = URL(api_base)
    if not url.host or url.user is not None or url.password is not None:
        return False
    if url.scheme != "wss" and not (url.scheme == "ws" and base.scheme == "http"):
        return False
    public = (".dingtalk.com", ".dingtalk.io")
    return url.host.endswith(public) or not (base.host or "").endswith(public)


def _json(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _seconds(headers: Mapping[str, str] | None) -> float | None:
    value = (headers or {}).get("Retry-After", "")
    return min(float(value), 600.0) if value.isascii() and value.isdigit() else None


def _raise(error: BaseException, url: URL, what: str) -> NoReturn:
    """In our words: the libraries' texts contain the proxy's password and the ticket."""
    retry_after, cause = None, cause_of(error)
    if isinstance(error, aiohttp.WSServerHandshakeError):
        retry_after = _seconds(error.headers)
        cause = "proxy.auth" if error.status == 407 else "link.handshake"
    why = _why(error, tls=url.scheme == "https")
    raise LinkError(f"{what} to {url.host}: {why}", retry_after=retry_after, cause=cause) from None


def _why(error: BaseException, *, tls: bool) -> str:  # noqa: C901, PLR0911, PLR0912 - a table, the most specific row first
    match error:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientProxyConnectionError():
            return "the proxy cannot be reached: see [dingtalk] proxy"
        case aiohttp.ClientHttpProxyError(status=407):
            return "the proxy wants a user name and a password: see [dingtalk] proxy (407)"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy refused the connection ({error.status})"
        case RedirectRefused():
            return "redirected elsewhere, which is not followed"
        case aiohttp.WSServerHandshakeError(status=407):
            return "the proxy wants a user name and a password: see [dingtalk] proxy (407)"
        case aiohttp.WSServerHandshakeError():
            return f"the handshake was answered with HTTP {error.status}: is WebSocket let through?"
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as cause):
            return f"its certificate is not trusted ({cause.verify_message}): {_CA_HINT}"
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not trusted: {_CA_HINT}"
        case aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return "TLS failed: a client certificate missing, or no TLS on the other side"
        case aiohttp.ClientConnectorDNSError():
            return "its name cannot be resolved: check DNS"
        case aiohttp.ClientConnectorError() if not isinstance(error.os_error, ConnectionResetError):
            told = error.os_error.strerror or type(error.os_error).__name__
            return f"no connection ({told}): check route and firewall, port 443 outbound"
        case BodyTooLarge():
            return "an answer far too long"
        case aiohttp.ClientOSError(__cause__=ssl.SSLError()):  # TLS 1.3 tells it at the first read only
            return "it refuses our TLS: see [dingtalk] client_cert and client_key"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return f"broken off{_RESET_HINT if tls else ''}"
        case _:
            return f"broken off ({type(error).__name__})"
