"""What is sent along: fetched from DingTalk's own storage alone, bounded in bytes and time, and looked at."""

from __future__ import annotations

import asyncio
import gzip
import io
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from dingbridge.backends.anythingllm import AnythingLLM
from dingbridge.dingtalk import filetypes, media
from dingbridge.dingtalk.media import FILE_BYTES, PICTURE_BYTES, Media
from dingbridge.dingtalk.openapi import OpenAPI
from dingbridge.dingtalk.origins import download_origin_check
from dingbridge.errors import MediaError
from dingbridge.model import Conversation, ConversationKind, File, Message, MessageKind, Person, Secret
from dingbridge.net import Network
from dingbridge.questions import asked
from dingbridge.sim.anythingllm import AnythingLLM as Server
from dingbridge.sim.gateway import Gateway
from dingbridge.texts import CATALOGUES, Texts
from tests.replying import Direct, chatting, serving, told_by

SECRET, TOKEN, SIGNATURE = "secret-of-the-app", "token-of-the-app", "Signature=a%2Bb%2F%3D"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 60
PICTURE, DOCUMENT = MessageKind.PICTURE, MessageKind.FILE
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


def zipped(*names: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return written.getvalue()


DOCX = zipped("[Content_Types].xml", "word/document.xml")


def message(*files: File) -> Message:
    chat = Conversation("cid", ConversationKind.SINGLE)
    return Message("m", "ding", chat, Person("u", "u"), PICTURE, "", datetime(2026, 1, 31, tzinfo=UTC), files=files)


@dataclass
class Storage:
    """DingTalk's API and its storage in one: `content` by code, or a handler of the test's own."""

    content: dict[str, bytes | Answering] = field(default_factory=dict)
    address: str = ""  # instead of its own
    refusal: tuple[int, dict[str, Any]] | None = None
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    fetched: list[web.Request] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v1.0/oauth2/accessToken":
            return web.json_response({"accessToken": TOKEN, "expireIn": 7200})
        if request.path == "/v1.0/robot/messageFiles/download":
            assert request.headers["x-acs-dingtalk-access-token"] == TOKEN
            body = await request.json()
            self.asked.append(body)
            if self.refusal is not None:
                return web.json_response(self.refusal[1], status=self.refusal[0])
            return web.json_response(
                {"downloadUrl": self.address or f"{self.url}/oss/{body['downloadCode']}.file?{SIGNATURE}"}
            )
        self.fetched.append(request)
        found = self.content[request.path.removeprefix("/oss/").removesuffix(".file")]
        return web.Response(body=found) if isinstance(found, bytes) else await found(request)


@asynccontextmanager
async def stored(
    *, network: Network | None = None, api_base: str = "", **limits: Any
) -> AsyncIterator[tuple[Storage, Media]]:
    storage, network = Storage(), network or Direct()
    async with serving(storage.answer) as storage.url, network.open_session(plain_calls=True) as session:
        base = api_base or storage.url
        api = OpenAPI(session, network, api_base=base, client_id="ding", client_secret=Secret(SECRET))
        yield storage, Media(session, network, api, api_base=base, robot="ding", **limits)


async def refused(files: Media, *sent: File) -> MediaError:
    """The error of one fetch, which shows neither a secret nor the address."""
    with pytest.raises(MediaError) as caught:
        await files.fetch(message(*sent))
    for secret in (SECRET, TOKEN, SIGNATURE, "Signature"):
        assert secret not in told_by(caught.value)
    return caught.value


async def test_pictures_and_documents_are_fetched() -> None:
    """Asked for by code and robot, read without DingTalk's token, in the order they were sent."""
    async with stored() as (storage, files):
        storage.content |= {"a": PNG, "b": "制度".encode("gbk"), "c": b"\xff\xd8\xff\xe0jpeg"}
        found = await files.fetch(
            message(File(PICTURE, "a"), File(DOCUMENT, "b", "制度.TXT"), File(DOCUMENT, "c", "照片"))
        )
        assert [(one.name, one.mime, one.content) for one in found] == [
            ("picture-1.png", "image/png", PNG),
            ("制度.txt", "text/plain", "制度".encode()),
            ("照片.jpg", "image/jpeg", b"\xff\xd8\xff\xe0jpeg"),
        ]
        assert storage.asked[0] == {"downloadCode": "a", "robotCode": "ding"}
        assert not [one for one in storage.fetched if TOKEN in str(one.headers)]
        assert all(one.raw_path.endswith(SIGNATURE) for one in storage.fetched)
        assert await files.fetch(message()) == ()


async def test_from_the_chat_to_the_answer(gateway: Gateway) -> None:
    """A document sent to DingTalk's stand-in is read from the message, fetched, and quoted by AnythingLLM's."""
    async with chatting(gateway) as chat, Server() as server:
        code = gateway.add_file("会议纪要：下周三上线。".encode("gbk"), "application/octet-stream")
        content = {"spaceId": "223", "fileName": "会议纪要.txt", "downloadCode": code, "fileId": "117"}
        heard = await chat.hear(payload={"msgtype": "file", "content": content, "text": None})
        api, session = chat.openapi, chat.openapi._session
        files = Media(session, Direct(), api, api_base=gateway.url, robot=gateway.client_id)
        async with (
            AnythingLLM(base_url=server.url, api_key=Secret(server.api_key)) as backend,
            files.hold(heard) as attachments,
        ):
            question = asked(heard, Texts("zh-CN"))
            found = await backend.ask(question, workspace="handbook", session="s", attachments=attachments)
        assert question == CATALOGUES["zh-CN"]["file_question"]
        assert "下周三上线" in found.text
        assert found.sources[0].title == "会议纪要.txt"


async def test_storage_of_dingtalk_is_read_over_http() -> None:
    """An http address on aliyuncs.com, as DingTalk hands it out, is followed; here a proxy stands for it."""
    async with stored() as (storage, _):
        network = Network(proxy=Secret(storage.url), no_proxy=("127.0.0.1",))
        storage.address = "http://wukong-file-im-zjk.oss-cn-zhangjiakou.aliyuncs.com/oss/a.file?" + SIGNATURE
        storage.content["a"] = PNG
        async with Direct().open_session(plain_calls=True) as session:
            api = OpenAPI(session, network, api_base=storage.url, client_id="ding", client_secret=Secret(SECRET))
            files = Media(session, network, api, api_base=storage.url, robot="ding")
            (found,) = await files.fetch(message(File(PICTURE, "a")))
        assert found.content == PNG
        assert storage.fetched[0].headers["Host"] == "wukong-file-im-zjk.oss-cn-zhangjiakou.aliyuncs.com"


def streamed(size: int) -> Answering:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(0, size, 65_536):
            await response.write(b"\0" * 65_536)
        return response

    return answer


def told(length: int) -> Answering:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(length)})
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    return answer


def status(code: int, **headers: str) -> Answering:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers=headers, body=PNG)

    return answer


async def bomb(_: web.Request) -> web.StreamResponse:
    return web.Response(body=gzip.compress(b"\0" * 4 * PICTURE_BYTES), headers={"Content-Encoding": "gzip"})


async def stalls(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(PNG)
    await asyncio.Event().wait()
    return response


FAILURES: dict[str, tuple[bytes | Answering, str, str, bool]] = {
    "too large by its header": (told(PICTURE_BYTES + 1), "file_too_large", "media.too_large", False),
    "too large as it comes": (streamed(PICTURE_BYTES + 100_000), "file_too_large", "media.too_large", False),
    "a gzip bomb": (bomb, "file_too_large", "media.too_large", False),
    "no picture": (b"%PDF-1.7", "file_kind", "media.kind", False),
    "a web page": (b"<html><body>login</body></html>", "file_kind", "media.kind", False),
    "nothing": (b"", "file_kind", "media.kind", False),
    "expired": (status(403), "file_expired", "media.expired", False),
    "redirected": (status(302, Location="http://169.254.169.254/"), "file_unavailable", "media.foreign", False),
    "broken": (status(503), "file_unavailable", "media.unavailable", True),
    "stalling": (stalls, "file_unavailable", "network.timeout", True),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_what_cannot_be_had(name: str) -> None:
    """Each way to fail has its text and its cause; only what may pass is tried again; a redirect is not followed."""
    content, public, cause, retryable = FAILURES[name]
    async with stored(idle_s=0.2 if name == "stalling" else 5.0) as (storage, files):
        storage.content["a"] = content
        error = await refused(files, File(PICTURE, "a"))
        assert (error.public, error.cause, error.retryable) == (public, cause, retryable)
        assert len(storage.fetched) == 1


async def test_a_slow_drip_ends() -> None:
    """Bytes that keep coming, each in time, end with the time for the whole."""

    async def drips(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"\0")
            await asyncio.sleep(0.02)

    async with stored(download_s=0.3) as (storage, files):
        storage.content["a"] = drips
        error = await refused(files, File(PICTURE, "a"))
        assert (error.cause, error.retryable) == ("network.timeout", True)


async def test_nothing_listens() -> None:
    """A storage that cannot be reached is tried again later."""
    async with stored() as (storage, files):
        storage.address = "http://gone.aliyuncs.com.invalid/"
        assert (await refused(files, File(PICTURE, "a"))).cause == "media.foreign"
        storage.content["a"] = status(200)
        down = Media(
            files._session, Network(proxy=Secret("http://127.0.0.1:9")), files._api, api_base="https://x", robot="d"
        )
        storage.address = "http://bucket.aliyuncs.com/a"
        error = await refused(down, File(PICTURE, "a"))
        assert (error.cause, error.retryable) == ("proxy.down", True)


@pytest.mark.parametrize(
    ("status_", "code", "public", "cause", "retryable"),
    [
        (400, "invalidParameter.downloadCode", "file_expired", "media.expired", False),
        (400, "invalidParameter.robotCode.auth", "file_unavailable", "chat.robot", False),
        (403, "Forbidden.AccessDenied.QpsLimitForApi", "file_unavailable", "chat.paced", True),
        (500, "unknownError", "file_unavailable", "chat.unknown_outcome", True),
    ],
)
async def test_what_dingtalk_refuses(status_: int, code: str, public: str, cause: str, retryable: bool) -> None:
    """An expired code is told as that; other refusals keep what they mean, and nothing is downloaded."""
    async with stored() as (storage, files):
        storage.refusal = (status_, {"code": code, "requestid": "r", "message": "m"})
        error = await refused(files, File(PICTURE, "a"))
        assert (error.public, error.cause, error.retryable) == (public, cause, retryable)
        assert not storage.fetched


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/a?" + SIGNATURE, "", "http://[", None, 7, "https://evil.example/x"]
)
async def test_foreign_addresses_are_refused(address: Any) -> None:
    """An address elsewhere is not called, whoever names it; the log says the host alone."""
    async with stored() as (storage, files):
        storage.refusal = (200, {"downloadUrl": address})
        with capture_logs() as events:
            error = await refused(files, File(PICTURE, "a"))
        assert (error.cause, error.retryable) == ("media.foreign", False)
        assert [one["event"] for one in events] == ["media.foreign"]
        assert SIGNATURE not in str(events)
        assert not storage.fetched


ORIGINS = [
    ("https://api.dingtalk.com", "https://x.oss-cn-zhangjiakou.aliyuncs.com/a?Signature=b%2F", True),
    ("https://api.dingtalk.com", "http://x.oss-cn-zhangjiakou.aliyuncs.com/a", True),
    ("https://api.dingtalk.com", "http://x.aliyuncs.com:8080/a", False),
    ("https://api.dingtalk.com", "https://static.dingtalk.com/a", True),
    ("https://api.dingtalk.com", "http://static.dingtalk.com/a", False),
    ("https://api.dingtalk.com", "https://aliyuncs.com/a", False),
    ("https://api.dingtalk.com", "https://evilaliyuncs.com/a", False),
    ("https://api.dingtalk.com", "https://x.aliyuncs.com.evil.example/a", False),
    ("https://api.dingtalk.com", "https://x.aliyuncs.com@evil.example/a", False),
    ("https://api.dingtalk.com", "https://user:pw@x.aliyuncs.com/a", False),
    ("https://api.dingtalk.com", "https://evil.example\\.aliyuncs.com/a", False),
    ("https://api.dingtalk.com", "https://evil.example#.aliyuncs.com/a", False),
    ("https://api.dingtalk.com", "https://x。aliyuncs.com/a", False),
    ("https://api.dingtalk.com", "file://x.aliyuncs.com/etc/passwd", False),
    ("https://api.dingtalk.com", "ftp://x.aliyuncs.com/a", False),
    ("https://api.dingtalk.com", "//x.aliyuncs.com/a", False),
    ("https://api.dingtalk.com", "http://169.254.169.254/latest/meta-data", False),
    ("https://api.dingtalk.com", "http://[::1]/a", False),
    ("https://ding.corp.example", "http://ding.corp.example/a", True),
    ("https://ding.corp.example:8443", "https://ding.corp.example:8443/a", True),
    ("https://ding.corp.example:8443", "http://ding.corp.example:8443/a", False),
    ("https://ding.corp.example", "https://ding.corp.example:9200/a", False),
    ("https://ding.corp.example", "https://x.ding.corp.example/a", False),
]


@pytest.mark.parametrize(("base", "address", "allowed"), ORIGINS)
def test_where_files_may_lie(base: str, address: str, allowed: bool) -> None:
    """On DingTalk's storage, on DingTalk, or on the configured API's own host, at ports that belong to them."""
    assert download_origin_check(base)(address) is allowed


async def test_four_downloads_at_once() -> None:
    """However many people send files, four are being downloaded."""
    gate, running, peak = asyncio.Event(), 0, 0
    full = asyncio.Event()

    async def waits(_: web.Request) -> web.StreamResponse:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        if running == media.AT_ONCE:
            full.set()
        await gate.wait()
        running -= 1
        return web.Response(body=PNG)

    async with stored(held_bytes=10**9) as (storage, files), asyncio.timeout(20), asyncio.TaskGroup() as group:
        storage.content["a"] = waits
        for _ in range(12):
            group.create_task(files.fetch(message(File(PICTURE, "a"))))
        await full.wait()
        gate.set()
    assert peak == media.AT_ONCE
    assert len(storage.asked) == 12


async def test_memory_is_bounded_while_files_are_held() -> None:
    """What is held counts with its real size until the block ends; who finds no room in time is told to come again."""
    async with stored(held_bytes=PICTURE_BYTES + 50, room_s=0.1) as (storage, files):
        storage.content["a"] = PNG
        async with files.hold(message(File(PICTURE, "a"))):
            assert (await refused(files, File(PICTURE, "a"))).cause == "media.busy"
        storage.content["a"] = PNG[:50]
        async with files.hold(message(File(PICTURE, "a"))):
            assert await files.fetch(message(File(PICTURE, "a")))
        assert await files.fetch(message(File(PICTURE, "a")))
        storage.content["a"] = b"no picture"
        for _ in range(3):
            assert (await refused(files, File(PICTURE, "a"))).cause == "media.kind"


async def test_one_message_is_bounded() -> None:
    """Many pictures together may have what one file may have."""
    async with stored() as (storage, files):
        storage.content["a"] = PNG + b"\0" * (FILE_BYTES // 3)
        assert len(await files.fetch(message(*[File(PICTURE, "a")] * 2))) == 2
        assert (await refused(files, *[File(PICTURE, "a")] * 3)).cause == "media.too_large"


KINDS = [
    ("制度.pdf", b"%PDF-1.7\n", "application/pdf"),
    ("制度.docx", DOCX, filetypes._ZIPPED[".docx"][1]),
    ("表.XLSX", zipped("xl/workbook.xml"), filetypes._ZIPPED[".xlsx"][1]),
    ("片.pptx", zipped("ppt/presentation.xml"), filetypes._ZIPPED[".pptx"][1]),
    ("a.csv", "姓名,部门\n张三,财务".encode("gb18030"), "text/csv"),
    ("a.md", "\ufeff# 标题".encode(), "text/plain"),
    ("a.txt", "标题".encode("utf-16"), "text/plain"),
    ("a.htm", b"<p>x</p>", "text/html"),
    ("无名", PNG, "image/png"),
    ("a.docx", zipped("xl/workbook.xml"), ""),
    ("a.docx", b"\xd0\xcf\x11\xe0 an old doc", ""),
    ("a.doc", b"\xd0\xcf\x11\xe0", ""),
    ("a.pdf", b"MZ\x90\0", ""),
    ("a.txt", b"\x7fELF\x02\x01\x01\0\0", ""),
    ("a.txt", b"  ", ""),
    ("a.zip", zipped("a"), ""),
    ("a.exe", b"text", ""),
    ("", b"text", ""),
]


@pytest.mark.parametrize(("name", "content", "mime"), KINDS)
def test_kinds_of_files(name: str, content: bytes, mime: str) -> None:
    """What a file is must be true of its bytes and its name; texts come out as UTF-8."""
    found = filetypes.document(name, content)
    assert (found.mime if found else "") == mime
    if found and (mime.startswith("text/") or mime == "application/json"):
        assert not found.content.decode().startswith("\ufeff")


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("../../etc/制度.md", "制度.md"),
        ("C:\\temp\\制度.MD", "制度.md"),
        ('a\x00b\u202e<>:"|?*.md', "ab.md"),
        ("长" * 500 + ".md", "长" * filetypes.MAX_NAME + ".md"),
        ("notes.log.htm", "notes.log.html"),
    ],
)
def test_names_of_files_are_harmless(sent: str, name: str) -> None:
    """A name is one part of a path, printable and short, with an extension the reader knows."""
    found = filetypes.document(sent, b"text")
    assert found is not None
    assert found.name == name


def test_the_limits_that_people_are_told_are_the_real_ones() -> None:
    """The texts name the sizes and the kinds that the code holds."""
    for catalogue in CATALOGUES.values():
        assert f"{PICTURE_BYTES // 10**6} MB" in catalogue["file_too_large"]
        assert f"{FILE_BYTES // 10**6} MB" in catalogue["file_too_large"]
        known = {*filetypes._ZIPPED, *filetypes._TEXTS, *filetypes._EXTENSIONS.values(), ".pdf"} - {".log", ".htm"}
        assert {one for one in known if one[1:].upper() not in catalogue["file_kind"].upper()} == set()
