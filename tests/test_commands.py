"""What is a command, in whatever form people type it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dingbridge import commands
from dingbridge.model import Conversation, ConversationKind, Message, MessageKind, Person
from dingbridge.texts import CATALOGUES, Texts


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/help", "help"),
        ("／help", "help"),
        ("、help", "help"),
        (" /HELP ", "help"),
        ("/ help", "help"),
        ("帮助", "help"),
        ("/帮助", "help"),
        ("？", "help"),
        ("", "help"),
        ("/new", "new"),
        ("新对话", "new"),
        ("新对话。", "new"),
        ("、新对话", "new"),
        ("/cancel", "cancel"),
        ("取消", "cancel"),
        ("/status", "status"),
        ("状态", "status"),
        ("/whoami", "whoami"),
        ("我是谁", "whoami"),
    ],
)
def test_forms_of_a_command(text: str, name: str) -> None:
    """Slash, full-width slash, the Chinese keyboard's 、 and plain Chinese words all mean the command."""
    command = commands.match(text)

    assert command is not None
    assert command.name == name


@pytest.mark.parametrize(
    "text", ["帮助我找一下年假规定", "new", "status", "/etc/hosts 在哪", "取消订单怎么办", "/unknown"]
)
def test_questions_are_no_commands(text: str) -> None:
    """A question that begins with a command's word, or a bare English word, is a question."""
    assert commands.match(text) is None


@pytest.mark.parametrize("locale", sorted(CATALOGUES))
@pytest.mark.parametrize(
    ("around", "reply"),
    [
        ("{}", True),
        ("（可能重复）\n\n{}", True),
        ("(possibly repeated)\n{}", True),
        ("转人工 编号 ABCD1234 张三…\n{}", True),
        ("根据资料：{}", False),
        ("来源 1 的原文：\n\n> {}", False),
        ("**转人工** 编号 ABCD12345", False),
    ],
)
def test_only_what_was_handed_over_is_answered_by_quoting_it(locale: str, around: str, reply: bool) -> None:
    """The mark of a hand-over counts where the quoted message begins with it, not where an answer quotes it."""
    mark = Texts(locale)("handed_over", who="张三", where="单聊", question="> 问", answer="> 答", code="ABCD1234")
    where = Conversation("cid", ConversationKind.SINGLE)
    at = datetime(2026, 1, 31, tzinfo=UTC)
    quoting = Message("m", "d", where, Person("boss"), MessageKind.TEXT, "10 天", at, quoted=around.format(mark))
    found = commands.of(quoting)
    assert (found is not None) is reply
    assert found is None or (found[0].name, found[1]) == ("reply", "ABCD1234 10 天")


def test_every_command_is_explained_in_every_locale() -> None:
    """Help is made from the table, so each row has its text."""
    for catalogue in CATALOGUES.values():
        assert all(f"about_{command.name}" in catalogue for command in commands.COMMANDS)
