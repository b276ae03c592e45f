"""What can go wrong between here and an answer, mapped by one table to errors that name the remedy.

Retryable: down, overloaded, cut off. Not retryable: key, address, workspace, model, certificate, proxy password.
No detail carries the key, the proxy's password, a query or a body; the server's own words are quoted shortened
and redacted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from dingbridge.backends.assembly import AGENT_FAILED
from dingbridge.backends.sse import read_object
from dingbridge.errors import BackendError, BackendMalformed, BackendRejected, BackendUnavailable
from dingbridge.net import cause_of

LONGEST_RETRY_AFTER_S = 86_400.0
_QUOTED = 160
# Provider SDKs put the status first; an embedder's stands behind its own preamble.
_PROVIDER_STATUS = re.compile(r"^(?:.{0,60}Failed to embed:\s*)?(?:Error:\s*)?([45]\d\d)\b", re.IGNORECASE)
_QUERY = re.compile(r"(https?://[^\s?#]*)[?#]\S*", re.IGNORECASE)
_USERINFO = re.compile(r"(https?://)[^\s/@]+@", re.IGNORECASE)
_TOKEN = re.compile(r"\b(?=[\w*-]*\d)[\w*-]{16,}|\bsk-[\w*-]+")

# What to do, and the cause.
_STATUS_CAUSES: Mapping[int, tuple[str, str]] = {
    400: (
        "the request was refused; an address with https may want a client certificate (client_cert)",
        "backend.refused",
    ),
    401: (
        "something in front of AnythingLLM wants a login of its own; let the bridge's address pass there",
        "backend.blocked",
    ),
    403: ("access was refused in front of AnythingLLM; let the bridge's address pass there", "backend.blocked"),
    404: ("there is no such address; check [anythingllm] base_url", "backend.address"),
    405: ("the address does not take questions; check [anythingllm] base_url", "backend.address"),
    407: ("the proxy refused the user or password; check [anythingllm] proxy", "proxy.auth"),
    413: ("a proxy in front of AnythingLLM allows only smaller requests; raise its body limit", "backend.too_large"),
}
_PASSING_STATUS = (408, 425, 429)
_BUSY_STATUS = (*_PASSING_STATUS, 503)
# AnythingLLM's own words where the model or the embedder does not answer it, or breaks off.
_MODEL_DOWN = re.compile(
    r"connection error|fetch failed|failed to embed|premature close|ECONN|ENOTFOUND", re.IGNORECASE
)
# What is on the other side of a connection to `base_url` is AnythingLLM.
_SERVER_CAUSES: Mapping[str, str] = {
    "network.refused": "backend.down",
    "network.timeout": "backend.down",
    "network.cut": "backend.cut",
}


# In the order of precedence; which of them holds, only the administrator knows.
KEY_COMES_FROM = (
    "where it comes from: the systemd credential anythingllm.api_key, DINGBRIDGE_ANYTHINGLLM_API_KEY, "
    "or [anythingllm] api_key_file"
)


class WorkspaceUnknown(BackendRejected):
    """AnythingLLM does not know the workspace it was asked in."""

    cause = "backend.workspace"


@dataclass(frozen=True, slots=True)
class Faults:
    """The table for one server. where: its origin, shown to the operator; hidden: values that never appear."""

    where: str
    hidden: tuple[str, ...] = ()

    def of_status(self, status: int, headers: Mapping[str, str], kind: str, body: bytes) -> BackendError:
        """An answer that is not what was asked for. kind: its content type without parameters."""
        said = _said(body) if kind == "application/json" else ""
        if status == 403 and "api key" in said.lower():
            return BackendRejected(
                f"AnythingLLM at {self.where} does not accept the API key: create one under Settings, Tools, "
                f"Developer API, and put it {KEY_COMES_FROM}",
                cause="backend.key",
            )
        if 200 <= status < 300:
            return self._unexpected_success(kind)
        if 300 <= status < 400:
            return BackendRejected(
                f"{self.where} redirects (HTTP {status}): put the final address into [anythingllm] base_url",
                cause="backend.address",
            )
        plain = self._plain_status(status, headers)
        if said and (status >= 500 or status == 400):
            told = self.of_abort(said, retry_after=plain.retry_after)
            return told if status >= 500 or not told.retryable else plain
        return plain

    def of_abort(self, said: str, *, retry_after: float | None = None) -> BackendError:
        """AnythingLLM's own words for a failure; the model provider's status, if any, decides."""
        said = said.removeprefix(AGENT_FAILED).strip()
        quoted = self.quote(said)
        if "is not a valid workspace" in said:
            return WorkspaceUnknown(f"{quoted} Check the route's workspace with `dingbridge check`")
        if "is not a valid mode" in said:
            return BackendRejected(
                "this version of AnythingLLM does not know [anythingllm] mode; use query or chat", cause="backend.mode"
            )
        if "Message is empty" in said:
            return BackendMalformed(f"AnythingLLM gave no answer: {quoted}", cause="question.empty")
        if "No text completion could be completed" in said:
            return BackendMalformed(f"AnythingLLM gave no answer: {quoted}", cause="backend.empty")
        match = _PROVIDER_STATUS.match(said)
        status = int(match.group(1)) if match else 0
        if 400 <= status < 500 and status not in _PASSING_STATUS:
            return BackendRejected(
                f"the model provider behind AnythingLLM refuses, check its key and model there: {quoted}",
                cause="backend.model",
            )
        return BackendUnavailable(
            f"AnythingLLM could not answer: {quoted}", retry_after=retry_after, cause=_abort_cause(status, said)
        )

    def of_client(self, error: Exception) -> BackendError:
        """What the HTTP client raised; its own texts can hold the proxy's password and are not used."""
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return self._of_proxy(error)
        cause = cause_of(error)
        if remedy := _TLS_CAUSES.get(cause):
            return BackendRejected(f"no TLS connection to {self.where}: {remedy}", public="backend_failed", cause=cause)
        if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
            return BackendRejected(
                "[anythingllm] base_url or proxy is no http or https address", cause="backend.address"
            )
        if isinstance(error, aiohttp.ClientResponseError):
            return BackendMalformed(
                f"{self.where} does not speak HTTP; check [anythingllm] base_url",
                retryable=True,
                cause="backend.address",
            )
        return BackendUnavailable(self._unreachable(error), cause=_SERVER_CAUSES.get(cause, cause))

    def quote(self, said: str) -> str:
        """The server's words for the operator: one line, shortened, without anything that may be a secret."""
        for value in self.hidden:
            said = said.replace(value, "***")
        said = _TOKEN.sub("***", _USERINFO.sub(r"\1", _QUERY.sub(r"\1", said)))
        said = " ".join("".join(c if c.isprintable() else " " for c in said).split())
        return said if len(said) <= _QUOTED else said[:_QUOTED] + "…"

    def _unexpected_success(self, kind: str) -> BackendError:
        if "html" in kind:
            # A maintenance page passes; a wrong address is told at the start, by `check` and in each failure.
            return BackendMalformed(
                f"{self.where} answered with a web page instead of an answer: wrong [anythingllm] base_url, "
                "or a login or maintenance page of a proxy in between",
                retryable=True,
                cause="backend.address",
            )
        return BackendMalformed(f"{self.where} answered with nothing that can be read", retryable=True)

    def _plain_status(self, status: int, headers: Mapping[str, str]) -> BackendError:
        if status >= 500 or status in _PASSING_STATUS:
            return BackendUnavailable(
                f"{self.where} is not available now (HTTP {status})",
                retry_after=retry_after(headers),
                cause=_passing_cause(status),
            )
        remedy, cause = _STATUS_CAUSES.get(status, ("check [anythingllm] base_url", "backend.refused"))
        public = "backend_failed" if status == 407 else None
        return BackendRejected(f"{self.where} answered HTTP {status}: {remedy}", public=public, cause=cause)

    def _of_proxy(self, error: aiohttp.ClientHttpProxyError) -> BackendError:
        if error.status == 407:
            return self._plain_status(407, {})
        if error.status >= 500 or error.status in _PASSING_STATUS:
            return BackendUnavailable(
                f"the proxy does not reach {self.where} (HTTP {error.status})",
                retry_after=retry_after(error.headers or {}),
                cause="proxy.refused",
            )
        return BackendRejected(
            f"the proxy does not let the bridge through to {self.where} (HTTP {error.status}): "
            "allow it there, or name the host in [anythingllm] no_proxy",
            public="backend_failed",
            cause="proxy.refused",
        )

    def _unreachable(self, error: Exception) -> str:
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            return f"the proxy for {self.where} cannot be reached; check [anythingllm] proxy and no_proxy"
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"no connection to {self.where} within the connect timeout"
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return f"the name of {self.where} cannot be resolved; check DNS and [anythingllm] base_url"
        if isinstance(error, aiohttp.ClientConnectorError):
            return f"{self.where} refuses connections or cannot be reached; is AnythingLLM running?"
        hint = "; if it wants a client certificate, set client_cert" if self.where.startswith("https") else ""
        return f"{self.where} closed the connection before the answer was whole{hint}"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` as seconds from now, given as a number or an HTTP date; None when absent or unreadable."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
        return min(float(value), LONGEST_RETRY_AFTER_S)
    until = _date(value)
    if until is None:
        return None
    # The server's own clock counts, where it shows it.
    now = _date(headers.get("Date", "")) or datetime.now(UTC)
    return min(max((until - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER_S)


_TLS_CAUSES: Mapping[str, str] = {
    "tls.untrusted": "its certificate is not trusted; put the issuing CA into [anythingllm] ca_file",
    "tls.expired": "its certificate, or that of its CA, has expired or is not valid yet; renew it, check the clock",
    "tls.name": "its certificate is for another name; write that name into [anythingllm] base_url",
    "tls.client_cert": "it wants another client certificate; check [anythingllm] client_cert and client_key",
    "tls.failed": "check that base_url's http or https fits, ca_file and client_cert",
}


def _abort_cause(status: int, said: str) -> str:
    if status in _BUSY_STATUS:
        return "backend.overloaded"
    return "backend.model_down" if status or _MODEL_DOWN.search(said) else "backend.failed"


def _passing_cause(status: int) -> str:
    if status in _BUSY_STATUS:
        return "backend.overloaded"
    return "backend.down" if status in (502, 504) else "backend.failed"


def _date(value: str) -> datetime | None:
    with suppress(ValueError, TypeError, OverflowError):
        moment = parsedate_to_datetime(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _said(body: bytes) -> str:
    with suppress(BackendMalformed):
        value = read_object(body)
        said = value.get("error") or value.get("message")
        return said if isinstance(said, str) else ""
    return ""
