"""What the verbs say is complete: both languages, every step that is noted, every end, state and rule."""

from __future__ import annotations

import ast
import json
import os
import re
import string
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dingbridge import model
from dingbridge.cli.helps import HELPS
from dingbridge.cli.root import help_locale, show
from dingbridge.config import Located
from dingbridge.operations import NotFound
from dingbridge.settings import StoreConfig
from dingbridge.store.checking import RULES
from dingbridge.verbs import columns, moments, reach, trace
from dingbridge.verbs.words import WORDS, Words

PACKAGE = Path(__file__).parents[1] / "dingbridge"


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def sources() -> list[Path]:
    others = ("sim", "demo", "trail.py")
    return [one for one in sorted(PACKAGE.rglob("*.py")) if one.relative_to(PACKAGE).parts[0] not in others]


def noted() -> Iterator[str]:
    """The names given to trail.note, trail.add, trail.timed and Step, and those in a step made as a table."""
    for file in sources():
        for node in ast.walk(tree(file)):
            match node:
                case ast.Call(func=ast.Attribute(value=owner, attr="note" | "add" | "timed"), args=[first, *_]):
                    if ast.unparse(owner).endswith("trail"):
                        yield name_in(first, file)
                case ast.Call(func=ast.Name(id="Step"), args=[_, ast.Constant(value=str(name)), *_]):
                    yield name
                case ast.Dict(keys=[ast.Constant(value="at"), ast.Constant(value="name"), *_], values=[_, name_of, *_]):
                    if isinstance(name_of, ast.Constant):
                        yield str(name_of.value)


def name_in(argument: ast.expr, file: Path) -> str:
    assert isinstance(argument, ast.Constant), f"{file.name}:{argument.lineno}: write a step's name out"
    return str(argument.value)


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("catalogues", [WORDS, HELPS], ids=["words", "helps"])
def test_both_languages_have_the_same(catalogues: Mapping[str, Mapping[str, str]]) -> None:
    """Keys, their order and the places for values; nothing is empty but what is meant to be."""
    chinese, english = catalogues["zh-CN"], catalogues["en"]
    assert list(chinese) == list(english)
    for key, text in chinese.items():
        assert placeholders(text) == placeholders(english[key]), key
        assert text
        assert english[key]


def test_chinese_is_chinese_and_english_is_not() -> None:
    """No text was forgotten in the other language."""
    han = re.compile(r"[\u4e00-\u9fff]")
    for catalogues in (WORDS, HELPS):
        assert [key for key, text in catalogues["en"].items() if han.search(text)] == []
    without = {key for key, text in WORDS["zh-CN"].items() if not han.search(text)}
    assert without <= {"by_daemon", "label_backend", "trace_title"}


def test_every_word_is_used() -> None:
    """A key that no module names, by itself or by its beginning, is left over."""
    text = "\n".join(file.read_text("utf-8") for file in sources() if file.name != "words.py")
    beginnings = ("state_", "outcome_", "rule_", "rung_", "step_", "head_", "kind_", "chat_", "why_")
    left = [key for key in WORDS["en"] if not re.search(f"['\"]{key}['\"]", text) and not key.startswith(beginnings)]
    assert left == []
    helps = [key for key in HELPS["en"] if f'"{key}"' not in text]
    assert helps == []


NAMES = sorted({*noted(), "…"})


def test_the_scan_finds_what_is_noted() -> None:
    """Of each way to note a step one is known to be there."""
    assert len(NAMES) > 20
    assert {"received", "leased", "gave_up", "backend.attempt", "send.tried", "crash", "dropped", "not_kept"} <= {
        *NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_step_has_its_sentence(name: str) -> None:
    """In both languages; and it can be said even where a fact is missing, as in a trail of another version."""
    for locale in WORDS:
        words = Words(locale)
        assert words.has(f"step_{name}"), f"verbs/words.py: say step_{name}"
        assert trace.said({"at": 1.0, "name": name}, words)


def test_every_sentence_is_of_a_step() -> None:
    """Nothing is explained that nobody notes."""
    told = {key.removeprefix("step_") for key in WORDS["en"] if key.startswith("step_")}
    assert told - {*NAMES} == set()


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("outcome_", {"", *model.Outcome}),
        ("state_", {*model.State, "not_kept"}),
        (
            "rule_",
            {"open", "group", "group_not_named", "no_groups", "person", "person_not_named", "groups_only"},
        ),
        ("breach_", {*RULES}),
        ("mend_", {*RULES}),
        ("rung_", {"webhook", "newest_webhook", "openapi"}),
    ],
)
def test_every_value_has_its_word(prefix: str, names: set[str]) -> None:
    """Ends, states, rules, breaches with remedies, ways into the chat; no more and no less."""
    assert {key.removeprefix(prefix) for key in WORDS["en"] if key.startswith(prefix)} == names


def test_the_rules_are_those_of_the_router() -> None:
    """What `judge` may say, read from its source."""
    router = (PACKAGE / "router.py").read_text("utf-8")
    found = {
        constant.value
        for node in ast.walk(ast.parse(router))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Verdict"
        for constant in ast.walk(node.args[1])
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    }
    assert found == {key.removeprefix("rule_") for key in WORDS["en"] if key.startswith("rule_")}


def test_of_several_daemons_the_one_is_named() -> None:
    """Who received it and who works on it; where there is only one daemon, nothing is said of it."""
    step = {"at": 1.0, "name": "leased", "waited_s": 0.5}
    named = {**step, "by": "vm-796e6b87"}
    assert trace.said(named, Words("zh-CN")) == "开始处理（vm-796e6b87），等了 500 ms"
    assert trace.said(named, Words("en")) == "work begins (vm-796e6b87), after 500 ms"
    assert trace.said(step, Words("en")) == "work begins, after 500 ms"
    received = {"at": 1.0, "name": "received", "kind": "text", "chat": "group", "frame": "f1", "by": "vm-796e6b87"}
    assert trace.said(received, Words("zh-CN")).startswith("收到消息（vm-796e6b87）（文字，群聊）")


def test_a_take_over_is_told_with_both_names() -> None:
    """Who does not renew, and who goes on."""
    step = {"at": 1.0, "name": "taken_over", "from": "vm-9b4fe548", "by": "vm-16d4e75a"}
    assert trace.said(step, Words("zh-CN")) == "vm-9b4fe548 不再续期（被杀、卡住或断网），由 vm-16d4e75a 接手"
    assert (
        trace.said(step, Words("en")) == "vm-9b4fe548 renews no more (killed, hung or cut off); vm-16d4e75a takes over"
    )


def test_no_clock_puts_work_before_the_take_over_that_it_follows() -> None:
    """Machines' clocks differ: within one lease steps stand by their time, between leases as they were written."""
    written = (
        ("received", 1.0),
        ("notice", 3.0),
        ("leased", 2.0),
        ("taken_over", 9.0),
        ("later", 8.5),
        ("leased", 8.0),
    )
    steps = trace.in_order([{"name": name, "at": at} for name, at in written])
    assert [step["name"] for step in steps] == ["received", "leased", "notice", "taken_over", "leased", "later"]


def test_a_step_of_a_later_version_is_shown_as_it_is() -> None:
    """Unknown to this one, with its facts, and without an error."""
    said = trace.said({"at": 1.0, "name": "dreamt", "of": "sheep", "why": "x", "key": 1, "self": 2}, Words("en"))
    assert said == "dreamt  of=sheep  key=1  self=2"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"ok": True, "ms": 1234}, "：成功，1.2 s"),
        ({"ok": False, "ms": 0, "certain": False}, "：失败，0 ms，不知道到没到"),
        ({"ok": True, "ms": 5, "marked": True}, "，标明可能重复：成功，5 ms"),
        ({"ok": True, "ms": 61_000, "first_token_ms": 350}, "：成功，1 min 1 s，第一个字 350 ms"),
        ({}, ""),
    ],
)
def test_a_result_says_what_is_known(facts: dict[str, object], said: str) -> None:
    """How it went, how long it took, and what is in doubt."""
    step = {"at": 1.0, "name": "send.tried", "part": 2, "rung": "openapi", **facts}
    assert trace.said(step, Words("zh-CN")) == f"发送第 2 段，走开放接口{said}"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 ms"),
        (0.35, "350 ms"),
        (0.9999, "1.0 s"),
        (59.96, "1 min"),
        (4.21, "4.2 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (3600, "1 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_spans_are_short_and_right(seconds: float, said: str) -> None:
    """Two units at most, and never sixty of one."""
    assert moments.span(seconds) == said


def test_columns_count_chinese_twice() -> None:
    """What a terminal shows is below one another."""
    assert columns.table([("编号", "x"), ("abc", "y"), ("", "")]) == ["编号  x", "abc   y", ""]
    assert columns.table([]) == []


# -- the language of the help


@pytest.mark.parametrize("as_one", [True, False])
@pytest.mark.parametrize(
    ("written", "locale"),
    [
        ('[reply]\nlocale = "en"\n', "en"),
        ('[reply]\nlocale = "zh-CN"\n', "zh-CN"),
        ("", "zh-CN"),
        ('[reply]\nlocale = "fr"\n', "zh-CN"),
        ('[reply]\nlocale = ["en"]\n', "en"),
        ("[reply]\nlocale = {x = 1}\n", "en"),
        ("reply = 5\n", "en"),
    ],
)
def test_the_file_decides_the_language(tmp_path: Path, written: str, locale: str, *, as_one: bool) -> None:
    """Whatever stands in it, help can be had; where it cannot be understood, the terminal decides."""
    path = tmp_path / "x.toml"
    path.write_text(written)
    arguments = [f"--config={path}"] if as_one else ["--config", str(path)]
    assert help_locale(["dingbridge", "status", *arguments], {"LANG": "en_US.UTF-8"}) == locale


@pytest.mark.parametrize(
    ("environ", "locale"),
    [
        ({}, "zh-CN"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_CN.UTF-8"}, "zh-CN"),
        ({"LANG": "C"}, "zh-CN"),
    ],
)
def test_without_a_file_the_terminal_decides(
    tmp_path: Path, environ: dict[str, str], locale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chinese where nothing is said."""
    monkeypatch.setattr("dingbridge.cli.root.PLACES", (str(tmp_path / "none.toml"),))
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"\xff[")
    assert help_locale(["dingbridge", "--config", str(broken)], environ) == locale


def test_the_words_are_json_safe() -> None:
    """No lone surrogate or control character slipped in."""
    for catalogues in (WORDS, HELPS):
        for texts in catalogues.values():
            assert json.dumps(dict(texts), ensure_ascii=False).encode()


def test_a_stored_text_cannot_command_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Escapes, bells and text direction are made visible; lines and Chinese stay."""
    show("年假\x1b]0;owned\x07\n\u202e几天\x9b31m")

    assert capsys.readouterr().out == "年假�]0;owned�\n�几天�31m\n"


def test_a_terminal_that_lacks_a_character_gets_no_traceback(tmp_path: Path) -> None:
    """A route is explained under an encoding without the check mark and without Chinese."""
    file = tmp_path / "dingbridge.toml"
    file.write_text(
        '[dingtalk]\nclient_id = "dingx"\n[anythingllm]\nbase_url = "http://127.0.0.1:1"\n[[route]]\nworkspace = "h"\n'
    )
    for encoding in ("gbk", "latin-1"):
        done = subprocess.run(
            [sys.executable, "-m", "dingbridge", "route", "--config", str(file), "hello"],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"h" in done.stdout


@pytest.mark.parametrize("wanted", ["", " ", "A\nB", "\udcff\udcfe", "x" * 10_000])
async def test_a_code_that_cannot_be_one_is_refused_before_anybody_is_asked(tmp_path: Path, wanted: str) -> None:
    """An unset variable of a script, or what slipped into it, gets a sentence."""
    located = Located(tmp_path / "x.toml", StoreConfig(tmp_path / "x.db"), "dingx", "zh-CN", 30.0)
    with pytest.raises(NotFound, match="8 characters"):
        await reach.ask(located, "trace", wanted=wanted)
