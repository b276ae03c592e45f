"""The shapes of an answer: quick replies, lines of commands, page link, hint, examples, cards, passages; all inert."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dingbridge.backends.reasoning import ReasoningFilter
from dingbridge.dingtalk.composing import PART_BYTES, Button, Part, compose, wants_page
from dingbridge.dingtalk.markdown import MAX_CHARS, write
from dingbridge.dingtalk.split import encoded
from dingbridge.model import Answer, Source
from dingbridge.passages import PASSAGE_CHARS, passage
from dingbridge.shape import Shape
from dingbridge.texts import Texts
from tests.acting import READER, faults, flat, words

ZH, EN = Texts("zh-CN"), Texts("en")
DOC = "https://docs.corp.example"
PAGE = "https://kb.corp.example:8443/a/token"
HOSTS = frozenset({"docs.corp.example", "kb.corp.example"})
LINKS = {"差旅制度": f"{DOC}/travel", "年假.md": f"{DOC}/leave", "坏": "dtmd://dingtalkclient/sendMessage?content=x"}
CODE = "0123ABCD"
FULL = Shape(ZH, question="住宿标准？", code=CODE, buttons=True, deep=True, page_url=PAGE, hint=True)


def one(answer: Answer, shape: Shape, links: dict[str, str] | None = None) -> Part:
    (part,) = compose(answer, shape, links or {})
    return part


# -- quick replies, and what stands for them


def test_quick_replies() -> None:
    """👍 👎 再深入 say what a user would have to type, 查看全文 leads to the page; the text names none of it then."""
    part = one(Answer("答"), FULL)
    say = "dtmd://dingtalkclient/sendMessage?content="
    assert part.buttons == (
        Button("👍", f"{say}%2Fgood%20{CODE}"),
        Button("👎", f"{say}%2Fbad%20{CODE}"),
        Button("再深入", f"{say}%2Fdeep%20{CODE}"),
        Button("查看全文（需公司网络/VPN）", PAGE),
    )
    assert "/good" not in part.text
    assert PAGE not in part.text


@pytest.mark.parametrize(
    ("change", "titles"),
    [
        ({"deep": False}, ["👍", "👎", "查看全文（需公司网络/VPN）"]),
        ({"page_url": ""}, ["👍", "👎", "再深入"]),
        ({"code": ""}, ["查看全文（需公司网络/VPN）"]),
        ({"code": "", "page_url": ""}, []),
        ({"page_url": "javascript:alert(1)"}, ["👍", "👎", "再深入"]),
        ({"card": True}, []),
        ({"texts": EN, "page_url": ""}, ["👍", "👎", "Dig deeper"]),
    ],
)
def test_only_what_is_offered_has_a_button(change: dict[str, object], titles: list[str]) -> None:
    """No button leads nowhere."""
    assert [button.title for button in one(Answer("答"), replace(FULL, **change)).buttons] == titles  # type: ignore[arg-type]


def test_a_refusal_offers_a_colleague() -> None:
    """转人工 stands under an answer that says no, where the route names somebody; it is no choice elsewhere."""
    shape = Shape(ZH, code=CODE, buttons=True, human=True)
    *_, last = one(Answer("没有找到。", refused=True), shape).buttons
    assert last == Button(
        "转人工", f"dtmd://dingtalkclient/sendMessage?content=%2F%E8%BD%AC%E4%BA%BA%E5%B7%A5%20{CODE}"
    )
    assert [button.title for button in one(Answer("五天。"), shape).buttons] == ["👍", "👎"]


def test_without_buttons_the_commands_are_named() -> None:
    """One short line, and the page as a link that says what it needs; the sources stay last."""
    shape = Shape(ZH, code=CODE, commands=True, deep=True, page_url=PAGE, hint=True)
    text, page, commands, hint, sources = one(Answer("答", (Source("甲"),)), shape).text.split("\n\n")
    assert (text, sources) == ("答", "来源：甲")
    assert page == f"[查看全文（需公司网络/VPN）]({PAGE})"
    assert commands == ZH("commands_deep")
    assert hint == ZH("hint")
    assert one(Answer("答"), replace(shape, deep=False, hint=False, page_url="")).text == f"答\n\n{ZH('commands')}"
    assert one(Answer("答"), Shape(ZH)).text == "答"


def test_buttons_that_are_refused_leave_their_words() -> None:
    """The same part without buttons ends with the page's link and the commands."""
    part = one(Answer("答", (Source("甲"),)), FULL)
    plain = part.without_buttons()
    assert plain.buttons == ()
    assert plain.text.startswith(part.text)
    assert plain.text.endswith(ZH("commands_deep"))
    assert f"]({PAGE})" in plain.text
    assert plain.without_buttons() == plain


def test_buttons_stand_under_the_last_part() -> None:
    """Where one has read all of it."""
    *before, last = compose(Answer("字" * 9_000), FULL, {})
    assert len(before) == 2
    assert not any(part.buttons for part in before)
    assert len(last.buttons) == 4


def test_examples_after_a_refusal_only() -> None:
    """Who got no answer sees what is answered well; examples are no markdown."""
    shape = Shape(ZH, examples=("年假有几天？", "[x](dtmd://y) @all"))
    text = one(Answer("没有找到。", refused=True), shape).text
    assert text.startswith("没有找到。\n\n您可以这样问：\n\n- 年假有几天？\n- ")
    assert faults(text, frozenset()) == []
    assert one(Answer("五天。"), shape).text == "五天。"


def test_a_card_keeps_tables_and_names_no_commands() -> None:
    """A card can show tables and has buttons of its own."""
    table = "| 城市 | 标准 |\n| --- | --- |\n| 北京 | 800 |"
    shape = Shape(ZH, code=CODE, commands=True, deep=True)
    assert one(Answer(table), replace(shape, card=True)).text == table
    assert one(Answer(table), shape).text.startswith("- 城市 **北京**：标准 800\n\n有用")


def test_each_part_brings_its_mark_in_its_own_language() -> None:
    """A repetition is marked in the language of the route."""
    assert one(Answer("a"), Shape(EN)).mark == EN("repeat_mark")


# -- sources by title, and pages


def test_titles_lead_to_the_operators_addresses() -> None:
    """[sources] gives an address to a title, with or without its extension, where the source has none."""
    sources = (
        Source("差旅制度.docx"),
        Source("年假.md"),
        Source("年假"),
        Source("差旅制度", url=f"{DOC}/own"),
        Source("坏"),
    )
    listed = one(Answer("答", sources), Shape(ZH), LINKS).text.split("\n\n")[-1]
    assert listed.split("\n") == [
        f"1. [差旅制度.docx]({DOC}/travel)",
        f"2. [年假.md]({DOC}/leave)",
        "3. 年假",
        f"4. [差旅制度]({DOC}/own)",
        "5. 坏",
    ]


@pytest.mark.parametrize(
    ("answer", "parts", "wanted"),
    [
        (Answer("答", (Source("差旅制度.md"),)), 1, False),
        (Answer("答", (Source("甲", url=DOC),)), 1, False),
        (Answer("答"), 1, False),
        (Answer("答", (Source("甲"),)), 1, True),
        (Answer("答"), 2, True),
        (Answer("|a|b|\n|-|-|\n|1|2|"), 1, True),
        (Answer("`|a|b|`\n\n```\n|a|b|\n|-|-|\n```"), 1, False),
        (Answer("没有", (Source("甲"),), refused=True), 1, False),
    ],
)
def test_a_page_is_wanted_where_it_shows_more(answer: Answer, parts: int, wanted: bool) -> None:
    """A whole instead of parts, a table, or a passage nobody could open; never for a refusal."""
    assert wants_page(answer, parts, LINKS) is wanted


# -- passages


CITED = Answer(
    "800 元", (Source("差旅.md", "住宿标准：\n\n    每晚 800 元。", f"{DOC}/a"), Source("空.md"), Source("乙", "乙文"))
)


def test_the_passage_of_a_source() -> None:
    """The text as a quote with the question's words bold, its title with the link below."""
    shape = Shape(ZH, question="住宿标准是多少")
    assert one(passage(CITED, 1, ZH), shape).text == (
        f"来源 1 的原文：\n\n> **住宿标准**：  \n> 每晚 800 元。\n\n来源：[差旅.md]({DOC}/a)"
    )
    assert one(passage(CITED, 3, EN), Shape(EN)).text == "What source 3 says:\n\n> 乙文\n\nSources: 乙"


@pytest.mark.parametrize(
    ("answer", "n", "said"),
    [
        (Answer("答"), 1, "没有注明来源"),
        (CITED, 0, "1 到 3 之间"),
        (CITED, 4, "1 到 3 之间"),
        (CITED, -1, "1 到 3 之间"),
        (Answer("答", (Source("甲", "文"),)), 2, "只有 1 篇来源"),
        (CITED, 2, "没有附带原文"),
    ],
)
def test_no_such_passage(answer: Answer, n: int, said: str) -> None:
    """What there is instead is said, with the sources that have a number."""
    told = one(passage(answer, n, ZH), Shape(ZH)).text
    assert said in told
    assert ("来源：" in told) == bool(answer.sources)


def test_a_long_passage_ends_with_a_sentence() -> None:
    """Enough to read on a phone, visibly cut."""
    text = passage(Answer("答", (Source("甲", "这是一句话。" * 1_000),)), 1, ZH).text
    assert PASSAGE_CHARS / 2 < len(text) < PASSAGE_CHARS + 20
    assert text.endswith("这是一句话。…")
    endless = passage(Answer("答", (Source("甲", "字" * 5_000),)), 1, ZH).text
    assert endless.count("字") == PASSAGE_CHARS - 1


# -- nothing acts, nothing is lost


NASTY = [
    "<script>alert(1)</script>",
    "[点我](javascript:alert(1))",
    "[点我](dtmd://dingtalkclient/sendMessage?content=%2Fnew)",
    "dtmd://dingtalkclient/sendMessage?content=x",
    "dingtalk://dingtalkclient/page/link?url=https%3A%2F%2Fevil.example",
    "@all @所有人 @manager7081",
    "![](https://evil.example/beacon.png)",
    "[![a](https://evil.example/a.png)](https://evil.example)",
    "https://evil.example/a www.evil.example",
    "报告\u202efdp.exe \u2066x\u2069",
    "a\u200b@\u200ball \ufeff",
    "**[*`x`*](<dtmd://y>)**",
    "```\n[x](dtmd://y)",
    "> - # [x]: https://evil.example\n\n[x]",
    "| a | b |\n|---|---|\n| <b> | @all |",
    "&lt;img src=x&gt; &#64;all",
    "来源：1. [假](https://evil.example/fake)",
    "</blockquote>\n\n# 800 元",
]


@pytest.mark.parametrize("nasty", NASTY)
def test_nothing_acts_wherever_it_stands(nasty: str) -> None:
    """In title, file name, address, passage, answer, question, example: nothing is followed, loaded, pinged or run."""
    sources = (
        Source(nasty, nasty, "" if nasty.startswith("https") else nasty),
        Source("名.md", f"800 元 {nasty}", f"{DOC}/{nasty}"),
        Source(f"{nasty}.pdf", nasty, DOC),
    )
    answer = Answer(f"{nasty}\n\n住宿标准 800 元 {nasty}", sources, refused=True, unread=(nasty,), late=True)
    shape = replace(FULL, question=f"住宿标准 {nasty}", examples=(nasty,))
    for given_answer in (answer, *(passage(answer, n, ZH) for n in range(5))):
        for one_shape in (shape, replace(shape, buttons=False, commands=True), replace(shape, card=True)):
            for part in compose(given_answer, one_shape, {nasty: "https://docs.corp.example/x"}):
                for text in (part.text, part.without_buttons().text):
                    assert faults(text, HOSTS) == []
                assert re.search("@(?:all|所有人)|[\u200b\u202a-\u202e\u2066-\u2069]", part.title) is None
                assert part.buttons in ((), one(Answer("答"), FULL).buttons)


PIECES = [
    *(
        "这是一句话。",
        "很长" * 60,
        "word ",
        "x" * 90,
        "，",
        " ",
        "\n",
        "\n\n",
        "## 标题\n\n",
        "- 项\n- 目\n",
        "1. 步\n2. 骤\n",
    ),
    *("> 引用\n", "```py\nx = 1\n\ny = 2\n```\n", "~~~\n````\n~~~\n", "|a|b|\n|-|-|\n|800 元|d|\n", "**重点**", "`码`"),
    *(
        '"',
        "\\",
        "*",
        "_",
        "`",
        "[",
        "](",
        "<b>",
        "@all",
        "800 元",
        "3月1日前",
        "住宿标准",
        "👍🏽",
        "🇨🇳",
        "- " + "项" * 200,
    ),
    *(
        "```\n" + "x " * 2_000 + "\n```\n",
        "字。" * 1_500,
        "|a|b|\n|-|-|\n" + "|c|30%|\n" * 300,
        "https://evil.example/b",
    ),
]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=20).map("".join)
SOURCES = (Source("甲", "住宿标准 800 元，30%，3月1日前", f"{DOC}/a"), Source("乙"))


@settings(max_examples=25, deadline=None)
@given(TEXTS, st.sampled_from([FULL, replace(FULL, buttons=False, commands=True), replace(FULL, card=True), Shape(EN)]))
def test_whole_and_well_formed_in_every_shape(text: str, shape: Shape) -> None:
    """Every part within its bytes, fences closed, inert; all words of the answer in order; the same again."""
    parts = compose(Answer(text, SOURCES), shape, {})
    for part in parts:
        assert encoded(part.text) <= PART_BYTES
        assert faults(part.text, HOSTS) == []
        assert balanced(part.text)
    hosts = frozenset({"docs.corp.example"})
    said = words(write(text, link_hosts=hosts, tables="keep" if shape.card else "list"))
    together = "".join(words(re.sub(r"\n\n\(\d+/\d+\)\Z", "", part.text)) for part in parts)
    if not shape.card:  # a table that is cut repeats its head
        assert together.replace("＠", "@").startswith(said.replace("＠", "@"))
    assert "来源：" in parts[-1].text or "Sources:" in parts[-1].text or len(parts) > 1
    assert compose(Answer(text, SOURCES), shape, {}) == parts


def balanced(written: str) -> bool:
    """Whether every fence ends inside of it: what is added behind is no code."""
    *_, last = flat(READER.parse(f"{written}\n\n末"))
    return last.type == "paragraph_close"


@settings(max_examples=25, deadline=None)
@given(TEXTS, st.integers(0, 3), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_reasoning_stays_out_however_it_arrives(text: str, where: int, sizes: list[int]) -> None:
    """Cut anywhere, what stands in <think> is in no part, and the rest is composed as if it had never been there."""
    thought = ("<think>机密推理</think>", "<THINKING>机密\n```\n推理</thinking>", "机密推理</think>", "")[where]
    streamed = thought + text
    filtered, at, turn = ReasoningFilter(), 0, 0
    while at < len(streamed):
        size = sizes[turn % len(sizes)]
        filtered.feed(streamed[at : at + size])
        at, turn = at + size, turn + 1
    filtered.close()
    parts = compose(Answer(filtered.text, SOURCES), FULL, {})
    assert not any("机密" in part.text or "推理" in part.text for part in parts)
    expected = text.lstrip() if thought else text
    assert parts == compose(Answer(expected, SOURCES), FULL, {})


def test_sixty_thousand_characters_with_tables_and_code() -> None:
    """The longest answer is well formed in every part, and says all rows and lines in order."""
    chapter = (
        "## 第 {at} 章\n\n住宿标准 800 元，见[手册](https://docs.corp.example/{at})与[外站](https://evil.example/{at})。\n\n"
        "| 城市 | 标准 |\n| --- | --- |\n"
        + "| 城{at} | 800 元 |\n" * 20
        + "\n```python\n"
        + "x{at} = '住宿标准'\n" * 30
        + "```\n\n"
        "- 一 30%\n  - 二\n\n> 引 @all <script>\n\n"
    )
    text = "".join(chapter.replace("{at}", str(at)) for at in range(200))[: MAX_CHARS - 100]
    parts = compose(Answer(text, SOURCES), FULL, {})
    assert len(parts) > 10
    for part in parts:
        assert encoded(part.text) <= PART_BYTES
        assert faults(part.text, HOSTS) == []
        assert balanced(part.text)
        assert not any(token.type == "table_open" for token in flat(READER.parse(part.text)))
    together = "\n".join(part.text for part in parts)
    assert re.findall(r"第 (\d+) 章", together) == re.findall(r"第 (\d+) 章", text)
    assert re.findall(r"x(\d+) = '住宿标准'", together) == re.findall(r"x(\d+) = '住宿标准'", text)
    assert re.findall(r"城市 \*\*城(\d+)\*\*：标准", together) == re.findall(r"\| 城(\d+) \| 8", text)
    assert together.count("来源：") == 1
