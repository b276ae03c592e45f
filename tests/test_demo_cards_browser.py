"""The demo page with AI cards in a real Chromium: text grows, buttons call back, files are answered."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import FilePayload, Locator, expect

from tests import browser
from tests.browser import Demo, Visit, Visitor, faults_of, running

chromium, visit = browser.chromium, browser.visit  # fixtures: one browser for this module

QUESTION = "国内出差住宿标准是怎么规定的？"
LAST_ROW = "其他城市"
PHONE = (360, 740)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """A demo whose robot answers on cards."""
    with running("--cards") as one:
        yield one


def cards(visitor: Visitor) -> Locator:
    return visitor.page.locator(".card")


def frames(card: Locator, number: int) -> str:
    """What is on the card when so many frames have come."""
    expect(card).to_have_attribute("data-frames", str(number))
    return card.locator(".card-text").inner_text()


def finished(card: Locator) -> None:
    expect(card).to_have_attribute("data-state", "finished")


def picture() -> FilePayload:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head, rows = (
        struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0),
        zlib.compress(b"".join(b"\0" + bytes(24) for _ in range(8))),
    )
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return {"name": "发票.png", "mimeType": "image/png", "buffer": content}


def test_an_answer_grows_and_a_vote_is_kept(visit: Visit) -> None:
    """Text grows over frames, sources and buttons come with the last one, and a vote is still there after a reload."""
    visitor = visit()
    page = visitor.page
    visitor.ask(QUESTION)
    card = cards(visitor)
    seen = [frames(card, number) for number in (2, 3)]
    expect(card).to_contain_text("输入中")
    assert card.get_attribute("aria-busy") == "true"
    assert 0 < len(seen[0]) < len(seen[1])
    finished(card)
    expect(card).to_contain_text(LAST_ROW)
    expect(card.get_by_role("link", name="差旅报销标准")).to_be_visible()
    expect(page.locator(".unseen[aria-live]").first).to_contain_text(LAST_ROW)  # the whole answer is read out once
    good, bad = card.get_by_role("button", name="有用"), card.get_by_role("button", name="没用")
    bad.click()
    expect(bad).to_have_attribute("aria-pressed", "true")
    good.press("Enter")
    expect(good).to_have_attribute("aria-pressed", "true")
    expect(card).to_contain_text("谢谢，已记下。")
    assert faults_of(page) == []
    page.reload()
    expect(good).to_have_attribute("aria-pressed", "true")
    expect(bad).to_have_attribute("aria-pressed", "false")
    expect(cards(visitor)).to_have_count(1)


def test_streaming_that_fails_halfway_loses_nothing(visit: Visit) -> None:
    """The card is closed as failed, and the whole answer stands below it with its source."""
    visitor = visit()
    visitor.open_tab("故障")
    visitor.page.get_by_role("switch", name="卡片写到一半失败").click()
    visitor.ask(QUESTION)
    card = cards(visitor)
    expect(card).to_have_attribute("data-state", "failed")
    expect(card).to_contain_text("回答见下面的消息")
    whole = visitor.log.locator('.message.theirs[data-kind="markdown"]')
    for words in ("一线城市", "新一线", LAST_ROW, "来源"):
        expect(whole).to_contain_text(words)
    expect(cards(visitor)).to_have_count(1)


def test_a_kill_while_it_writes_ends_on_the_same_card(visit: Visit) -> None:
    """SIGKILL after two frames, then a start: the same card is finished, and nothing else is in the chat."""
    visitor = visit()
    page = visitor.page
    visitor.open_tab("故障")
    visitor.ask(QUESTION)
    card = cards(visitor)
    frames(card, 2)
    page.get_by_role("button", name="强杀").click()
    expect(page.locator(".bot-status")).to_have_text("守护进程停了")
    expect(card).to_have_attribute("data-state", "streaming")
    page.get_by_role("button", name="启动：启动").click()
    finished(card)
    expect(card).to_contain_text(LAST_ROW)
    expect(card).to_contain_text("来源")
    expect(cards(visitor)).to_have_count(1)
    expect(visitor.log.locator(".message.theirs")).to_have_count(1)


def test_a_vote_in_a_group_is_everybody_s_own_and_a_picture_is_read(visit: Visit) -> None:
    """Who asked is named on the card; what one pressed the other does not see; a picture with words is answered."""
    visitor = visit()
    page = visitor.page
    visitor.open_chat("行政人事群")
    page.locator(".chat input[type=file]").set_input_files(picture())
    visitor.ask("年假有几天？")
    expect(visitor.log.get_by_role("img", name="图片 发票.png")).to_be_visible()
    card = cards(visitor)
    finished(card)
    expect(card).to_contain_text("image/png")
    expect(card.locator(".mention")).to_have_text("@张三")
    good = card.get_by_role("button", name="有用")
    good.click()
    expect(good).to_have_attribute("aria-pressed", "true")
    page.get_by_label("以谁的身份说话").select_option(label="李四")
    expect(good).to_have_attribute("aria-pressed", "false")
    page.locator(".chat input[type=file]").set_input_files(
        {"name": "制度.txt", "mimeType": "text/plain", "buffer": "年假".encode()}
    )
    expect(page.get_by_role("alert").filter(has_text="只收得到文字和图片")).to_be_visible()


def test_a_file_a_voice_and_a_quote_are_answered(visit: Visit) -> None:
    """One to one: a file's contents are in the answer, a voice is what was recognised, a quote is shown and sent."""
    visitor = visit()
    page = visitor.page
    page.locator(".chat input[type=file]").set_input_files(
        {"name": "制度.txt", "mimeType": "text/plain", "buffer": "工龄满一年，年假 10 天。".encode()}
    )
    page.locator("#ask").press("Enter")
    expect(visitor.log.locator(".message.own")).to_contain_text("制度.txt")
    expect(cards(visitor).last).to_contain_text("工龄满一年，年假 10 天")
    finished(cards(visitor).last)
    page.get_by_role("button", name="发语音").click()
    visitor.ask("忘记密码怎么办")
    expect(cards(visitor)).to_have_count(2)
    expect(cards(visitor).last).to_contain_text("密码")
    finished(cards(visitor).last)
    last = visitor.log.locator(".message.theirs").last
    last.hover()
    last.get_by_role("button", name="引用这条消息").click()
    expect(page.locator(".going")).to_contain_text("引用 小问答")
    visitor.ask("年假有几天？")
    expect(visitor.log.locator(".message.own").last.locator(".quoted")).to_contain_text("小问答：")
    expect(cards(visitor)).to_have_count(3)


def test_without_cards_buttons_say_it_and_the_meter_counts(visit: Visit, demo: Demo) -> None:
    """Cards off and buttons on: a tap says its command; a pool that is used up is shown, and the answer comes still."""
    visitor = visit()
    page = visitor.page
    visitor.open_tab("设置")
    page.get_by_label("没有卡片时的按钮").select_option(label="按钮")
    expect(page.locator(".fault-message:visible")).to_have_text("已生效。")
    page.get_by_role("switch", name="AI 卡片").click()
    expect(page.get_by_role("switch", name="AI 卡片")).to_have_attribute("aria-checked", "false")
    expect(page.locator(".fault-message:visible")).to_have_text("已生效。")
    visitor.open_tab("额度")
    pool = page.get_by_role("region", name="API 调用")
    pool.get_by_label("本月上限").fill("0")
    pool.get_by_role("button", name="改").click()
    expect(pool).to_contain_text("已用完")
    visitor.ask(QUESTION)
    answer = visitor.log.locator(".message.theirs").first
    answer.get_by_role("group", name="对这个回答").get_by_role("button", name="有用").click()
    expect(visitor.log.locator(".message.own").last).to_contain_text("/good")
    expect(visitor.log.locator(".message.theirs").last).to_contain_text("谢谢，已记下。")
    stream = page.get_by_role("region", name="Webhook 与 Stream")
    expect(stream).to_contain_text("会话 webhook 回复")
    assert faults_of(page) == []
    for name, value in (("quick_replies", "commands"), ("cards", True)):
        demo.act("robot", name=name, value=value)
    demo.act("quota", pool="api", cap=5000)


def test_cards_on_a_phone(visit: Visit) -> None:
    """A card that grows, its table, its buttons and the composer fit 360 pixels; settings and meter do, too."""
    visitor = visit(PHONE, has_touch=True)
    page = visitor.page
    visitor.open_chat("小问答（张三）")
    visitor.ask(QUESTION)
    card = cards(visitor)
    frames(card, 2)
    assert visitor.overflow_px() == 0
    finished(card)
    card.get_by_role("button", name="有用").tap()
    expect(card.get_by_role("button", name="有用")).to_have_attribute("aria-pressed", "true")
    assert visitor.log.evaluate("one => one.scrollWidth - one.clientWidth") == 0
    assert faults_of(page) == []
    page.get_by_role("button", name="后台").click()
    for tab in ("额度", "设置", "故障"):
        visitor.open_tab(tab)
        assert visitor.overflow_px() == 0, tab
        assert faults_of(page) == [], tab
