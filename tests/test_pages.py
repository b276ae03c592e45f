"""Answer pages: who has the link reads one answer until it expires, votes once, and gets nothing else."""

from __future__ import annotations

import asyncio
import gzip
import re
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dingbridge.emphasis import Emphasis
from dingbridge.errors import StoreUnavailable
from dingbridge.model import Answer, File, MessageKind, Outcome, Source, Verdict
from dingbridge.settings import PagesConfig
from dingbridge.store.intake import Limits
from dingbridge.store.pages import AnswerPage, AnswerPages
from dingbridge.texts import Texts
from dingbridge.web import document, rendering
from dingbridge.web.document import grouped
from dingbridge.web.pages import PER_MINUTE, Pages
from tests.answering import ANSWER, INJECTIONS, QUESTION, TTL_S, Served, answered, free_port, serving
from tests.places import Place
from tests.stores import START, Clock, head, message

DAY_S = 24 * 3600.0
UNKNOWN = "A" * 22
FORM = {"Content_Type": "application/x-www-form-urlencoded"}
NOTHING = Emphasis((), frozenset())


# -- the store


async def test_a_page_shows_its_answer_until_it_expires(place: Place) -> None:
    """Question, answer, sources, route and code come back by the token alone, which is nowhere stored."""
    clock = Clock()
    async with place.opened(clock, wipe=False) as store:
        pages = AnswerPages(store._engine, clock, ttl_s=DAY_S)
        token = await answered(store, pages)
        page = await pages.open(token)
        assert page is not None
        told = page.told
        assert (told.route, told.message.text, told.answer, told.at) == ("行政", QUESTION, ANSWER, START)
        assert (page.until, page.verdict, page.comment) == (START + DAY_S, None, "")
        assert token not in str(place.rows("*", "page")) + str(place.rows())
        assert await answered(store, pages) != token
        for other in (UNKNOWN, token[:-1], "", "\udcff", token + " "):
            assert await pages.open(other) is None
        clock.tick(DAY_S)
        assert await pages.open(token) is None
        assert not await pages.vote(token, Verdict.GOOD)
        await store.forget()
        assert place.rows("*", "page") == []


async def test_a_page_outlives_the_text_of_other_messages(place: Place) -> None:
    """A daemon that wipes keeps what a page shows, for as long as it is told to keep messages."""
    clock = Clock()
    async with place.opened(clock, Limits(0, 0, keep_s=30 * DAY_S), wipe=True) as store:
        pages = AnswerPages(store._engine, clock, ttl_s=30 * DAY_S)
        token = await answered(store, pages)
        clock.tick(29 * DAY_S)
        assert await store.forget() == 0
        assert await pages.open(token) is not None


async def test_a_page_has_one_vote(place: Place) -> None:
    """The last vote counts, with its reason; it is stored with question, answer and route, and names nobody."""
    clock = Clock()
    async with place.opened(clock, wipe=False) as store:
        pages = AnswerPages(store._engine, clock, ttl_s=DAY_S)
        token = await answered(store, pages)
        assert await pages.vote(token, Verdict.GOOD)
        clock.tick(5)
        assert await pages.vote(token, Verdict.BAD, "标准旧了" + "长" * 900)
        page = await pages.open(token)
        assert page is not None
        assert (page.verdict, page.comment) == ("bad", "标准旧了" + "长" * 496)
        assert await pages.vote(token, Verdict.BAD)
        page = await pages.open(token)
        assert page is not None
        assert page.comment == ""
        row, *_ = await store._engine.run(lambda c: c.execute("SELECT id FROM message").fetchone())
        again = await pages.issue(row)
        assert again != token
        page = await pages.open(again)
        assert page is not None
        assert page.verdict == "bad"
        assert await pages.vote(again, Verdict.BAD)
        ((person, verdict, voted_at, route, question, answer),) = place.rows(
            "person, verdict, voted_at, route, question, answer", "vote"
        )
        assert re.fullmatch("page:[0-9a-f]{16}", person)
        assert (verdict, voted_at, route, question) == ("bad", START + 5, "行政", QUESTION)
        assert "差旅费管理办法" in answer


async def test_what_is_no_answer_has_no_page(place: Place) -> None:
    """A row that failed, was wiped or is gone shows nothing, though the token is right."""
    clock = Clock()
    async with place.opened(clock, wipe=False) as store:
        pages = AnswerPages(store._engine, clock, ttl_s=DAY_S)
        placed = await store.put(message("m1"))
        token = await pages.issue(placed.row)
        assert await pages.open(token) is None
        delivery = await head(store)
        await store.answered(delivery, Answer("抱歉"), Outcome.FAILED)
        assert await pages.open(token) is None
        await store.answered(delivery, ANSWER, Outcome.ANSWERED)
        assert await pages.open(token) is not None
        await store._engine.run(lambda c: c.execute("UPDATE message SET body = ''").rowcount)
        assert await pages.open(token) is None
        assert await pages.open(await pages.issue(placed.row + 99)) is None


# -- the listener


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as one:
        yield one


Reply = tuple[int, str, Any]


async def ask(served: Served, path: str, method: str = "GET", data: Any = None, **headers: str) -> Reply:
    """Status, text and headers; a redirection is not followed."""
    sent = {"Host": served.host} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, served.at(path), data=data, headers=sent, allow_redirects=False) as got,
    ):
        return got.status, await got.text(), got.headers


async def test_a_page_says_what_was_answered(served: Served) -> None:
    """Question, table, code, link, passages with key words marked, when, code and route; reading changes nothing."""
    token = await served.answered()
    before = [await table(served, name) for name in ("message", "page", "vote")]
    status, html, headers = await ask(served, f"/a/{token}")
    assert status == 200
    assert QUESTION in html
    assert "<strong>每晚 600 元</strong>" in html
    assert '<td class="right">600</td>' in html
    assert "<code>TR-2026-0001\n</code>" in html
    assert html.count('<a href="https://wiki.intra/travel" target="_blank" rel="noopener noreferrer nofollow">') == 2
    assert "<mark>住宿标准</mark>：<mark>北京</mark>、上海" in html
    assert "<mark>出差</mark>期间的<mark>住宿</mark>超出<mark>标准</mark>的" in html
    assert html.count("<blockquote>") == 3
    assert "2027年01月15日 16:00（北京时间）" in html
    assert "2027年01月22日 16:00" in html
    assert "知识库：行政" in html
    assert '<html lang="zh-CN">' in html
    assert re.search(r'<code id="code">[0-9A-Z]{8}</code>', html)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert before == [await table(served, name) for name in ("message", "page", "vote")]
    assert served.pages.link(token) == f"http://pages.test/a/{token}"


async def table(served: Served, name: str) -> list[Any]:
    return await served.store._engine.run(lambda c: c.execute(f"SELECT * FROM {name}").fetchall())


async def test_every_reply_keeps_to_itself(served: Served) -> None:
    """A page, a refusal, a redirection and a wrong host carry the same guard, set no cookie and name no server."""
    token = await served.answered()
    paths = {f"/a/{token}": 200, "/a/x": 404, "/": 404, f"/a/{UNKNOWN}": 404, "/robots.txt": 404, "/a/": 404}
    replies = [(await ask(served, path), expected) for path, expected in paths.items()]
    replies.append((await ask(served, f"/a/{token}/vote", "POST", {"verdict": "good"}), 303))
    replies.append((await ask(served, f"/a/{token}", Host="evil.example"), 421))
    for (status, _, headers), expected in replies:
        assert status == expected
        policy = headers["Content-Security-Policy"]
        for rule in ("default-src 'none'", "img-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert rule in policy
        assert "form-action 'self'" in policy
        assert "unsafe" not in policy
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "private, no-store"
        assert headers["X-Robots-Tag"].startswith("noindex")
        assert "Set-Cookie" not in headers
        assert "Server" not in headers


async def test_files_are_named_by_what_they_hold(served: Served) -> None:
    """The page's style and script are served under their hash, for ever, and no other file is."""
    _, html, _ = await ask(served, f"/a/{await served.answered()}")
    for path in re.findall(r'"(/static/answer-[0-9a-f]{12}\.(?:css|js))"', html):
        status, text, headers = await ask(served, path)
        assert (status, len(text) > 500) == (200, True)
        assert "immutable" in headers["Cache-Control"]
    for path in ("/static/answer.css", "/static/..%2fpages.py", "/static/../pages.py", "/static/"):
        assert (await ask(served, path))[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "pages.test:8080", "127.0.0.1", "pages.test@evil", "", "[", "a:b"])
async def test_a_foreign_name_is_refused(served: Served, host: str) -> None:
    """Only the name of the public address is answered to, on its port; that is what rebinding cannot have."""
    token = await served.answered()
    assert (await ask(served, f"/a/{token}", Host=host))[0] in {400, 421}
    assert (await ask(served, f"/a/{token}/vote", "POST", {"verdict": "good"}, Host=host))[0] in {400, 421}
    assert (await ask(served, f"/a/{token}", Host="PAGES.test:80"))[0] == 200
    assert await table(served, "vote") == []


@pytest.mark.parametrize("prefixed", [True, False], ids=["path kept", "path taken off"])
async def test_a_page_may_stand_below_a_path(tmp_path: Path, prefixed: bool) -> None:
    """Behind a proxy with a name of its own every address begins with the public one's path."""
    async with serving(tmp_path, url="https://intra.test/bot") as served:
        token = await served.answered()
        assert served.pages.link(token) == f"https://intra.test/bot/a/{token}"
        base = "/bot" if prefixed else ""
        status, html, _ = await ask(served, f"{base}/a/{token}", Host="intra.test:443")
        assert status == 200
        assert f'action="/bot/a/{token}/vote"' in html
        (css,) = re.findall(r'href="/bot(/static/[^"]+)"', html)
        assert (await ask(served, base + css))[0] == 200
        _, _, headers = await ask(
            served, f"{base}/a/{token}/vote", "POST", {"verdict": "good"}, Origin="https://intra.test"
        )
        assert headers["Location"] == f"/bot/a/{token}#feedback"


async def test_who_comes_too_late_is_told_what_to_do(served: Served) -> None:
    """Expired, wrong and malformed links get the same plain words, which tell nothing apart."""
    token = await served.answered()
    wrong = await ask(served, f"/a/{UNKNOWN}")
    served.clock.tick(TTL_S)
    late = await ask(served, f"/a/{token}")
    odd = await ask(served, "/a/%F0%9F%98%80<script>")
    assert wrong[:2] == late[:2] == odd[:2]
    assert wrong[0] == 404
    assert "请回到聊天里重新提问" in wrong[1]


async def test_votes_from_the_page(served: Served) -> None:
    """A form is sent back to the page, which shows the choice; a script is told in JSON; the last one counts."""
    token = await served.answered()
    path = f"/a/{token}/vote"
    status, _, headers = await ask(served, path, "POST", {"verdict": "good", "comment": ""}, Origin="null")
    assert (status, headers["Location"]) == (303, f"/a/{token}#feedback")
    _, html, _ = await ask(served, f"/a/{token}")
    assert '<button name="verdict" value="good" aria-pressed="true">' in html
    assert "已记下：有帮助" in html
    reason = "旧了</textarea><script>alert(1)</script>\u202e"
    status, text, _ = await ask(
        served,
        path,
        "POST",
        {"verdict": "bad", "comment": reason},
        Accept="application/json",
        Origin="http://pages.test",
    )
    assert (status, text) == (200, '{"verdict": "bad"}')
    _, html, _ = await ask(served, f"/a/{token}")
    assert "旧了&lt;/textarea&gt;&lt;script&gt;alert(1)&lt;/script&gt;</textarea>" in html
    assert [(row[4], row[5][:2]) for row in await table(served, "vote")] == [("bad", "旧了")]


@pytest.mark.parametrize(
    ("headers", "data", "expected"),
    [
        ({"Origin": "http://evil.example"}, {"verdict": "good"}, 403),
        ({"Origin": "https://pages.test"}, {"verdict": "good"}, 403),
        ({"Origin": "null", "Sec_Fetch_Site": "cross-site"}, {"verdict": "good"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, {"verdict": "good"}, 403),
        ({}, {"verdict": "great"}, 400),
        ({}, {"comment": "x"}, 400),
        ({}, "&".join(f"a{number}=1" for number in range(20)), 415),
        (FORM, "a=1&" * 20, 400),
        ({"Content_Type": "application/json"}, '{"verdict":"good"}', 415),
        ({}, {"verdict": "good", "comment": "x" * 20_000}, 413),
        ({**FORM, "Content_Encoding": "gzip"}, gzip.compress(b"comment=" + b"a" * 5_000_000), 413),
        ({**FORM, "Content_Encoding": "gzip"}, b"verdict=good", 400),
        ({**FORM, "Content_Encoding": "deflate"}, b"verdict=good", 400),
    ],
)
async def test_other_votes_are_refused(served: Served, headers: dict[str, str], data: Any, expected: int) -> None:
    """Another site's, an unknown verdict, another form of body and one that is too large leave no trace."""
    token = await served.answered()
    assert (await ask(served, f"/a/{token}/vote", "POST", data, **headers))[0] == expected
    assert (await ask(served, f"/a/{token}/vote"))[0] == 404
    assert (await ask(served, f"/a/{UNKNOWN}/vote", "POST", {"verdict": "good"}))[0] == 404
    assert await table(served, "vote") == []


async def test_guesses_are_held_off_and_readers_are_not(tmp_path: Path) -> None:
    """Beyond some unknown addresses a minute nobody is looked up, but a page that was opened before still opens."""
    now = Clock()
    async with serving(tmp_path, now=now) as served:
        token = await served.answered()
        assert (await ask(served, f"/a/{token}"))[0] == 200
        async with aiohttp.ClientSession(headers={"Host": served.host}) as http:
            for number in range(int(PER_MINUTE) - 1):
                async with http.get(served.at(f"/a/{number:022}")) as got:
                    assert got.status == 404
        status, html, headers = await ask(served, f"/a/{UNKNOWN}")
        assert (status, headers["Retry-After"]) == (429, "5")
        assert "暂时打不开" in html
        assert (await ask(served, f"/a/{token}"))[0] == 200
        now.tick(1)
        assert (await ask(served, f"/a/{UNKNOWN}"))[0] == 404


async def test_the_routes_language(tmp_path: Path) -> None:
    """A page speaks its route's language where it has one, and the common one otherwise."""
    async with serving(tmp_path, locale_of=lambda route: "en" if route == "hq" else "") as served:
        _, english, _ = await ask(served, f"/a/{await served.answered(route='hq')}")
        _, chinese, _ = await ask(served, f"/a/{await served.answered()}")
    assert '<html lang="en">' in english
    assert "Was this answer helpful?" in english
    assert "2027-01-15 16:00 (UTC+8)" in english
    assert "这个回答有帮助吗？" in chinese


async def test_what_matters_is_bold(served: Served) -> None:
    """Amounts and key words that the sources have too, each where it is said first, unless prominent or code."""
    said = "# 600 元\n\n`600 元` 每晚 600 元，再说 600 元；不是 700 元。标准 **450 元**"
    answer = Answer(said, (Source("手册", "标准：每晚 600 元，成都 450 元"),))
    _, html, _ = await ask(served, f"/a/{await served.answered(answer, question='标准是多少？')}")
    assert "<h3>600 元</h3>" in html
    assert "<code>600 元</code>" in html
    assert "<strong>600 元</strong>，再说 600 元；不是 700 元。<strong>标准</strong> <strong>450 元</strong>" in html
    assert "<mark>标准</mark>：每晚" in html


async def test_where_a_document_is_may_be_known_elsewhere(tmp_path: Path) -> None:
    """The address of a source is asked from outside; the answer may link to its host, too."""
    async with serving(tmp_path, address_of=lambda source: f"https://docs.test/{len(source.title)}") as served:
        answer = Answer("[手册](https://docs.test/x)", (Source("手册", "文"),))
        _, html, _ = await ask(served, f"/a/{await served.answered(answer)}")
    assert 'href="https://docs.test/2"' in html
    assert 'href="https://docs.test/x"' in html


async def test_no_answer_and_half_an_answer(served: Served) -> None:
    """A refusal shows its text, what broke off says so, and a document without a passage is still named."""
    _, refused, _ = await ask(served, f"/a/{await served.answered(Answer(refused=True))}")
    assert Texts("zh-CN")("refused") in refused
    _, partial, _ = await ask(
        served, f"/a/{await served.answered(Answer('一半', (Source('手册'),), partial=True, question_cut=True))}"
    )
    assert Texts("zh-CN")("partial") in partial
    assert Texts("zh-CN")("question_cut") in partial
    assert "这篇资料没有可以显示的原文" in partial


class Broken:
    """A store that does not answer."""

    async def open(self, token: str) -> AnswerPage | None:
        raise StoreUnavailable("gone", retryable=True)

    async def vote(self, token: str, verdict: Verdict, comment: str = "") -> bool:
        raise StoreUnavailable("gone", retryable=True)


async def test_a_store_that_fails_is_told_in_plain_words(served: Served) -> None:
    """A reader is asked to come back a little later."""
    served.pages._store = Broken()
    assert (await ask(served, f"/a/{UNKNOWN}"))[0] == 503
    status, html, _ = await ask(served, f"/a/{UNKNOWN}/vote", "POST", {"verdict": "good"})
    assert status == 503
    assert "请过一会儿再刷新" in html


async def test_a_taken_port_is_waited_for(tmp_path: Path) -> None:
    """The listener says in which section to name another one, tries again, and never fails."""
    port = free_port()
    taken = await asyncio.start_server(lambda _, __: None, "127.0.0.1", port)
    config = PagesConfig("127.0.0.1", port, f"http://127.0.0.1:{port}", 7, enabled=True)
    pages = Pages(config, Broken(), locale="zh-CN", retry_s=0.01)
    running = asyncio.create_task(pages.run())
    try:
        while "[pages] listen" not in pages.health.why:
            await asyncio.sleep(0.005)
        taken.close()
        await taken.wait_closed()
        while not pages.health.ok:
            await asyncio.sleep(0.005)
        assert pages.address == ("127.0.0.1", port)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_many_readers_of_a_long_answer_cost_one_rendering(tmp_path: Path) -> None:
    """It is rendered in a thread, once, and whole; who comes meanwhile waits for it."""
    threads: list[int] = []

    def address_of(source: Source) -> str:
        threads.append(threading.get_ident())
        return ""

    long = "\n\n".join(f"第 {number} 段。" for number in range(8000))
    async with serving(tmp_path, address_of=address_of) as served:
        token = await served.answered(Answer(long, (Source("手册"),)))
        replies = await asyncio.gather(*(ask(served, f"/a/{token}") for _ in range(8)))
    assert {status for status, _, _ in replies} == {200}
    assert "第 7999 段。" in replies[0][1]
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


# -- what a stranger writes


ACTIVE = re.compile(r"<(?!/?(?:a|b|bdi|blockquote|br|button|code|details|div|em|footer|form|h[1-6]|header|hr|label|li|"
                    r"main|mark|ol|p|path|pre|s|section|span|strong|summary|svg|table|tbody|td|textarea|th|thead|tr|ul|"
                    r"!DOCTYPE|html|head|body|title|meta|link|script)\b)")  # fmt: skip


@pytest.mark.parametrize("text", INJECTIONS)
async def test_nothing_foreign_gets_into_the_page(served: Served, text: str) -> None:
    """In a question, an answer, a title, a passage and a route's name a stranger's markup stays text."""
    harmless = await served.answered(Answer("好", (Source("标题", "原文"),)), question="问题", route="路线")
    token = await served.answered(
        Answer(text, (Source(text, text, "https://wiki.intra/1"), Source(text, text, "javascript:alert(1)"))),
        question=text,
        route=text,
    )
    _, html, _ = await ask(served, f"/a/{token}")
    _, plain, _ = await ask(served, f"/a/{harmless}")
    assert not ACTIVE.search(html)
    assert html.count("<script") == plain.count("<script") == 1
    assert html.count("<form") == html.count('<meta name="viewport"') == 1
    assert set(re.findall(r'<a href="(.*?)"', html)) <= {"https://wiki.intra/1"}
    assert not re.search('<[^>]*\\s(?:on\\w+|style|src)=(?!"/static/)', html)
    assert not re.search("[\u200b-\u200f\u202a-\u202e\u2066-\u2069]", html)
    page = await served.kept.open(token)
    assert page is not None
    file = replace(page.told.message, text="", files=(File(MessageKind.FILE, "code", text),))
    named = replace(page, told=replace(page.told, message=file))
    alone = document.whole(named, "", Texts("zh-CN"), frame=document.Frame("/css", "/js"), locale="zh-CN", vote_at="/v")
    assert not ACTIVE.search(alone)
    assert (alone.count("<script"), alone.count("<form")) == (1, 1)


def test_nothing_of_an_answer_is_lost() -> None:
    """Definitions, footnotes, deep quotes and what is too long for markdown are all there to read."""
    texts = Texts("zh-CN")

    def seen(text: str) -> str:
        return unescape(re.sub("<[^>]*>", "", rendering.markdown(text, frozenset(), NOTHING, texts)))

    assert "脚注" in seen("正文[^1]\n\n[^1]: 脚注")
    assert "最里面" in seen("> " * 90 + "最里面")
    assert "最里面" in seen("".join("  " * depth + "- 项\n" for depth in range(90)) + "  " * 90 + "- 最里面")
    assert seen("甲" * 300_000 + "末").rstrip().endswith("末")
    assert "<strong>注意：</strong>" in rendering.markdown("**注意：**请", frozenset(), NOTHING, texts)
    assert seen("[手册](https://evil.example/a?b=c) ![图](http://evil.example/x.png)").strip() == (
        "手册 (evil.example/a) 〔图片：图〕"
    )


def test_one_document_stands_once() -> None:
    """Sources of one title and address are one, their passages in order and each once."""
    one = Source("手册", "甲")
    assert grouped((one, Source("别的", "丙"), replace(one, text="乙\n…\n甲"))) == (
        Source("手册", "甲\n…\n乙"),
        Source("别的", "丙"),
    )
