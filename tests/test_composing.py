"""An answer as chat messages: title, mention, sources, marks, numbers; nothing lost and nothing that acts."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from dingbridge.dingtalk.composing import Part, compose
from dingbridge.model import Answer, Source
from dingbridge.shape import Shape
from dingbridge.sim.gateway import MISSING, Gateway
from dingbridge.texts import Texts
from tests.replying import MARK, Chat, chatting

DOC = "https://docs.corp.example"
PLAIN = Shape(Texts("zh-CN"))


@pytest.fixture
async def chat(gateway: Gateway) -> AsyncIterator[Chat]:
    async with chatting(gateway) as one:
        yield one


async def whole(chat: Chat, answer: Answer) -> str:
    (part,) = await chat.compose(answer)
    return part.text


def tokens(text: str) -> Iterator[Token]:
    for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text):
        yield token
        yield from token.children or ()


def links(text: str) -> list[str]:
    return [str(token.attrs["href"]) for token in tokens(text) if token.type == "link_open"]


# -- mention


async def test_in_a_group_the_asker_is_mentioned_in_part_one(chat: Chat) -> None:
    """Both halves of a mention, the id in the list and the literal @id, on the first part and on no other."""
    message = await chat.hear(group=True)
    parts = await chat.compose(Answer("字" * 9000))
    assert len(parts) == 3
    for part in parts:
        assert await chat.replies.send(message, part)
    first, *others = chat.gateway.posts
    assert first.body["at"] == {"atUserIds": ["042"], "isAtAll": False}
    assert first.text.startswith("@042\n\n")
    for post in others:
        assert "at" not in post.body
        assert "@" not in post.text


async def test_one_to_one_nobody_is_mentioned(chat: Chat) -> None:
    """There is nobody else there."""
    await chat.send(await chat.hear())
    (post,) = chat.gateway.posts
    assert "at" not in post.body
    assert post.text == "答"


async def test_without_a_staff_id_nobody_can_be_mentioned(chat: Chat) -> None:
    """The encrypted id of an external person works in no mention."""
    await chat.send(await chat.hear(group=True, senderStaffId=MISSING))
    (post,) = chat.gateway.posts
    assert "at" not in post.body
    assert post.text == "答"


async def test_a_repetition_in_a_group_begins_with_its_mark(chat: Chat) -> None:
    """（可能重复） stands first, the mention still works."""
    await chat.send(await chat.hear(group=True), uncertain=True)
    (post,) = chat.gateway.posts
    assert post.text == f"{MARK} @042\n\n答"
    assert post.body["at"]["atUserIds"] == ["042"]


async def test_what_an_answer_says_mentions_nobody(chat: Chat) -> None:
    """A retrieved @all or @id is no mention: neither in the list nor as a literal."""
    text = "请联系 @042 或 @all，`@所有人`，邮箱 a@b.example"
    assert await whole(chat, Answer(text)) == "请联系 ＠042 或 ＠all，`＠所有人`，邮箱 a@b.example"


# -- sources


async def test_one_source_stands_in_its_line(chat: Chat) -> None:
    """来源： and the name, last, linked where a person can open it."""
    assert await whole(chat, Answer("答", (Source("差旅制度.md"),))) == "答\n\n来源：差旅制度.md"
    linked = await whole(chat, Answer("答", (Source("差旅制度", url=f"{DOC}/a?x=1&copy;=2#b"),)))
    assert linked.startswith("答\n\n来源：[差旅制度](https://docs.corp.example/a?x=1")
    assert linked.count("\n\n") == 1


async def test_several_sources_are_listed(chat: Chat) -> None:
    """One line each, in order, with the numbers that /出处 takes."""
    sources = (Source("甲"), Source("乙", url=f"{DOC}/b"), Source("丙"))
    assert await whole(chat, Answer("答", sources)) == f"答\n\n来源：\n\n1. 甲\n2. [乙]({DOC}/b)\n3. 丙"


@pytest.mark.parametrize(("count", "rest"), [(5, ""), (6, "另有 1 篇"), (30, "另有 25 篇")])
async def test_more_than_five_are_counted(chat: Chat, count: int, rest: str) -> None:
    """Five names are enough for a reader; the others are counted."""
    text = await whole(chat, Answer("答", tuple(Source(f"文件{at}") for at in range(count))))
    _, listed, *more = text.split("来源：")[1].split("\n\n")
    assert listed.split("\n") == [f"{at}. 文件{at - 1}" for at in range(1, 6)]
    assert more == ([rest] if rest else [])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///srv/handbook/a.md",
        "localfile://a.md",
        "dtmd://dingtalkclient/sendMessage?content=%2Fnew",
        "dingtalk://dingtalkclient/page/link?url=x",
        "javascript:alert(1)",
        "data:text/html,x",
        "mailto:hr@corp.example",
        "//docs.corp.example/a",
        "/a",
        "https:///a",
        "https://user@docs.corp.example/a",
        "https://:pw@docs.corp.example/a",
        "https://[broken",
        "https://docs.corp.example:99999/a",
        "not an address",
    ],
)
async def test_only_web_addresses_are_linked(chat: Chat, url: str) -> None:
    """Any other address leaves the title without a link."""
    text = await whole(chat, Answer("答", (Source("差旅制度", url=url),)))
    assert links(text) == []
    assert "来源：差旅制度" in text


@pytest.mark.parametrize(
    ("url", "href"),
    [
        ("http://10.0.0.5:8080/a b", "http://10.0.0.5:8080/a%20b"),
        (f"{DOC}/手册", f"{DOC}/%E6%89%8B%E5%86%8C"),
        (f"{DOC}/a_(1).md", f"{DOC}/a_%281%29.md"),
        (f"{DOC}/a?q=<b>", f"{DOC}/a?q=%3Cb%3E"),
        (f"{DOC}/a?a=1&lt=2", f"{DOC}/a?a=1&lt=2"),
        (f"{DOC}/a?a=1&lt;b&#64;", f"{DOC}/a?a=1&lt%3Bb&#64%3B"),
        ("HTTPS://Docs.Corp.Example/A", f"{DOC}/A"),
        ("https://文档.example/a", "https://xn--7dvp7d.example/a"),
    ],
)
async def test_addresses_arrive_unchanged(chat: Chat, url: str, href: str) -> None:
    """The link leads where the source said, however that was written."""
    assert links(await whole(chat, Answer("答", (Source("a", url=url),)))) == [href]


async def test_an_answer_may_link_to_its_sources_hosts_only(chat: Chat) -> None:
    """Links inside the answer work on the hosts of its sources and on no other."""
    text = f"[制度]({DOC}/x) [别处](https://evil.example/y) ![图](https://evil.example/z.png)"
    shown = await whole(chat, Answer(text, (Source("a", url=f"{DOC}/a"),)))
    assert set(links(shown)) == {f"{DOC}/x", f"{DOC}/a"}
    assert not [token for token in tokens(shown) if token.type == "image"]


TITLES = [
    "[x](dtmd://dingtalkclient/sendMessage?content=%2Fnew)",
    "[x](https://evil.example)",
    "![x](https://evil.example/p.png)",
    "<https://evil.example>",
    "https://evil.example/a",
    "www.evil.example",
    "# 大标题",
    "- 列表",
    "1. 列表",
    "> 引用",
    "---",
    "a\n\n# b\n- c",
    "a\r\nb\u2028c\x0bd",
    "```\ncode",
    "`code` **bold** _it_ ~~del~~",
    "| a | b |\n|---|---|",
    "@all @042",
    "a\u202egnp.exe",
    "a\u200b\u2060b\ufeff",
    "<font color=red>红</font><a href=x>",
    "&lt;b&gt; &#64;all",
    "]( ](x) [a]: http://evil.example",
    "\\[x\\](http://evil.example)",
    "\ud800",
    "\u200b",
    "",
    " ",
    "长" * 5000,
    "[" * 3000,
]


@pytest.mark.parametrize("title", TITLES)
@pytest.mark.parametrize("url", ["", f"{DOC}/a"])
async def test_titles_are_inert(chat: Chat, title: str, url: str) -> None:
    """A title is a stranger's text: it can be no link, heading, list, code, image, mention or line of its own."""
    for sources in ((Source(title, url=url),), (Source(title, url=url), Source("乙"))):
        harmless(await whole(chat, Answer("答", sources)), allowed=[url] if url else [])


@settings(deadline=None, max_examples=60)
@given(st.text(st.sampled_from("[]()<>!#*_`~|&;@\\/:.-+= \nab1字\u202e\u200b") | st.characters(), max_size=40))
def test_any_title_is_inert(title: str) -> None:
    """Whatever a title consists of, it stays words in one line."""
    (part,) = compose(Answer("答", (Source(title, url=f"{DOC}/a"),)), PLAIN, {})
    harmless(part.text, allowed=[f"{DOC}/a"])


def harmless(text: str, *, allowed: list[str]) -> None:
    assert text.startswith("答\n\n来源：")
    assert len(text) < 700
    kinds = {token.type for token in tokens(text)}
    assert kinds <= {
        *(
            "paragraph_open",
            "paragraph_close",
            "inline",
            "text",
            "text_special",
            "link_open",
            "link_close",
            "softbreak",
        ),
        *("ordered_list_open", "ordered_list_close", "list_item_open", "list_item_close"),
    }
    assert set(links(text)) <= set(allowed)
    assert not re.search(r"@(?:all|042)", text)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b-\u200f\ufeff\ud800-\udfff]", text)
    assert text.rsplit("来源：", 1)[1].strip() not in ("", "2. 乙")


# -- marks and title


async def test_marks_stand_between_answer_and_sources(chat: Chat) -> None:
    """A broken off answer says so and what to do; a cut question too; the sources stay last."""
    answer = Answer("半句", (Source("甲"),), partial=True, question_cut=True)
    text, partial, cut, sources = (await whole(chat, answer)).split("\n\n")
    assert text == "半句"
    assert "中断" in partial
    assert "再问一次" in partial
    assert "比较长" in cut
    assert sources == "来源：甲"


async def test_a_file_that_was_not_read_is_named(chat: Chat) -> None:
    """Who sent it learns that the answer does without it; its name is text, whatever it is made of."""
    answer = Answer("不知道。", unread=("报销单.xlsx", "[点我](https://evil.example)@all.txt"))
    _, unread = (await whole(chat, answer)).split("\n\n")
    assert "报销单.xlsx / " in unread
    assert "没有读到" in unread
    assert "](https" not in unread


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# 年假\n\n五天。", "年假 五天。"),
        ("", "回复"),
        ("\u200b \n", "回复"),
        ("![](https://evil.example/a.png)", "〔图〕"),
        ("**注意**：[手册](https://evil.example) @all", None),
        ("长" * 100, "长" * 39 + "…"),
        ("---", "回复"),
    ],
)
async def test_a_title_is_short_plain_and_never_empty(chat: Chat, text: str, title: str | None) -> None:
    """DingTalk shows it in the chat list and refuses an empty one; nothing is ever sent without words."""
    parts = await chat.compose(Answer(text))
    assert parts
    message = await chat.hear()
    for part in parts:
        assert 0 < len(part.title) <= 40
        assert "@all" not in part.title
        assert part.text.strip()
        assert await chat.replies.send(message, part)
    if title is not None:
        assert parts[0].title == title


async def test_english_marks(gateway: Gateway) -> None:
    """The other locale has all of it."""
    async with chatting(gateway, locale="en") as chat:
        text = await whole(chat, Answer("It is", tuple(Source(str(at)) for at in range(7)), partial=True))
    assert "Sources:\n\n1. 0" in text
    assert text.endswith("and 2 more")
    assert "ask again" in text


# -- long answers


def sentences(count: int) -> str:
    """About 30 characters each, with what JSON escapes."""
    return "\n\n".join(f'第{at:05d}句，他说："报销\\审批"要三天，请提前准备材料。' for at in range(count))


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("way", ["webhook", "openapi"])
async def test_sixty_thousand_characters_arrive(chat: Chat, way: str, group: bool) -> None:
    """Every part is taken by a DingTalk that counts bytes, on both ways; no sentence is lost or out of order."""
    text = sentences(1800)
    assert 55_000 < len(text) < 60_000
    message = await chat.hear(group=group, webhook_ttl_s=5400 if way == "webhook" else -1)
    parts = await chat.compose(Answer(text, (Source("甲"),)))
    for part in parts:
        assert await chat.replies.send(message, part, uncertain=True)
    posts = chat.gateway.posts
    assert len(posts) == len(parts) == chat.requests
    together = "\n".join(post.text for post in posts)
    assert re.findall(r"第(\d{5})句", together) == [f"{at:05d}" for at in range(1800)]
    assert together.count("要三天，请提前准备材料。") == 1800
    for at, post in enumerate(posts, 1):
        assert post.text.endswith(f"\n\n({at}/{len(posts)})")
        assert post.text.startswith(MARK)
    assert "来源：甲" in posts[-1].text
    largest = max(len(json.dumps(post.body, ensure_ascii=False).encode()) for post in posts)
    assert largest <= 20_000


@pytest.mark.parametrize("unit", ["字", "😀", '"', "\\", "a", "&", "<", "*", "@", "\u0e33"])
async def test_one_line_without_a_break_arrives(chat: Chat, unit: str) -> None:
    """6 000 characters in one line, of any width in bytes, are still split and taken."""
    message = await chat.hear()
    for part in await chat.compose(Answer(unit * 6000)):
        assert await chat.replies.send(message, part)
    assert chat.requests == len(chat.gateway.posts)


async def test_code_and_tables_are_reopened(chat: Chat) -> None:
    """A long code block is a code block in every part."""
    code = "```python\n" + "\n".join(f"line_{at:04d} = {at}" for at in range(800)) + "\n```"
    parts = await chat.compose(Answer(code))
    assert len(parts) > 1
    for part in parts:
        assert part.text.startswith("```python\n")
        assert len([token for token in tokens(part.text) if token.type == "fence"]) == 1
    lines = re.findall(r"line_(\d{4})", "".join(part.text for part in parts))
    assert lines == [f"{at:04d}" for at in range(800)]


async def test_a_short_answer_has_no_number(chat: Chat) -> None:
    """One part is not numbered."""
    (part,) = await chat.compose(Answer("五天。"))
    assert part == Part(1, "五天。", "五天。", MARK)


@pytest.mark.parametrize("text", ["五天。", sentences(1000)])
async def test_composing_is_deterministic(chat: Chat, text: str) -> None:
    """After a restart the parts are the same, in this process or in another: part 3 is still part 3."""
    sources = tuple(Source(f"文件{at}", url=f"https://d{at}.corp.example/a") for at in range(9))
    answer = Answer(text, sources, partial=True)
    parts = await chat.compose(answer)
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    async with chatting(chat.gateway) as other:
        assert await other.compose(answer) == parts
