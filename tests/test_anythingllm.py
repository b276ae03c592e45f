"""The AnythingLLM client against recorded exchanges and the table of failures, over real sockets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from dingbridge.backends.anythingllm import Limits
from dingbridge.errors import BackendError, BackendMalformed, BackendRejected, BackendUnavailable
from tests.anythingllm_asking import FULL, KEY, ask
from tests.anythingllm_peer import (
    STREAM_HEAD,
    Act,
    Peer,
    Script,
    abort,
    answer,
    chunk,
    event,
    finalize,
    recording,
    replay,
    stream,
    token,
)

CUT = "根据《差旅报销标准》，一"


@dataclass(frozen=True)
class Recorded:
    name: str
    text: str
    sources: tuple[str, ...] = ()
    refused: bool = False
    partial: bool = False


ANSWERED = [
    Recorded("50-", FULL, ("差旅报销标准 2026",)),
    Recorded("51-", "知识库中没有找到相关内容。", refused=True),
    Recorded("55-", FULL, ("差旅报销标准 2026",)),
    Recorded("56-", FULL, ("差旅报销标准 2026",)),
    Recorded("57-", FULL, ("差旅报销标准 2026",)),
    Recorded("67-", CUT, partial=True),
    Recorded("68-", CUT, partial=True),
    Recorded("69-", CUT, partial=True),
    Recorded("71-", CUT, partial=True),
    Recorded("108-", "（没有检索到资料）收到：今天几号？"),
    Recorded("109-", "（没有检索到资料）收到：北京出差住宿费标准是多少？"),
    Recorded("140-", "根据《差旅报销标准》，一线城市住宿费上限为每晚 600", partial=True),
    Recorded("146-", FULL, ("差旅报销标准 2026",)),
    Recorded("185-", FULL, ("travel-policy-2026.txt",)),
]


@pytest.mark.parametrize("cut", [0, 1, 7, 1000])
@pytest.mark.parametrize("expected", ANSWERED, ids=lambda expected: expected.name)
async def test_recorded_streams_become_answers(expected: Recorded, cut: int) -> None:
    """Every recorded stream with text gives its answer, however the bytes are cut."""
    async with Peer(replay(expected.name, cut)) as peer:
        got = await ask(peer)
    assert got.text == expected.text
    assert (got.refused, got.partial, got.tries) == (expected.refused, expected.partial, 1)
    assert tuple(source.title for source in got.sources[:1]) == expected.sources
    assert got.first_token_s is not None


FAILED: list[tuple[str, type[BackendError], bool, str, str]] = [
    ("52-", BackendMalformed, False, "Message is empty", "question.empty"),
    ("53-", BackendRejected, False, "not a valid workspace", "backend.workspace"),
    ("54-", BackendRejected, False, "api_key_file", "backend.key"),
    ("59-", BackendMalformed, False, "empty, apart from reasoning", "backend.empty"),
    ("65-", BackendUnavailable, True, "500 fake provider error 500", "backend.model_down"),
    ("66-", BackendUnavailable, True, "Connection error.", "backend.model_down"),
    ("70-", BackendMalformed, False, "empty", "backend.empty"),
    ("142-", BackendUnavailable, True, "silent", "backend.slow"),
    ("148-", BackendUnavailable, True, "Failed to embed: 500", "backend.model_down"),
    ("151-", BackendUnavailable, True, "Failed to embed: Connection error", "backend.model_down"),
    ("201-", BackendUnavailable, True, "500 fake provider error 500", "backend.model_down"),
    ("207-", BackendUnavailable, True, "startsWith is not a function", "backend.failed"),
    ("22-", BackendMalformed, True, "web page", "backend.address"),
    ("23-", BackendMalformed, True, "web page", "backend.address"),
    ("47-", BackendMalformed, True, "web page", "backend.address"),
    ("209-", BackendMalformed, True, "web page", "backend.address"),
    ("210-", BackendMalformed, True, "web page", "backend.address"),
]


@pytest.mark.parametrize(("name", "kind", "retryable", "words", "cause"), FAILED, ids=lambda value: str(value)[:4])
async def test_recorded_failures_become_errors(
    name: str, kind: type[BackendError], retryable: bool, words: str, cause: str
) -> None:
    """Every recorded failure gives its error, with the words an operator looks for, and its cause."""
    limits = Limits(attempts=1, connect_s=2, first_token_s=0.3, idle_s=0.3, total_s=20)
    async with Peer(replay(name)) as peer:
        with pytest.raises(kind) as caught:
            await ask(peer, limits=limits)
    assert caught.value.retryable is retryable
    assert caught.value.cause == cause
    assert words in caught.value.detail


TABLE: dict[str, tuple[Script, type[BackendError], bool, str, str]] = {
    "empty 200": (answer(200, "", ""), BackendMalformed, True, "nothing that can be read", "backend.unreadable"),
    "empty json": (answer(200, "{}"), BackendMalformed, True, "nothing that can be read", "backend.unreadable"),
    "json list": (answer(200, "[]"), BackendMalformed, True, "no JSON object", "backend.unreadable"),
    "json abort": (answer(200, abort("429 slow down")[6:]), BackendUnavailable, True, "429", "backend.overloaded"),
    "html 502": (answer(502, "<html>", "text/html"), BackendUnavailable, True, "HTTP 502", "backend.down"),
    "html 500": (answer(500, "<html>", "text/html"), BackendUnavailable, True, "HTTP 500", "backend.failed"),
    "html 503": (answer(503, "<html>", "text/html"), BackendUnavailable, True, "HTTP 503", "backend.overloaded"),
    "html 504": (answer(504, "<html>", "text/html"), BackendUnavailable, True, "HTTP 504", "backend.down"),
    "html 429": (answer(429, "<html>", "text/html"), BackendUnavailable, True, "HTTP 429", "backend.overloaded"),
    "html 403": (answer(403, "<html>", "text/html"), BackendRejected, False, "in front of", "backend.blocked"),
    "html 401": (answer(401, "<html>", "text/html"), BackendRejected, False, "login", "backend.blocked"),
    "html 404": (answer(404, "<html>", "text/html"), BackendRejected, False, "base_url", "backend.address"),
    "html 400": (answer(400, "<html>", "text/html"), BackendRejected, False, "HTTP 400", "backend.refused"),
    "json 400": (answer(400, '{"error":"strange"}'), BackendRejected, False, "HTTP 400", "backend.refused"),
    "html 413": (answer(413, "<html>", "text/html"), BackendRejected, False, "body limit", "backend.too_large"),
    "teapot": (answer(418, "", "text/html"), BackendRejected, False, "HTTP 418", "backend.refused"),
    "redirect": (
        answer(302, "", "", Location="http://x.example/?k=1"),
        BackendRejected,
        False,
        "redirects",
        "backend.address",
    ),
    "bad mode": (
        answer(400, abort("automatic is not a valid mode.")[6:]),
        BackendRejected,
        False,
        "[anythingllm] mode",
        "backend.mode",
    ),
    "abort 401": (stream(abort("401 bad key sk-12345")), BackendRejected, False, "refuses", "backend.model"),
    "abort 403": (stream(abort("403 no")), BackendRejected, False, "refuses", "backend.model"),
    "abort 404": (stream(abort("404 model not found")), BackendRejected, False, "model not found", "backend.model"),
    "500 of 401": (answer(500, abort("401 bad key")[6:]), BackendRejected, False, "refuses", "backend.model"),
    "embed 401": (stream(abort("OpenAI Failed to embed: 401 no")), BackendRejected, False, "refuses", "backend.model"),
    "abort 429": (stream(abort("429 too many")), BackendUnavailable, True, "429 too many", "backend.overloaded"),
    "abort 503": (stream(abort("503 loading")), BackendUnavailable, True, "503 loading", "backend.overloaded"),
    "fetch failed": (stream(abort("fetch failed")), BackendUnavailable, True, "fetch failed", "backend.model_down"),
    "no completion": (
        stream(abort("No text completion could be completed with this input.")),
        BackendMalformed,
        False,
        "No text completion",
        "backend.empty",
    ),
    "agent 401": (
        stream(event(type="textResponse", textResponse="The agent model failed to respond: 401 key")),
        BackendRejected,
        False,
        "refuses",
        "backend.model",
    ),
    "error without abort": (
        stream(event(type="textResponse", textResponse=None, error="500 oh")),
        BackendUnavailable,
        True,
        "500 oh",
        "backend.model_down",
    ),
    "no event": (stream(), BackendMalformed, True, "empty stream", "backend.empty"),
    "no answer": (stream(event(type="usageMetrics")), BackendUnavailable, True, "before it began", "backend.cut"),
    "object text": (stream(token({}), finalize()), BackendMalformed, False, "no text", "backend.unreadable"),
    "number text": (stream(token(7), finalize()), BackendMalformed, False, "no text", "backend.unreadable"),
    "null text": (stream(token(None, close=True), finalize()), BackendMalformed, False, "empty", "backend.empty"),
    "object whole": (
        stream(event(type="textResponse", textResponse={})),
        BackendMalformed,
        False,
        "no text",
        "backend.unreadable",
    ),
    "think null": (
        stream(token("<think>嗯</think>null"), finalize()),
        BackendMalformed,
        False,
        "empty",
        "backend.empty",
    ),
    "no json": (stream(b"data: {oops\n\n"), BackendMalformed, True, "no JSON object", "backend.unreadable"),
    "nested": (
        stream(b"data: " + b"[" * 200_000 + b"\n\n"),
        BackendMalformed,
        True,
        "no JSON object",
        "backend.unreadable",
    ),
    "huge event": (stream(b"data: " + b"x" * 1_100_000), BackendMalformed, False, "more than", "backend.unreadable"),
    "endless comments": (
        [STREAM_HEAD, *[chunk((b": " + b"hi " * 300 + b"\n") * 1_330)] * 10],
        BackendMalformed,
        False,
        "more than",
        "backend.unreadable",
    ),
    "cut head": (
        [b"HTTP/1.1 200 OK\r\nContent-", Act.CLOSE],
        BackendUnavailable,
        True,
        "closed the connection",
        "backend.cut",
    ),
    "closed": ([Act.CLOSE], BackendUnavailable, True, "closed the connection", "backend.cut"),
    "reset": ([Act.RESET], BackendUnavailable, True, "closed the connection", "backend.cut"),
    "cut stream": (stream(b": hi\n\n", Act.CLOSE), BackendUnavailable, True, "closed the connection", "backend.cut"),
    "no http": ([b"SSH-2.0-x\r\n\r\n", Act.CLOSE], BackendMalformed, True, "does not speak HTTP", "backend.address"),
}


@pytest.mark.parametrize("case", TABLE)
async def test_each_failure_is_classified(case: str) -> None:
    """The table of failures: class, retryable, the words that name the remedy, and the cause."""
    script, kind, retryable, words, cause = TABLE[case]
    async with Peer(script) as peer:
        with pytest.raises(BackendError) as caught:
            await ask(peer)
    assert (type(caught.value), caught.value.retryable, caught.value.cause) == (kind, retryable, cause)
    assert words in caught.value.detail
    assert caught.value.__context__ is None


COMMENTS: Script = [b": hi\n\n", 0.05] * 20

PARTIAL: dict[str, Script] = {
    "reset": stream(token("前半"), Act.RESET, end=False),
    "closed": stream(token("前半"), Act.CLOSE, end=False),
    "ended properly but early": stream(token("前半")),
    "abort": stream(token("前半"), abort("500 x"), token("后半"), finalize(sources=[{"title": "a"}])),
    "idle": stream(token("前半"), Act.HANG),
    "kept alive by comments only": stream(token("前半"), *COMMENTS, Act.HANG),
    "broken json": stream(token("前半") + b"data: {\n\n"),
    "error in chunk": stream(token("前半"), event(type="textResponseChunk", textResponse="", error="boom")),
    "huge event": stream(token("前半"), b"data: " + b"x" * 1_100_000),
    "think behind": stream(token("前半<think>想"), Act.CLOSE),
}


@pytest.mark.parametrize("case", PARTIAL)
async def test_text_before_a_failure_is_kept(case: str) -> None:
    """Whatever happens after the first token, the text so far is the answer, marked, and not asked again."""
    limits = Limits(attempts=3, idle_s=0.3, total_s=20, wait_initial_s=0.01)
    async with Peer(PARTIAL[case]) as peer:
        got = await ask(peer, limits=limits)
    assert (got.text, got.partial, got.tries, got.sources) == ("前半", True, 1, ())
    assert len(peer.asked) == 1


WHOLE: dict[str, Script] = {
    "no finalize": stream(token("全文", close=True)),
    "no finalize, no end": stream(token("全文", close=True), Act.HANG),
    "no terminator": stream(token("全文"), finalize(), Act.HANG),
    "unknown events": stream(event(type="later", x=[1]), token("全文", extra={"a": 1}), event(a=1), finalize()),
    "replaced": stream(token("旧"), event(type="textResponse", textResponse="全文"), finalize()),
    "replaced at the end": stream(token("旧"), finalize(textResponse="全文")),
    "one json": answer(200, event(type="textResponse", textResponse="全文", chatId=3)[6:]),
    "crlf and bom": stream(b"\xef\xbb\xbfevent: x\r\nid: 1\r\n" + token("全文")[:-2] + b"\r\n\r\n", finalize()),
    "last event without its blank line": stream(token("全文"), finalize()[:-2]),
    "done marker": stream(token("全文", close=True), b"data: [DONE]\n\n"),
    "reasoning before a stray end tag": stream(token("先想想"), token("</thi"), token("nk>\n\n全文"), finalize()),
}


@pytest.mark.parametrize("case", WHOLE)
async def test_variants_of_a_whole_answer(case: str) -> None:
    """What older, newer and agent streams look like is read as the same whole answer."""
    async with Peer(WHOLE[case]) as peer:
        got = await ask(peer)
    assert (got.text, got.partial, got.refused) == ("全文", False, False)


async def test_the_end_of_a_stream_is_not_waited_for() -> None:
    """After the last event the answer is there, also when the server never ends its stream."""
    async with Peer(stream(token("全文"), finalize(), Act.HANG)) as peer:
        got = await ask(peer, limits=Limits(idle_s=60, total_s=60))
        async with asyncio.timeout(10):
            await peer.left.wait()
    assert got.text == "全文"


async def test_the_request_says_all_it_has_to() -> None:
    """Message, mode and session are always sent, with the key, to the slug; nothing is compressed."""
    async with Peer(replay("50-")) as peer:
        await ask(peer, question="  /reset 住宿费？ ", mode="chat", workspace="finance")
    (request,) = peer.asked
    assert request.target == "/api/v1/workspace/finance/stream-chat"
    assert request.json == {"message": "／reset 住宿费？", "mode": "chat", "sessionId": "s-1"}
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("question", ["", "  \n", "\u200b\u202e\x00"])
async def test_an_empty_question_is_not_sent(question: str) -> None:
    """What has no readable character is an error without a request."""
    async with Peer() as peer:
        with pytest.raises(BackendMalformed, match="nothing was asked"):
            await ask(peer, question=question)
    assert peer.requests == []


async def test_a_long_question_is_cut_and_told() -> None:
    """Over 8,000 characters only the beginning is asked, and the answer says so."""
    async with Peer(replay("50-")) as peer:
        got = await ask(peer, question="住宿，" * 4_000)
    assert got.question_cut
    assert len(peer.asked[0].json["message"]) == 8_000


async def test_refusal_needs_query_mode_and_a_lone_text() -> None:
    """The same event is no refusal in chat mode, nor when anything came before it or its chat id is there."""
    lone = event(type="textResponse", textResponse="没有", sources=[], close=True, error=None, metrics={})
    async with Peer(stream(lone)) as peer:
        assert (await ask(peer)).refused
        assert not (await ask(peer, mode="chat")).refused
        for other in (
            stream(event(type="agentThought", thought="…"), lone),
            stream(lone, finalize(textResponse="没有")),
            stream(event(type="textResponse", textResponse="没有", chatId=4)),
        ):
            peer.scripts = [other]
            got = await ask(peer)
            assert (got.text, got.refused) == ("没有", False)


async def test_progress_shows_the_whole_text_without_reasoning() -> None:
    """on_text gets the growing text, never a piece of reasoning or of a tag."""
    seen: list[str] = []
    async with Peer(replay("56-", 40)) as peer:
        got = await ask(peer, on_text=seen.append)
    assert seen[-1] == got.text == FULL
    assert all(FULL.startswith(text) for text in seen)
    assert len(seen) == len(set(seen)) > 5


async def test_an_emoji_cut_in_half_is_whole_again() -> None:
    """Two halves of a surrogate pair in two events are one character; a lone half can still be encoded."""
    halves = b'data: {"type":"textResponseChunk","textResponse":"\\ud83d"}\n\n'
    halves += b'data: {"type":"textResponseChunk","textResponse":"\\ude00 \\ud83d!"}\n\n'
    async with Peer(stream(halves, finalize())) as peer:
        got = await ask(peer)
    assert got.text == "😀 \ufffd!"


async def test_sources_come_from_the_last_event_that_has_some() -> None:
    """Before version 1.9 sources stood in the chunks; an empty list later does not take them away."""
    async with Peer(stream(token("全文", sources=[{"title": "手册.pdf"}]), finalize(sources=[]))) as peer:
        got = await ask(peer)
    assert [source.title for source in got.sources] == ["手册.pdf"]


def test_the_recordings_are_all_used() -> None:
    """Each recorded stream is in one of the tables above."""
    used = {expected.name for expected in ANSWERED} | {name for name, *_ in FAILED} | {"01-", "02-", "03-", "16-"}
    assert all(recording(name)["response"]["status_line"] for name in used)
