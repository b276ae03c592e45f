"""What is a command, in whatever form people type it."""

from __future__ import annotations

import pytest

from dingbridge import commands
from dingbridge.texts import CATALOGUES


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


def test_every_command_is_explained_in_every_locale() -> None:
    """Help is made from the table, so each row has its text."""
    for catalogue in CATALOGUES.values():
        assert all(f"about_{command.name}" in catalogue for command in commands.COMMANDS)
