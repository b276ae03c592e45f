"""The demo page's server: what it shows, what it tells, and whom it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from dingbridge.demo.board import MESSAGES, UNREAD, WIRE, Board, Message, Wire
from dingbridge.demo.page import Page
from dingbridge.demo.people import cast
from dingbridge.demo.room import Room
from dingbridge.demo.switches import Switches
from tests.demo_visitor import Visitor, opened, visiting
from tests.house import until


@asynccontextmanager
async def alone() -> AsyncIterator[tuple[Room, Visitor]]:
    """A page over a gateway, without a daemon."""
    room = Room(cast(bare=False))
    async with room.gateway() as gateway, Page(room, Switches(room, gateway)) as page, visiting(page.url) as visitor:
        yield room, visitor


async def test_a_question_is_answered_and_the_wire_tells_how() -> None:
    """The chat shows the answer with its source, the wire each step; no secret, ticket or webhook is in either."""
    async with opened() as (stage, visitor):
        await visitor.say("年假有几天？")
        answer = await visitor.answer()
        state = await visitor.state()

        assert "请假与休假制度" in answer["text"]
        assert '<a href="https://wiki.example.com/' in answer["html"]["pc"]
        question = state["messages"][0]
        assert (question["from"], question["nick"], question["state"]) == ("zhangsan", "张三", "acked")
        assert question["webhook_expires_at"] - question["at"] == 5_400_000
        kinds = [row["kind"] for row in state["wire"]]
        for kind in ("process", "open", "connected", "frame", "ack", "backend", "webhook"):
            assert kind in kinds
        assert all(row["ok"] for row in state["wire"])
        assert state["daemon"]["running"]
        assert state["daemon"]["pid"] == stage.daemon.pid
        written = json.dumps(state, ensure_ascii=False)
        assert stage.backend is not None
        assert stage.gateway.tickets
        assert stage.gateway.sessions
        hidden = {stage.gateway.client_secret, stage.backend.api_key, *stage.gateway.tickets, *stage.gateway.sessions}
        assert not [secret for secret in hidden if secret in written]


async def test_the_daemon_is_shown_as_it_says_it_is() -> None:
    """Its status comes from its control socket, and goes with it."""
    async with opened() as (stage, visitor):
        state = await visitor.until(lambda state: state if state["daemon"]["ready"] else None)
        status = state["daemon"]["status"]
        assert status["pid"] == state["daemon"]["pid"]
        assert status["link"]["connected"]
        await stage.daemon.kill()
        state = await visitor.until(lambda state: state if not state["daemon"]["running"] else None)
        assert state["daemon"] == {"running": False, "pid": None, "ready": False, "status": None}


async def test_an_answer_in_a_group_names_who_asked() -> None:
    """A group message mentions the bot, the answer mentions the asker by name."""
    async with opened() as (_, visitor):
        await visitor.say("年假有几天？", "group", "lisi")
        answer = await visitor.answer(chat="group")
        question = (await visitor.state())["messages"][0]

        assert question["mentions"] == ["小问答"]
        assert answer["mentions"] == ["李四"]
        assert answer["text"].startswith("@李四")
        assert "@lisi" not in json.dumps(answer["html"])


async def test_an_open_page_is_told_what_happens() -> None:
    """Events bring each bubble as it comes and as it changes, the wire and the daemon's end."""
    async with opened() as (stage, visitor), visitor.events() as events:
        said = await visitor.say("年假有几天？")
        states: list[str] = []
        async with asyncio.timeout(60):
            async for event in events:
                message = event.get("message", {})
                if message.get("id") == said:
                    states.append(message["state"])
                if message.get("from") == "bot" and not message["notice"]:
                    break
        assert states == ["sent", "acked"]

        await stage.daemon.kill()
        async with asyncio.timeout(60):
            async for event in events:
                if event["type"] == "daemon" and not event["daemon"]["running"]:
                    break


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "attacker.example"}, 403),
        ({"Host": "127.0.0.1.attacker.example:8787"}, 403),
        ({"Origin": "http://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({}, 200),
    ],
)
async def test_only_the_page_itself_may_act(headers: dict[str, str], status: int) -> None:
    """A foreign Host, a foreign Origin and a form's content type are refused before anything happens."""
    async with alone() as (room, visitor):
        sent = {"Content-Type": "application/json", **headers}
        body = json.dumps({"chat": "zhangsan", "as": "zhangsan", "text": "你好"})
        async with visitor.http.post(f"{visitor.url}/api/say", data=body, headers=sent) as response:
            assert response.status == status
        assert len(room.board.messages) == (1 if status == 200 else 0)


async def test_a_foreign_host_may_not_even_read() -> None:
    """A name that was rebound to this machine gets nothing; localhost by any port does, as through ssh -L."""
    async with alone() as (_, visitor):
        for host, status in (
            ("rebound.example", 403),
            ("localhost:9000", 200),
            ("[::1]:9000", 200),
            ("localhost", 200),
        ):
            async with visitor.http.get(f"{visitor.url}/api/state", headers={"Host": host}) as response:
                assert response.status == status, host


async def test_files_are_served_with_a_strict_policy() -> None:
    """Only files of the static folder are served, with their type, and no page of ours may run a stranger's script."""
    async with alone() as (_, visitor):
        async with visitor.http.get(f"{visitor.url}/") as response:
            assert response.status == 200
            assert response.content_type == "text/html"
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'self'" in policy
            assert "unsafe" not in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"
        async with visitor.http.get(f"{visitor.url}/static/app.js") as response:
            assert response.content_type == "text/javascript"
        for path in ("/static/..%2Fpage.py", "/static/%2e%2e/page.py", "/static/nothing.js", "/static/", "/etc/passwd"):
            async with visitor.http.get(URL(visitor.url + path, encoded=True)) as response:
                assert response.status == 404, path


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("say", {"chat": "nowhere", "as": "zhangsan", "text": "你好"}, 404),
        ("say", {"chat": "zhangsan", "as": "lisi", "text": "你好"}, 404),
        ("say", {"chat": "zhangsan", "as": "zhangsan", "text": "  "}, 400),
        ("say", {"chat": "zhangsan", "as": "zhangsan", "text": "长" * 5_001}, 400),
        ("say", {"chat": "zhangsan", "as": "zhangsan"}, 400),
        ("fault", {"name": "earthquake"}, 404),
        ("fault", {"name": "kill"}, 404),  # no daemon here
        ("fault", {"name": "cut"}, 409),  # no connection yet
        ("fault", {"name": "redeliver"}, 409),
        ("say", {"chat": "zhangsan", "as": "zhangsan", "text": "什么？", "quote": "nothing"}, 404),
        ("send", {"chat": "zhangsan", "as": "zhangsan", "kind": "earthquake"}, 400),
        ("send", {"chat": "zhangsan", "as": "zhangsan", "kind": "file", "content": "%%"}, 400),
        ("send", {"chat": "zhangsan", "as": "zhangsan", "kind": "file", "content": ""}, 400),
        ("send", {"chat": "group", "as": "zhangsan", "kind": "file", "name": "a.txt", "content": "YQ=="}, 400),
        (
            "send",
            {
                "chat": "zhangsan",
                "as": "zhangsan",
                "kind": "picture",
                "content_type": "image/svg+xml",
                "content": "YQ==",
            },
            400,
        ),
        ("press", {"message": "card-x", "action": "good", "as": "zhangsan"}, 404),
        ("tap", {"message": "b1", "title": "👍", "as": "zhangsan"}, 404),
        ("quota", {"pool": "gold", "cap": "5"}, 404),
        ("quota", {"pool": "api", "cap": "5"}, 400),
        ("robot", {"name": "cards", "value": "true"}, 409),  # no robot of ours here
        ("tour", {"action": "start"}, 409),
        ("reset", {}, 409),
    ],
)
async def test_what_cannot_be_done_is_said(path: str, body: dict[str, str], status: int) -> None:
    """A refusal has its status and a sentence for the reader."""
    async with alone() as (_, visitor):
        got, answer = await visitor.post(path, **body)
        assert got == status
        assert answer["error"].endswith("。")


async def test_a_picture_is_shown_and_nothing_else_is_served() -> None:
    """A picture that was sent comes back with its own type and no rights; a file or a stranger's id does not."""
    async with alone() as (_, visitor):
        sent = {"chat": "zhangsan", "as": "zhangsan", "name": "图", "content": "iVBORw0KGgo="}
        shown = (await visitor.act("send", kind="picture", content_type="image/png", **sent))["id"]
        file = (await visitor.act("send", kind="file", content_type="text/html", **sent))["id"]
        for message, status in ((shown, 200), (file, 404), ("nothing", 404)):
            async with visitor.http.get(f"{visitor.url}/api/picture", params={"id": message}) as response:
                assert response.status == status
                if status == 200:
                    assert response.content_type == "image/png"
                    assert response.headers["Content-Security-Policy"] == "sandbox"
                    assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_request_that_is_too_large_is_refused() -> None:
    """Only what brings a file may be large."""
    async with alone() as (_, visitor):
        assert (await visitor.post("fault", name="x" * 70_000))[0] == 413


async def test_a_gateway_alone_has_a_page_too() -> None:
    """Without a daemon: mode gateway-only, the link's switches only; what is said waits for a bot."""
    async with alone() as (_, visitor):
        await visitor.say("有人吗？")
        state = await visitor.state()

        assert (state["mode"], state["daemon"], state["tour_available"]) == ("gateway-only", None, False)
        assert set(state["faults"]) == {"cut", "disconnect", "half_open", "redeliver", "expire_webhooks"}
        assert state["messages"][0]["state"] == "held"
        assert "bare" not in [chat["id"] for chat in state["chats"]]


async def test_what_is_said_to_the_gateway_elsewhere_is_shown_too() -> None:
    """A message pushed by another hand is a bubble, once however often it is delivered; a stranger's is none."""
    async with opened() as (stage, visitor):
        sent = await stage.gateway.say("年假有几天？", user="lisi", nick="李四")
        await stage.gateway.say("在吗", user="stranger", nick="路人")
        await stage.gateway.redeliver(sent)
        await visitor.answer(chat="lisi")
        shown = [one for one in (await visitor.state())["messages"] if one["from"] != "bot"]
        assert [(one["id"], one["from"], one["text"]) for one in shown] == [(sent.msg_id, "lisi", "年假有几天？")]


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ({"msgtype": "text", "text": {"content": "好 @lisi"}, "at": {"atUserIds": ["lisi", 7]}}, "text", "好 @李四"),
        ({"msgtype": "text", "text": {"content": "好"}, "at": None}, "text", "好"),
        ({"msgtype": "text", "text": {"content": "好"}, "at": {"atUserIds": None}}, "text", "好"),
        ({"msgtype": "markdown", "markdown": {"title": 5, "text": ["x"]}}, "markdown", "['x']"),
        ({"msgtype": "feedCard", "feedCard": {"links": [{"title": "a"}]}}, "markdown", "〔feedCard〕"),
    ],
)
async def test_whatever_a_bot_sends_is_shown(body: dict[str, object], kind: str, text: str) -> None:
    """A message that the gateway takes becomes a bubble, however odd it is."""
    async with alone() as (room, visitor):
        await visitor.say("你好")
        session = next(iter(room.gateways["ours"].sessions))
        url = f"{room.gateways['ours'].url}/robot/sendBySession?session={session}"
        async with visitor.http.post(url, json=body) as response:
            assert (await response.json())["errcode"] == 0
        shown = (await visitor.state())["messages"][-1]
        assert (shown["from"], shown["kind"], shown["text"]) == ("bot", kind, text)


async def test_a_page_that_does_not_keep_up_fetches_everything_anew() -> None:
    """A listener's queue is bounded; what it missed is replaced by one reset."""
    board = Board()
    with board.listen() as queue:
        for number in range(UNREAD + 1):
            board.note(Wire("info", str(number)))
        assert queue.get_nowait() == {"type": "reset"}
        assert queue.empty()


async def test_the_board_is_bounded() -> None:
    """Only the newest messages and lines are kept."""
    board = Board()
    for number in range(MESSAGES + WIRE + 5):
        board.note(Wire("info", str(number)))
        board.put(Message(str(number), "zhangsan", "bot", "", 0, "text", "", "", {}))
    assert len(board.wire) == WIRE
    assert board.wire[-1]["title"] == str(MESSAGES + WIRE + 4)
    assert len(board.messages) == MESSAGES
    assert board.messages[-1].id == str(MESSAGES + WIRE + 4)


async def test_a_closed_page_leaves_no_listener() -> None:
    """An event stream that ends is forgotten, and the page's own end does not wait for the streams."""
    async with alone() as (room, visitor):
        async with visitor.events():
            assert room.board.watched
        room.board.note(Wire("info", "wakes the stream"))
        await until(lambda: not room.board.watched)
        async with visitor.events():
            pass
