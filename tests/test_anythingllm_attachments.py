"""Pictures and documents with a question: in AnythingLLM's shape, and honest about what was not looked at."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dingbridge import trail
from dingbridge.backends import attachments as shapes
from dingbridge.backends.anythingllm import AnythingLLM
from dingbridge.backends.attachments import enclose, mode_for
from dingbridge.model import Answer, Attachment, Secret
from dingbridge.sim.anythingllm import AnythingLLM as Server
from dingbridge.sim.anythingllm import Workspace
from dingbridge.sim.anythingllm_files import Attached, source_of
from dingbridge.store.codec import decode_answer, encode_answer
from tests.anythingllm_asking import KEY, ONCE, QUICK, client
from tests.anythingllm_peer import Act, Peer, answer, finalize, recording, replay, stream, token

PNG = Attachment("a.png", "image/png", b"\x89PNG\r\n\x1a\n" + b"\0" * 60)
NOTES = Attachment("会议纪要.txt", "text/plain", "会议纪要：下周三上线新版报销系统。".encode())
NOTHING = "xylophone quantum zebra"


def pixel() -> Attachment:
    """The picture of the recording."""
    (sent,) = recording("119-")["request"]["body"]["attachments"]
    return Attachment(sent["name"], sent["mime"], base64.b64decode(sent["contentString"].partition(",")[2]))


async def ask(url: str, *files: Attachment, question: str = "何时上线？", mode: str = "query", **how: Any) -> Answer:
    key = how.get("key", KEY)
    async with AnythingLLM(base_url=url, api_key=Secret(key), mode=mode, limits=how.get("limits", ONCE)) as backend:
        return await backend.ask(question, workspace=how.get("workspace", "finance"), session="s", attachments=files)


@pytest.mark.parametrize(("name", "sent"), [("119-", pixel()), ("120-", NOTES)])
async def test_the_shape_is_the_recorded_one(name: str, sent: Attachment) -> None:
    """What goes out is, but for a document's unique name, what the real server was seen to take."""
    async with Peer(replay(name)) as peer:
        await ask(peer.url, sent)
    body, known = peer.asked[0].json, recording(name)["request"]["body"]
    (entry,), (expected,) = body["attachments"], known["attachments"]
    assert peer.asked[0].headers["content-type"] == "application/json"
    assert set(body) == set(known)
    assert list(entry) == list(expected)
    assert {**entry, "name": ""} == {**expected, "name": ""}
    assert entry["name"].startswith(expected["name"].partition(".")[0])


async def test_a_document_that_was_read_is_a_source() -> None:
    """Its own entry among the sources says so [120]; a collector that is down leaves none, and that is told [154]."""
    async with Peer(replay("120-")) as peer:
        found = await ask(peer.url, NOTES)
    assert (found.unread, [one.title for one in found.sources]) == ((), ["会议纪要.txt"])
    followed = trail.Trail()
    async with Peer(replay("154-")) as peer:
        with trail.follow(followed):
            found = await ask(peer.url, NOTES)
    assert found.unread == ("会议纪要.txt",)
    assert [one.facts["cause"] for one in followed.steps if one.name == "backend.unread"] == ["backend.collector"]
    assert decode_answer(encode_answer(found)) == found


@pytest.mark.parametrize(
    ("configured", "files", "mode"),
    [
        ("query", (), "query"),
        ("query", (PNG,), "chat"),
        ("query", (NOTES,), "query"),
        ("query", (NOTES, PNG), "chat"),
        ("automatic", (PNG,), "automatic"),
        ("chat", (NOTES,), "chat"),
    ],
)
def test_pictures_are_asked_about_in_chat_mode(configured: str, files: tuple[Attachment, ...], mode: str) -> None:
    """Query mode would refuse a picture the documents say nothing about; everything else keeps the mode."""
    assert mode_for(configured, files) == mode


async def test_against_the_stand_in() -> None:
    """Pictures are seen, documents are read and called by the asker's name, and a dropped one is noticed."""
    async with Server() as server:
        how: dict[str, Any] = {"key": server.api_key, "workspace": "handbook", "question": NOTHING}
        seen = await ask(server.url, PNG, **how)
        assert "a.png”（image/png，68 字节）我看到了" in seen.text
        assert (seen.refused, seen.unread) == (False, ())
        read = await ask(server.url, NOTES, **how)
        assert "下周三上线" in read.text
        assert ([one.title for one in read.sources], read.unread) == (["会议纪要.txt"], ())
        assert (await ask(server.url, **how)).refused
        server.collector_down = True
        dropped = await ask(server.url, NOTES, **how)
        assert (dropped.refused, dropped.unread) == (True, ("会议纪要.txt",))
        both = await ask(server.url, NOTES, PNG, **how)
        assert ("a.png" in both.text, both.refused, both.unread) == (True, False, ("会议纪要.txt",))
        assert [one.mode for one in server.asked] == ["chat", "query", "query", "query", "chat"]
        names = [one.name for one in server.asked[1].attachments]
        assert names != ["会议纪要.txt"]


async def test_an_empty_workspace_refuses_whatever_is_attached() -> None:
    """Query mode gives up before it looks at a document where nothing at all is embedded."""
    async with Server(workspaces={"empty": Workspace("空", None)}) as server:
        found = await ask(server.url, NOTES, key=server.api_key, workspace="empty")
        assert (found.refused, found.unread) == (True, ("会议纪要.txt",))


def test_the_stand_ins_source_has_the_recorded_keys() -> None:
    """Key by key as the real server lists a parsed document."""
    file = Attached("会议纪要.txt", "text/plain", 51, True, NOTES.content.decode())
    (known,) = recording("120-")["response"]["body_json"]["sources"]
    made = source_of(file, datetime(2026, 11, 22, 7, 27, 17, tzinfo=UTC))
    assert list(made) == list(known)
    for key in ("text", "url", "title", "docSource", "wordCount", "token_count_estimate", "isDirectUpload"):
        assert made[key] == known[key], key


async def test_two_people_with_the_same_file_name_do_not_meet() -> None:
    """The server keeps attachments in one folder by name: another session or content is another name."""

    async def name(session: str, content: bytes) -> str:
        sent = await enclose({"sessionId": session}, [Attachment("报销单.xlsx", "x/y", content)])
        assert isinstance(sent.body, bytes)
        return str(json.loads(sent.body)["attachments"][0]["name"])

    names = {await name("s", b"1"), await name("s", b"2"), await name("t", b"1")}
    assert len(names) == 3
    assert all(one.startswith("报销单-") and one.endswith(".xlsx") for one in names)
    assert await name("s", b"1") in names


async def test_a_large_file_is_encoded_beside_the_loop_and_sent_again() -> None:
    """Two megabytes arrive whole at each attempt, and the loop is never theirs while they are encoded."""
    large = Attachment("大.txt", "text/plain", b"x" * 2_000_000)
    ran_in: list[bool] = []
    real = shapes._enclosed

    def watched(fields: dict[str, Any], files: Any) -> Any:
        try:
            asyncio.get_running_loop()
            ran_in.append(True)
        except RuntimeError:
            ran_in.append(False)
        return real(fields, files)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "_enclosed", watched)
        async with Peer([Act.RESET], stream(token("好。"), token("", close=True), finalize(sources=[]))) as peer:
            found = await ask(peer.url, large, limits=QUICK)
    assert ran_in == [False]
    assert (found.tries, found.unread) == (2, ("大.txt",))
    for asked in peer.asked:
        assert base64.b64decode(asked.json["attachments"][0]["contentString"].partition(",")[2]) == large.content


async def test_nothing_is_claimed_of_an_answer_that_broke_off() -> None:
    """The sources come with the last event: without it nobody knows whether a document was read."""
    async with Peer(stream(token("好"), Act.RESET)) as peer:
        found = await ask(peer.url, NOTES)
    assert (found.partial, found.unread) == (True, ())


async def test_without_attachments_nothing_changes() -> None:
    """The key is not even sent."""
    async with Peer() as peer, client(peer.url) as backend:
        await backend.ask("问", workspace="finance", session="s")
        assert set(peer.asked[0].json) == {"message", "mode", "sessionId"}
    async with Peer(answer(413, "too large", "text/plain")) as peer:
        with pytest.raises(Exception, match="413"):
            await ask(peer.url, NOTES)


entries = st.dictionaries(st.sampled_from(["isDirectUpload", "title"]), st.none() | st.booleans() | st.text(max_size=3))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.none() | st.text(max_size=3) | entries, max_size=4))
def test_sources_of_any_shape(sources: list[Any]) -> None:
    """What stands among the sources can be anything; names are looked for, nothing fails."""
    sent = shapes._enclosed({"sessionId": "s"}, [NOTES])
    assert sent.unread(sources) in ((), ("会议纪要.txt",))
    assert len(sent.named(sources)) == len(sources)
