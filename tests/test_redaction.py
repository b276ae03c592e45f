"""No secret that was seeded reaches any sink, in whatever dress; what operators need is left as it is."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gc
import html
import io
import json
import logging
import string
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from dingbridge import log
from dingbridge.log import Redactor
from dingbridge.model import Conversation, ConversationKind, File, Message, MessageKind, Person, Secret
from dingbridge.redaction import MASK

ALNUM = string.ascii_letters + string.digits
Carrier = Callable[[str], Any]

EVERYTHING = "p@s/s\"w'o+r\\d 密{1}%2F😀"
TICKET = "7724109a-ea43-4aa2-b803-87d82c5aaee6"  # as DingTalk makes them


# -- secrets: as they are made, and as people make them


def known_secrets() -> st.SearchStrategy[str]:
    """Client secrets, API keys, proxy passwords, admin tokens: what a configuration takes."""
    plain = st.text(ALNUM + "-_", min_size=4, max_size=64)
    nasty = st.text(ALNUM + "'\"\\/+*.?[](){}^$|&=%#@:;,<>! `~", min_size=4, max_size=40)
    foreign = st.text(ALNUM + "密码测试éß😀’", min_size=4, max_size=20)
    return st.one_of(plain, nasty, foreign).filter(_is_a_secret)


def _is_a_secret(text: str) -> bool:
    sure = sum(char.isalnum() for char in text) >= 4 and not (text.isdigit() and len(text) < 8)
    return sure and text == text.strip() and text.isprintable()


def tickets() -> st.SearchStrategy[str]:
    """Tickets, access tokens, webhook sessions: unknown until they come, seen under their names only."""
    uuid = st.uuids(version=4).map(str)
    hexadecimal = st.text("0123456789abcdef", min_size=32, max_size=32)
    return st.one_of(uuid, hexadecimal, st.text(ALNUM + "-_", min_size=16, max_size=64)).filter(
        lambda text: any(char.isdigit() for char in text)
    )


PHONES = st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True)
CARDS = st.from_regex(
    r"[1-9][0-9]{5}(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx]", fullmatch=True
)


def forms(secret: str) -> set[str]:
    """What may not be found; written without a look at the code."""
    plain = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), html.escape(secret)}
    plain |= {quote(secret, safe="").lower()} - {secret.lower()}
    plain |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    plain |= {ascii(secret)[1:-1], str(secret.encode())[2:-1], json.dumps(json.dumps(secret))[3:-3]}
    return plain | {base64.b64encode(f"user:{secret}".encode()).decode()}


@dataclasses.dataclass
class Account:
    name: str
    remark: str


@dataclasses.dataclass
class Opened:
    endpoint: str
    ticket: str


class Odd:
    """Shows it in its repr only."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<Odd {self.text!r} of {self.text}>"


def _basic(secret: str) -> str:
    return "Basic " + base64.b64encode(f"user:{secret}".encode()).decode()


def _cookie(secret: str) -> SimpleCookie:
    cookie = SimpleCookie()
    cookie["sid"] = secret
    return cookie


def _message(secret: str) -> Message:
    """One with a file and a webhook, of which neither is shown."""
    webhook = Secret(f"https://oapi.dingtalk.com/robot/sendBySession?session={secret}")
    where, who, at = Conversation("cid", ConversationKind.SINGLE), Person("042"), datetime(2026, 1, 31, tzinfo=UTC)
    files = (File(MessageKind.PICTURE, secret),)
    return Message("m", "ding1", where, who, MessageKind.PICTURE, "", at, webhook=webhook, files=files)


Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - of that kind, too

# Where a secret that is known may stand.
OF_KNOWN: dict[str, Carrier] = {
    "raw": lambda s: s,
    "in a sentence": lambda s: f"the proxy said {s}, and closed",
    "within a word": lambda s: f"x{s}y",
    "quoted": lambda s: f"no such key: {s!r}",
    "ascii": lambda s: f"got {s!a}",
    "JSON": lambda s: json.dumps({"note": s}),
    "JSON, as UTF-8": lambda s: json.dumps({"note": s}, ensure_ascii=False),
    "JSON in JSON": lambda s: json.dumps({"data": json.dumps({"note": s})}),
    "JSON in JSON in a repr": lambda s: repr([json.dumps({"data": json.dumps({"note": s})})]),
    "URL-quoted": lambda s: f"GET /x?note={quote(s, safe='')}&y=1",
    "URL-quoted twice": lambda s: quote(quote(s, safe=""), safe=""),
    "form": lambda s: f"note={quote_plus(s)}",
    "HTML": lambda s: f"<p>{html.escape(s)}</p>",
    "Basic": _basic,
    "base64": lambda s: _basic(s).partition(" ")[2] if len(s) >= 8 else s,  # less of it stands in many a text
    "repr of a tuple": lambda s: repr(("user", s)),
    "yarl": lambda s: URL.build(scheme="http", user="user", password=s, host="proxy", port=3128),
    "yarl, for humans": lambda s: URL.build(scheme="http", user="user", password=s, host="proxy").human_repr(),
    "yarl query": lambda s: URL("http://x/").with_query(note=s),
    "bytes": lambda s: s.encode(),
    "repr of bytes": lambda s: repr(s.encode()),
    "bytearray": lambda s: bytearray(s.encode()),
    "dict": lambda s: {"note": s},
    "dict key": lambda s: {s: 1},
    "bytes key": lambda s: {s.encode(): 1},
    "nested": lambda s: {"a": [{"b": ({"c": {s}},)}]},
    "str of nested": lambda s: str({"a": [{"b": ({"c": {s}},)}]}),
    "tuple": lambda s: (1, s),
    "dataclass": lambda s: Account("n", s),
    "repr of dataclass": lambda s: repr(Account("n", s)),
    "namedtuple": lambda s: Pair(1, s),
    "object": Odd,
    "list of objects": lambda s: [Odd(s)],
    "exception": ValueError,
    "key error": KeyError,
    "Secret": Secret,
    "headers": lambda s: CIMultiDictProxy(CIMultiDict({"X-Note": s.encode("ascii", "replace").decode()})),
    "traceback's own words": lambda s: f'  File "x.py", line 1, in <module>\n    connect({s!r})\n',
}
# Where a secret that nobody has seen before may stand: under its name, in any dress.
OF_UNKNOWN: dict[str, Carrier] = {
    "query": lambda s: f"wss://gateway.example:443/connect?ticket={s}",
    "query, more behind": lambda s: f"https://oapi.dingtalk.com/robot/sendBySession?session={s}&x=1",
    "yarl": lambda s: URL("https://oapi.dingtalk.com/robot/send").with_query(access_token=s),
    "URL within a URL": lambda s: "https://x/?to=" + quote(f"https://oapi.dingtalk.com/a?session={s}&x=1", safe=""),
    "response": lambda s: f"<ClientResponse(https://oapi.dingtalk.com/robot/sendBySession?session={s}) [200 OK]>",
    "dict": lambda s: {"sessionWebhook": f"https://oapi.dingtalk.com/x/{s}"},
    "deep dict": lambda s: {"data": [{"headers": {"x-acs-dingtalk-access-token": s}}]},
    "list under its name": lambda s: {"tickets": [s, s]},
    "str of dict": lambda s: str({"endpoint": "wss://x", "ticket": s}),
    "JSON": lambda s: json.dumps({"accessToken": s, "expireIn": 7200}),
    "compact JSON": lambda s: json.dumps({"accessToken": s, "expireIn": 7200}, separators=(",", ":")),
    "JSON in JSON": lambda s: json.dumps({"data": json.dumps({"ticket": s, "x": 1})}),
    "JSON in JSON in JSON": lambda s: json.dumps({"d": json.dumps({"d": json.dumps({"client_secret": s})})}),
    "URL-quoted JSON": lambda s: quote(json.dumps({"ticket": s}), safe=""),
    "dataclass": lambda s: Opened("wss://x", s),
    "repr of dataclass": lambda s: repr(Opened("wss://x", s)),
    "repr of a list of dataclasses": lambda s: repr([repr(Opened("wss://x", s))]),
    "repr of credentials": lambda s: f"BasicAuth(login='user', password={s!r}, encoding='latin1')",
    "keyword": lambda s: f"open(token={s!r}, timeout=3)",
    "setting": lambda s: f'api_key = "{s}"',
    "environment": lambda s: f"DINGBRIDGE_DINGTALK_CLIENT_SECRET={s}",
    "header line": lambda s: f"x-acs-dingtalk-access-token: {s}\r\nHost: x",
    "bearer": lambda s: f"Authorization: Bearer {s}",
    "bearer alone": lambda s: f"sent Bearer {s} to it",
    "curl": lambda s: f"curl -H 'Authorization: Bearer {s}' -H 'X-Api-Key: {s}'",
    "headers": lambda s: CIMultiDict({"Authorization": f"Bearer {s}", "Cookie": f"a={s}"}),
    "repr of headers": lambda s: repr(CIMultiDict({"X-Api-Key": s})),
    "raw headers": lambda s: ((b"Authorization", b"Bearer " + s.encode()), (b"X-Token", s.encode())),
    "repr of raw headers": lambda s: repr(((b"Host", b"x"), (b"X-Token", s.encode()))),
    "cookie line": lambda s: f"Set-Cookie: sid={s}; Path=/; HttpOnly",
    "cookie": _cookie,
    "repr of cookie": lambda s: repr(_cookie(s)),
    "cookies": lambda s: f"cookies={ {'sid': s}!r}",
    "user of an address": lambda s: f"cannot reach http://{s}@proxy:3128/",
    "password of an address": lambda s: f"cannot reach http://user:{s}@proxy:3128/",
    "Basic": lambda s: f"Proxy-Authorization: {_basic(s)}",
    "Basic alone": lambda s: f"sent {_basic(s)}, refused",
    "Chinese": lambda s: f"密钥：{s}",
    "download code": lambda s: json.dumps({"downloadCode": s, "robotCode": "ding1"}),
    "download code in a rich text": lambda s: str({"richText": [{"type": "picture", "pictureDownloadCode": s}]}),
    "download code in a payload": lambda s: json.dumps({"data": json.dumps({"content": {"downloadCode": s}})}),
    "where a file lies": lambda s: f"http://b.oss-cn-x.aliyuncs.com/1.file?Expires=9&OSSAccessKeyId={s}&Signature={s}",
    "where a file lies, signed anew": lambda s: (
        f"https://b/1?x-oss-signature={s}&x-oss-security-token={s}&x-oss-date=1"
    ),
    "file": lambda s: [File(MessageKind.FILE, s, "报销单.xlsx")],
    "repr of a message": lambda s: repr(_message(s)),
    "PEM": lambda s: f"-----BEGIN PRIVATE KEY-----\n{s.replace('-', '')}\n-----END PRIVATE KEY-----",
}
# Where the token of an answer's page may stand, which has no name.
OF_PAGE: dict[str, Carrier] = {
    "link": lambda s: f"https://answers.example/a/{s}",
    "below a path": lambda s: f"GET /robot/a/{s}/vote HTTP/1.1",
    "markdown": lambda s: f"[查看全文（需公司网络/VPN）](https://answers.example/a/{s})",
    "JSON": lambda s: json.dumps({"cardData": {"cardParamMap": {"page_url": f"https://answers.example/a/{s}"}}}),
    "quoted": lambda s: quote(f"https://answers.example/a/{s}", safe=""),
    "yarl": lambda s: URL(f"https://answers.example/a/{s}#feedback"),
    "HTML": lambda s: f'<form method="post" action="/a/{s}/vote">',
}
# Where a number of a person may stand.
OF_PERSON: dict[str, Carrier] = {
    "raw": lambda s: s,
    "sentence": lambda s: f"打电话{s}。",
    "JSON": lambda s: json.dumps({"text": f"我的号码\n{s}"}),
    "str of dict": lambda s: str({"text": f"a\n{s}\t{s}"}),
    "number": lambda s: int(s) if s.isdigit() else s,
    "float": lambda s: float(s) if len(s) == 11 else s,
    "abroad": lambda s: f"+86{s}" if len(s) == 11 else s,
    "abroad, with a blank": lambda s: f"+86 {s}" if len(s) == 11 else s,
    "in groups": lambda s: f"{s[:3]}-{s[3:7]}-{s[7:]} {s[:3]} {s[3:7]} {s[7:]}" if len(s) == 11 else s,
    "URL": lambda s: URL("http://x/").with_query(note=f"tel:{s}"),
    "quoted": lambda s: quote(f"tel:{s} ", safe=""),
    "user id": lambda s: f"user_{s}, u{s}",
    "bytes": lambda s: s.encode(),
    "key": lambda s: {s: 1},
    "under its name": lambda s: {"mobile": s, "id_card": s},
    "dataclass": lambda s: Account("n", s),
    "list": lambda s: [[s]],
}


# -- sinks: everything by which a text leaves the process


class Terminal(io.StringIO):
    """Where lines are coloured and read by people."""

    def isatty(self) -> bool:
        return True


@contextmanager
def logging_to(redactor: Redactor, stream: io.StringIO) -> Iterator[Any]:
    log.configure(redactor, stream=stream, cache=False, level=logging.DEBUG)
    structlog.contextvars.clear_contextvars()
    try:
        yield structlog.get_logger("test")
    finally:
        structlog.contextvars.clear_contextvars()


class Broken(Exception):
    pass


def _raise(value: Any) -> None:
    """An error that has it in its text, its cause, its context, its notes, and in the members of a group."""
    inner = ValueError(f"could not use {value}", value)
    inner.add_note(f"while sending {value!r}")
    try:
        try:
            raise inner
        except ValueError as error:
            raise Broken(f"{value}") from error
    except Broken as error:
        cause = error
    try:
        json.loads("{}")[f"{value}"]
    except KeyError:
        raise ExceptionGroup(f"group {value}", [cause, ExceptionGroup("below", [OSError(5, f"{value}")])])  # noqa: B904


def _as_field(logger: Any, value: Any) -> None:
    logger.info("test.event", why=value, code="A1B2C3D4")


def _as_event(logger: Any, value: Any) -> None:
    logger.warning(f"{value}")  # noqa: G004
    logger.warning("positional %s", value)


def _bound(logger: Any, value: Any) -> None:
    structlog.contextvars.bind_contextvars(bound=value)
    logger.bind(more=value).info("test.event")
    logging.getLogger("library").warning("with what is bound")


def _as_exception(logger: Any, value: Any) -> None:
    try:
        _raise(value)
    except ExceptionGroup as error:
        logger.exception("test.failed", error=error)
        logging.getLogger("library").exception("failed: %s", error)  # noqa: TRY401


def _by_library(_: Any, value: Any) -> None:
    library = logging.getLogger("library.part")
    library.warning("got %s and %r", value, value)
    library.warning("got %(it)s", {"it": value})
    library.warning(value)
    library.error("with more", extra={"detail": value}, stack_info=True)


def _broken_by_library(_: Any, value: Any) -> None:
    logging.getLogger("library").warning("%d", value)


def _never_retrieved(_: Any, value: Any) -> None:
    async def fail() -> None:
        _raise(value)

    async def scenario() -> None:
        task = asyncio.create_task(fail(), name=f"{value}")
        await asyncio.wait({task})
        del task
        gc.collect()
        asyncio.get_running_loop().call_exception_handler({"message": f"{value}", "detail": value})

    asyncio.run(scenario())


PLACES: dict[str, Callable[[Any, Any], None]] = {
    "field": _as_field,
    "event": _as_event,
    "contextvars": _bound,
    "exception": _as_exception,
    "library": _by_library,
    "library that errs": _broken_by_library,
}


def everything_written(redactor: Redactor, value: Any, *, places: dict[str, Any] = PLACES) -> str:
    """What all sinks show of a value, at all places; each JSON line is one."""
    written = []
    for stream in (io.StringIO(), Terminal()):
        with logging_to(redactor, stream) as logger, redirect_stderr(stream):
            for put in places.values():
                put(logger, value)
        written.append(stream.getvalue())
    for line in written[0].splitlines():
        json.loads(line)
    assert written[0].count("\n") >= len(places)
    structure = json.dumps(redactor.structure({"one": value, "two": [value]}), ensure_ascii=False)
    return "\n".join([*written, structure, redactor.text(f"{value}\n{value!r}")])


def leaks(secret: str, written: str) -> list[str]:
    return [form for form in forms(secret) if form in written]


@settings(max_examples=100, deadline=None)
@given(secret=known_secrets(), shape=st.sampled_from(sorted(OF_KNOWN)))
def test_a_known_secret_reaches_no_sink(secret: str, shape: str) -> None:
    """Whatever it consists of and however it is dressed, at every place, in JSON, on a terminal, in a structure."""
    written = everything_written(Redactor((secret,)), OF_KNOWN[shape](secret))
    assert not leaks(secret, written), shape


@settings(max_examples=100, deadline=None)
@given(secret=tickets(), shape=st.sampled_from(sorted(OF_UNKNOWN)))
def test_a_secret_that_nobody_knew_reaches_no_sink(secret: str, shape: str) -> None:
    """Tickets, access tokens and webhook sessions are hidden by their names, in whatever notation."""
    written = everything_written(Redactor(), OF_UNKNOWN[shape](secret))
    assert not leaks(secret, written), shape


@settings(max_examples=100, deadline=None)
@given(number=st.one_of(PHONES, CARDS), shape=st.sampled_from(sorted(OF_PERSON)))
def test_a_persons_number_reaches_no_sink(number: str, shape: str) -> None:
    """Mobile and identity card numbers are hidden by their look."""
    written = everything_written(Redactor(), OF_PERSON[shape](number))
    assert not leaks(number, written), shape


@settings(max_examples=30, deadline=None)
@given(token=st.text(ALNUM + "-_", min_size=22, max_size=22), shape=st.sampled_from(sorted(OF_PAGE)))
def test_a_pages_token_reaches_no_sink(token: str, shape: str) -> None:
    """Who knows it reads the answer: it is hidden by where it stands in a link."""
    assert token not in everything_written(Redactor(), OF_PAGE[shape](token)), shape


@settings(max_examples=30, deadline=None)
@given(secret=known_secrets(), ticket=tickets(), shape=st.sampled_from(sorted(OF_UNKNOWN)))
def test_an_error_nobody_awaited_shows_no_secret(secret: str, ticket: str, shape: str) -> None:
    """What asyncio says about tasks and handlers is as clean as what we say."""
    value = f"{secret} {OF_UNKNOWN[shape](ticket)}"
    written = everything_written(Redactor((secret,)), value, places={"asyncio": _never_retrieved})
    assert not leaks(secret, written), shape
    assert not leaks(ticket, written), shape


@pytest.mark.parametrize("shape", sorted(OF_KNOWN))
def test_each_shape_of_a_known_secret(shape: str) -> None:
    """Each notation once, with a secret that has everything in it."""
    assert not leaks(EVERYTHING, everything_written(Redactor((EVERYTHING,)), OF_KNOWN[shape](EVERYTHING)))


@pytest.mark.parametrize("shape", sorted(OF_UNKNOWN))
def test_each_shape_of_an_unknown_secret(shape: str) -> None:
    """Each notation once, with a ticket as DingTalk makes them."""
    assert not leaks(TICKET, everything_written(Redactor(), OF_UNKNOWN[shape](TICKET)))


@pytest.mark.parametrize("shape", sorted(OF_PERSON))
@pytest.mark.parametrize("number", ["13812345678", "11010519491231002X", "110105194912310021"])
def test_each_shape_of_a_persons_number(shape: str, number: str) -> None:
    """Each notation once."""
    assert not leaks(number, everything_written(Redactor(), OF_PERSON[shape](number)))


@pytest.mark.parametrize(
    ("inner", "secret"),
    [
        *(pytest.param(carrier, EVERYTHING, id=f"known {name}") for name, carrier in OF_KNOWN.items()),
        *(
            pytest.param(carrier, TICKET, id=f"unknown {name}")
            for name, carrier in OF_UNKNOWN.items()
            if name != "Chinese"
        ),
        *(pytest.param(carrier, "13812345678", id=f"person {name}") for name, carrier in OF_PERSON.items()),
    ],
)
def test_a_notation_within_a_notation(inner: Carrier, secret: str) -> None:
    """What was quoted by one part is quoted again by the next: every notation in every other one."""
    redactor, text = Redactor((EVERYTHING,)), str(inner(secret))
    leaking = []
    for name, outer in OF_KNOWN.items():
        value = outer(text) if name not in ("Basic", "base64", "headers") else text
        shown = json.dumps(redactor.structure({"why": value}), ensure_ascii=False)
        if leaks(secret, shown + redactor.text(f"{value}\n{value!r}")):
            leaking.append(name)
    assert leaking == []


# -- what nobody catches, in a process of its own

LAST_WORDS = """
import asyncio, gc, logging, sys, threading, warnings
from dingbridge import log
secret, how = sys.argv[1:]
sink = log.Sink(sys.stderr)
log.configure(log.Redactor((secret,)), stream=sink, own_process=True)
text = f"{secret} ticket=7724109a-ea43-4aa2-b803-87d82c5aaee6 {secret!r}"

async def fail():
    raise ValueError(text)

async def forget():
    task = asyncio.create_task(fail())
    await asyncio.wait({task})

class Dying:
    def __del__(self):
        raise ValueError(text)

if how == "thread":
    thread = threading.Thread(target=asyncio.run, args=(fail(),), name="part")
    thread.start()
    thread.join()
elif how == "task":
    asyncio.run(forget())
elif how == "task, log closed":
    sink.close()
    asyncio.run(forget())
elif how == "unraisable":
    Dying()
elif how == "warning":
    warnings.warn(text)
elif how == "record":
    logging.getLogger("x").warning("%d", text)
elif how == "interrupt":
    try:
        fail.missing
    except AttributeError:
        raise KeyboardInterrupt(text)
else:
    try:
        asyncio.run(fail())
    except ValueError as error:
        raise RuntimeError("the end") from error
gc.collect()
"""


@pytest.mark.parametrize(
    ("how", "event"),
    [
        ("main", "process.uncaught"),
        ("interrupt", "process.uncaught"),
        ("thread", "process.uncaught"),
        ("task", "Task exception was never retrieved"),
        ("task, log closed", "Task exception was never retrieved"),
        ("unraisable", "process.unraisable"),
        ("warning", "UserWarning"),
        ("record", "log.unprintable"),
    ],
)
def test_what_nobody_catches_is_logged_without_secrets(how: str, event: str) -> None:
    """Errors at the end of the process, of threads and of tasks, and warnings, are lines of the log like all others."""
    secret = "s3cr3t 'v\"a/l+ue"
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-c", LAST_WORDS, secret, how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not leaks(secret, ended.stdout + ended.stderr)
    assert not leaks(TICKET, ended.stdout + ended.stderr)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line for line in lines if event in line["event"]]
    assert (ended.returncode != 0) == (how in ("main", "interrupt"))


# -- what operators need

KEPT = [
    "编号 7K3M9QXA",
    "A1B2C3D4",
    "msgKm5MNUpSFjlRjmN5FwnDVg==",
    "msg/Zy8x+Ab1Cd2Ef3Gh4Ij5Kl==",
    "7724109a-ea43-4aa2-b803-87d82c5aaee6",
    "3f2b1c4d-1381-1234-5678-13812345678a",
    "d41d8cd98f00b204e9800998ecf8427e",
    "ab13812345678cd0",
    "dingbridge-0123456789abcdef13812345678abcde",
    "cid6KeBBLoveMJOGXoYKF5x7EeiodoA==",
    "1732533456123",
    "sent at 1732533456123, received at 1732533456.123456",
    "1732533456123456789",
    "2026-11-25T11:22:14.123456Z",
    "2026-11-25 11:22:14,123 +0800",
    "0.24.4b1, aiohttp 3.14.5, Python 3.11.7, Linux 6.18.0-13-amd64",
    "/srv/a/dingbridge-of-the-company.db, /a/b, download: 3 files",
    "/var/lib/dingbridge/dingbridge.db: disk I/O error",
    "/etc/dingbridge/client_secret: not UTF-8, save as UTF-8",
    "systemd credential anythingllm.api_key: empty, write the secret into it",
    'File "/opt/dingbridge/lib/python3.11/site-packages/aiohttp/connector.py", line 1381, in _create_connection',
    "pid 138123, uid 1000, port 13812",
    "10.0.13.199:3128 refused, fe80::1ff:fe23:4567:890a, 192.168.113.138",
    "http://127.0.0.1:3001 is not available now (HTTP 503)",
    "https://oapi.dingtalk.com/robot/sendBySession answered 200 with errcode 310000",
    "the gateway closed the connection (code 1006)",
    "wss://wss-open-connection.dingtalk.com:443/connect",
    "basic information, Basic realm=x, the basics",
    "a bearer of bad news; Bearer authentication failed",
    "no token, a token expired; token: the request was refused; first_token_ms=230.1",
    "the ticket was refused (HTTP 401); the session webhook has expired",
    "DingTalk refuses the client secret: check [dingtalk] client_id and client_secret in the developer console",
    "AnythingLLM at http://127.0.0.1:3001 does not accept the API key: create one under Settings, Tools, Developer API",
    "the proxy refused the user or password; check [anythingllm] proxy",
    "api_key_file = /etc/dingbridge/api_key",
    "token=None, ticket=***, UPDATE lane SET token = NULL",
    '{"sessionId": "dingbridge-0123456789abcdef0123456789abcdef", "reset": false}',
    "errcode=40035 errmsg=参数错误",
    "someone@example.com wrote to 张三",
    "2000-3000 files, 138 of 1234 5678",
    "18 446 744 073 709",
]


@pytest.mark.parametrize("text", KEPT)
def test_what_operators_need_is_left_as_it_is(text: str) -> None:
    """Codes, ids, times, versions, paths, addresses and our own remedies are not taken for secrets."""
    redactor = Redactor(("s3cr3t-client-value", "http://proxy.corp.example:3128"))
    assert redactor.text(text) == text
    assert redactor.structure({"why": [text]}) == {"why": [text]}


def test_numbers_that_measure_are_left_as_they_are() -> None:
    """Durations, times and counts are numbers, whatever digits they have; a number without a name may be a person's."""
    measured = {
        "total_ms": 840.9,
        "sent_at": 1732533456123,
        "free_bytes": 15032385536,
        "tokens": 512,
        "prompt_tokens": 5,
        "webhook_stream": 567,  # a quota's name
    }
    assert Redactor().structure(measured) == measured
    assert Redactor().structure({"who": 15032385536, "access_token": 15032385536, "tries": 3}) == {
        "who": MASK,
        "access_token": MASK,
        "tries": 3,
    }


def test_of_an_address_only_user_and_password_are_secret() -> None:
    """Where the proxy stands helps an operator."""
    redactor = Redactor(("http://us%40er:p%2Fass@proxy.corp.example:3128",))
    said = redactor.text("tried proxy.corp.example:3128 as us@er:p/ass, then with p/ass")
    assert said == f"tried proxy.corp.example:3128 as {MASK}, then with {MASK}"
    assert redactor.text("http://us%40er:p%2Fass@proxy.corp.example:3128/") == f"http://{MASK}@proxy.corp.example:3128/"


# -- the rest of its promises


def test_what_is_learnt_later_is_masked_and_nothing_is_forgotten() -> None:
    """A reloaded configuration brings new secrets; the old ones still stand in old errors."""
    redactor = Redactor(("0ld-value",))
    before = redactor.structure({"n3w-value": "0ld-value n3w-value"})
    redactor.learn(Secret("n3w-value"), "")
    redactor.learn("n3w-value")
    assert before == {"n3w-value": f"{MASK} n3w-value"}
    assert redactor.structure({"n3w-value": "0ld-value n3w-value"}) == {MASK: f"{MASK} {MASK}"}


def test_a_structure_comes_back_as_plain_data() -> None:
    """Dicts, lists and scalars of a status answer are copied; keys that name secrets hide what is below."""
    given = {
        "link": {"ok": True, "opens": 3, "down_s": 1.5, "why": None},
        "token": "",
        "headers": {"Cookie": "a=b"},
        1: (2,),
    }
    assert Redactor().structure(given) == {
        "link": {"ok": True, "opens": 3, "down_s": 1.5, "why": None},
        "token": "",
        "headers": {"Cookie": MASK},
        "1": [2],
    }
    assert given["headers"] == {"Cookie": "a=b"}


def test_whether_there_is_a_secret_and_where_it_lies_may_be_told() -> None:
    """A configuration without its secrets still says which it has."""
    settings = {"api_key": True, "admin_token": False, "client_secret_file": "/etc/dingbridge/client_secret"}
    assert Redactor().structure(settings) == settings


def test_a_structure_without_end_has_one() -> None:
    """What contains itself, and what cannot be shown, ends no line."""

    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("no")

    endless: list[Any] = [Rude()]
    endless.append(endless)
    assert "cannot be shown" in json.dumps(Redactor().structure({"a": endless}))


def test_a_line_that_cannot_be_looked_through_is_not_shown() -> None:
    """Rather no line than one that nobody has checked."""

    class Hostile(dict[str, str]):
        def items(self) -> Any:
            raise RuntimeError("a-secret-in-it")

    stream = io.StringIO()
    with logging_to(Redactor(), stream) as logger:
        logger.info("test.event", data=Hostile(), other="plain")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["why"]) == ("log.unprintable", "RuntimeError")
    assert "plain" not in stream.getvalue()


ADVERSARIAL = {
    "letters": "a",
    "dotted": "a.",
    "schemes": "a://",
    "addresses": "http://user:pass",
    "quoted addresses": "http%3A%2F%2Fuser%3Apass",
    "at": "@",
    "backslashes": "\\",
    "names": "token",
    "names with backslashes": "token" + "\\" * 9,
    "open quotes": "token='",
    "open escaped quotes": 'token=\\"',
    "escaped quotes": 'token="' + '\\"' * 50,
    "mixed quotes": 'token="\'\\"',
    "lines": "token='\n",
    "digits": "1",
    "grouped digits": "138 1234-",
    "hash": "13812345678abcdef-",
    "hex": "a13812345678",
    "blanks": "authorization: " + " " * 20,
    "bearer": "bearer ",
    "bearer letters": "bearer aaaaaa",
    "basic": "basic aaaa",
    "percent": "%25",
    "dots": "eyJaaaaaaaa.",
    "capitals": "AAAAAAA-",
    "keys": "-----BEGIN PRIVATE KEY-----",
    "cookies": "cookie:",
    "nothing": "token=None ",
    "known": '\\u0070\\"w',
}


@pytest.mark.parametrize("name", sorted(ADVERSARIAL))
def test_a_megabyte_of_anything_is_looked_through(name: str) -> None:
    """No text makes an expression run away."""
    redactor = Redactor(('"pw"\\\\"pw', "p\"w'secret", "aaaaaaab", "http://user:aaaaaaaaab@proxy:1"))
    piece = ADVERSARIAL[name]
    text = (piece * (1_000_000 // len(piece) + 1))[:1_000_000]
    started = time.perf_counter()
    redactor.text(text)
    assert time.perf_counter() - started < 30  # a hang; 0.1 to 2 s is usual
