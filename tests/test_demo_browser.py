"""The demo page in a real Chromium: ask, look behind it, break it, take the tour."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests import browser
from tests.browser import Demo, Visit, faults_of, running, said

chromium, demo, visit = (
    browser.chromium,
    browser.demo,
    browser.visit,
)  # fixtures: one browser and one demo for this module

QUESTION = "北京出差住宿标准是多少？"
LISI_ASKS = """fetch("/api/say", {
  method: "POST",
  headers: {"Content-Type": "application/json"},
  body: JSON.stringify({chat: "group", as: "lisi", text: "年假有几天？"}),
}).then((response) => response.ok)"""


def test_a_newcomer_sees_what_this_is_and_what_to_click(visit: Visit) -> None:
    """The first look says what is real, what is a stand-in, and offers the tour and questions."""
    visitor = visit()
    page = visitor.page
    expect(page.get_by_role("banner")).to_contain_text("守护进程是真的，钉钉和 AnythingLLM 是替身")
    expect(page.get_by_role("button", name="三分钟导览", exact=True)).to_be_visible()
    expect(page.get_by_role("group", name="试着问").get_by_role("button").first).to_be_visible()
    expect(visitor.log).to_contain_text("第一次来？")


def test_a_question_is_answered_with_its_source(visit: Visit) -> None:
    """One click asks; the answer names the document it comes from, and the question is marked as delivered."""
    visitor = visit()
    visitor.page.get_by_role("button", name=QUESTION).click()
    expect(visitor.answers).to_contain_text("600 元/晚")
    expect(visitor.answers.get_by_role("link", name="差旅报销标准")).to_be_visible()
    expect(visitor.log.locator(".message.own")).to_contain_text("已送达")
    expect(visitor.page.locator(".expiry")).to_contain_text("会话 webhook 还有")


def test_shift_enter_breaks_the_line_and_enter_of_an_input_method_sends_nothing(visit: Visit) -> None:
    """Chinese is typed with an input method, whose Enter takes a word and must not send half a question."""
    visitor = visit()
    box = visitor.page.locator("#ask")
    box.fill("年假")
    box.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    box.press("Shift+Enter")
    box.press_sequentially("有几天？")
    expect(box).to_have_value("年假\n有几天？")
    box.press("Enter")
    expect(box).to_have_value("")
    expect(visitor.log.locator(".message.own .bubble")).to_have_text(["年假\n有几天？"])


def test_in_the_group_each_is_answered_by_name(visit: Visit) -> None:
    """Three people share a group; whoever asks is mentioned in the answer, and own messages stand on the right."""
    visitor = visit()
    visitor.open_chat("行政人事群")
    visitor.page.get_by_label("以谁的身份说话").select_option(label="李四")
    visitor.ask("年假有几天？")
    expect(visitor.log.locator(".message.own .mention")).to_have_text("@小问答")
    expect(visitor.answers.locator(".mention")).to_have_text("@李四")
    visitor.page.get_by_label("以谁的身份说话").select_option(label="王五")
    expect(visitor.log.locator(".message.own")).to_have_count(0)


def test_an_answer_in_another_chat_is_counted_as_unread(visit: Visit) -> None:
    """What arrives elsewhere shows as a number, which goes when the chat is opened."""
    visitor = visit()
    visitor.page.locator("#ask").fill(QUESTION)
    visitor.page.locator("#ask").press("Enter")
    visitor.open_chat("行政人事群")
    unread = visitor.page.locator('.row[data-chat="zhangsan"] .unread')
    expect(unread).to_have_text("1")
    visitor.open_chat("小问答（张三）")
    expect(unread).to_have_text("")


def test_the_wire_shows_every_step_and_no_secret(visit: Visit) -> None:
    """Frame, acknowledgement and post are lines that open to their JSON, with what is secret masked."""
    visitor = visit()
    visitor.ask(QUESTION)
    expect(visitor.answers).to_have_count(1)
    for kind in ("frame", "ack", "webhook"):
        line = visitor.page.locator(f'.wire [data-kind="{kind}"]').last
        line.locator("summary").click()
        expect(line.locator("pre")).to_contain_text("{")
    frame = visitor.page.locator('.wire [data-kind="frame"] pre').last
    expect(frame).to_contain_text(QUESTION)
    expect(frame).to_contain_text('"sessionWebhook": "•••"')


def test_a_cut_link_is_seen_and_comes_back(visit: Visit) -> None:
    """拔网线: the wire shows the loss and the new connection, and the next question is answered."""
    visitor = visit()
    lines = visitor.page.locator(".wire .wire-title")
    connected = lines.filter(has_text="长连接已建立")
    expect(connected.first).to_be_visible()
    before = connected.count()
    visitor.open_tab("故障")
    visitor.page.get_by_role("button", name="拔网线").click()
    visitor.open_tab("线路")
    expect(lines.filter(has_text="长连接断开").first).to_be_visible()
    expect(connected).to_have_count(before + 1)
    visitor.ask(QUESTION)
    expect(visitor.answers).to_contain_text("600 元/晚")


def test_a_killed_daemon_is_seen_and_answers_after_its_start(visit: Visit) -> None:
    """强杀: chat and panel say that it is gone, a question waits, and is answered once it runs again."""
    visitor = visit()
    page = visitor.page
    visitor.open_tab("故障")
    page.get_by_role("button", name="强杀").click()
    expect(page.locator(".bot-status")).to_have_text("守护进程停了")
    visitor.ask(QUESTION)
    question = visitor.log.locator(".message.own")
    expect(question).to_contain_text("等待连接")
    visitor.open_tab("守护进程")
    expect(page.locator(".summary-word")).to_have_text("已停止")
    visitor.open_tab("故障")
    page.get_by_role("button", name="启动", exact=False).click()
    expect(visitor.answers).to_contain_text("600 元/晚")
    expect(question).to_contain_text("已送达")
    expect(page.locator(".bot-status")).to_have_text("在线")
    visitor.open_tab("守护进程")
    expect(page.locator(".summary-word")).to_have_text("运行中")


def test_the_tour_from_start_to_end(visit: Visit) -> None:
    """Clicking 继续 leads through every step; side by side the bare bot loses the question and ours answers it."""
    visitor = visit()
    page = visitor.page
    page.get_by_role("button", name="三分钟导览", exact=True).click()
    tour = page.get_by_role("region", name="三分钟导览")
    go_on = page.locator("#tour-next")
    steps = int(re.findall(r"\d+", tour.locator(".tour-count").inner_text())[1])
    compared = False
    handed = False
    for step in range(1, steps + 1):
        expect(tour.locator(".tour-count")).to_have_text(f"第 {step} 步，共 {steps} 步")
        expect(go_on).to_have_attribute("aria-disabled", "false", timeout=90_000)
        expect(tour).not_to_have_attribute("data-status", "failed")
        bare, ours = page.locator('.chat[data-bot="bare"]'), page.locator('.chat[data-bot="ours"]')
        if bare.count() and ours.count():
            compared = True
            expect(bare.locator(".results")).to_contain_text("丢了：")
            expect(bare.locator('.message.own[data-state="lost"]')).to_contain_text("已丢失")
            expect(ours.locator(".results")).to_have_text("问了 2 个，答上 2 个")
            expect(ours.locator(".message.theirs .markdown").last).to_contain_text("来源")
        title = tour.locator("h2").inner_text()
        if title.startswith("卡片"):
            expect(page.locator(".card").get_by_role("button", name="有用")).to_have_attribute("aria-pressed", "true")
        if "转给同事" in title:
            handed = True
            expect(page.locator('.chat[data-chat="lisi"] .quoted')).to_contain_text("转人工")
            expect(page.locator('.chat[data-chat="zhangsan"]')).to_contain_text("李四 的答复")
            expect(page.locator('.chat[data-chat="zhangsan"]')).to_contain_text("来源 1 的原文")
        if step < steps:
            go_on.click()
    assert compared
    assert handed
    trace = page.get_by_role("region", name=re.compile("编号 .* 的全程"))
    expect(trace).to_be_in_viewport()
    expect(trace).to_contain_text("原因：AnythingLLM 不接受 API 密钥。")
    expect(trace.get_by_role("listitem").first).to_have_text(
        re.compile(r"^\d\d:\d\d:\d\d\.\d{3}收到消息（文字，单聊）")
    )
    expect(trace.locator('li[data-ok="false"]').first).to_contain_text("第 1 次问 AnythingLLM（handbook）：失败")
    go_on.click()
    expect(tour).to_be_hidden()
    expect(page.get_by_role("button", name="三分钟导览", exact=True)).to_be_focused()


def test_a_lost_demo_is_told_and_found_again(visit: Visit) -> None:
    """When the demo ends the page says so; when it is back the page goes on by itself, with what was being typed."""
    with running() as first:
        visitor = visit(url=first.url)
        page = visitor.page
        page.locator("#ask").fill("年假有几天？")
    banner = page.locator("#banner")
    expect(banner).to_contain_text("正在重连")
    page.locator("#ask").press("Enter")
    expect(page.get_by_role("alert").filter(has_text="演示程序没有回应")).to_be_visible()
    with running(port=int(first.url.rpartition(":")[2])):
        expect(banner).to_have_text("")
        expect(page.locator("#ask")).to_have_value("年假有几天？")
        page.locator("#ask").press("Enter")
        expect(visitor.answers).to_contain_text("来源")
        page.close()
    visitor.seen.console[:] = [line for line in visitor.seen.console if "Failed to load resource" not in line]


def test_markup_is_shown_and_never_run(visit: Visit) -> None:
    """A question full of markup is a text like any other."""
    visitor = visit()
    markup = '<img src=x onerror="window.hit=1"><script>window.hit=1</script><b>粗</b>'
    visitor.ask(markup)
    expect(visitor.log.locator(".message.own .bubble")).to_have_text(markup)
    expect(visitor.answers).to_have_count(1)
    assert visitor.page.evaluate("window.hit") is None
    assert visitor.page.locator(".log img, .log script, .log b").count() == 0


def test_a_server_that_lets_markup_through_does_no_harm(visit: Visit) -> None:
    """The page has a wall of its own: scripts, handlers, frames, pictures and foreign schemes are left out."""
    visitor = visit()
    html = (
        '<p onclick="window.hit=1" style="position:fixed">文<script>window.hit=1</script>'
        '<img src="http://192.0.2.1/x.png" onerror="window.hit=1" alt="图"><svg onload="window.hit=1"></svg>'
        '<iframe src="javascript:window.parent.hit=1"></iframe><a href="javascript:window.hit=1">甲</a>'
        '<a href="https://example.com/">乙</a><form action="http://192.0.2.1/"><input name="x"></form>'
    )
    shown = visitor.page.evaluate(
        """async (html) => {
          const { fragment } = await import("/static/safe.js");
          const box = document.createElement("div");
          box.append(fragment(html, () => {}));
          document.querySelector(".lines").append(box);
          return box.innerHTML;
        }""",
        html,
    )
    assert shown == (
        "<p>文[图片：图]<span>甲</span>"
        '<a href="https://example.com/" target="_blank" rel="noopener noreferrer nofollow">乙</a></p>'
    )
    assert visitor.page.evaluate("window.hit") is None
    told = [line for line in visitor.seen.console if "Content Security Policy" not in line]  # the outer wall held too
    assert told == []
    visitor.seen.console.clear()


def test_many_messages_stay_as_they_are_when_one_comes(visit: Visit) -> None:
    """A new message is added to a long chat without building the older ones anew."""
    visitor = visit()
    visitor.stock([said(number) for number in range(400)])
    visitor.page.evaluate("document.querySelector('.message').known = true")
    visitor.ask(QUESTION)
    expect(visitor.page.locator(".message")).to_have_count(402)
    expect(visitor.answers).to_be_in_viewport()
    assert visitor.page.evaluate("document.querySelector('.message').known") is True


def test_the_newest_message_stays_in_sight_unless_somebody_reads_above(visit: Visit) -> None:
    """Who is at the end sees each new message, however fast they come; who has scrolled up is left there."""
    visitor = visit()
    visitor.stock([said(number, text="一行\n" * 8) for number in range(20)])
    expect(visitor.page.locator(".message").last).to_be_in_viewport()
    for number in range(3):
        visitor.ask(f"第 {number} 问：年假有几天？")
    expect(visitor.answers).to_have_count(3)
    expect(visitor.answers.last).to_be_in_viewport(ratio=1)
    visitor.open_chat("行政人事群")
    visitor.ask("会议室怎么预订？")
    visitor.ask("忘记密码怎么办？")
    expect(visitor.answers).to_have_count(2)
    visitor.log.evaluate("log => { log.scrollTop = 30; }")
    visitor.page.evaluate(LISI_ASKS)
    expect(visitor.answers).to_have_count(3)
    assert visitor.log.evaluate("log => log.scrollTop") == 30


def test_what_happens_while_the_page_loads_is_shown(visit: Visit, demo: Demo) -> None:
    """A message that comes after the state was read and before it arrives is not lost."""
    visitor = visit()

    def late(state: dict[str, Any]) -> dict[str, Any]:
        demo.hear("年假有几天？")
        return state

    visitor.alter(late)
    expect(visitor.log.locator(".message.own")).to_have_count(1)
    expect(visitor.answers).to_have_count(1)


def test_phone_and_pc_show_what_dingtalk_shows_there(visit: Visit) -> None:
    """The switch changes how each answer is rendered, and how wide the chat is."""
    visitor = visit()
    visitor.stock([said(1, pc="<table><tr><td>表格</td></tr></table>", phone="<p>没有表格</p>")])
    expect(visitor.log.locator("table")).to_be_visible()
    wide = visitor.log.bounding_box()
    visitor.page.get_by_role("button", name="手机").click()
    expect(visitor.answers).to_have_text("没有表格")
    narrow = visitor.log.bounding_box()
    assert wide is not None
    assert narrow is not None
    assert narrow["width"] <= 420 < wide["width"]


def test_a_gateway_alone_says_how_to_connect(visit: Visit) -> None:
    """Without a daemon there is its address instead, no tour, and only the faults that a link has."""
    with running("--gateway-only", name="聊天页面") as alone:
        visitor = visit(url=alone.url)
        page = visitor.page
        expect(page.get_by_role("banner")).to_contain_text("把您的机器人接上来")
        expect(visitor.log).to_contain_text("等您的机器人来答")
        expect(page.get_by_role("button", name="三分钟导览", exact=True)).to_be_hidden()
        expect(page.get_by_role("button", name="清空")).to_be_hidden()
        sheet = page.get_by_role("tabpanel", name="接入")
        expect(sheet).to_contain_text("还没有机器人连接")
        expect(sheet).to_contain_text("export DINGTALK_OPENAPI_ENDPOINT=http://127.0.0.1:")
        assert faults_of(page) == []
        visitor.ask("你好")
        expect(visitor.log.locator(".message.own")).to_contain_text("等待连接")
        visitor.open_tab("故障")
        expect(page.locator("[data-fault]:visible")).to_have_count(5)
        expect(page.get_by_role("region", name="守护进程")).to_be_hidden()
        page.close()


@pytest.mark.parametrize(
    ("setting", "said_so", "not_so"),
    [
        ({"own": True}, "按您自己的路由和处理器作答。守护进程是真的，钉钉和 AnythingLLM 是替身", "查资料"),
        ({"real_anythingllm": True}, "守护进程和 AnythingLLM 是真的，只有钉钉是替身", "AnythingLLM 是替身"),
        (
            {"own": True, "real_anythingllm": True},
            "守护进程和 AnythingLLM 是真的，只有钉钉是替身",
            "AnythingLLM 是替身",
        ),
    ],
)
def test_what_is_real_is_not_called_a_stand_in(
    visit: Visit, setting: dict[str, bool], said_so: str, not_so: str
) -> None:
    """The head and the foot of the page say what is one's own and what plays somebody else."""
    visitor = visit()
    visitor.alter(lambda state: {**state, **setting, "tour_available": False})
    banner, foot = visitor.page.get_by_role("banner"), visitor.page.locator(".foot")
    expect(banner).to_contain_text(said_so)
    expect(banner).not_to_contain_text(not_so)
    expect(foot).to_contain_text("您的")
    if setting.get("real_anythingllm"):
        expect(foot).to_contain_text("替身：钉钉。")
    if setting.get("own"):
        expect(visitor.log).to_contain_text("张三是销售")
