"""Markdown in the demo page: as DingTalk's clients show it, and nothing in it can act."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dingbridge.demo import render
from dingbridge.demo.wire import masked

TABLE = "| 地区 | 上限 |\n| --- | --- |\n| 北美 | 220 |"
NAMES = {"zhangsan": "张三"}
_BLOCKS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "hr"}
_TABLE = {"table", "thead", "tbody", "tr", "th", "td"}
ELEMENTS = _BLOCKS | _TABLE | {"strong", "em", "a", "code", "br", "font"}
LINK = re.compile(r"https?://|dtmd://dingtalkclient/sendMessage\?content=", re.IGNORECASE)
ALLOWED = {"a": {"href", "target", "rel", "title"}, "ol": {"start"}, "code": {"class"}, "font": {"color"}}


class Reader(HTMLParser):
    """What a browser would make of it: the elements with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_table_is_drawn_on_a_pc_and_its_source_on_a_phone() -> None:
    """Phones do not know tables."""
    shown = render.markdown(TABLE, {})
    assert "<td>220</td>" in shown["pc"]
    assert "<table" not in shown["phone"]
    assert "| 北美 | 220 |" in shown["phone"]


def test_code_is_a_block_on_a_pc_and_plain_lines_on_a_phone() -> None:
    """Phones show code without its frame, line by line."""
    shown = render.markdown("```sh\nls <x>\npwd\n```\nund `so`", {})
    assert "<pre><code" in shown["pc"]
    assert "ls &lt;x&gt;" in shown["pc"]
    assert "<code" not in shown["phone"]
    assert "ls &lt;x&gt;<br>pwd" in shown["phone"]


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("# 大\n\n###### 小", "<h1>大</h1>\n<h6>小</h6>\n"),
        ("> 引用", "<blockquote>\n<p>引用</p>\n</blockquote>\n"),
        ("**粗** *斜*", "<p><strong>粗</strong> <em>斜</em></p>\n"),
        ("- 一\n- 二", "<ul>\n<li>一</li>\n<li>二</li>\n</ul>\n"),
        ("3. 三", '<ol start="3">\n<li>三</li>\n</ol>\n'),
        ("一\n二", "<p>一\n二</p>\n"),  # a single line break is swallowed
        ("一  \n二", "<p>一<br />\n二</p>\n"),
        ('<font color="#FF0000">红</font>', '<p><font color="#FF0000">红</font></p>\n'),
        ("![图](https://a.example/x.png)", "<p>〔图片：图〕</p>\n"),
        ("@zhangsan 你好", "<p>@张三 你好</p>\n"),
    ],
)
def test_what_both_clients_show(source: str, html: str) -> None:
    """The documented subset, alike on both."""
    assert render.markdown(source, NAMES) == {"pc": html, "phone": html}


def test_what_looks_like_a_tag_is_shown_on_a_pc_and_dropped_on_a_phone() -> None:
    """Which is why dingbridge itself never writes one."""
    shown = render.markdown("填 <姓名> 和 <b>粗</b>\n\n<div>块</div>", {})
    assert "&lt;b&gt;粗&lt;/b&gt;" in shown["pc"]
    assert "&lt;div&gt;块&lt;/div&gt;" in shown["pc"]
    assert "和 粗" in shown["phone"]
    assert "<p>块</p>" in shown["phone"]


def test_links_lead_to_the_web_or_say_something() -> None:
    """http(s) opens in a tab that knows nothing of this one; a quick reply stays; anything else is no link."""
    shown = render.markdown("[文](https://wiki.example/a?b=1&c=2)", {})["pc"]
    assert shown == (
        '<p><a href="https://wiki.example/a?b=1&amp;c=2" target="_blank" '
        'rel="noopener noreferrer nofollow">文</a></p>\n'
    )
    quick = "dtmd://dingtalkclient/sendMessage?content=%E4%BD%A0"
    assert f'href="{quick}"' in render.markdown(f"[问]({quick})", {})["phone"]
    for address in (
        "javascript:alert(1)",
        "data:text/html,x",
        "//a.example",
        "/api/reset",
        "dtmd://other/x",
        "file:///x",
    ):
        assert "<a" not in render.markdown(f"[x]({address}) <{address}>", {})["pc"]


def test_a_text_message_is_no_markup() -> None:
    """Its line breaks stay, its asterisks too."""
    shown = render.plain("**一**\n<b>二</b> @zhangsan", NAMES)
    assert shown["pc"] == shown["phone"] == "<p>**一**<br>&lt;b&gt;二&lt;/b&gt; @张三</p>"


NASTY = st.lists(
    st.sampled_from(
        [
            *"<>[]()!`*_#|\\\n&\"' =:/-",
            *(
                "script",
                "<img src=x onerror=alert(1)>",
                "<script>",
                "</script>",
                "javascript:alert(1)",
                "<svg/onload=x>",
            ),
            *(
                "[a](",
                "![a](",
                "```",
                "~~~",
                "<!--",
                "-->",
                "<![CDATA[",
                "<font color=",
                "<a href=",
                "onclick=x",
                "&#60;",
            ),
            *("https://a.example/", "dtmd://dingtalkclient/sendMessage?content=", "| a |\n| - |\n", "@zhangsan", "字"),
        ]
    ),
    max_size=30,
).map("".join)


@given(NASTY)
def test_no_message_can_act(source: str) -> None:
    """Whatever was written, only known elements come out, with harmless attributes."""
    for html in (*render.markdown(source, NAMES).values(), *render.plain(source, NAMES).values()):
        for tag, attributes in Reader(html).found:
            assert tag in ELEMENTS, html
            assert set(attributes) <= ALLOWED.get(tag, set()), html
            assert tag != "a" or LINK.match(attributes["href"] or ""), html


def test_secrets_are_masked_by_key_and_by_value() -> None:
    """Keys that hold secrets, and addresses that carry them; the rest stays as it is."""
    shown = masked(
        {
            "clientSecret": "s3cret",
            "sessionWebhook": "https://oapi.dingtalk.com/robot/sendBySession?session=abc",
            "sessionWebhookExpiredTime": 5,
            "text": "wss://x/connect?ticket=t1&a=b 和 ?access_token=t2",
            "list": [{"Authorization": "Bearer x", "api_key": "k", "ok": True}],
        }
    )
    written = str(shown)
    for secret in ("s3cret", "abc", "t1", "t2", "Bearer", "'k'"):
        assert secret not in written
    assert shown["sessionWebhookExpiredTime"] == 5
    assert "&a=b" in written
    assert shown["list"][0]["ok"] is True
