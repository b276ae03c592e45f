"""What is behind a failure: every key that errors carry is explained, in both languages, for who has to act on it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dingbridge import cli, errors
from dingbridge.causes import CAUSES, Explanation, explain
from dingbridge.config import SCHEMA
from dingbridge.errors import BackendUnavailable, BridgeError

PACKAGE = Path(__file__).parents[1] / "dingbridge"
KEY = re.compile(r"[a-z_]+(?:\.[a-z_]+)?")
EVERY = [
    pytest.param(locale, key, explanation, id=f"{locale} {key}")
    for locale, texts in CAUSES.items()
    for key, explanation in texts.items()
]
# A secret looks like none of these; a remedy needs no address but these.
ADDRESSES = {"https://api.dingtalk.com"}
IN_SQL = re.compile(r"\bcause = '([a-z_.]+)'")


def _files() -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.relative_to(PACKAGE).parts[0] not in ("causes", "sim"):
            yield file, ast.parse(file.read_text("utf-8"))


def _given(tree: ast.Module) -> Iterator[str]:
    """Keys in `cause=` and `cause = `, in tables called `…_CAUSES`, returned by functions called `…cause…`, in SQL."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="cause", value=value):
                yield from _keys(value)
            case ast.Assign(targets=[target], value=value) if any(_holds(name) for name in _names(target)):
                yield from _keys(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if _holds(name):
                yield from _keys(value)
            case ast.Constant(value=str(text)):
                yield from IN_SQL.findall(text)
            case ast.FunctionDef(name=name) if "cause" in name:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Return) and inner.value is not None:
                        yield from _keys(inner.value)


def _names(target: ast.expr) -> list[str]:
    match target:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return [name]
        case ast.Tuple(elts=parts):
            return [name for part in parts for name in _names(part)]
    return []


def _holds(name: str) -> bool:
    return name == "cause" or name.endswith("_CAUSES")


def _keys(value: ast.expr) -> Iterator[str]:
    """Texts that are whole keys; of an expression like `"a" if … else "b"` both, of a call's arguments none."""
    match value:
        case ast.Constant(value=str(text)) if text and KEY.fullmatch(text):
            yield text
        case ast.Dict(values=values) | ast.Tuple(elts=values):
            for one in values:
                yield from _keys(one)
        case ast.IfExp(body=body, orelse=other):
            yield from [*_keys(body), *_keys(other)]
        case ast.Call(func=ast.Attribute(attr="get", value=table), args=[_, *defaults]):
            for one in [table, *defaults]:
                yield from _keys(one)


GIVEN = {key for _, tree in _files() for key in _given(tree)}


def test_every_cause_is_explained() -> None:
    """No key that an error can carry is without its explanation."""
    assert len(GIVEN) > 50
    assert GIVEN - set(CAUSES["en"]) == set()


def test_every_explanation_is_of_a_cause() -> None:
    """Nothing is explained that no error carries."""
    assert set(CAUSES["en"]) - GIVEN == set()


def test_both_languages_explain_the_same() -> None:
    """The same keys in both catalogues, in the same order."""
    assert list(CAUSES["zh-CN"]) == list(CAUSES["en"])


@pytest.mark.parametrize(("locale", "key", "explanation"), EVERY)
def test_one_sentence_each(locale: str, key: str, explanation: Explanation) -> None:
    """Cause and remedy are one whole sentence each, different ones, short enough to be read at three in the morning."""
    stop = "。" if locale == "zh-CN" else "."
    for said in (explanation.cause, explanation.remedy):
        assert said == said.strip()
        assert said.endswith(stop), key
        assert stop not in re.sub(r"\.(?=\S)", "", said[:-1]), key
        assert len(said) <= (120 if locale == "zh-CN" else 220), key
    assert explanation.cause != explanation.remedy


@pytest.mark.parametrize(("locale", "key", "explanation"), EVERY)
def test_nothing_in_an_explanation_is_secret_or_invented(locale: str, key: str, explanation: Explanation) -> None:
    """Sections, keys of the configuration and verbs that are named exist, and no address or value is."""
    said = f"{explanation.cause} {explanation.remedy}"
    names = {field.name for fields in SCHEMA.values() for field in fields} | {"api_key_file"}
    for section in re.findall(r"\[+([a-z]+)\]+", said):
        assert section in SCHEMA, key
    for section, name in re.findall(r"\[+([a-z]+)\]+ ([a-z_]+)", said):
        assert name in names | {"is", "or", "and", "client_cert"}, key
        assert name not in names or name == "api_key_file" or name in {field.name for field in SCHEMA[section]}, key
    for name in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", said):
        assert name in names | {"qyapi_robot_sendmsg", "client_max_body_size", "foreign_webhook", "pg_hba"}, key
    for verb in re.findall(r"(?<!-u )(?<!status )dingbridge ([a-z]+)", said):
        assert verb in {*cli.main.commands, "is", "failed", "itself"}, key
    assert set(re.findall(r"https?://[^\s，。,;]+", said)) <= ADDRESSES, locale


def test_chinese_explanations_are_chinese() -> None:
    """No ASCII punctuation between Chinese characters, no English sentence left over."""
    for key, explanation in CAUSES["zh-CN"].items():
        for said in (explanation.cause, explanation.remedy):
            assert re.search(r"[一-鿿]", said), key
            assert not re.search(r"[一-鿿][,;:!?](?:[一-鿿]|$)", said), key
            assert not re.search(r"[a-z]{3,} [a-z]{3,} [a-z]{3,} [a-z]{3,}", said), key


def test_a_key_nobody_knows_has_no_explanation() -> None:
    """A cause of a later version, or none, is not guessed at."""
    assert explain("", "zh-CN") is None
    assert explain("backend.sleepy", "en") is None
    assert explain("backend.key", "zh-CN") == CAUSES["zh-CN"]["backend.key"]


def _kinds(kind: type[BridgeError]) -> Iterator[type[BridgeError]]:
    for below in kind.__subclasses__():
        yield below
        yield from _kinds(below)


WITHOUT = (errors.ConfigError, errors.StoreError, errors.LeaseLost, errors.PayloadError, errors.ReplyError)


@pytest.mark.parametrize("kind", [kind for kind in _kinds(BridgeError) if kind.__module__ == errors.__name__])
def test_kinds_of_errors_have_a_cause_of_their_own(kind: type[BridgeError]) -> None:
    """Where nothing more precise is known the kind says it; only bases, and what speaks for itself, say nothing."""
    assert (kind.cause in CAUSES["en"]) is (kind not in WITHOUT)


def test_an_error_says_its_kinds_cause_or_its_own() -> None:
    """`cause=` counts, also an empty one; without it the class speaks."""
    assert BackendUnavailable("x").cause == "backend.down"
    assert BackendUnavailable("x", cause="backend.slow").cause == "backend.slow"
    assert BridgeError("x").cause == ""


def test_an_explanation_fits_into_a_table() -> None:
    """The READMEs show them as cells: nothing in a sentence breaks the row."""
    assert not [one for texts in CAUSES.values() for one in texts.values() if "|" in one.cause + one.remedy]
