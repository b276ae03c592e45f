"""Time limits, retries, connections, proxy and TLS of the AnythingLLM client, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dingbridge.backends.anythingllm import Limits
from dingbridge.backends.api import KEEPALIVE_S
from dingbridge.errors import BackendUnavailable, BridgeError
from tests.anythingllm_asking import client, failure, free_port
from tests.anythingllm_peer import (
    GOOD,
    Act,
    Peer,
    Script,
    abort,
    answer,
    finalize,
    replay,
    stream,
    token,
)

COMMENTS: Script = [b": hi\n\n", 0.05] * 100
BUSY = stream(abort("503 model is loading"))


async def test_retries_until_it_works() -> None:
    """Retryable failures before the first token are repeated; every one is told, the answer counts the tries."""
    told: list[tuple[BridgeError, int, float]] = []

    def on_retry(error: BridgeError, attempt: int, pause: float) -> None:
        told.append((error, attempt, pause))

    scripts: list[Script] = [BUSY, [Act.RESET], answer(502, "", "text/html"), GOOD]
    async with Peer(*scripts) as peer, client(peer.url, on_retry=on_retry) as backend:
        got = await backend.ask("问", workspace="finance", session="s")
    assert (got.text, got.tries, got.partial) == ("好的。", 4, False)
    assert [attempt for _, attempt, _ in told] == [1, 2, 3]
    assert all(isinstance(error, BackendUnavailable) and pause > 0 for error, _, pause in told)
    assert len({request.body for request in peer.asked}) == 1


async def test_the_last_error_is_told_when_attempts_are_spent() -> None:
    """After the last attempt its own error comes, with everything in it and the number of tries."""
    last = answer(503, "", "text/html", Retry_After="0.001")
    async with Peer(BUSY, BUSY, BUSY, last) as peer:
        error = await failure(peer.url)
    assert type(error) is BackendUnavailable
    assert (error.retryable, error.retry_after, error.certain) == (True, 0.001, True)
    assert error.cause == "backend.overloaded"
    assert "HTTP 503" in error.detail
    assert error.detail.endswith("(tried 4 times)")
    assert len(peer.asked) == 4


@pytest.mark.parametrize("script", [replay("54-"), stream(abort("401 key")), stream(token(""), finalize())])
async def test_what_cannot_get_better_is_tried_once(script: Script) -> None:
    """A refused key, a provider's 401 and an empty answer are not repeated."""
    async with Peer(script) as peer:
        error = await failure(peer.url)
    assert not error.retryable
    assert len(peer.asked) == 1


async def test_nothing_is_repeated_after_the_first_token() -> None:
    """Even reasoning that nobody saw counts: the server keeps what it wrote in the session's history."""
    async with Peer(stream(token("<think>先想"), Act.RESET, end=False)) as peer:
        error = await failure(peer.url)
    assert error.retryable
    assert len(peer.asked) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_the_servers_delay_is_kept(status: int) -> None:
    """Retry-After is waited for before the next attempt, though our own pause would be shorter."""
    pauses: list[float] = []
    scripts = [answer(status, "", "text/html", Retry_After="0.4"), GOOD]
    loop = asyncio.get_running_loop()
    async with (
        Peer(*scripts) as peer,
        client(peer.url, on_retry=lambda _error, _attempt, pause: pauses.append(pause)) as backend,
    ):
        began = loop.time()
        got = await backend.ask("问", workspace="finance", session="s")
    assert got.tries == 2
    assert len(pauses) == 1
    assert 0.4 <= pauses[0] <= loop.time() - began


async def test_a_delay_beyond_the_deadline_is_handed_on() -> None:
    """When the server asks for more time than is left, the error comes at once and carries the delay."""
    async with Peer(answer(503, "", "text/html", Retry_After="3600")) as peer:
        error = await failure(peer.url)
    assert (error.retryable, error.retry_after) == (True, 3600)
    assert len(peer.asked) == 1


async def test_total_time_bounds_all_attempts() -> None:
    """However many attempts are allowed, the whole ask ends with its total time."""
    limits = Limits(attempts=10_000, connect_s=2, first_token_s=0.1, idle_s=1, total_s=0.5, wait_initial_s=0.05)
    async with Peer([Act.HANG]) as peer:
        async with asyncio.timeout(20):
            error = await failure(peer.url, limits)
    assert error.retryable
    assert error.cause == "backend.slow"
    assert 2 <= len(peer.asked) < 10


async def test_total_time_cuts_a_stream() -> None:
    """A stream that never stops talking ends with the total time and keeps its text."""
    chatter: Script = [token("字"), 0.05]
    limits = Limits(attempts=2, idle_s=5, total_s=0.5)
    async with Peer(stream(*chatter * 400)) as peer, client(peer.url, limits) as backend:
        async with asyncio.timeout(15):
            got = await backend.ask("问", workspace="finance", session="s")
    assert got.partial
    assert set(got.text) == {"字"}
    assert len(peer.asked) == 1


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([Act.HANG], "silent for 0.2 s"),
        (replay("142-"), "silent for 0.2 s"),
        (stream(*COMMENTS), "silent for 0.2 s"),
        (stream(token(""), Act.HANG), "stopped in the middle for 0.3 s"),
    ],
    ids=["no head", "no event", "comments only", "nothing visible"],
)
async def test_silence_is_noticed(script: Script, words: str) -> None:
    """No first token, and no next event, are each noticed by their own limit; the connection is left."""
    limits = Limits(attempts=1, connect_s=2, first_token_s=0.2, idle_s=0.3, total_s=30)
    async with Peer(script) as peer:
        error = await failure(peer.url, limits)
    assert words in error.detail
    assert error.retryable
    assert error.cause == "backend.slow"


async def test_slow_tokens_are_no_silence() -> None:
    """A stream may take longer than the first-token limit and the idle limit together."""
    slow: Script = [0.25, token("慢")]
    limits = Limits(attempts=1, first_token_s=2, idle_s=2, total_s=30)
    async with Peer(stream(*slow * 12, finalize())) as peer, client(peer.url, limits) as backend:
        got = await backend.ask("问", workspace="finance", session="s")
    assert (got.text, got.partial) == ("慢" * 12, False)


@contextmanager
def full_listener() -> Iterator[int]:
    """A port whose accept queue is full: connecting neither succeeds nor fails."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port: int = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        try:
            yield port
        finally:
            for each in waiting:
                each.close()


async def test_connecting_is_bounded() -> None:
    """A host that swallows connection attempts is given up after the connect timeout."""
    limits = Limits(attempts=2, connect_s=0.2, first_token_s=30, total_s=30, wait_initial_s=0.01)
    with full_listener() as port:
        async with asyncio.timeout(15):
            error = await failure(f"http://127.0.0.1:{port}", limits)
    assert "connect timeout" in error.detail
    assert error.cause == "backend.down"
    assert error.retryable
    assert "tried 2 times" in error.detail


@pytest.mark.parametrize(
    ("url", "words", "cause"),
    [
        ("http://127.0.0.1:{port}", "is AnythingLLM running", "backend.down"),
        ("http://no-such-host.invalid", "cannot be resolved", "dns"),
    ],
)
async def test_unreachable_servers_are_told(url: str, words: str, cause: str) -> None:
    """A refused connection and an unknown name are retryable and name the remedy."""
    error = await failure(url.format(port=free_port()), Limits(attempts=1))
    assert isinstance(error, BackendUnavailable)
    assert words in error.detail
    assert error.cause == cause


async def test_cancelling_leaves_at_once() -> None:
    """A cancelled ask ends as cancelled and closes its connection; nothing is tried again."""
    async with Peer(stream(token("前半"), Act.HANG)) as peer, client(peer.url) as backend:
        shown = asyncio.Event()

        def on_text(_text: str) -> None:
            shown.set()

        task = asyncio.create_task(backend.ask("问", workspace="finance", session="s", on_text=on_text))
        await shown.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            await peer.left.wait()
    assert len(peer.asked) == 1


async def test_cancelling_a_pause_leaves_at_once() -> None:
    """An ask that waits for its next attempt can be cancelled as well."""
    paused = asyncio.Event()
    async with (
        Peer(answer(503, "", "text/html", Retry_After="20")) as peer,
        client(peer.url, on_retry=lambda *_: paused.set()) as backend,
    ):
        task = asyncio.create_task(backend.ask("问", workspace="finance", session="s"))
        await paused.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(peer.asked) == 1


async def test_an_error_of_the_listener_is_not_hidden() -> None:
    """What on_text raises reaches the caller and is not taken for a failure of the server."""

    def broken(_text: str) -> None:
        raise LookupError("mine")

    async with Peer() as peer, client(peer.url) as backend:
        with pytest.raises(LookupError, match="mine"):
            await backend.ask("问", workspace="finance", session="s", on_text=broken)
    assert len(peer.asked) == 1


def test_idle_connections_are_dropped_before_the_server_does() -> None:
    """The server announces `Keep-Alive: timeout=5`; a second is left for a busy machine."""
    assert KEEPALIVE_S <= 4


async def test_connections_are_used_again() -> None:
    """Questions one after the other share a connection, as streams are read to their end."""
    async with Peer() as peer, client(peer.url) as backend:
        for _ in range(5):
            await backend.ask("问", workspace="finance", session="s")
    assert peer.connections == 1


@pytest.mark.parametrize("idle_s", [0.0, 0.01, 0.05])
async def test_a_server_closing_idle_connections_loses_no_question(idle_s: float) -> None:
    """Whenever the server closes its idle side, the next question is answered."""
    async with Peer(close_idle_s=0.05) as peer, client(peer.url) as backend:
        for _ in range(12):
            got = await backend.ask("问", workspace="finance", session="s")
            assert got.text == "好的。"
            await asyncio.sleep(idle_s)


async def test_many_questions_at_once() -> None:
    """A hundred questions run side by side on one client, each with its own answer."""
    async with Peer(stream(token("答"), 0.2, token("完"), finalize())) as peer, client(peer.url) as backend:
        asks = [backend.ask(f"问{number}", workspace="finance", session=f"s{number}") for number in range(100)]
        got = await asyncio.gather(*asks)
    assert {each.text for each in got} == {"答完"}
    assert {request.json["sessionId"] for request in peer.asked} == {f"s{number}" for number in range(100)}


async def test_a_client_that_was_not_opened_says_so() -> None:
    """Forgetting `async with` is a mistake in the program, not a failure of the server."""
    with pytest.raises(RuntimeError, match="async with"):
        await client("http://127.0.0.1:9").check_key()
