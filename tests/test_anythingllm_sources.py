"""What AnythingLLM says beside the text: sources to show, delays to keep, words to quote."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from dingbridge.backends.api import api_root
from dingbridge.backends.faults import Faults, retry_after
from dingbridge.backends.sources import group_sources
from dingbridge.backends.sse import whole_characters
from dingbridge.model import Source


def chunk_of(title: str = "手册.pdf", **more: Any) -> dict[str, Any]:
    return {"title": title, "text": "文", "chunkSource": "", "url": "file:///app/collector/hotdir/x", **more}


def test_sources_are_grouped_by_document_best_first() -> None:
    """Chunks of a document are joined; LanceDB's score of 1 with a distance over 1 is the worst of all."""
    header = "<document_metadata>\nsourceDocument: a\n</document_metadata>\n\n"
    found = group_sources(
        [
            chunk_of("坏.pdf", _distance=1.118, score=1),
            chunk_of("乙.pdf", _distance=0.5, score=0.5, text=header + "乙一"),
            chunk_of("甲.pdf", _distance=0.3, score=0.7, text="甲二"),
            chunk_of("乙.pdf", _distance=0.2, score=0.8, text=header + "乙二"),
            chunk_of("乙.pdf", _distance=0.6, score=0.4, text=header + "乙二"),
            "no chunk",
        ]
    )
    assert found == (
        Source("乙.pdf", "乙二\n…\n乙一"),
        Source("甲.pdf", "甲二"),
        Source("坏.pdf", "文"),
    )


def test_other_stores_rank_by_score_and_pinned_documents_come_first() -> None:
    """Without a distance the higher score wins; a pinned document, without either, stays in front."""
    found = group_sources([chunk_of("低", score=0.2), chunk_of("高", score=0.9), chunk_of("钉")])
    assert [source.title for source in found] == ["钉", "高", "低"]


TITLES = {
    "员工手册.pdf": "员工手册.pdf",
    "": "未命名文档",
    "  ": "未命名文档",
    ".txt": "未命名文档",
    "/app/collector/hotdir/制度.docx": "制度.docx",
    "C:\\共享\\制度.docx": "制度.docx",
    "file:///a/b.txt": "b.txt",
    "请假/调休 制度": "请假/调休 制度",
    "两\n行": "两 行",
}


@pytest.mark.parametrize("title", TITLES)
def test_titles_show_no_paths(title: str) -> None:
    """A title is what a person called the document; a server's folders are not shown."""
    assert group_sources([chunk_of(title)])[0].title == TITLES[title]


def test_documents_without_title_are_told_apart() -> None:
    """Several documents whose Chinese titles were lost stay several, by url and date, named by description."""
    found = group_sources(
        [
            chunk_of(".txt", url="a", description="差旅标准"),
            chunk_of(".txt", url="b", description="No description found."),
            chunk_of(".txt", url="a", text="更多"),
        ]
    )
    assert found == (Source("差旅标准", "文\n…\n更多"), Source("未命名文档", "文"))


LINKS = {
    "link://https://docs.example.com/a?id=1": "https://docs.example.com/a?id=1",
    "youtube://https://www.example.com/watch?v=1": "https://www.example.com/watch?v=1",
    "confluence://https://wiki.example.com/p?pageId=3?payload=ab:cd": "https://wiki.example.com/p?pageId=3",
    "confluence://https://wiki.example.com/p?pageId=3&payload=ab:cd": "https://wiki.example.com/p?pageId=3",
    "github://https://git.example.com/o/r?payload=ab:cd": "https://git.example.com/o/r",
    "gitlab://https://git.example.com/o/r": "https://git.example.com/o/r",
    "gitea://http://git.example.com:3000/o/r?payload=": "http://git.example.com:3000/o/r",
    "drupalwiki://https://w.example.com/node/3?payload=x": "https://w.example.com/node/3",
    "paperless-ngx://17?payload=ab:cd": "",
    "paperless-ngx://https://p.example.com/documents/17?payload=ab": "https://p.example.com/documents/17",
    "link://file:///etc/passwd": "",
    "link://javascript:alert(1)": "",
    "link://https://user:word@docs.example.com/": "",
    "link://https://": "",
    "link://https://[bad": "",
    "link://https://a.example:99999/": "",
    "link://https://a.example/x y": "",
    "link://https://a.example/\u202egpj": "",
    "obsidian://notes/a.md": "",
    "https://docs.example.com/": "",
    "gmail-thread://x": "",
    "": "",
    "link://https://a.example/" + "x" * 5_000: "",
}


@pytest.mark.parametrize("where", LINKS, ids=lambda where: where[:40])
def test_links_are_only_what_a_person_can_open(where: str) -> None:
    """Only http and https addresses of known loaders, without their encrypted credentials; never the `url` field."""
    assert group_sources([chunk_of(chunkSource=where)])[0].url == LINKS[where]


NOW = datetime(2026, 11, 22, 7, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("999999999", 86_400.0),
        ("-3", None),
        ("soon", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_number_and_date(value: str, seconds: float | None) -> None:
    """Both forms of Retry-After, by the server's own clock; nonsense is no delay."""
    assert retry_after({"Retry-After": value, "Date": format_datetime(NOW, usegmt=True)}) == seconds


def test_retry_after_without_a_server_date_counts_from_now() -> None:
    """A date without the server's clock is compared with ours."""
    got = retry_after({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)})
    assert got is not None
    assert 3_500 < got <= 3_600


def test_quoted_words_hold_no_secret() -> None:
    """The server's words are shortened to one line, without known secrets, keys, queries and logins."""
    quoted = Faults("http://x", hidden=("geheim",)).quote(
        "401 geheim sk-proj-abc ABCDEFG-1234567-HIJKLMN\n\x1bhttp://u:p@a.example/x?key=1 " + "lang " * 99
    )
    assert quoted.startswith("401 *** *** *** http://a.example/x lang")
    assert len(quoted) == 161


def test_whole_characters_leaves_whole_text_alone() -> None:
    """Text without halves is returned as it is."""
    assert whole_characters("😀 住") == "😀 住"


def test_a_login_in_the_address_is_dropped() -> None:
    """Credentials in base_url would fight with the key and could be shown."""
    assert str(api_root("http://user:word@127.0.0.1:3001/llm/api/")) == "http://127.0.0.1:3001/llm/api/v1"
