"""DingTalk's bot callback: the shapes that come, and whatever else may come instead."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from dingbridge.dingtalk.origins import webhook_origin_check
from dingbridge.dingtalk.payload import MAX_CODE, MAX_FILES, MAX_TEXT, parse
from dingbridge.dingtalk.quotes import MAX_CHARS, words_in
from dingbridge.errors import PayloadError
from dingbridge.model import ConversationKind, File, Message, MessageKind

SAMPLES = Path(__file__).parent / "samples"
ALLOWED = webhook_origin_check("https://oapi.dingtalk.com")
NOW = 1769851697.611  # when the samples were made


def sample(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    return found


def read(data: dict[str, Any], frame_id: str = "frame-1") -> Message:
    return parse(data, robot="dingsample0001", frame_id=frame_id, webhook_allowed=ALLOWED, now=NOW)


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("text-single", MessageKind.TEXT, "年假有几天？"),
        ("text-group", MessageKind.TEXT, "测试数据"),
        ("text-external", MessageKind.TEXT, "你好"),
        ("picture", MessageKind.PICTURE, ""),
        ("audio", MessageKind.AUDIO, "出差住宿标准是多少？"),
        ("video", MessageKind.VIDEO, ""),
        ("file", MessageKind.FILE, ""),
        ("rich-text", MessageKind.RICH_TEXT, "这张发票能报销吗？\n急"),
        ("rich-text-pictures", MessageKind.RICH_TEXT, ""),
        ("unknown", MessageKind.UNKNOWN, ""),
        ("quoted", MessageKind.TEXT, "释放吧"),
        ("quoted-card", MessageKind.TEXT, "第二条是什么意思"),
        ("quota", MessageKind.QUOTA, ""),
    ],
)
def test_shapes(name: str, kind: MessageKind, text: str) -> None:
    """Every documented and captured shape gives its kind and its words; who and where are always there."""
    message = read(sample(name))
    assert (message.kind, message.text) == (kind, text)
    assert message.id == "msgMxpQ+qegFQ4MpgOyu0UFrQ=="
    assert message.conversation.id == "cidAsXSBLnA=="
    assert message.sender.nick == "张三"
    assert message.webhook


def test_every_key_of_a_group_message() -> None:
    """A group message as captured, field by field."""
    message = read(sample("text-group"))
    assert message.robot == "dingsample0001"
    assert message.conversation.kind is ConversationKind.GROUP
    assert message.conversation.title == "测试群"
    assert (message.sender.id, message.sender.staff_id) == ("manager807", "manager807")
    assert message.sent_at == datetime(2026, 1, 31, 9, 28, 17, 611_000, tzinfo=UTC)
    assert message.webhook_expires == datetime(2026, 1, 31, 10, 58, 17, 744_000, tzinfo=UTC)
    assert message.webhook.reveal().endswith("session=0123456789abcdef0123456789abcdef")
    assert "0123456789abcdef" not in repr(message)


@pytest.mark.parametrize("staff_id", [None, "", 5, ["042"]])
def test_people_without_a_staff_id(staff_id: Any) -> None:
    """External people are known by their encrypted id, which is never used for a mention."""
    message = read(sample("text-single") | {"senderStaffId": staff_id})
    assert message.sender.id == "$:LWCP_v1:$sender000000000000000000000"
    assert message.sender.staff_id == ""


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("1", ConversationKind.SINGLE),
        ("2", ConversationKind.GROUP),
        (2, ConversationKind.GROUP),
        (2.0, ConversationKind.GROUP),
        (1, ConversationKind.SINGLE),
        (None, ConversationKind.SINGLE),
        ([2], ConversationKind.SINGLE),
        ("group", ConversationKind.SINGLE),
    ],
)
def test_conversation_types(value: Any, kind: ConversationKind) -> None:
    """2 is a group, as text or as a number; anything else is answered as one to one."""
    assert read(sample("text-single") | {"conversationType": value}).conversation.kind is kind


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"conversationId": ""}, "nowhere to answer"),
        ({"conversationId": None}, "nowhere to answer"),
        ({"senderId": "", "senderStaffId": ""}, "nobody to answer"),
        ({"senderId": 7, "senderStaffId": {}}, "nobody to answer"),
        ({"msgId": "x" * 513}, "no id"),
        ({"conversationId": "问" * 171}, "no id"),
        ({"senderStaffId": "x" * 513}, "no id"),
    ],
)
def test_what_nobody_could_answer(changes: dict[str, Any], why: str) -> None:
    """Without a conversation or a sender, or with what is none, a message is refused, by the one error expected."""
    with pytest.raises(PayloadError):
        read(sample("text-single") | changes)


def test_the_frame_stands_in_for_a_missing_id() -> None:
    """Without msgId a message is keyed by its frame; without either it is refused."""
    data = sample("text-single") | {"msgId": None}
    assert read(data, "frame-7").id == "frame-7"
    with pytest.raises(PayloadError):
        read(data, "")
    with pytest.raises(PayloadError):
        read({})


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"text": None}, MessageKind.TEXT, ""),
        ({"text": "年假"}, MessageKind.TEXT, ""),
        ({"text": {"content": None}}, MessageKind.TEXT, ""),
        ({"text": {"content": ["年假"]}}, MessageKind.TEXT, ""),
        ({"text": {}}, MessageKind.TEXT, ""),
        ({"text": {"content": " \n\t "}}, MessageKind.TEXT, ""),
        ({"msgtype": None}, MessageKind.UNKNOWN, ""),
        ({"msgtype": ["text"]}, MessageKind.UNKNOWN, ""),
        ({"msgtype": "interactiveCard"}, MessageKind.CARD, ""),
        ({"msgtype": "chatRecord", "content": {"summary": "张三：好"}}, MessageKind.CHAT_RECORD, ""),
        ({"msgtype": "markdown", "content": {"title": "周报", "text": "# 周报"}}, MessageKind.MARKDOWN, "周报\n# 周报"),
        ({"msgtype": "unknownMsgType", "content": {"unknownMsgType": "用户…"}}, MessageKind.UNKNOWN, ""),
        ({"msgtype": "quota"}, MessageKind.UNKNOWN, ""),
        ({"msgtype": "richText"}, MessageKind.RICH_TEXT, ""),
        ({"msgtype": "richText", "content": "x"}, MessageKind.RICH_TEXT, ""),
        ({"msgtype": "richText", "content": {"richText": {"text": "x"}}}, MessageKind.RICH_TEXT, ""),
        (
            {"msgtype": "richText", "content": {"richText": [None, "x", {"text": 5}, {"text": "好"}, []]}},
            MessageKind.RICH_TEXT,
            "好",
        ),
        ({"msgtype": "audio", "content": {"recognition": None}}, MessageKind.AUDIO, ""),
        ({"msgtype": "audio", "content": []}, MessageKind.AUDIO, ""),
        ({"errorCode": "20001"}, MessageKind.TEXT, "年假有几天？"),
        ({"errorCode": 20001, "text": None, "msgtype": "text"}, MessageKind.QUOTA, ""),
    ],
)
def test_odd_content(changes: dict[str, Any], kind: MessageKind, text: str) -> None:
    """Missing or odd content loses only itself."""
    message = read(sample("text-single") | changes)
    assert (message.kind, message.text) == (kind, text)


def test_lone_surrogates_can_be_stored() -> None:
    """JSON may hold half a character; what is read can always be written as UTF-8."""
    data = json.loads('{"conversationId":"c\\ud800","senderId":"\\udc00s","msgId":"m","senderNick":"\\ud83d"}')
    data |= {"msgtype": "text", "text": {"content": "好\ud800的"}, "senderStaffId": "\udfff"}
    message = read(data)
    for text in (message.conversation.id, message.sender.id, message.sender.nick, message.text):
        assert text.encode()


def test_very_long_text_is_cut() -> None:
    """A megabyte of question does not travel on."""
    assert len(read(sample("text-single") | {"text": {"content": "长" * 1_000_000}}).text) == MAX_TEXT


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (1769857097744, True),
        ("1769857097744", True),
        (1769857097744.5, True),
        (1769857097, False),
        (0, False),
        (-1, False),
        (10**400, False),
        (float("inf"), False),
        (float("nan"), False),
        ("9" * 5000, False),
        ("１７６９８５７０９７７４４", False),
        ("soon", False),
        (True, False),
        ({"ms": 1}, False),
        (None, False),
    ],
)
def test_moments(value: Any, known: bool) -> None:
    """A believable epoch in milliseconds is a moment, everything else is none; sent_at is then now."""
    message = read(sample("text-single") | {"sessionWebhookExpiredTime": value, "createAt": value})
    assert (message.webhook_expires is not None) is known
    assert message.sent_at.tzinfo is UTC
    if not known:
        assert abs((datetime.now(UTC) - message.sent_at).total_seconds()) < 60


def test_a_webhook_lives_as_long_as_dingtalk_says_by_our_clock() -> None:
    """DingTalk gives the end by its own clock; where ours is three hours off, ninety minutes stay ninety minutes."""
    data = sample("text-single")
    ours = data["createAt"] / 1000 + 3 * 3600
    message = parse(data, robot="r", frame_id="f", webhook_allowed=ALLOWED, now=ours)
    assert message.webhook_expires is not None
    lifetime = (data["sessionWebhookExpiredTime"] - data["createAt"]) / 1000
    assert message.webhook_expires.timestamp() == pytest.approx(ours + lifetime)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
GROUP = sample("text-group")
known_keys = st.sampled_from(sorted({*GROUP, "content", "errorCode"}))
inner_keys = st.sampled_from(
    ["content", "recognition", "richText", "text", "isReplyMsg", "repliedMsg", "type", "downloadCode", "cardContent"]
)
in_a_string = anything.map(json.dumps)
anything |= in_a_string
deeper = st.dictionaries(inner_keys, st.lists(st.dictionaries(inner_keys, anything, max_size=2), max_size=2) | anything)
kinds = st.sampled_from(["text", "richText", "audio", "picture", "file", "markdown", "chatRecord", "quota"])


@settings(deadline=None)
@given(st.dictionaries(known_keys, anything | deeper, max_size=6), st.none() | kinds)
def test_any_json_at_any_key(changes: dict[str, Any], msgtype: str | None) -> None:
    """Whatever stands at any key, a message comes out or a PayloadError, and nothing else."""
    data = GROUP | changes | ({"msgtype": msgtype} if msgtype else {})
    try:
        message = read(data)
    except PayloadError:
        return
    assert message.id
    assert message.conversation.id
    assert message.sender.id
    assert isinstance(message.text, str)
    message.text.encode()
    message.quoted.encode()
    assert len(message.quoted) <= MAX_CHARS
    assert all(file.code.encode() and isinstance(file.name, str) for file in message.files)
    assert not message.webhook or ALLOWED(message.webhook.reveal())


# -- what was sent along, and what is replied to

PICTURE, DOCUMENT = MessageKind.PICTURE, MessageKind.FILE


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("picture", (File(PICTURE, "mIof"),)),
        ("file", (File(DOCUMENT, "LJYY", "报销单.xlsx"),)),
        ("rich-text", (File(PICTURE, "d"),)),
        ("rich-text-pictures", (File(PICTURE, "d"),)),
        ("audio", ()),
        ("video", ()),
        ("text-single", ()),
    ],
)
def test_files(name: str, files: tuple[File, ...]) -> None:
    """Pictures and documents keep their download code; what nothing can read is not fetched."""
    assert read(sample(name)).files == files


@pytest.mark.parametrize(
    ("content", "files"),
    [
        ({"pictureDownloadCode": "p"}, (File(PICTURE, "p"),)),
        ({"pictureDownloadCode": "p", "downloadCode": ""}, (File(PICTURE, "p"),)),
        ({"downloadCode": 7}, ()),
        ({"downloadCode": "x" * (MAX_CODE + 1)}, ()),
        ("mIof", ()),
        (None, ()),
        ({}, ()),
    ],
)
def test_odd_files(content: Any, files: tuple[File, ...]) -> None:
    """A `downloadCode` is preferred; without a usable code there is no file."""
    assert read(sample("picture") | {"content": content}).files == files


def test_many_pictures_are_some() -> None:
    """An album of any length costs no more than nine downloads."""
    parts = [{"type": "picture", "downloadCode": f"d{number}"} for number in range(500)]
    files = read(sample("rich-text") | {"content": {"richText": parts}}).files
    assert [file.code for file in files] == [f"d{number}" for number in range(MAX_FILES)]


def reply(content: Any, **more: Any) -> dict[str, Any]:
    return {"text": {"content": "那国外呢？", "isReplyMsg": True, "repliedMsg": {"content": content} | more}}


QUOTES = [
    (reply({"text": "电脑端"}), "电脑端"),
    (reply({"content": "手机端"}), "手机端"),
    (reply('{"text":"在字符串里"}'), "在字符串里"),
    (reply("直接的文字"), "直接的文字"),
    (
        reply({"richText": [{"type": "text", "text": "甲"}, {"type": "picture", "downloadCode": "d"}, {"text": "乙"}]}),
        "甲乙",
    ),
    (reply({"richText": [{"msgType": "text", "content": "甲"}, {"msgType": "at", "content": "@李四"}]}), "甲"),
    (reply([{"msgType": "text", "content": "甲"}, {"msgType": "text", "content": "乙"}]), "甲乙"),
    (reply('[{"type":"text","text":"甲"}]'), "甲"),
    (reply(None, cardContent={"rows": [{"title": "标题"}, {"cells": [{"text": "格"}]}]}), "标题\n格"),
    (reply({"cardContent": '{"elements":[{"type":"markdown","content":"卡片"}]}'}), "卡片"),
    (reply({"downloadCode": "d", "pictureDownloadCode": "p"}), ""),
    (reply({"text": "外层", "repliedMsg": {"content": {"text": "更早的"}}}), "外层"),
    (reply("{broken"), "{broken"),
    (reply("[" * 50_000), ("[" * 50_000)[:MAX_CHARS]),
    (reply({"text": 7, "content": [None, 3, []]}), ""),
    ({"originalMsgId": "msg_orig"}, ""),
    ({"text": {"content": "好", "isReplyMsg": True}}, ""),
    ({"text": {"content": "好", "isReplyMsg": True, "repliedMsg": [1]}}, ""),
    ({"text": {"content": "好", "isReplyMsg": False, "repliedMsg": {"content": {"text": "不是引用"}}}}, ""),
    (
        {
            "msgtype": "richText",
            "text": None,
            "content": {
                "richText": [{"text": "问"}],
                "isReplyMsg": True,
                "repliedMsg": {"msgType": "text", "content": {"text": "在 content 里"}},
            },
        },
        "在 content 里",
    ),
    ({"msgtype": "chatRecord", "content": {"chatRecord": '[{"content":"甲说"},{"content":"乙说"}]'}}, "甲说\n乙说"),
    (
        {"msgtype": "interactiveCard", "content": {"cardContent": {"title": "审批", "body": [{"text": "通过"}]}}},
        "审批\n通过",
    ),
]


@pytest.mark.parametrize(("changes", "quoted"), QUOTES)
def test_quoted_messages(changes: dict[str, Any], quoted: str) -> None:
    """Every shape seen of a reply gives its words, every other one gives none, and the message is kept."""
    message = read(sample("text-single") | changes)
    assert message.quoted == quoted
    assert message.sender.nick == "张三"


def test_quotes_are_bounded() -> None:
    """Neither a book nor a tree as deep or as wide as JSON allows is read to its end."""
    assert len(read(sample("text-single") | reply({"text": "长" * 100_000})).quoted) == MAX_CHARS
    deep: Any = {"text": "底"}
    for _ in range(500):
        deep = {"cardContent": deep}
    assert words_in(deep) == ""
    assert len(words_in([{"text": "宽"}] * 100_000)) <= 200


# -- where a session webhook may point

PATH = "/robot/sendBySession?session=0123"
CYRILLIC_O, DOTLESS_I, FULL_STOP, SLASH = "\u043e", "\u0131", "\u3002", "\uff0f"


@pytest.mark.parametrize(
    "webhook",
    [
        "https://oapi.dingtalk.com" + PATH,
        "https://oapi.dingtalk.com:443" + PATH,
        "https://OAPI.DingTalk.com" + PATH,
        "https://oapi-eu.dingtalk.com" + PATH,
        "https://a.b.dingtalk.com" + PATH,
        "https://oapi.dingtalk.com" + PATH + "&next=https://user:pw@evil.example/",
    ],
)
def test_webhooks_of_dingtalk(webhook: str) -> None:
    """Https on any host under dingtalk.com, port 443."""
    assert ALLOWED(webhook)
    assert read(sample("text-single") | {"sessionWebhook": webhook}).webhook.reveal() == webhook


FOREIGN = [
    "",
    "not an address",
    "//oapi.dingtalk.com" + PATH,
    "https:oapi.dingtalk.com" + PATH,
    "https:///oapi.dingtalk.com" + PATH,
    "http://oapi.dingtalk.com" + PATH,
    "http://oapi.dingtalk.com:443" + PATH,
    "ftp://oapi.dingtalk.com" + PATH,
    "file://oapi.dingtalk.com/etc/passwd",
    "https://oapi.dingtalk.com:8443" + PATH,
    "https://oapi.dingtalk.com:99999" + PATH,
    "https://oapi.dingtalk.com:x" + PATH,
    "https://dingtalk.com" + PATH,
    "https://.dingtalk.com" + PATH,
    "https://evildingtalk.com" + PATH,
    "https://dingtalk.com.evil.example" + PATH,
    "https://oapi.dingtalk.com.evil.example" + PATH,
    "https://oapi.dingtalk.com." + PATH,
    "https://oapi.dingtalk.com@evil.example" + PATH,
    "https://user@oapi.dingtalk.com" + PATH,
    "https://user:pw@oapi.dingtalk.com" + PATH,
    "https://@oapi.dingtalk.com" + PATH,
    "https://:@oapi.dingtalk.com" + PATH,
    "https://evil.example\\.dingtalk.com" + PATH,
    "https://evil.example\\@oapi.dingtalk.com" + PATH,
    "https://oapi.dingtalk.com\\.evil.example" + PATH,
    "https://evil.example#.dingtalk.com" + PATH,
    "https://evil.example?.dingtalk.com" + PATH,
    "https://evil.example/.dingtalk.com" + PATH,
    "https://evil.example%2f.dingtalk.com" + PATH,
    "https://evil.example%00.dingtalk.com" + PATH,
    "https://evil.example;.dingtalk.com" + PATH,
    "https://127.0.0.1" + PATH,
    "https://2130706433" + PATH,
    "https://[::1]" + PATH,
    "https://[::ffff:127.0.0.1]" + PATH,
    "https://127.0.0.1.nip.io" + PATH,
    "https://localhost" + PATH,
    "https://169.254.169.254/latest/meta-data",
    f"https://{CYRILLIC_O}api.dingtalk.com" + PATH,
    f"https://oapi.d{DOTLESS_I}ngtalk.com" + PATH,
    f"https://oapi{FULL_STOP}dingtalk{FULL_STOP}com" + PATH,
    f"https://evil.example{SLASH}.dingtalk.com" + PATH,
    "https://xn--oapi.dingtalk.com.xn--com-evil" + PATH,
    " https://oapi.dingtalk.com" + PATH,
    "https://oapi.dingtalk.com" + PATH + "\r\nHost: evil.example",
    "https://oapi.dingtalk.com\t.evil.example" + PATH,
    "https://oapi.dingtalk.com" + PATH + " x",
    "https://oapi.dingtalk.com" + PATH + "&x=\u00e9",
    "https://oapi.dingtalk.com" + PATH + "\x00",
    "https://oapi_.dingtalk.com" + PATH,
    "https://oapi.dingtalk.com/robot\\..\\x",
]


@pytest.mark.parametrize("webhook", FOREIGN)
def test_foreign_webhooks_are_left_out(webhook: str) -> None:
    """Anything that is not plainly DingTalk's is dropped; the message itself is kept."""
    assert not ALLOWED(webhook)
    message = read(sample("text-single") | {"sessionWebhook": webhook})
    assert not message.webhook
    assert message.text


PRIVATE = [
    ("https://ding.corp.example", "https://ding.corp.example" + PATH, True),
    ("https://ding.corp.example", "https://DING.corp.example:443" + PATH, True),
    ("https://ding.corp.example", "https://oapi.dingtalk.com" + PATH, True),
    ("https://ding.corp.example", "http://ding.corp.example" + PATH, False),
    ("https://ding.corp.example", "https://ding.corp.example:8443" + PATH, False),
    ("https://ding.corp.example", "https://x.ding.corp.example" + PATH, False),
    ("https://ding.corp.example", "https://user@ding.corp.example" + PATH, False),
    ("https://ding.corp.example:8443/gateway", "https://ding.corp.example:8443" + PATH, True),
    ("https://ding.corp.example:8443/gateway", "https://ding.corp.example" + PATH, False),
    ("http://10.0.0.5:8080", "http://10.0.0.5:8080" + PATH, True),
    ("http://10.0.0.5:8080", "http://10.0.0.5" + PATH, False),
    ("http://10.0.0.5:8080", "http://0x0a000005:8080" + PATH, False),
    ("http://[::1]:8080", "http://[::1]:8080" + PATH, True),
    ("http://[::1]:8080", "http://[::2]:8080" + PATH, False),
    ("https://钉钉.example", "https://xn--8ovq1b.example" + PATH, False),
    ("https://钉钉.example", str(URL("https://钉钉.example").origin()) + PATH, True),
]


@pytest.mark.parametrize(("base", "webhook", "allowed"), PRIVATE)
def test_private_clouds_have_their_own_origin(base: str, webhook: str, allowed: bool) -> None:
    """`oapi_base` adds exactly its own origin: scheme, host and port."""
    assert webhook_origin_check(base)(webhook) is allowed


hosts = st.sampled_from(
    ["oapi.dingtalk.com", "evil.example", ".dingtalk.com", "@", ":443", "/", "\\", "#", "?", "%2f", "。"]
)


@settings(deadline=None)
@given(st.lists(hosts | st.text(max_size=3), max_size=6), st.sampled_from(["https://", "http://", "HTTPS://", ""]))
def test_what_is_allowed_is_what_is_called(pieces: list[str], scheme: str) -> None:
    """An allowed address, read as the client reads it for the request, is https on DingTalk's own hosts."""
    text = scheme + "".join(pieces)
    if ALLOWED(text):
        url = URL(text, encoded=True)
        assert url.scheme == "https"
        assert url.port == 443
        assert url.user is None
        assert (url.host or "").endswith(".dingtalk.com")
