"""The demo page for everybody: on a phone, without a mouse, with a screen reader, light and dark."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests import browser
from tests.browser import DESKTOP, PHONE, TABLET, Visit, faults_of, said

chromium, demo, visit = (
    browser.chromium,
    browser.demo,
    browser.visit,
)  # fixtures: one browser and one demo for this module

QUESTION = "北京出差住宿标准是多少？"
MARKDOWN = (
    '<h3>标题</h3><p>正文<code>代码</code>和<a href="https://example.com/">链接</a></p><pre><code>{"a": 1}</code></pre>'
    "<blockquote>引用</blockquote><table><thead><tr><th>城市</th><th>标准</th></tr></thead>"
    "<tbody><tr><td>北京</td><td>600 元/晚</td></tr></tbody></table>"
)


def test_two_columns_are_enough_for_a_tablet(visit: Visit) -> None:
    """The panel takes the chat's place and gives it back; nothing is wider than the window."""
    visitor = visit(TABLET)
    page = visitor.page
    page.get_by_role("button", name="后台").last.click()
    for tab in ("线路", "守护进程", "额度", "设置", "故障"):
        visitor.open_tab(tab)
        assert visitor.overflow_px() == 0, tab
    page.get_by_role("button", name="返回聊天").click()
    expect(page.locator("#ask")).to_be_visible()


def rich(number: int, **facts: Any) -> dict[str, Any]:
    """An answer that has everything an answer may have."""
    return said(number, pc=MARKDOWN, phone=MARKDOWN) | facts


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desk", "phone"])
def test_nobody_is_kept_out(visit: Visit, size: tuple[int, int]) -> None:
    """No serious finding of axe: list, chat with every kind of message, each tab, light and dark, wide and narrow."""
    visitor = visit(size)
    page = visitor.page
    assert faults_of(page) == []
    states = ["sent", "held", "lost", "acked"]
    visitor.stock(
        [said(number) | {"state": state} for number, state in enumerate(states)]
        + [rich(10, mentions=["张三"], note="经 OpenAPI 送达"), rich(11, notice=True)]
    )
    if size == PHONE:
        visitor.open_chat("小问答（张三）")
    assert faults_of(page) == []
    if size != DESKTOP:
        page.get_by_role("button", name="后台").last.click()
    for tab in ("线路", "守护进程", "额度", "设置", "故障"):
        visitor.open_tab(tab)
        if tab == "线路":
            page.locator(".wire summary").last.click()
        assert faults_of(page) == [], tab
        assert visitor.overflow_px() == 0, tab


def test_nobody_is_kept_out_of_the_tour(visit: Visit) -> None:
    """No serious finding of axe while the tour is open, on a desk and on a phone."""
    visitor = visit()
    page = visitor.page
    page.get_by_role("button", name="三分钟导览", exact=True).click()
    expect(page.get_by_role("region", name="三分钟导览")).to_be_visible()
    assert faults_of(page) == []
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    assert faults_of(page) == []
    assert visitor.overflow_px() == 0
    page.locator("#tour-stop").click()
    expect(page.get_by_role("region", name="三分钟导览")).to_be_hidden()


KEY = {"what": "AnythingLLM 不接受 API 密钥。", "remedy": "新建密钥，" * 20}
STATUS = {
    "version": "0.2.0",
    "uptime_s": 182.3,
    "ready": False,
    "parts": {"store": {"ok": False, "why": "磁盘满了"}, "link": {"ok": True, "why": ""}},
    "link": {"connected": True, "why": "", "cause": "", "explained": None, "since_s": 121.0, "opens": 2}
    | {"last_frame_s": None},
    "queue": {"ready": 3, "leased": 1, "answered": 0, "sending": 0, "dead": 2, "oldest_s": 75.0},
    "lanes": [
        {
            "lane": "a",
            "person": "u-3f9a2c",
            "conversation": "c-1",
            "code": "7K3M9QXA",
            "state": "ready",
            "words": "稍后再试",
        }
        | {"waiting": 3, "tries": 1, "oldest_s": 3.1, "due_s": 4.0}
        for _ in range(3)
    ],
    "backend": {"ok": False, "why": "w" * 300, "cause": "backend.key", "explained": KEY, "since_s": 30.0},
    "failures": [
        {"code": "7K3M9QXA", "at": 1.79e9, "outcome": "failed", "words": "失败"}
        | {"cause": "backend.key", "explained": KEY, "why": "HTTP 403"},
        {"code": "9K3M9QXA", "at": 1.79e9, "outcome": "failed", "words": "失败", "cause": "", "explained": None}
        | {"why": "something else"},
    ],
    "running": 1,
}


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desk", "phone"])
def test_an_operator_reads_the_daemons_state(visit: Visit, size: tuple[int, int]) -> None:
    """Link, queue, lanes, backend and the last failures are told in words, within the panel, for every reader."""
    visitor = visit(size)
    page = visitor.page
    page.route("**/api/events", lambda route: route.fulfill(content_type="text/event-stream", body="retry: 600000\n\n"))
    visitor.alter(lambda state: {**state, "daemon": {"running": True, "pid": 7, "ready": False, "status": STATUS}})
    if size == PHONE:
        page.get_by_role("button", name="后台").first.click()
    visitor.open_tab("守护进程")
    sheet = page.get_by_role("tabpanel", name="守护进程")
    for words in (
        *(
            "没有就绪",
            "已连接",
            "磁盘满了",
            "处理：新建密钥",
            "最早的一个已经等了 1 分钟",
            "7K3M9QXA",
            "something else",
        ),
        "提问者 u-3f9a2c，等了 3.1 秒，后面还有 2 个，已试 1 次，4 秒后再试",
    ):
        expect(sheet).to_contain_text(words)
    assert sheet.evaluate("one => one.scrollWidth - one.clientWidth") == 0
    assert faults_of(page) == []


def test_the_whole_way_on_a_phone(visit: Visit) -> None:
    """List, chat, question, answer, panel and back fit a phone's screen, with nothing to scroll sideways."""
    visitor = visit(PHONE, has_touch=True)
    page = visitor.page
    assert visitor.overflow_px() == 0
    visitor.open_chat("行政人事群")
    expect(page.locator("#ask")).to_be_visible()
    visitor.ask(QUESTION)
    expect(visitor.answers).to_contain_text("600 元/晚")
    expect(visitor.answers).to_be_in_viewport()
    assert visitor.overflow_px() == 0
    page.get_by_role("button", name="后台").click()
    expect(page.locator('.wire [data-kind="webhook"]')).to_be_visible()
    visitor.open_tab("故障")
    expect(page.get_by_role("button", name="拔网线")).to_be_visible()
    assert visitor.overflow_px() == 0
    page.get_by_role("button", name="返回聊天").click()
    expect(page.locator("#ask")).to_be_visible()
    page.get_by_role("button", name="返回会话列表").click()
    expect(page.get_by_role("navigation", name="会话")).to_be_visible()
    page.set_viewport_size({"width": 320, "height": 640})
    assert visitor.overflow_px() == 0


def test_a_long_answer_stays_inside_its_bubble(visit: Visit) -> None:
    """Wide tables and long lines scroll inside; words without an end are broken."""
    wide = "<table><tr>" + "<td>一格很宽的内容</td>" * 30 + "</tr></table>"
    visitor = visit(PHONE)
    visitor.stock(
        [
            said(1, text="啊" * 3000 + "w" * 3000),
            said(2, pc=wide, phone=wide),
            said(3, pc=f"<pre>{'x' * 900}</pre>", phone=f"<pre>{'x' * 900}</pre>"),
        ]
    )
    visitor.open_chat("小问答（张三）")
    assert visitor.overflow_px() == 0
    log = visitor.log
    assert log.evaluate("one => one.scrollWidth - one.clientWidth") == 0
    assert log.locator(".scroll").evaluate("one => one.scrollWidth > one.clientWidth") is True


def test_everything_can_be_done_with_the_keyboard(visit: Visit) -> None:
    """Skip link, question, answer, tabs by arrow keys, an entry of the wire opened and closed: no mouse."""
    visitor = visit()
    page = visitor.page
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="跳到输入框")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#ask")).to_be_focused()
    page.keyboard.insert_text(QUESTION)
    page.keyboard.press("Enter")
    expect(visitor.answers).to_contain_text("600 元/晚")
    tab_until(page, '[role="tab"]')
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("tab", name="故障")).to_be_focused()
    tab_until(page, '[data-fault="slow"]')
    page.keyboard.press("Space")
    expect(page.get_by_role("switch", name="变慢")).to_be_checked()
    page.keyboard.press("Space")
    expect(page.get_by_role("switch", name="变慢")).not_to_be_checked()
    tab_until(page, '[role="tab"]', key="Shift+Tab")
    page.keyboard.press("Home")
    tab_until(page, ".wire summary")
    page.keyboard.press("Enter")
    expect(page.locator(".wire details[open]")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".wire details[open]")).to_have_count(0)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def tab_until(page: Page, selector: str, key: str = "Tab") -> None:
    for _ in range(80):
        page.keyboard.press(key)
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{key} does not reach {selector}")


def test_a_screen_reader_hears_the_answer(visit: Visit) -> None:
    """Messages stand in a polite log, parts are landmarks, and a chat that is opened is not read out whole."""
    visitor = visit()
    page = visitor.page
    for landmark, name in (("navigation", "会话"), ("main", "聊天"), ("complementary", "后台")):
        expect(page.get_by_role(landmark, name=name)).to_be_visible()  # type: ignore[arg-type]
    expect(visitor.log).to_have_attribute("aria-live", "polite")
    before = visitor.log.element_handle()
    visitor.open_chat("小问答（李四）")
    assert before is not None
    assert before.evaluate("one => one.isConnected") is False


def test_who_wants_no_motion_gets_none(visit: Visit) -> None:
    """With reduced motion nothing moves, the waiting notice included."""
    still, moving = visit(reduced_motion="reduce"), visit(reduced_motion="no-preference")
    for visitor, expected in ((still, "none"), (moving, "breathe")):
        visitor.stock([rich(1, notice=True, kind="text", text="正在查询，请稍候…")])
        dots = visitor.page.locator(".dots i").first
        assert dots.evaluate("one => getComputedStyle(one).animationName") == expected
