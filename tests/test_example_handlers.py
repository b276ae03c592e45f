"""The example handler, loaded as its README says and asked as a chat would ask it."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dingbridge import Answer, Conversation, Message, Person, config
from dingbridge.answerer import Answerer, Ask
from dingbridge.building import import_handlers_from
from dingbridge.model import ConversationKind, MessageKind, Outcome
from dingbridge.settings import Config
from dingbridge.texts import Texts

EXAMPLES = Path(__file__).parents[1] / "examples"
HANDLERS = EXAMPLES / "handlers"
MONDAY_IN_CHINA = datetime(2026, 11, 22, 16, 30, tzinfo=UTC)  # half past midnight there


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The README's lines in place of the minimal configuration's route."""
    (lines,) = re.findall(r"```toml\n(.*?)```", (HANDLERS / "README.md").read_text("utf-8"), flags=re.DOTALL)
    minimal = (EXAMPLES / "minimal.toml").read_text("utf-8").partition("[[route]]")[0]
    file = tmp_path / "dingbridge.toml"
    file.write_text(minimal + lines.replace("/etc/dingbridge/handlers", str(HANDLERS)), "utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    secrets = {"DINGBRIDGE_DINGTALK_CLIENT_SECRET": "secret", "DINGBRIDGE_ANYTHINGLLM_API_KEY": "key"}
    loaded = config.load(file, {**secrets, "STATE_DIRECTORY": str(tmp_path)})
    import_handlers_from(loaded)
    return loaded


class Documents:
    """Stands for AnythingLLM: whatever it is asked, the documents say the same."""

    async def ask(self, question: str, *, workspace: str, session: str, **_: Any) -> Answer:
        return Answer("from the documents")


class Silent:
    """A chat in which nobody waits."""

    async def update(self, text: str) -> None:
        """Nothing to replace."""


def asked(text: str, at: datetime = MONDAY_IN_CHINA) -> Message:
    group = Conversation("cid", ConversationKind.GROUP)
    return Message("m", "ding", group, Person("u"), MessageKind.TEXT, text, at)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("今天谁值班", "11月23日（星期一）：**张三，分机 8001**"),
        ("今天谁值班？", "11月23日（星期一）：**张三，分机 8001**"),
        ("请问今晚是哪位值班呢", "11月23日（星期一）：**张三，分机 8001**"),
        ("谁值班", "11月23日（星期一）：**张三，分机 8001**"),
        ("谁今天值班", "11月23日（星期一）：**张三，分机 8001**"),
        ("明天值班的是谁？", "11月24日（星期二）：**李四，分机 8002**"),
        ("后天谁值班", "11月25日（星期三）：**王五，分机 8003**"),
    ],
)
async def test_who_is_on_duty(loaded: Config, question: str, answer: str) -> None:
    """The roster answers, by the day in China on which it was asked, and is named as the source."""
    answerer = Answerer(loaded.routes, Documents(), handler_s=10)
    found = await answerer.answer(Ask(asked(question), "session", Texts("zh-CN")), Silent())
    assert found.answer is not None
    assert (found.answer.text, [source.title for source in found.answer.sources]) == (answer, ["值班表"])
    assert found.route is loaded.routes[0]


async def test_a_day_without_anybody(loaded: Config) -> None:
    """A day that is not in the roster is said to be free."""
    answerer = Answerer(loaded.routes, Documents(), handler_s=10)
    sunday = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)
    found = await answerer.answer(Ask(asked("今天谁值班", sunday), "session", Texts("zh-CN")), Silent())
    assert found.answer is not None
    assert found.answer.text == "11月22日（星期日）：**没有安排值班**"


@pytest.mark.parametrize("question", ["值班补贴怎么算", "值班制度是什么？", "今天有什么菜", "谁负责值班表", "值班"])
async def test_other_questions_go_to_the_next_route(loaded: Config, question: str) -> None:
    """What is no question about the roster is refused, and the documents answer it."""
    answerer = Answerer(loaded.routes, Documents(), handler_s=10)
    found = await answerer.answer(Ask(asked(question), "session", Texts("zh-CN")), Silent())
    assert (found.answer, found.outcome) == (Answer("from the documents", origin="handbook"), Outcome.ANSWERED)
