"""Bold in answers: amounts, dates and the question's words, only where the sources say them, and nothing else moves."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dingbridge.dingtalk.blocks import render, visible
from dingbridge.dingtalk.emphasis import MAX_BOLD, emphasise
from dingbridge.dingtalk.markdown import read
from dingbridge.emphasis import Emphasis, emphasis, facts_of, highlights, key_words
from tests.acting import READER, faults, flat, words

HOSTS = frozenset({"kb.example"})
PASSAGE = (
    "差旅住宿标准：一线城市每晚不超过 800 元，其他城市 500 元/晚；￥1,200.50 以内由经理审批，30% 自付。"
    "须在3月1日前提交，每月15日发放，2026年3月1日起执行，2026-03-01 发布，5 个工作日内到账。1800 人。US$ 20 a day."
)


def bolded(text: str, question: str = "", passage: str = PASSAGE) -> str:
    return render(emphasise(read(text, HOSTS), emphasis(question, [passage])))


@pytest.mark.parametrize(
    ("question", "passage", "found"),
    [
        ("请问差旅住宿标准是多少？一线城市的呢", PASSAGE, ("差旅住宿标准", "一线城市")),
        ("年假有几天？", "员工年假为五天。", ("年假",)),
        ("出差回来几天内要报销？", "出差后 15 天内报销。", ("出差", "报销")),
        ("请假怎么申请", "请假须申请。", ("请假", "申请")),
        ("How many days of annual leave do I get?", "Annual leave is ten days.", ("days", "annual", "leave")),
        ("那国外的呢？", "国内标准", ()),
        ("VPN 怎么连", "vpn 与 vpnx", ("VPN",)),
        ("app", "application", ()),
        ("是什么的", "这是什么的", ()),
        ("", PASSAGE, ()),
        ("差旅", "", ()),
    ],
)
def test_key_words(question: str, passage: str, found: tuple[str, ...]) -> None:
    """The longest pieces that question and passages share, without words that only ask."""
    assert key_words(question, [passage]) == found


def test_key_words_are_few_and_found_quickly() -> None:
    """A hostile question against a long passage ends, with no more words than can be shown."""
    assert len(key_words("甲乙丙丁戊己庚辛" * 2_000, ["甲乙 丙丁 戊己 庚辛 " * 20_000])) <= 20


def test_highlights_are_places_in_plain_text() -> None:
    """What a page may mark: the longest word first, whole Latin words, any case."""
    assert highlights("住宿标准与标准，VPN 与 vpns", ["标准", "住宿标准", "vpn"]) == [(0, 4), (5, 7), (8, 11)]
    assert highlights("住宿", []) == []


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("每晚 800元。", "每晚 **800元**。"),
        ("1800 元与 18005 元，800.5 元，1,800 元", "1800 元与 18005 元，800.5 元，1,800 元"),
        ("型号 X800 元，第 3-800 元", "型号 X800 元，第 3-800 元"),
        ("其他 500元/晚，", "其他 **500元/晚**，"),
        ("其他 500 元/天，", "其他 **500 元**/天，"),
        ("付 ￥1200.50。", "付 **￥1200.50**。"),
        ("付￥1200.50。", "付￥**1200.50**。"),
        ("自付 30%。", "自付 **30%**。"),
        ("在 3 月 1 日前交", "在 **3 月 1 日前** 交".replace(" 交", "交")),
        ("2026年3月1日起", "**2026年3月1日起**"),
        ("2026-03-01 与 2026-03-011", "**2026-03-01** 与 2026-03-011"),
        ("每月15日发，5个工作日到", "**每月15日**发，**5个工作日**到"),
        ("US$20 a day", "**US$20** a day"),
        ("900 元，4月1日", "900 元，4月1日"),
        ("800 元，`800 元`，[800 元](https://kb.example/a)", "**800 元**，`800 元`，[800 元](https://kb.example/a)"),
        ("`800 元`\n\n# 800 元\n\n```\n800 元\n```", "`800 元`\n\n# 800 元\n\n```\n800 元\n```"),
        ("800 元、800 元", "**800 元**、800 元"),
        ("**800 元**、800 元", "**800 元**、800 元"),
        ("*斜*800 元", "*斜*800 元"),
        ("- 甲 800 元\n\n1. 乙 30%", "- 甲 **800 元**\n\n1. 乙 **30%**"),
        ("> 800 元", "> 800 元"),
        ("|甲|乙|\n|-|-|\n|800 元|30%|", "| 甲 | 乙 |\n| --- | --- |\n| 800 元 | 30% |"),
    ],
)
def test_amounts_and_dates(said: str, written: str) -> None:
    """Bold where the passages say the same amount or date, once; never a part of a number, in code, link or heading."""
    assert bolded(said) == written
    assert bolded(written) == written


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("住宿标准如下，住宿标准", "**住宿标准**如下，住宿标准"),
        ("住宿标准800 元", "**住宿标准800 元**"),
        ("国外另议", "国外另议"),
        ("> 住宿标准，住宿标准，800 元", "> **住宿标准**，**住宿标准**，800 元"),
    ],
)
def test_the_questions_words(said: str, written: str) -> None:
    """Key words are bold where they stand first; in a quoted passage everywhere, and nothing else."""
    assert bolded(said, "国外住宿标准") == written


def test_without_sources_nothing_is_bold() -> None:
    """What no source says gets no weight from us."""
    assert bolded("住宿标准 800 元", "住宿标准", "") == "住宿标准 800 元"


def test_not_all_is_bold() -> None:
    """An answer full of amounts has a sane number of bold runs, its own included."""
    amounts = "，".join(f"{at} 元" for at in range(100, 200))
    assert bolded("**甲** " + amounts, passage=amounts).count("**") == 2 * MAX_BOLD


PIECES = [
    *(
        "800 元",
        "800元",
        "1800 元",
        "￥1,200.50",
        "30%",
        "500 元/晚",
        "3月1日前",
        "每月15日",
        "2026-03-01",
        "5 个工作日",
    ),
    *("住宿标准", "住宿", "一线城市", "annual leave", "字", "，", "。", "（", "）", "“", " ", "\n", "\n\n", "\u3000"),
    *(
        "*",
        "**",
        "_",
        "`",
        "~",
        "~~",
        "\\",
        "[",
        "](",
        "!",
        "<b>",
        "|",
        "&",
        "@all",
        "e\u0301",
        "\u0301",
        "👍🏽",
        "\ufe0f",
    ),
    *("# ", "- ", "1. ", "> ", "```\n", "---\n", "|a|b|\n|-|-|\n|800 元|d|\n", "[800 元](https://kb.example/a)"),
    *(
        "**800 元**",
        "*30%*",
        "`800 元`",
        "![住宿](https://evil.example/x)",
        "[住宿](dtmd://x)",
        "https://kb.example/800",
    ),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=2), max_size=30).map("".join)
WHAT = Emphasis(("住宿标准", "住宿", "一线城市", "annual", "字"), facts_of([PASSAGE]))


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_bold_changes_nothing_else(text: str) -> None:
    """The words stay, in blocks and as a stranger reads them; again changes nothing; nothing is set free."""
    before = read(text, HOSTS)
    after = emphasise(before, WHAT)
    assert list(map(visible, after)) == list(map(visible, before))
    written = render(after)
    assert render(emphasise(read(written, HOSTS), WHAT)) == written
    assert words(written) == words(render(before))
    assert faults(written, HOSTS) == []
    plain, strong = (
        sum(token.type == "strong_open" for token in flat(READER.parse(it))) for it in (render(before), written)
    )
    assert strong <= max(MAX_BOLD, plain)


@settings(max_examples=200, deadline=None)
@given(
    st.text("差旅住宿标准一线城市的是多少元a1 ？bcVPN", max_size=30),
    st.text("差旅住宿标准一线城市的元a1 bcVPN", max_size=60),
)
def test_key_words_stand_in_both(question: str, passage: str) -> None:
    """Whatever is asked of whatever: a key word stands in both, and is no single character."""
    for word in key_words(question, [passage]):
        assert word in question
        assert word.lower() in passage.lower()
        assert len(word) >= (3 if re.match("[A-Za-z]", word) else 2)
        assert highlights(passage, [word])
