"""The stand-in for AnythingLLM breaks as asked, notices who leaves, and closes promptly."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import get_args

import aiohttp
import pytest
import trustme
from aiohttp import ClientSession

from dingbridge.sim.anythingllm import AnythingLLM, Fault
from tests.sim_asking import (
    ABORT,
    ABORT_MIDWAY,
    BARE_END,
    CHUNK,
    END,
    LODGING,
    LONG,
    REFUSAL,
    SOURCE,
    ask,
    body,
    pieces,
    post,
    streamed,
    text_of,
)


@pytest.fixture
async def server() -> AsyncIterator[AnythingLLM]:
    async with AnythingLLM() as running:
        yield running


@pytest.fixture
async def client(server: AnythingLLM) -> AsyncIterator[ClientSession]:
    headers = {"Authorization": f"Bearer {server.api_key}"}
    async with aiohttp.ClientSession(f"{server.url}/", headers=headers) as session:
        yield session


@pytest.mark.parametrize("route", ["chat", "stream-chat"])
@pytest.mark.parametrize(
    ("fault", "status", "kind", "start"),
    [
        ("http429", 429, "text/plain", "429 Too Many Requests"),
        ("http500", 500, "text/plain", "500 Internal Server Error"),
        ("http502_html", 502, "text/html", "<html>\r\n<head><title>502 Bad Gateway"),
        ("http503_html", 503, "text/html", "<html>\r\n<head><title>503 Service"),
        ("html", 200, "text/html", "<!DOCTYPE html>"),
        ("empty", 200, "application/json", ""),
        ("empty_json", 200, "application/json", "{}"),
        ("bad_key", 403, "application/json", '{"error":"No valid api key found."}'),
    ],
)
async def test_faults_before_the_model_strike_one_chat(
    server: AnythingLLM, client: ClientSession, route: str, fault: Fault, status: int, kind: str, start: str
) -> None:
    """Each is told once, with its status, type and body, and the next chat is good again."""
    server.faults.append(fault)
    server.retry_after_s = 2
    async with client.post(f"api/v1/workspace/handbook/{route}", json=body()) as response:
        assert (response.status, response.content_type) == (status, kind)
        assert (await response.text()).startswith(start)
        assert response.headers.get("Retry-After") == ("2" if fault.startswith("http") else None)
    assert (await ask(client, LODGING))["error"] is None


@pytest.mark.parametrize(("fault", "error"), [("abort", "500 "), ("abort_429", "429 "), ("abort_401", "401 ")])
async def test_a_failing_model_is_one_abort(
    server: AnythingLLM, client: ClientSession, fault: Fault, error: str
) -> None:
    """As a stream it is 200 with one event, as a body it is 500; nothing is stored."""
    server.fault = fault
    (event,) = await streamed(client, body())
    status, answer = await post(client, body())
    assert status == 500
    for failed in (event, answer):
        assert list(failed) == ABORT
        assert failed["type"] == "abort"
        assert failed["error"].startswith(error)
    assert server.history("handbook", "s") == []


async def test_a_model_that_dies_midway_aborts_and_still_finalizes(server: AnythingLLM, client: ClientSession) -> None:
    """Text, the abort, then a finalizing event without an error, and the cut text in the history."""
    server.faults.extend(["abort_after_text", "abort_after_text"])
    events = await streamed(client, body())
    *chunks, failed, end = events
    assert chunks
    assert text_of(chunks)
    assert (list(failed), failed["type"], failed["error"]) == (ABORT_MIDWAY, "abort", "Premature close")
    assert (list(end), end["error"], end["chatId"]) == (END, False, 1)
    assert end["sources"]
    assert [row.text for row in server.history("handbook", "s")] == [text_of(chunks)]
    status, answer = await post(client, body())
    assert (status, answer["error"]) == (500, "Premature close")


async def test_thinking_comes_in_split_tags(server: AnythingLLM, client: ClientSession) -> None:
    """The tags fall between two chunks; the answer follows them; one that only thinks never closes them."""
    server.faults.extend(["think", "think_only", "think_only"])
    events = await streamed(client, body())
    assert [event["textResponse"] for event in events[:2]] == ["<thi", "nk>先查一查制"]
    assert text_of(events).startswith("<think>先查一查制度。</think>根据《差旅报销标准》")
    events = await streamed(client, body())
    assert text_of(events) == "<think>只想不答"
    assert list(events[-1]) == BARE_END
    _, answer = await post(client, body())
    assert answer["textResponse"] == "<think>只想不答</think>null"


async def test_an_empty_answer_ends_bare(server: AnythingLLM, client: ClientSession) -> None:
    """A stream closes without chatId and sources; a body is an abort with 200 and metrics."""
    server.fault = "empty_answer"
    last, end = await streamed(client, body())
    assert (list(last), last["close"], list(end)) == (CHUNK, True, BARE_END)
    status, answer = await post(client, body())
    assert (status, list(answer)) == (200, [*ABORT, "metrics"])
    assert answer["error"] == "No text completion could be completed with this input."


async def test_an_object_may_stand_where_the_text_should(server: AnythingLLM, client: ClientSession) -> None:
    """A known bug of the real server: textResponse is {} and error null."""
    server.fault = "object_text"
    _, answer = await post(client, body())
    assert (answer["textResponse"], answer["error"]) == ({}, None)
    assert (await streamed(client, body()))[0]["textResponse"] == {}


async def test_a_refusal_can_be_forced(server: AnythingLLM, client: ClientSession) -> None:
    """Whatever the documents say, and also over an answer that was set."""
    server.fault = "refuse"
    server.answer = lambda _: "不会说出来"
    (event,) = await streamed(client, body())
    assert event["textResponse"] == REFUSAL


@pytest.mark.parametrize("route", ["chat", "stream-chat"])
async def test_down_resets_the_connection_of_every_request(
    server: AnythingLLM, client: ClientSession, route: str
) -> None:
    """Once for a chat from the queue; on every route while it is sticky; good again afterwards."""
    server.faults.append("down")
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.post(f"api/v1/workspace/handbook/{route}", json=body())
    server.fault = "down"
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.get("api/ping")
    server.fault = None
    assert (await ask(client, LODGING))["error"] is None


async def test_down_is_a_reset_and_no_orderly_end(server: AnythingLLM) -> None:
    """The peer sees ECONNRESET where a plain close would read as the end of the data."""
    server.fault = "down"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    writer.write(b"GET /api/ping HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_sticky_page_hits_health_routes_too(server: AnythingLLM, client: ClientSession) -> None:
    """A broken proxy or a lost key is seen on every route; a broken model only on chats."""
    seen: list[tuple[Fault, int]] = [("http502_html", 502), ("bad_key", 403), ("abort", 200)]
    for fault, status in seen:
        server.fault = fault
        async with client.get("api/v1/auth") as response:
            assert response.status == status


async def test_cut_resets_after_some_text(server: AnythingLLM, client: ClientSession) -> None:
    """Some chunks arrive, then the connection breaks; a body breaks at once."""
    server.fault = "cut"
    async with client.post("api/v1/workspace/handbook/stream-chat", json=body()) as response:
        assert (await pieces(response, 1))[0]["textResponse"]
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    with pytest.raises(aiohttp.ClientError):
        await client.post("api/v1/workspace/handbook/chat", json=body())
    assert [(one.finished, one.cancelled) for one in server.asked] == [(False, False)] * 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [("stall", ""), ("stall_midway", LONG[:12]), ("no_finish", LONG), ("endless", LONG)],
)
async def test_a_client_that_leaves_a_hanging_stream_leaves_its_part_behind(
    server: AnythingLLM, client: ClientSession, fault: Fault, said: str
) -> None:
    """What was sent is stored as an answer, nothing if nothing was; the call is marked cancelled."""
    server.fault = fault
    server.answer = lambda _: LONG
    async with client.post("api/v1/workspace/handbook/stream-chat", json=body()) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        events = await pieces(response, -(-len(said) // 4))
        assert text_of(events) == said
        assert server.running == 1
        response.close()
    async with asyncio.timeout(10):
        await server.until(lambda: server.running == 0)
    (asked,) = server.asked
    assert (asked.cancelled, asked.finished) == (True, False)
    kept = [row.text for row in server.history("handbook", "s")]
    assert [text[: len(said)] for text in kept] == ([said] if said else [])


async def test_a_client_that_leaves_between_tokens_is_noticed(client: ClientSession, server: AnythingLLM) -> None:
    """A stream at a pace stops where the client left, and the part is in the history of the session."""
    server.answer = lambda _: LONG
    server.token_delay_s = 0.05
    async with client.post("api/v1/workspace/handbook/stream-chat", json=body()) as response:
        await pieces(response, 2)
        response.close()
    async with asyncio.timeout(10):
        await server.until(lambda: server.running == 0)
    (kept,) = server.history("handbook", "s")
    assert LONG.startswith(kept.text)
    assert 8 <= len(kept.text) < len(LONG)


async def test_a_body_nobody_waits_for_is_finished_and_stored(server: AnythingLLM, client: ClientSession) -> None:
    """Only streams are cancelled by their client; /chat answers into the history."""
    server.answer_delay_s = 0.3
    chat = asyncio.create_task(post(client, body()))
    async with asyncio.timeout(10):
        await server.until(lambda: server.running == 1)
        chat.cancel()
        await server.until(lambda: server.running == 0)
        await server.until(lambda: bool(server.history("handbook", "s")))
    assert server.asked[0].cancelled


async def test_slow_waits_before_the_first_token(client: ClientSession, server: AnythingLLM) -> None:
    """The delay lies before the text, and the text is whole."""
    server.fault = "slow"
    server.slow_s = 0.2
    began = asyncio.get_running_loop().time()
    events = await streamed(client, body())
    assert asyncio.get_running_loop().time() - began >= 0.2
    assert list(events[-1]) == END


async def test_calls_are_recorded_with_their_peak(server: AnythingLLM, client: ClientSession) -> None:
    """Who asked what, in which mode and with which headers, and how many at once."""
    server.answer = lambda question: f"答：{question}"
    server.answer_delay_s = 0.2
    asking = [post(client, body(f"问题{number}", f"s{number}")) for number in range(5)]
    answers = [answer for _, answer in await asyncio.gather(*asking)]
    assert {answer["textResponse"] for answer in answers} == {f"答：问题{number}" for number in range(5)}
    assert all(len(answer["sources"]) == 1 and list(answer["sources"][0]) == SOURCE for answer in answers)
    assert (server.peak, server.running) == (5, 0)
    first = server.asked[0]
    assert (first.workspace, first.mode, first.streamed, first.finished) == ("handbook", "query", False, True)
    assert first.headers["authorization"] == f"Bearer {server.api_key}"
    assert {(one.session, one.message) for one in server.asked} == {(f"s{n}", f"问题{n}") for n in range(5)}


async def test_closing_does_not_wait_for_hanging_handlers() -> None:
    """Twenty streams and bodies that would hang for ever end with the server."""
    async with (
        aiohttp.ClientSession() as client,
        asyncio.timeout(20),
        asyncio.TaskGroup() as group,
        AnythingLLM() as server,
    ):
        server.fault = "stall"
        headers = {"Authorization": f"Bearer {server.api_key}"}

        async def hang(route: str) -> None:
            url = f"{server.url}/api/v1/workspace/handbook/{route}"
            with pytest.raises(aiohttp.ClientError):
                async with client.post(url, json=body(), headers=headers) as response:
                    await response.read()

        for route in ["chat", "stream-chat"] * 10:
            group.create_task(hang(route))
        await server.until(lambda: server.running == 20)
    assert not server._detached


async def test_tls_is_served_with_a_given_context() -> None:
    """The address says https and a client that trusts the authority gets its answer."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    async with AnythingLLM(ssl_context=context) as server, aiohttp.ClientSession() as client:
        assert server.url.startswith("https://")
        async with client.get(f"{server.url}/api/ping", ssl=trust) as response:
            assert await response.json() == {"online": True}
        server.fault = "down"
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get(f"{server.url}/api/ping", ssl=trust)


@pytest.mark.parametrize("fault", get_args(Fault))
async def test_every_fault_is_over_when_it_is_taken_back(
    server: AnythingLLM, client: ClientSession, fault: Fault
) -> None:
    """Whatever a fault did to one chat, the next one is answered."""
    server.slow_s = 0.01
    server.faults.append(fault)
    try:
        async with asyncio.timeout(0.3):
            async with client.post("api/v1/workspace/handbook/stream-chat", json=body()) as response:
                await response.read()
    except (TimeoutError, aiohttp.ClientError):
        pass
    assert (await ask(client, LODGING, "next"))["chatId"]
