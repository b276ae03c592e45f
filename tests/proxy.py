"""A forward proxy that carries WebSockets, and knows names that no resolver knows."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from tests.anythingllm_peer import Proxy, Request


@dataclass
class TunnelProxy(Proxy):
    """addresses: name to local port. refused: names answered with 403. `tunnels` counts the lines of requests."""

    addresses: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    @property
    def tunnels(self) -> Counter[str]:
        return Counter(self.lines)

    @property
    def credentials(self) -> str:
        return "bridge:p%40ss%2Fword-7"

    def url(self, credentials: str | None = None) -> str:
        return f"http://{self.credentials if credentials is None else credentials}@127.0.0.1:{self.port}"

    async def _forward(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connect = request.method == "CONNECT"
        name, _, port = (request.target if connect else request.target.split("/")[2]).partition(":")
        if name in self.refused:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.addresses.get(name) or int(port))
        try:
            if connect:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                up_writer.write(_origin_form(request))
            async with asyncio.TaskGroup() as both:
                ways = [both.create_task(_pass_on(reader, up_writer)), both.create_task(_pass_on(up_reader, writer))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
        finally:
            up_writer.transport.abort()
            writer.transport.abort()


def _origin_form(request: Request) -> bytes:
    """For the server itself, and the last one on its connection unless it asks for an upgrade."""
    kept = {key: value for key, value in request.headers.items() if not key.startswith("proxy-")}
    if "upgrade" not in kept:
        kept["connection"] = "close"
    path = "/" + request.target.split("/", 3)[3]
    lines = [f"{request.method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in kept.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + request.body


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
