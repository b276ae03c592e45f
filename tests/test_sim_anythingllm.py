"""The stand-in for AnythingLLM speaks like the real server: routes, keys in their order, bytes of a stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import ClientSession

from dingbridge.sim.anythingllm import AnythingLLM, Workspace, handbook_folder
from dingbridge.sim.retrieval import read_documents
from tests.sim_asking import (
    ABORT,
    ANSWER_BODY,
    ASSISTANT_ROW,
    BODY_METRICS,
    CHUNK,
    DOCUMENT,
    END,
    FOUND,
    FOUND_METADATA,
    JSON,
    LODGING,
    REFUSAL,
    REFUSED_BODY,
    REFUSED_STREAM,
    SOURCE,
    STREAM_METRICS,
    USER_ROW,
    WORKSPACE,
    ask,
    body,
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


async def test_health_and_key_routes_answer_like_the_real_server(server: AnythingLLM, client: ClientSession) -> None:
    """Ping needs no key; auth says yes with the right key, whatever the scheme's case, and 403 without."""
    async with aiohttp.ClientSession() as bare:
        async with bare.get(f"{server.url}/api/ping") as response:
            assert await response.json() == {"online": True}
        for header in ("", server.api_key, "Bearer WRONG"):
            async with bare.get(f"{server.url}/api/v1/auth", headers={"Authorization": header}) as response:
                assert response.status == 403
                assert await response.json() == {"error": "No valid api key found."}
        lower = {"Authorization": f"bearer {server.api_key}"}
        async with bare.get(f"{server.url}/api/v1/auth/", headers=lower) as response:
            assert await response.text() == '{"authenticated":true}'


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "api/v1/nope"),
        ("GET", "api/v1/workspace/handbook/chat"),
        ("POST", "v1/workspace/handbook/chat"),
        ("POST", "api//v1/workspace/handbook/chat"),
        ("POST", "api/v1/workspace/handbook/query"),
        ("GET", "api/health"),
        ("GET", ""),
    ],
)
async def test_everything_unknown_is_a_page_with_200(client: ClientSession, method: str, path: str) -> None:
    """A wrong route or method is answered by the front page, not by an error."""
    async with client.request(method, path, json={"message": "x"} if method == "POST" else None) as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert (await response.text()).startswith("<!DOCTYPE html>")


async def test_workspaces_are_listed_and_shown_in_the_real_shape(client: ClientSession) -> None:
    """The list and the single workspace carry the real keys; an unknown slug is an empty array with 200."""
    async with client.get("api/v1/workspaces") as response:
        (listed,) = (await response.json())["workspaces"]
    assert list(listed) == [*WORKSPACE, "threads"]
    assert (listed["slug"], listed["name"], listed["queryRefusalResponse"]) == ("handbook", "员工手册", REFUSAL)
    async with client.get("api/v1/workspace/handbook") as response:
        (shown,) = (await response.json())["workspace"]
    assert list(shown) == [*WORKSPACE, "documents", "threads"]
    assert len(shown["documents"]) == len(read_documents(handbook_folder()))
    assert list(shown["documents"][0]) == DOCUMENT
    assert list(json.loads(shown["documents"][0]["metadata"])) == SOURCE[:10]
    async with client.get("api/v1/workspace/no-such") as response:
        assert (response.status, await response.text()) == (200, '{"workspace":[]}')


async def test_an_answer_as_one_body_has_the_real_keys_in_order(client: ClientSession) -> None:
    """Body, metrics and each source of /chat carry the keys of a recorded answer, best source first."""
    status, answer = await post(client, body())
    assert status == 200
    assert list(answer) == ANSWER_BODY
    assert (answer["type"], answer["close"], answer["error"], answer["chatId"]) == (
        "textResponse",
        True,
        None,
        1,
    )
    assert list(answer["metrics"]) == BODY_METRICS
    assert 1 <= len(answer["sources"]) <= 4
    scores = [source["score"] for source in answer["sources"]]
    assert scores == sorted(scores, reverse=True)
    best = answer["sources"][0]
    assert list(best) == SOURCE
    assert best["title"] == "差旅报销标准.md"
    assert best["url"] == "file:///app/collector/hotdir/差旅报销标准.md"
    assert best["chunkSource"] == "link://https://wiki.example.com/policy/travel"
    assert best["text"].startswith("<document_metadata>\nsourceDocument: 差旅报销标准.md\npublished: ")
    assert "source: https://wiki.example.com/policy/travel\n</document_metadata>\n\n" in best["text"]
    assert best["score"] == pytest.approx(1 - best["_distance"])


async def test_a_document_without_a_link_has_an_empty_chunk_source(client: ClientSession) -> None:
    """Uploads that came from no web page carry no link."""
    answer = await ask(client, "办公WiFi的密码规则是什么？")
    assert answer["sources"][0]["title"] == "办公网络与 WiFi 使用指南.md"
    assert answer["sources"][0]["chunkSource"] == ""


async def test_a_stream_ends_with_an_empty_chunk_and_a_finalizing_event(client: ClientSession) -> None:
    """Small chunks, an empty one that closes, then chatId, metrics and sources; text as in /chat."""
    events = await streamed(client, body())
    *chunks, last, end = events
    assert len(chunks) > 3
    assert all(list(event) == CHUNK and event["close"] is False for event in chunks)
    assert (last["textResponse"], last["close"], last["error"]) == ("", True, False)
    assert list(end) == END
    assert (end["type"], end["error"], end["chatId"]) == ("finalizeResponseStream", False, 1)
    assert list(end["metrics"]) == STREAM_METRICS
    assert list(end["sources"][0]) == SOURCE
    assert {event["uuid"] for event in events} == {end["uuid"]}
    _, same = await post(client, body(session="other"))
    assert text_of(events) == same["textResponse"]


async def test_a_refusal_has_no_chat_id_and_no_sources(client: ClientSession) -> None:
    """Query mode refuses what the documents do not say, in the recorded shape of body and stream."""
    question = body("火星上有生命吗")
    status, answer = await post(client, question)
    assert (status, list(answer)) == (200, REFUSED_BODY)
    (event,) = await streamed(client, question)
    assert list(event) == REFUSED_STREAM
    for refused in (answer, event):
        assert (refused["type"], refused["textResponse"], refused["error"]) == ("textResponse", REFUSAL, None)
        assert (refused["sources"], refused["metrics"]) == ([], {})


async def test_chat_mode_answers_generally_where_query_mode_refuses(client: ClientSession) -> None:
    """The mode decides; without one the workspace's own counts."""
    _, general = await post(client, body("火星上有生命吗", mode="chat"))
    assert list(general) == ANSWER_BODY
    assert (general["sources"], general["textResponse"] == REFUSAL) == ([], False)
    _, default = await post(client, {"message": "火星上有生命吗", "sessionId": "s"})
    assert default["textResponse"] == REFUSAL


@pytest.mark.parametrize("route", ["chat", "stream-chat"])
@pytest.mark.parametrize(
    ("slug", "payload", "error"),
    [
        ("no-such", body(), "Workspace no-such is not a valid workspace."),
        ("handbook", body(""), "Message is empty"),
        ("handbook", body(42), "Message is empty"),
        ("handbook", {"mode": "query"}, "Message is empty"),
        ("handbook", body(mode="banana"), "banana is not a valid mode."),
    ],
)
async def test_what_is_not_accepted_is_an_abort_with_400(
    server: AnythingLLM, client: ClientSession, route: str, slug: str, payload: JSON, error: str
) -> None:
    """Bad input is refused as JSON on both routes, uses up no fault and is not counted as asked."""
    server.faults.append("down")
    async with client.post(f"api/v1/workspace/{slug}/{route}", json=payload) as response:
        assert (response.status, response.content_type) == (400, "application/json")
        answer = await response.json()
    assert list(answer) == ABORT
    assert (answer["type"], answer["error"]) == ("abort", error)
    assert (len(server.faults), server.asked) == (1, [])


async def test_a_body_that_is_no_json_is_a_page_with_400(client: ClientSession) -> None:
    """Express answers a broken body before the route does."""
    async with client.post("api/v1/workspace/handbook/chat", data=b'{"message": ') as response:
        assert (response.status, response.content_type) == (400, "text/html")


async def test_vector_search_lists_passages_in_the_real_shape(client: ClientSession) -> None:
    """Results carry author, tokenCount and distance; a miss is an empty list; an empty query is refused."""
    _, found = await post(client, {"query": "一线城市住宿费上限", "topN": 3}, "vector-search")
    assert 1 <= len(found["results"]) <= 3
    assert list(found["results"][0]) == FOUND
    assert list(found["results"][0]["metadata"]) == FOUND_METADATA
    assert await post(client, {"query": "xylophone quantum zebra"}, "vector-search") == (200, {"results": []})
    assert (await post(client, {"query": ""}, "vector-search"))[0] == 400


async def test_a_workspace_without_documents_finds_nothing() -> None:
    """It refuses every question in its own words and says that nothing is embedded."""
    async with (
        AnythingLLM(workspaces={"empty": Workspace("空", None, refusal="没有。")}) as server,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {server.api_key}"}) as client,
    ):
        async with client.post(f"{server.url}/api/v1/workspace/empty/chat", json=body()) as response:
            assert (await response.json())["textResponse"] == "没有。"
        url = f"{server.url}/api/v1/workspace/empty/vector-search"
        async with client.post(url, json={"query": "x"}) as response:
            assert (await response.json())["message"] == "No embeddings found for this workspace."


async def chats(client: ClientSession, **query: str) -> list[JSON]:
    async with client.get("api/v1/workspace/handbook/chats", params=query) as response:
        rows: list[JSON] = (await response.json())["history"]
        return rows


async def test_chats_of_a_session_are_kept_apart_and_listed(client: ClientSession) -> None:
    """Two rows an exchange, refusals among them, limited and ordered as asked, per session."""
    await ask(client, LODGING, "a")
    await ask(client, "火星上有生命吗", "a")
    await ask(client, "年假有几天？", "b")
    rows = await chats(client, apiSessionId="a")
    assert [row["content"] for row in rows[::2]] == [LODGING, "火星上有生命吗"]
    assert (list(rows[0]), list(rows[1])) == (USER_ROW, ASSISTANT_ROW)
    assert (rows[1]["type"], rows[1]["sources"][0]["title"]) == ("query", "差旅报销标准.md")
    newest = await chats(client, apiSessionId="a", limit="1", orderBy="desc")
    assert [row["content"] for row in newest] == ["火星上有生命吗", REFUSAL]
    assert await chats(client) == []


async def test_a_reset_makes_a_session_forget_but_not_another(server: AnythingLLM, client: ClientSession) -> None:
    """After reset a follow-up finds nothing to lean on; the other session still does."""
    for session in ("a", "b"):
        await ask(client, LODGING, session)
    status, said = await post(client, {"reset": True, "sessionId": "a"})
    assert (status, list(said), said["textResponse"]) == (200, REFUSED_STREAM, "Chat history was reset!")
    assert (await ask(client, "那国外呢？", "a"))["textResponse"] == REFUSAL
    assert "美元" in (await ask(client, "那国外呢？", "b"))["textResponse"]
    await post(client, {"reset": True})
    assert not any(row.included for row in server.history("handbook", "b"))
