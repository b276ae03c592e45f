"""AnythingLLM's developer API as HTTP: address, key, proxy, limits; plain JSON answers and their faults."""

from __future__ import annotations

import asyncio
import io
import re
from typing import Any

import aiohttp
from yarl import URL

from dingbridge.backends.faults import Faults
from dingbridge.backends.sse import read_object
from dingbridge.errors import BackendError, BackendMalformed, BackendRejected, BackendUnavailable
from dingbridge.model import Secret
from dingbridge.net import BodyTooLarge, Network, read_capped

MAX_BODY = 8 * 1024 * 1024
MAX_ERROR_BODY = 1024 * 1024
KEEPALIVE_S = 3.5  # the server closes idle connections after 5 s; a question on a closing one would be lost
PLAIN_TIMEOUT_S = 15.0  # everything but a question answers within milliseconds


class Api:
    """One server. Everything it raises from a request is a BackendError, except while a stream is read."""

    def __init__(self, base_url: str, key: Secret, network: Network, *, connect_s: float) -> None:
        self._root = api_root(base_url)
        self._key = key
        self._network = network
        self._proxy = network.proxy_for(self._root)
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_s, sock_connect=connect_s)
        self._http: aiohttp.ClientSession | None = None
        self.faults = Faults(where=_origin(self._root), hidden=_hidden(key, network.proxy))

    def open(self) -> None:
        self._http = self._network.open_session(keepalive_s=KEEPALIVE_S, plain_calls=True)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    def request(self, method: str, path: str, *, accept: str, body: object = None) -> Any:
        """An aiohttp request context. `path` is percent-encoded and stands behind `/api/v1/`; bytes are JSON."""
        if self._http is None:
            raise RuntimeError("open the client with `async with` first")
        key = self._key.reveal()
        if not re.fullmatch(r"[!-~]+", key):
            raise BackendRejected(
                "the API key is empty or no key at all; check [anythingllm] api_key_file", cause="backend.key"
            )
        return self._http.request(
            method,
            URL(f"{self._root}/{path}", encoded=True),
            json=None if isinstance(body, bytes) else body,
            data=io.BytesIO(body) if isinstance(body, bytes) else None,  # read in pieces, as a large one must be
            headers={
                **({"Content-Type": "application/json"} if isinstance(body, bytes) else {}),
                "Authorization": f"Bearer {key}",
                "Accept": accept,
                "Accept-Encoding": "identity",
                "User-Agent": "dingbridge",
            },
            proxy=self._proxy,
            timeout=self._timeout,
            allow_redirects=False,
        )

    async def get(self, path: str) -> dict[str, Any]:
        """A JSON object from one of the plain endpoints, within 15 s."""
        fault: BackendError
        try:
            async with (
                asyncio.timeout(PLAIN_TIMEOUT_S),
                self.request("GET", path, accept="application/json") as response,
            ):
                body = await read_capped(response, MAX_BODY)
                if response.status == 200 and response.content_type == "application/json":
                    return read_object(body)
                fault = self.fault_of(response, body)
        except BackendError as error:
            fault = error
        except BodyTooLarge:
            fault = BackendMalformed(f"AnythingLLM sent more than {MAX_BODY} bytes")
        except aiohttp.ClientError as error:
            fault = self.faults.of_client(error)
        except TimeoutError:
            fault = BackendUnavailable(f"{self.faults.where} does not answer in time", cause="backend.slow")
        except OSError as error:
            fault = self.faults.of_client(error)
        raise fault

    def fault_of(self, response: aiohttp.ClientResponse, body: bytes) -> BackendError:
        return self.faults.of_status(response.status, response.headers, response.content_type, body)


def api_root(base_url: str) -> URL:
    """`http://host:3001`, with or without `/`, `/api` or `/api/v1` → `http://host:3001/api/v1`."""
    address = re.split(r"[?#]", base_url.strip())[0].rstrip("/")
    try:
        return URL(re.sub(r"/api(?:/v1)?$", "", address).rstrip("/") + "/api/v1").with_user(None)
    except ValueError:
        return URL("/api/v1")


def _origin(url: URL) -> str:
    return str(url.origin()) if url.absolute else "[anythingllm] base_url"


def _hidden(key: Secret, proxy: Secret) -> tuple[str, ...]:
    values = {key.reveal()}
    if proxy:
        address = URL(proxy.reveal())
        values |= {proxy.reveal(), address.password or "", address.raw_password or ""}
    return tuple(sorted(filter(None, values), key=len, reverse=True))
