"""Where a long answer is cut, and that nothing is lost or set free by it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from dingbridge.dingtalk.markdown import write
from dingbridge.dingtalk.split import encoded, number, split

HOSTS = frozenset({"kb.example"})
READER = MarkdownIt("commonmark", {"html": True, "maxNesting": 100}).enable(["table", "strikethrough"])
LINK = "[手册](https://kb.example/a)"


def test_short_text_is_one_part() -> None:
    """A text that fits is one part as it is, and carries no number."""
    assert number(split("# 标题\n\n内容", max_bytes=1_000)) == ["# 标题\n\n内容"]


@pytest.mark.parametrize("text", ["", " \n\n "])
def test_nothing_has_no_parts(text: str) -> None:
    """A text that says nothing has no parts, not an empty one."""
    assert split(text, max_bytes=1_000) == []


def test_limits_too_small_to_write_in_are_refused() -> None:
    """A limit in which nothing can be said is a fault of the caller."""
    with pytest.raises(ValueError, match="less than 200"):
        split("x", max_bytes=100)


def test_number_stands_on_its_own_line_and_within_the_limit() -> None:
    """`(1/2)` ends each part and is counted in its bytes."""
    parts = number(split("一\n\n二" * 200, max_bytes=1_000))
    assert [part.splitlines()[-1] for part in parts] == [f"({at}/{len(parts)})" for at in range(1, len(parts) + 1)]
    assert all(part.splitlines()[-2] == "" and encoded(part) <= 1_000 for part in parts)


def test_bytes_are_those_of_the_json_body() -> None:
    """Quotes, backslashes and line ends count twice, Chinese three bytes, as they travel."""
    assert encoded('好"\\\n') == 3 + 2 + 2 + 2


def test_own_measure_is_used() -> None:
    """A caller whose text is encoded twice measures it so."""
    parts = split('"' * 900, max_bytes=1_000, measure=lambda text: 4 * len(text))
    assert all(4 * len(part) <= 1_000 for part in parts)
    assert "".join(parts) == '"' * 900


def test_cut_between_blocks_and_heading_moves_on() -> None:
    """A part ends between blocks, and no heading is left at its end."""
    parts = split("甲" * 150 + "\n\n## 标题\n\n" + "乙" * 150, max_bytes=9_000, max_chars=200)
    assert parts == ["甲" * 150, "## 标题\n\n" + "乙" * 150]


def test_a_line_with_a_colon_moves_on() -> None:
    """What announces a list or code is not left alone at the end of a part."""
    parts = split("甲" * 170 + "\n\n来源：\n\n1. " + "乙" * 50, max_bytes=9_000, max_chars=200)
    assert parts == ["甲" * 170, "来源：\n\n1. " + "乙" * 50]


def test_last_heading_is_kept() -> None:
    """A heading at the very end has nowhere to move to and stays."""
    parts = split("甲" * 180 + "\n\n乙\n\n## 标题", max_bytes=9_000, max_chars=200)
    assert "".join(parts).endswith("## 标题")


def test_list_is_cut_between_items_and_counts_on() -> None:
    """An ordered list goes on with the next number in the next part."""
    parts = split("\n".join(f"{at}. {'项' * 30}" for at in range(1, 13)), max_bytes=9_000, max_chars=200)
    starts = [part.split(".")[0] for part in parts]
    assert starts == ["1", "6", "11"]


def test_long_item_goes_on_without_a_second_bullet() -> None:
    """What is left of one item longer than a part is no new item."""
    parts = split(f"- {'项' * 250}\n- 二", max_bytes=9_000, max_chars=200)
    assert [part.startswith("- ") for part in parts] == [True, False]
    assert parts[1].endswith("\n\n- 二")


def test_code_is_fenced_again_with_its_language() -> None:
    """Each part of a code block is a code block of the same language, cut between lines."""
    lines = [f"print({at})" for at in range(100)]
    parts = split("```py\n" + "\n".join(lines) + "\n```", max_bytes=400)
    assert len(parts) > 2
    assert all(part.startswith("```py\n") and part.endswith("\n```") for part in parts)
    assert [line for part in parts for line in part.splitlines()[1:-1]] == lines


def test_code_that_fits_a_part_is_not_cut() -> None:
    """A code block moves to the next part whole."""
    code = "```\n" + "x\n" * 60 + "```"
    assert split("甲" * 150 + "\n\n" + code, max_bytes=9_000, max_chars=200) == ["甲" * 150, code]


def test_code_line_longer_than_a_part_is_cut() -> None:
    """One endless line of code is several fences with all of its characters."""
    parts = split("```\n" + "x" * 1_000 + "\n```", max_bytes=300)
    assert "".join(part.splitlines()[1] for part in parts) == "x" * 1_000


def test_table_that_fits_a_part_is_not_cut() -> None:
    """A table moves to the next part whole."""
    table = "| a | b |\n| --- | --- |\n" + "\n".join(["| 1 | 2 |"] * 10)
    assert split("甲" * 150 + "\n\n" + table, max_bytes=9_000, max_chars=200) == ["甲" * 150, table]


def test_long_table_repeats_its_head() -> None:
    """Each part of a longer table begins with the head and has all cells."""
    head = "| 城市 | 标准 |\n| --- | --- |\n"
    rows = [f"| 城{at} | {at} |" for at in range(40)]
    parts = split(head + "\n".join(rows), max_bytes=400)
    assert all(part.startswith(head) for part in parts)
    assert [row for part in parts for row in part.splitlines()[2:]] == rows


def test_row_longer_than_a_part_becomes_lines() -> None:
    """A row no part can hold is told as a list item, the others stay a table."""
    parts = split(f"| 甲 | 乙 |\n| --- | --- |\n| {'长' * 250} | 二 |\n| 三 | 四 |", max_bytes=9_000, max_chars=200)
    assert parts[0].startswith("- 甲 长长")
    assert parts[-1].endswith("| 三 | 四 |")


def test_line_without_a_break_is_cut() -> None:
    """6 000 characters without a break arrive in order in two messages."""
    parts = split("字" * 6_000, max_bytes=15_000)
    assert [len(part) > 1_900 for part in parts] == [True, True]
    assert "".join(parts) == "字" * 6_000


def test_heading_stays_with_the_line_that_is_cut() -> None:
    """A heading before an endless line is not sent alone."""
    parts = split("# 标题\n\n" + "字" * 300, max_bytes=9_000, max_chars=200)
    assert parts[0].startswith("# 标题\n\n字字")


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("这是一句话，有逗号。" * 30, "。"),
        ("他说：“可以。”" * 30, "”"),
        ("没有句号，只有逗号" * 30, "，"),
        ("words and spaces " * 30, "s"),
        ("见3.5.7版本" + "x" * 130 + "，" + "y" * 300, "，"),
    ],
)
def test_line_is_cut_where_one_would_pause(text: str, end: str) -> None:
    """A long line ends behind a sentence, else a clause, else a word."""
    assert split(text, max_bytes=9_000, max_chars=200)[0].endswith(end)


@pytest.mark.parametrize("lead", range(190))
def test_links_and_composed_characters_are_never_cut(lead: int) -> None:
    """Wherever the cut falls, a link stays a link and a flag, a skin tone and an accent stay whole."""
    text = "字" * lead + LINK + "🇨🇳👍🏽e\u0301" * 3 + "字" * 190
    parts = split(text, max_bytes=9_000, max_chars=200)
    assert sum(part.count(LINK) for part in parts) == 1
    assert sum(part.count("🇨🇳") + part.count("👍🏽") + part.count("e\u0301") for part in parts) == 9


def test_bold_is_taken_up_again() -> None:
    """A bold run over two parts is bold in both."""
    parts = split(f"**{'粗' * 300}**", max_bytes=9_000, max_chars=200)
    assert all(re.fullmatch(r"\*\*粗+\*\*", part) for part in parts)


def test_link_longer_than_a_part_leaves_its_words() -> None:
    """A link no part can hold is shown as its words."""
    assert "".join(split(f"[{'字' * 250}](https://kb.example/)", max_bytes=9_000, max_chars=200)) == "字" * 250


def test_cut_address_mentions_nobody() -> None:
    """A cut through an e-mail address does not leave an `@` at the start of a part."""
    parts = split("x" * 300 + "@" + "y" * 60 + ".example", max_bytes=300)
    assert all(not part.startswith("@") for part in parts)


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
    *(
        "> 引用\n",
        "```py\nx = 1\n\ny = 2\n```\n",
        "~~~\n````\n~~~\n",
        "|a|b|\n|-|-|\n|c|d|\n",
        LINK,
        "**重点**",
        "`码`",
        '"',
        "\\",
    ),
    *(
        "*",
        "_",
        "`",
        "[",
        "](",
        "<b>",
        "@all",
        "x@y.example",
        "https://kb.example/a",
        "https://evil.example/b",
        "👍🏽",
        "🇨🇳",
    ),
    *(
        "- " + "项" * 200 + "\n",
        "    ",
        "![图](x)",
        "# " + "题" * 200 + "\n",
        "```\n" + "x " * 200 + "\n```\n",
        "---\n",
    ),
]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=5, max_size=60).map("".join)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.sampled_from([200, 260, 500, 2_000]), st.sampled_from([200, 4_000]))
def test_parts_say_what_the_whole_said(text: str, max_bytes: int, max_chars: int) -> None:
    """All words in their order, each part within its limits, and not empty."""
    written = write(text, link_hosts=HOSTS)
    parts = split(written, max_bytes=max_bytes, max_chars=max_chars)
    assert "".join(map(_words, parts)) == _words(written)
    for part in number(parts):
        assert encoded(part) <= max_bytes
        assert len(part) <= max_chars
    assert all(_words(part) or "---" in part for part in parts)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.sampled_from([200, 500, 2_000]), st.sampled_from(["list", "keep"]))
def test_parts_are_as_safe_as_the_whole(text: str, max_bytes: int, tables: str) -> None:
    """No part has an open fence, a link the whole had not, an image, a tag or a mention."""
    written = write(text, link_hosts=HOSTS, tables="keep" if tables == "keep" else "list")
    for part in number(split(written, max_bytes=max_bytes)):
        assert encoded(part) <= max_bytes
        assert re.search(r"(?<![A-Za-z0-9])@|://evil", part) is None
        assert re.search(r"\(\d+/\d+\)\Z", part) is None or _last_text(part).startswith("("), "an open fence"
        for token in _flat(READER.parse(part)):
            assert token.type not in ("image", "html_inline", "html_block")
            assert token.type != "link_open" or str(token.attrs["href"]).startswith("https://kb.example/")


@pytest.mark.timeout(100)
@pytest.mark.parametrize(
    "text", ["*a**a" * 4_000, "*[" * 8_000, "a|b\n-|-\n" + "c\n" * 4_000, "a\n" * 8_000, "- a\n" * 5_000, "`" * 9_000]
)
def test_hostile_repetition_ends(text: str) -> None:
    """Texts that cut badly are cut in bounded time."""
    written = write(text, tables="keep")
    assert all(encoded(part) <= 15_000 for part in split(written, max_bytes=15_000))


def _words(written: str) -> str:
    """What a reader sees, without white space; a muted `@` counts as one."""
    text = "".join(token.content for token in _flat(READER.parse(written)) if token.type != "text_special")
    return re.sub(r"\s+", "", text.replace("＠", "@"))


def _last_text(written: str) -> str:
    return [token.content for token in READER.parse(written) if token.type == "inline"][-1]


def _flat(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        if token.type != "inline":
            yield token
        yield from _flat(token.children or ())
