"""An answer page as a daemon serves it: a real store, a real listener, an answer of every kind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from dingbridge.model import Answer, Outcome, Source
from dingbridge.settings import PagesConfig
from dingbridge.store.pages import AnswerPages
from dingbridge.store.store import Store
from dingbridge.web.pages import Pages
from tests.places import SQLitePlace
from tests.stores import Clock, head, message

_numbers = count(1)
TTL_S = 7 * 24 * 3600.0
QUESTION = "北京出差的住宿标准是多少？"
ANSWER = Answer(
    "北京、上海、深圳的住宿标准是 **每晚 600 元**，超出部分需要部门负责人书面同意。\n\n"
    "| 城市 | 标准（元/晚） |\n|:-----|-----:|\n| 北京 | 600 |\n| 成都 | 450 |\n\n"
    "报销时请附上：\n\n1. 住宿发票\n2. 出差申请单编号\n\n```\nTR-2026-0001\n```\n\n详见[差旅制度](https://wiki.intra/travel)。",
    (
        Source(
            "差旅费管理办法.docx",
            "第八条 住宿标准：北京、上海、深圳每晚不超过 600 元，其他省会城市每晚不超过 450 元。\n…\n"
            "第九条 出差期间的住宿超出标准的，应当事先取得部门负责人的书面同意。",
            "https://wiki.intra/travel",
        ),
        Source("报销问答.md", "问：住宿发票可以补开吗？\n答：可以，请在出差结束后 30 天内补齐。"),
    ),
)
FOREIGN = "http://evil.example"
# What must not act, wherever a stranger writes it: in a question, an answer, a title, a passage, a route's name.
INJECTIONS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    f"![beacon]({FOREIGN}/a.png) ![]({FOREIGN}/b.svg)",
    "[click](javascript:alert(1)) [data](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[send](dtmd://dingtalkclient/sendMessage?content=/new) <javascript:alert(1)>",
    "<svg onload=alert(1)><style>*{display:none}</style></svg>",
    f'<iframe src="{FOREIGN}"></iframe><link rel=stylesheet href="{FOREIGN}/c.css"><base href="{FOREIGN}/">',
    f'<form action="{FOREIGN}"><button>go</button></form><meta http-equiv=refresh content="0;url={FOREIGN}">',
    '`</code></pre><script>alert(1)</script>`\n\n```"onclick=alert(1)\n</code></pre><script>alert(1)</script>\n```',
    f"| a<script>alert(1)</script> | ![x]({FOREIGN}/t.png) |\n|---|---|\n| [x]({FOREIGN}/ '\"onclick=alert(1)') | b |",
    "\u202egnp.exe\u202c \u2066isolated\u2069 \u200bzero\u200bwidth\u00ad",
    "</textarea></title></style></main><script>alert(1)</script><!-- -->",
    "> " * 90 + "deep [x](javascript:alert(1))",
    "长" * 600 + "W" * 600,
)


@dataclass(slots=True)
class Served:
    """pages: listening. host: what its Host header has to say."""

    store: Store
    kept: AnswerPages
    pages: Pages
    clock: Clock
    host: str

    async def answered(self, answer: Answer = ANSWER, *, question: str = QUESTION, route: str = "行政") -> str:
        return await answered(self.store, self.kept, answer, question=question, route=route)

    def at(self, path: str) -> str:
        """Where that is, by the address that is listened at."""
        assert self.pages.address is not None
        return f"http://{self.pages.address[0]}:{self.pages.address[1]}{path}"


async def answered(
    store: Store, kept: AnswerPages, answer: Answer = ANSWER, *, question: str = QUESTION, route: str = "行政"
) -> str:
    """A question that was answered and sent; its page's token."""
    outcome = Outcome.REFUSED if answer.refused else Outcome.PARTIAL if answer.partial else Outcome.ANSWERED
    placed = await store.put(message(f"m{next(_numbers)}", text=question))
    delivery = await head(store)
    await store.answered(delivery, answer, outcome, route=route)
    token = await kept.issue(placed.row)
    await store.done(delivery, outcome)
    return token


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@asynccontextmanager
async def serving(folder: Path, *, url: str = "", port: int = 0, **how: Any) -> AsyncIterator[Served]:
    """Listening by the time it is there."""
    clock = Clock()
    url = url or "http://pages.test"
    async with SQLitePlace(folder).opened(clock) as store:
        kept = AnswerPages(store._engine, clock, ttl_s=TTL_S)
        pages = Pages(PagesConfig("127.0.0.1", port, url, 7, enabled=True), kept, **{"locale": "zh-CN"} | how)
        task = asyncio.create_task(pages.run())
        try:
            while not pages.health.ok:
                await asyncio.sleep(0.005)
            yield Served(store, kept, pages, clock, url.split("/")[2])
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
