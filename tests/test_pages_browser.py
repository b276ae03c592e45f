"""Answer pages in a real Chromium: whole on a phone, for everybody, and harmless whatever a stranger wrote."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from dingbridge.model import Answer, Source
from tests import browser
from tests.answering import ANSWER, FOREIGN, INJECTIONS, QUESTION, Served, free_port, serving
from tests.browser import DESKTOP, WAIT_MS, faults_of

chromium = browser.chromium  # a fixture: one browser for this module
PHONE = (360, 740)
SIZE = 60_000  # characters
TABLE = "| 城市 | 级别 | 淡季标准 | 旺季标准 | 备注 |\n|---|:-:|--:|--:|---|\n"
ROW = "| 第 {0} 城 | {1} | {0} 元 | {0}50 元 | 超出部分需要部门负责人书面同意，编号 TR-2026-{0:05}-ABCDEFGHIJKLMNOP |\n"
CODE = "```python\ndef limit_{0}(city: str) -> int:\n    return CITIES.get(city, {0}) or {2}\n```\n\n"


def long_answer() -> str:
    """Chapters of text, tables, code, lists and quotes, with a number in each, of about `SIZE` characters."""
    parts, size, number = [], 0, 0
    while size < SIZE:
        number += 1
        part = f"## 第 {number} 章\n\n住宿标准按 **城市** 和 *职级* 执行，凭发票报销。\n\n{TABLE}"
        part += "".join(ROW.format(number * 10 + row, "ABC"[row % 3]) for row in range(5)) + "\n"
        part += CODE.format(number, "", " + ".join(f"value_{number}_{at}" for at in range(12)))
        part += f"- 一级\n  - 二级 {number}\n    1. 三级\n\n> 引用第 {number} 条\n\n" + "W" * 120 + "\n\n"
        parts.append(part)
        size += len(part)
    return "".join(parts) + "最后一句。"


class Host:
    """A daemon's pages in a thread with a loop of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ready = threading.Event()
        self._end: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.served: Served | None = None

    def run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        port = free_port()
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with serving(self._folder, url=f"http://127.0.0.1:{port}", port=port) as self.served:
            self._ready.set()
            await self._end.wait()

    @contextmanager
    def running(self) -> Iterator[Host]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            assert self._ready.wait(30)
            yield self
        finally:
            assert self._loop is not None
            assert self._end is not None
            self._loop.call_soon_threadsafe(self._end.set)
            thread.join()

    def link(self, answer: Answer = ANSWER, **how: Any) -> str:
        """The address of a new page."""
        assert self.served is not None
        assert self._loop is not None
        token = asyncio.run_coroutine_threadsafe(self.served.answered(answer, **how), self._loop).result(30)
        return self.served.pages.link(token)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(tmp_path_factory.mktemp("pages")).running() as one:
        yield one


Open = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Open]:
    """Opens an address as on a phone; at the end nothing was run, asked for elsewhere or complained of."""
    contexts = []
    wrong: list[str] = []

    def opened(url: str, *, size: tuple[int, int] = PHONE, grumble: bool = False, **settings: Any) -> Page:
        context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, locale="zh-CN", **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        own = "/".join(url.split("/")[:3]) + "/"
        page.on("request", lambda request: wrong.extend([request.url] * (not request.url.startswith(own))))
        page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
        page.on("pageerror", lambda error: wrong.append(f"error {error}"))
        if not grumble:
            page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def overflow_px(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_a_long_answer_is_whole_on_a_phone(host: Host, open_page: Open) -> None:
    """60 000 characters with tables and code: every chapter, row and last sentence, nothing wider than the screen."""
    text = long_answer()
    chapters = text.count("## ")
    page = open_page(host.link(Answer(text, ANSWER.sources)))
    answer = page.locator(".answer")
    expect(answer.locator("h4")).to_have_count(chapters)
    expect(answer.locator("table")).to_have_count(chapters)
    expect(answer.locator("tbody tr")).to_have_count(chapters * 5)
    expect(answer.locator("pre")).to_have_count(chapters)
    expect(answer.locator("p").last).to_have_text("最后一句。")
    assert overflow_px(page) == 0
    wide = page.evaluate(
        "[...document.querySelectorAll('.answer > *, .answer p, .answer li')]"
        ".filter((one) => one.getBoundingClientRect().right > innerWidth).length"
    )
    assert wide == 0
    for wide_one in ("table", "pre code"):  # what is wider than the screen is scrolled to, not cut off
        last = page.evaluate(
            """(selector) => {
                const one = document.querySelector(".answer " + selector);
                const frame = one.closest("[tabindex]");
                frame.scrollLeft = 1e6;
                const over = frame.scrollWidth > frame.clientWidth;
                return over && one.getBoundingClientRect().right <= frame.getBoundingClientRect().right;
            }""",
            wide_one,
        )
        assert last, wide_one


def test_nothing_foreign_acts(host: Host, open_page: Open) -> None:
    """Whatever stands in question, answer, titles, passages and the route's name: it is text, and nothing else."""
    page = open_page(host.link())
    for text in INJECTIONS:
        sources = (Source(text, text, "https://wiki.intra/1"), Source(text, text, f"{FOREIGN}/x"))
        page.goto(host.link(Answer(text, sources), question=text, route=text))
        page.evaluate("""() => {
            for (const one of document.querySelectorAll("details")) one.open = true;
            for (const one of document.querySelectorAll(".answer *, header bdi, header span, summary *, blockquote"))
                if (!one.closest("a, button")) one.dispatchEvent(new MouseEvent("click", {bubbles: true}));
        }""")
        expect(page.locator("#feedback button").first).to_be_visible()
        assert overflow_px(page) == 0, text
        assert page.locator("img, iframe, object, embed, base, style, script:not([src])").count() == 0
        assert page.locator("form").count() == 1
        assert page.locator("a").evaluate_all("(all) => all.every((one) => one.protocol.startsWith('http'))")


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desk"])
def test_nobody_is_kept_out(host: Host, open_page: Open, size: tuple[int, int]) -> None:
    """No serious finding of axe, by day and night: an answer, a vote, and a link that has expired."""
    page = open_page(host.link(), size=size)
    page.get_by_role("button", name="没有帮助").click()
    expect(page.get_by_role("status")).to_have_text("已记下：没有帮助。随时可以改。")
    page.locator("summary").last.click()
    assert faults_of(page) == []
    assert overflow_px(page) == 0
    gone = open_page(host.link()[:-22] + "A" * 22, size=size, grumble=True)  # of the status
    expect(gone.get_by_role("heading")).to_have_text("打不开这个页面")
    assert faults_of(gone) == []
    assert overflow_px(gone) == 0


@pytest.mark.parametrize("script", [True, False], ids=["with JavaScript", "without"])
def test_a_vote_is_shown_as_chosen(host: Host, open_page: Open, script: bool) -> None:
    """Thumb up, then down with a reason: the last is shown, here and when the page is opened again."""
    link = host.link()
    page = open_page(link, java_script_enabled=script)
    good = page.get_by_role("button", name="有帮助", exact=True)
    bad = page.get_by_role("button", name="没有帮助")
    expect(page.get_by_role("button", name="保存原因")).to_be_hidden()
    good.click()
    expect(page.get_by_role("status")).to_have_text("已记下：有帮助。随时可以改。")
    expect(good).to_have_attribute("aria-pressed", "true")
    page.get_by_label("原因").fill("标准<b>旧</b>了")
    bad.click()
    expect(bad).to_have_attribute("aria-pressed", "true")
    expect(good).to_have_attribute("aria-pressed", "false")
    page.get_by_label("原因").fill("标准<b>旧</b>了，请更新")
    page.get_by_role("button", name="保存原因").click()
    expect(page.get_by_role("status")).to_have_text("已记下：没有帮助。随时可以改。")
    again = open_page(link, java_script_enabled=script)
    expect(again.get_by_role("button", name="没有帮助")).to_have_attribute("aria-pressed", "true")
    expect(again.get_by_label("原因")).to_have_value("标准<b>旧</b>了，请更新")


def test_a_code_is_copied(host: Host, open_page: Open) -> None:
    """One press puts the code into the clipboard, and the button says so."""
    page = open_page(host.link(), permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="复制").click()
    expect(page.get_by_role("button", name="已复制")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#code").text_content()


@pytest.mark.parametrize("script", [True, False], ids=["with JavaScript", "without"])
def test_paper_has_everything(host: Host, open_page: Open, script: bool) -> None:
    """Printed there are answer and all passages in full width, black on white, without buttons."""
    page = open_page(host.link(), size=DESKTOP, java_script_enabled=script, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    for unwanted in ("#feedback", "#print", "#copy"):
        expect(page.locator(unwanted)).to_be_hidden()
    expect(page.get_by_text(QUESTION)).to_be_visible()
    assert page.locator(".answer").evaluate("(one) => getComputedStyle(one).color") == "rgb(0, 0, 0)"
    assert page.pdf().startswith(b"%PDF")
    expect(page.locator("details").last.locator("blockquote")).to_be_visible()
