"""What chat users read: complete in both languages, plain about what happened, traceable."""

from __future__ import annotations

import re
import string
from datetime import UTC, datetime

import pytest

from dingbridge import errors
from dingbridge.commands import COMMANDS
from dingbridge.dingtalk import markdown
from dingbridge.errors import BridgeError
from dingbridge.model import CROCKFORD, trace_code
from dingbridge.texts import CATALOGUES, NOTICE, Texts

VALUES: dict[str, object] = {
    "waiting": 8,
    "count": 2,
    "seconds": 30,
    "code": "0123ABCD",
    "name": "/help",
    "about": "…",
    "commands": "- …",
}
VALUES |= {"person": "manager807", "conversation": "cidAsXSBLnA==", "when": datetime(2026, 9, 3, 8, 5, tzinfo=UTC)}
VALUES |= {"who": "张三", "where": "人事群", "reply": "…"}
VALUES |= {"quoted": "…", "question": "…", "answer": "…", "names": "报销单.xlsx"}
LOCALES = sorted(CATALOGUES)
FAILURES = ["backend_unavailable", "backend_rejected", "backend_failed", "expired", "failed", "dead", "unsafe"]


def holes(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_both_catalogues_say_the_same_things() -> None:
    """The same keys, and in each text the same placeholders."""
    chinese, english = CATALOGUES["zh-CN"], CATALOGUES["en"]
    assert set(chinese) == set(english)
    assert {key: holes(text) for key, text in chinese.items()} == {key: holes(text) for key, text in english.items()}


@pytest.mark.parametrize("locale", LOCALES)
def test_every_text_can_be_said(locale: str) -> None:
    """Each text fills its placeholders, says something and has no space at its ends that would be lost."""
    texts = Texts(locale)
    for key in CATALOGUES[locale]:
        said = texts(key, **VALUES)
        assert said.strip()
        assert said == said.strip()
        assert "{" not in said


def test_the_contract_texts() -> None:
    """The notice, the sources line, the repeat mark and the code line are fixed."""
    texts = Texts("zh-CN")
    assert texts(NOTICE) == "正在查询，请稍候…"
    assert texts("sources") == "来源："
    assert texts("repeat_mark") == "（可能重复）"
    assert texts("code", code="0123ABCD") == "编号 0123ABCD"


def test_chinese_texts_are_chinese() -> None:
    """No ASCII punctuation between Chinese characters, no English sentence left over."""
    for key, text in CATALOGUES["zh-CN"].items():
        assert not re.search(r"[一-鿿][,;:!?](?:[一-鿿]|$)", text), key
        assert not re.search(r"[A-Za-z]{3,} [A-Za-z]{3,}", text), key


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("key", [*FAILURES, "trouble", "no such key"])
def test_a_failure_ends_with_its_code(locale: str, key: str) -> None:
    """The line to trace by stands last, alone, also for a key nobody has written a text for."""
    texts = Texts(locale)
    said = texts.failure(key, "0123ABCD")
    assert said.split("\n\n")[-1] == texts("code", code="0123ABCD")
    assert said.endswith(" 0123ABCD")
    written = markdown.write(said)
    assert written.endswith("0123ABCD")


@pytest.mark.parametrize("key", FAILURES)
def test_a_failure_says_whether_asking_again_helps(key: str) -> None:
    """Every failure text names the next step: ask again, ask differently, or tell the administrator."""
    assert re.search(r"再问|换个问法", CATALOGUES["zh-CN"][key])
    assert re.search(r"[Aa]sk|again", CATALOGUES["en"][key])
    assert re.search(r"再问|换个|管理员", CATALOGUES["zh-CN"][key])


@pytest.mark.parametrize("locale", LOCALES)
def test_who_has_no_route_learns_of_whoami(locale: str) -> None:
    """The text for people without a route hints at /whoami; whoever is told to wait learns of /cancel."""
    texts = Texts(locale)
    assert "/whoami" in texts("unrouted")
    assert "/cancel" in texts("busy", waiting=8)


def public_keys(kind: type[BridgeError]) -> set[str]:
    return {kind.public}.union(*(public_keys(child) for child in kind.__subclasses__()))


def test_every_error_has_its_text() -> None:
    """Whatever an error tells the chat user by key stands in both catalogues."""
    assert errors.BridgeError.public == "failed"
    assert public_keys(BridgeError) <= set(CATALOGUES["zh-CN"])


def test_every_command_is_explained() -> None:
    """Help has a line for each command; nothing is explained that does not exist."""
    for catalogue in CATALOGUES.values():
        explained = {key.removeprefix("about_") for key in catalogue if key.startswith("about_")}
        assert explained == {command.name for command in COMMANDS}


def test_aliases_in_help_work() -> None:
    """A Chinese word that help offers is one the robot understands."""
    for command in COMMANDS:
        offered = re.findall(r"“(.+?)”", CATALOGUES["zh-CN"][f"about_{command.name}"])
        assert set(offered) <= set(command.words)


def test_the_code_is_short_stable_and_the_robots_own() -> None:
    """Eight Crockford characters from robot and message id; a fixed value guards against a changed hash."""
    code = trace_code("ding0001", "msgMxpQ+qegFQ4MpgOyu0UFrQ==")
    assert code == trace_code("ding0001", "msgMxpQ+qegFQ4MpgOyu0UFrQ==") == "BY0RXZVZ"
    assert code != trace_code("ding0002", "msgMxpQ+qegFQ4MpgOyu0UFrQ==")
    assert trace_code("a", "bc") != trace_code("ab", "c")
    codes = {trace_code("ding0001", f"msg{number}") for number in range(5000)}
    assert len(codes) == 5000
    assert all(len(one) == 8 and set(one) <= set(CROCKFORD) for one in codes)


def test_values_stay_values() -> None:
    """Braces in what is filled in are text."""
    assert "{0}" in Texts("zh-CN")("whoami_single", person="{0}")
