"""One JSON request to DingTalk, its failures sorted by whether the message may have arrived."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any

import aiohttp
from yarl import URL

from dingbridge.errors import ReplyError, ReplyRejected, ReplyUnavailable, ReplyUncertain
from dingbridge.net import BodyTooLarge, Network, cause_of, read_capped

BODY_LIMIT = 256 * 1024


async def post_json(
    session: aiohttp.ClientSession, network: Network, url: URL, body: dict[str, Any], *, timeout_s: float
) -> tuple[int, dict[str, Any]]:
    """As `send_json`."""
    return await send_json(session, network, "POST", url, body, timeout_s=timeout_s)


async def send_json(
    session: aiohttp.ClientSession,
    network: Network,
    method: str,
    url: URL,
    body: dict[str, Any],
    *,
    headers: dict[str, str] | None = None,
    timeout_s: float,
) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the JSON object of the answer; {} where a status other than 200 came without one.

    Raises ReplyUnavailable where it certainly did not arrive: no connection, 407, a 200 with an HTML page;
    ReplyUncertain where it may have: a timeout or a reset after the bytes were written, a 200 nobody can read.
    """
    if session.closed:  # by a reload: whoever tries again does so by the new configuration
        raise ReplyUnavailable("the configuration that this was to be sent by is closed")
    encoded = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    sent = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    try:
        async with (
            asyncio.timeout(timeout_s),
            session.request(
                method,
                url,
                data=encoded,
                headers=sent,
                proxy=network.proxy_for(url),
                allow_redirects=False,
                # Its own limit for DNS, TCP, proxy and TLS: until there is a connection, nothing has been sent.
                timeout=aiohttp.ClientTimeout(total=None, connect=timeout_s / 2),
            ) as response,
        ):
            return response.status, _object(response.status, await read_capped(response, BODY_LIMIT))
    except (aiohttp.ClientError, OSError, BodyTooLarge, TimeoutError) as error:
        failure = _sorted(error, url.host or "")
    # Outside of the handler, so that not even the context leads to a text of aiohttp's.
    raise failure


def _object(status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        return answer
    if status != 200:
        return {}
    if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise ReplyUnavailable(
            "answered with a page instead of JSON: a proxy or a captive portal in between?", cause="network.intercepted"
        )
    raise ReplyUncertain("answered with something that is no JSON object")


def _sorted(error: BaseException, host: str) -> ReplyError:
    """Our words: the libraries' texts contain the webhook's session and the proxy's password."""
    kind, why = _told(error)
    if isinstance(error, aiohttp.InvalidURL):
        return kind(why, cause="webhook.foreign")
    return kind(f"to {host}: {why}", cause=cause_of(error))


def _told(error: BaseException) -> tuple[type[ReplyError], str]:  # noqa: PLR0911 - a table, one row an error
    match error:
        case aiohttp.ClientHttpProxyError():
            return ReplyUnavailable, f"the proxy refused ({error.status}): see [dingtalk] proxy"
        case aiohttp.ClientProxyConnectionError():
            return ReplyUnavailable, "the proxy cannot be reached: see [dingtalk] proxy"
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as refused):
            return (
                ReplyUnavailable,
                f"its certificate is not trusted ({refused.verify_message}): see [dingtalk] ca_file",
            )
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            return ReplyUnavailable, "its certificate is not trusted: see [dingtalk] ca_file"
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return ReplyUnavailable, "no connection: check DNS, route and firewall, port 443 outbound"
        case aiohttp.InvalidURL():
            return ReplyRejected, "the address cannot be read"
        case TimeoutError():
            return ReplyUncertain, "no answer in time"
        case BodyTooLarge():
            return ReplyUncertain, "an answer far too long"
        case _:
            return ReplyUncertain, f"broken off ({type(error).__name__})"
