"""Asking a scripted AnythingLLM, for tests; every failure is checked to show no secret."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable

import pytest

from dingbridge.backends.anythingllm import AnythingLLM, Limits
from dingbridge.errors import BackendError
from dingbridge.model import Answer, Secret
from dingbridge.net import Network
from tests.anythingllm_peer import Peer, Proxy

KEY = "KEYKEY1-KEYKEY2-KEYKEY3-KEYKEY4"
FULL = (
    "根据《差旅报销标准》，一线城市住宿费上限为每晚 600 元，二线城市为每晚 400 元；"
    "报销需在出差结束后 15 个自然日内提交，并附电子发票。"
)
ONCE = Limits(attempts=1, connect_s=2, first_token_s=2, idle_s=0.3, total_s=20)
QUICK = Limits(attempts=4, connect_s=2, first_token_s=5, idle_s=5, total_s=30, wait_initial_s=0.01, wait_max_s=0.02)


async def ask(
    peer: Peer,
    *,
    question: str = "北京出差住宿费标准是多少？",
    workspace: str = "finance",
    mode: str = "query",
    limits: Limits = ONCE,
    on_text: Callable[[str], None] | None = None,
) -> Answer:
    async with AnythingLLM(base_url=peer.url, api_key=Secret(KEY), mode=mode, limits=limits) as backend:
        return await backend.ask(question, workspace=workspace, session="s-1", on_text=on_text)


def client(url: str, limits: Limits = QUICK, network: Network | None = None, **more: object) -> AnythingLLM:
    told = more.get("on_retry")
    return AnythingLLM(
        base_url=url,
        api_key=Secret(KEY),
        limits=limits,
        network=network,
        on_retry=told,  # type: ignore[arg-type] # handed through
    )


async def failure(url: str, limits: Limits = QUICK, network: Network | None = None) -> BackendError:
    """The error of one ask, checked to hold no secret anywhere."""
    async with client(url, limits, network) as backend:
        with pytest.raises(BackendError) as caught:
            await backend.ask("问", workspace="finance", session="s")
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    for secret in (KEY, Proxy.password, "p%40ss", "bridge:"):
        assert secret not in shown
    assert caught.value.__context__ is None
    return caught.value


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
