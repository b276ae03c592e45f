"""What happens to text on its way: questions cleaned, events parsed, reasoning removed, sources grouped."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dingbridge.backends.assembly import Assembly
from dingbridge.backends.question import MAX_QUESTION, MAX_RUN, clean_question
from dingbridge.backends.reasoning import ReasoningFilter
from dingbridge.backends.sources import group_sources
from dingbridge.backends.sse import EventStream
from dingbridge.errors import BackendMalformed
from tests.anythingllm_peer import event, events_of, recording, token

CLEANED = {
    "  住宿标准？\r\n第二行\r第三行 ": "住宿标准？\n第二行\n第三行",
    "零\u200b宽\u2060\ufeff": "零宽",
    "\u202e反\u2066向\u2069": "反向",
    "响\x07铃\x00\x1b[31m": "响铃[31m",
    "e\u0301": "é",
    "ＡＢＣ１２３，㈱": "ＡＢＣ１２３，㈱",
    "全角\u3000空格\u00a0": "全角 空格",
    "段\u2028落\u0085行": "段\n落\n行",
    "代\tif": "代\tif",
    "标签\U000e0041\U000e0042 变体\ufe0f\U000e0101": "标签 变体",
    "\u3164\u115f\u2800填充": "填充",
    "表情👍": "表情👍",
    "\ud83d\ude00 半个\ud83d": "😀 半个\ufffd",
    "生僻字\ue863\U000323b5": "生僻字\ue863\U000323b5",
    "@agent 查天气": "＠ agent 查天气",
    "  @AGENT hi": "＠ AGENT hi",
    "\u200b@agent": "＠ agent",
    "＠agent": "＠ agent",
    "@agents": "＠ agents",
    "问 @agent": "问 @agent",
    "@张三 你好": "@张三 你好",
    "/reset": "／reset",
    "先 /help 后\n/img\t/x": "先 ／help 后\n／img\t／x",
    "\u200b/reset": "／reset",
    "/etc/hosts 在哪": "／etc/hosts 在哪",
    "和/或 1 / 2 https://a.b/c": "和/或 1 / 2 https://a.b/c",
    "a" + " " * 5000 + "b": "a b",
    "a" + "\n" * 5000 + "b": "a\nb",
    "\u200b\u202e \x00": "",
    "": "",
}


@pytest.mark.parametrize("raw", CLEANED, ids=lambda raw: ascii(raw)[:40])
def test_questions_are_cleaned(raw: str) -> None:
    """The table of tricks and what is sent instead; nothing in it is told as cut."""
    assert clean_question(raw) == (CLEANED[raw], False)


def longest_run(text: str) -> int:
    """The longest stretch a tokenizer takes as one word: letters, digits and marks, or symbols."""
    words = ("L", "N", "M")
    kinds = "".join(" " if c.isspace() else ("w" if unicodedata.category(c)[0] in words else "s") for c in text)
    return max((len(run) for run in re.findall(r"w+|s+", kinds)), default=0)


@pytest.mark.parametrize("unit", ["住", "a1", "!", "👍", "é", "ก\u0e33", "ก\u0e31", "）", "字\u0301"])
def test_long_runs_are_broken(unit: str) -> None:
    """No run of letters or of symbols is longer than 200 characters; punctuated text stays as it is."""
    cleaned, cut = clean_question(unit * 6_000)
    assert longest_run(cleaned) <= MAX_RUN
    assert cut is (len(unit) * 6_000 > MAX_QUESTION * 200 / 201)
    assert len(cleaned) <= MAX_QUESTION
    punctuated = "根据制度，住宿标准是多少？" * 500
    assert clean_question(punctuated) == (punctuated, False)


def test_the_cut_is_told_only_when_something_was_cut() -> None:
    """8,000 characters pass whole, one more is cut, and a megabyte is cut without being read whole."""
    assert clean_question("住。" * 4_000) == ("住。" * 4_000, False)
    assert clean_question("住。" * 4_000 + "宿") == ("住。" * 4_000, True)
    cleaned, cut = clean_question("住。" * 500_000)
    assert (len(cleaned), cut) == (MAX_QUESTION, True)


TRICKY = st.text(st.sampled_from("@＠agentAGENT/ \n\t\u200b\u202e\ufe0f\u3164住宿，。!é\u0301\ud83d\ude00😀x1\r\u2028"))


@given(st.one_of(st.text(), TRICKY, TRICKY.map(lambda text: text * 300)))
@example("!" * 200 + "/reset")
@example("a" * 200 + "\u0301" * 300)
def test_cleaned_questions_keep_their_promises(raw: str) -> None:
    """Cleaning is idempotent, encodable and bounded, and leaves nothing AnythingLLM would obey."""
    cleaned, cut = clean_question(raw)
    assert clean_question(cleaned) == (cleaned, False)
    assert len(cleaned.encode("utf-16-le")) <= 4 * MAX_QUESTION
    assert len(cleaned) <= MAX_QUESTION
    assert cut or len(raw) <= MAX_QUESTION * 4
    assert not re.match(r"\s*[@＠]agent", unicodedata.normalize("NFKC", cleaned), re.IGNORECASE)
    assert not re.search(r"(^|\s)/[A-Za-z0-9_-]", cleaned)
    assert not any(unicodedata.category(c) in ("Cf", "Cs", "Cc") for c in cleaned if c not in "\n\t")
    assert cleaned == cleaned.strip()
    assert longest_run(cleaned) <= 2 * MAX_RUN  # marks may stand between a run of each kind


def parse(pieces: Iterable[bytes], max_event: int = 100_000) -> tuple[list[dict[str, Any]], bool]:
    """All events and whether the stream was malformed."""
    stream = EventStream(max_event)
    events: list[dict[str, Any]] = []
    try:
        for piece in pieces:
            events.extend(stream.feed(piece))
        events.extend(stream.close())
    except BackendMalformed:
        return events, True
    return events, False


def cuts(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


STREAMS = ["50-", "56-", "57-", "59-", "67-", "70-", "108-", "185-", "201-"]
LINE = [b'data: {"a":"\xe4\xbd\x8f"}', b'data:{"b":1}', b"data: {", b"data: }", b": hi", b"event: x", b"", b"\r"]
LINE += [b"data: [DONE]", b"id: 3", b"data: [1]", b"\xef\xbb\xbf", b"data: {}\r", b"data: \xff"]
LINES = st.lists(st.sampled_from(LINE), max_size=12).map(b"\n".join)
RECORDED = st.sampled_from(STREAMS).map(lambda name: recording(name)["response"]["body_text"].encode())


@given(st.one_of(LINES, RECORDED), st.lists(st.integers(0, 20_000), max_size=40))
def test_parsing_does_not_depend_on_the_chunks(data: bytes, places: list[int]) -> None:
    """However the bytes are cut, the same events come, and the same streams are malformed."""
    whole = parse([data])
    assert parse(cuts(data, places)) == whole
    assert parse(bytes([byte]) for byte in data) == whole


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_streams_are_parsed_whole(name: str) -> None:
    """The parser finds exactly the events that were recorded."""
    assert parse([recording(name)["response"]["body_text"].encode()]) == (list(events_of(name)), False)


def test_an_event_over_the_cap_stops_the_stream() -> None:
    """One long line, and many lines of one event, are refused; what came before is kept."""
    assert parse([token("x") + b"data: " + b"y" * 300], 200) == ([json.loads(token("x")[6:])], True)
    assert parse([b"data: 1234567890\n" * 30], 200) == ([], True)
    assert parse([b"data: " + b"y" * 300], 200) == ([], True)


def visible(pieces: Iterable[str]) -> str:
    seen = ReasoningFilter()
    for piece in pieces:
        seen.feed(piece)
    seen.close()
    return seen.text


REASONED = {
    "答": "答",
    "<think>想</think>答": "答",
    "<THINK>想</Think>\n\n答": "答",
    "<thinking>想</thinking>答": "答",
    "前<think>想</think>后": "前后",
    "<think>一</think>甲<think>二</think>乙": "甲乙",
    "<think>没关": "",
    "甲<think>没关": "甲",
    "<think></think>": "",
    "<think>想</think>null": "",
    "<think>想</think> null\n": "",
    "<think>想</think>nullable": "nullable",
    "<think>想</think>n": "n",
    "想</think>答": "答",
    "想</think>答</think>完": "答完",
    "null": "null",
    "a<b, <thin 结束 <think": "a<b, <thin 结束 <think",
    "<thin\u212a>不是": "<thin\u212a>不是",
    "<<think>想</think>答": "<答",
    "<think>a < b </thin </think>答": "答",
}


@pytest.mark.parametrize("text", REASONED)
def test_reasoning_is_removed(text: str) -> None:
    """The table of tags; also cut into single characters."""
    assert visible([text]) == REASONED[text]
    assert visible(text) == REASONED[text]


PIECES = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<thinking>", "</THINK>", "<thi", "nk>", "<", "/", ">", "n", "null", "答", " "]
    )
)


@given(PIECES)
def test_reasoning_does_not_depend_on_the_chunks(pieces: list[str]) -> None:
    """However the text is cut, the same is shown at the end, and no tag of reasoning is left open in it."""
    whole = visible(["".join(pieces)])
    assert visible(pieces) == whole
    assert visible("".join(pieces)) == whole


@given(st.lists(st.sampled_from(["<think>", "密", "</think>", "<", "答", "</", "think", ">"])))
def test_what_was_shown_early_is_never_reasoning(pieces: list[str]) -> None:
    """After an opening tag nothing of what follows is shown before its closing tag, at any moment."""
    seen = ReasoningFilter()
    seen.feed("<think>")
    for piece in pieces:
        if piece == "</think>":
            break
        seen.feed(piece.replace("</", "").replace("think", "").replace(">", ""))
        assert seen.text == ""


@given(st.sampled_from(STREAMS), st.integers(0, 30))
def test_assembly_ignores_everything_after_the_end(name: str, extra: int) -> None:
    """Events behind the last one, and behind an abort, change nothing."""
    assembly, again = Assembly(), Assembly()
    for each in events_of(name):
        assembly.add(each)
        again.add(each)
    if not again.finished:
        return
    for _ in range(extra):
        again.add(json.loads(token("mehr")[6:]))
        again.add(json.loads(event(type="abort", error="late")[6:]))
    assert (again.text, again.abort, again.complete) == (assembly.text, assembly.abort, assembly.complete)


KEY_NAMES = ["type", "textResponse", "sources", "error", "close", "chatId", "metrics", "title", "text", "score"]
KEYS = st.sampled_from([*KEY_NAMES, "_distance", "chunkSource", "url", "published", "description"])
JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=12,
)
EVENTS = st.dictionaries(KEYS, JSONISH, max_size=8).flatmap(
    lambda fields: st.sampled_from(["abort", "textResponse", "textResponseChunk", "finalizeResponseStream", "x"]).map(
        lambda kind: {**fields, "type": kind}
    )
)


@given(st.lists(EVENTS, max_size=6))
def test_any_json_is_survived(events: list[dict[str, Any]]) -> None:
    """Wrong types anywhere in an event raise nothing and give text that can be encoded."""
    assembly = Assembly()
    for each in events:
        assembly.add(each)
    assembly.close()
    shown = [assembly.text]
    for source in group_sources(assembly.sources):
        shown += [source.title, source.text, source.url]
        assert source.title
    assert all(isinstance(text.encode(), bytes) for text in shown)
