"""The configuration: defaults, finding and reading the file, store and web page, the commented manual."""

from __future__ import annotations

import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from dingbridge.config import PLACES, SCHEMA, find, load
from dingbridge.errors import ConfigError
from dingbridge.model import Route, Secret
from dingbridge.net import Network
from tests.configurations import ENV, HIDDEN, faults, loaded, toml

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_minimum_has_the_documented_defaults(tmp_path: Path) -> None:
    """A configuration with only the required keys means the contract's defaults."""
    config = loaded(tmp_path, toml())

    assert config.path == tmp_path / "dingbridge.toml"
    dingtalk = config.dingtalk
    assert (dingtalk.client_id, dingtalk.client_secret.reveal()) == ("dingx", "dingtalk-secret")
    assert (dingtalk.api_base, dingtalk.oapi_base) == ("https://api.dingtalk.com", "https://oapi.dingtalk.com")
    assert dingtalk.network == config.anythingllm.network == Network()
    ask = config.anythingllm
    assert (ask.base_url, ask.api_key.reveal()) == ("http://127.0.0.1:3001", "anythingllm-key")
    assert (ask.mode, ask.attempts, ask.connect_timeout_s) == ("query", 4, 5.0)
    assert (ask.first_token_timeout_s, ask.idle_timeout_s, ask.total_timeout_s) == (60.0, 30.0, 180.0)
    assert config.routes == (Route("handbook", "handbook", "anythingllm", frozenset(), frozenset()),)
    reply, limits = config.reply, config.limits
    assert (reply.locale, reply.notice_after_s, reply.notice) == ("zh-CN", 3.0, "text")
    assert reply.uncertain == "repeat"
    assert (limits.workers, limits.waiting_per_lane, limits.per_user_per_minute) == (64, 8, 10)
    assert (limits.answer_deadline_min, limits.drain_s) == (30.0, 20.0)
    assert config.handlers_path == ()
    assert config.store.path == Path("/home/bot/.local/state/dingbridge/dingbridge.db")
    assert (config.web.host, config.web.port, config.web.enabled) == ("127.0.0.1", 8788, True)
    assert config.web.admin_token == Secret()


def test_every_value_reaches_its_noun(tmp_path: Path) -> None:
    """Values other than the defaults arrive, fractions included."""
    (tmp_path / "own").mkdir()
    config = loaded(
        tmp_path,
        toml(
            dingtalk='api_base = "https://ding.corp.example/"\noapi_base = "http://127.0.0.1:9/oapi/"\n'
            'proxy = "http://bot:p%40ss@proxy.example:3128"\n'
            'no_proxy = ["localhost", ".corp.example", "10.0.0.0/8", "*"]',
            anythingllm='mode = "chat"\nattempts = 1\nconnect_timeout_s = 0.25',
            route='name = "人事"\nhandler = "desk.hr:handle"\nusers = ["u1", "u1"]\nconversations = ["cid1=="]',
            rest='[[route]]\nworkspace = "财务 制度"\n'
            '[reply]\nlocale = "en"\nnotice_after_s = 0\nnotice = "off"\nuncertain = "drop"\n'
            "[limits]\nworkers = 0\nwaiting_per_lane = 0\nper_user_per_minute = 0\n"
            "answer_deadline_min = 0.5\ndrain_s = 0\n"
            '[handlers]\npath = ["own"]\n[web]\nlisten = "[::1]:0"\nadmin_token = "t"',
        ),
    )

    assert config.dingtalk.api_base == "https://ding.corp.example"
    assert config.dingtalk.oapi_base == "http://127.0.0.1:9/oapi"
    assert config.dingtalk.network.proxy.reveal() == "http://bot:p%40ss@proxy.example:3128"
    assert config.dingtalk.network.no_proxy == ("localhost", ".corp.example", "10.0.0.0/8", "*")
    assert (config.anythingllm.mode, config.anythingllm.attempts) == ("chat", 1)
    assert config.anythingllm.connect_timeout_s == 0.25
    assert config.routes == (
        Route("人事", "", "desk.hr:handle", frozenset({"u1"}), frozenset({"cid1=="})),
        Route("财务 制度", "财务 制度"),
    )
    assert (config.reply.locale, config.reply.notice_after_s) == ("en", 0.0)
    assert (config.reply.notice, config.reply.uncertain) == ("off", "drop")
    assert (config.limits.workers, config.limits.waiting_per_lane) == (0, 0)
    assert (config.limits.answer_deadline_min, config.limits.drain_s) == (0.5, 0.0)
    assert config.handlers_path == (tmp_path / "own",)
    assert (config.web.host, config.web.port, config.web.admin_token.reveal()) == ("::1", 0, "t")


def test_documents_may_be_named_by_a_query(tmp_path: Path) -> None:
    """A wiki's pages often are; the address stays as it was written."""
    address = "https://wiki.example/pages/viewpage.action?pageId=1234&x=%E5%B7%AE#第八条"
    assert loaded(tmp_path, toml(rest=f'[sources]\n"差旅" = "{address}"')).sources == {"差旅": address}


def test_routes_may_share_a_workspace_without_names(tmp_path: Path) -> None:
    """Only names somebody wrote have to differ."""
    config = loaded(tmp_path, toml(rest='[[route]]\nworkspace = "handbook"\n[[route]]\nhandler = "a.b:c"'))

    assert [route.name for route in config.routes] == ["handbook", "handbook", "a.b:c"]


# ── encodings and syntax ──


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    """Editors on Windows put a BOM in front of UTF-8."""
    assert loaded(tmp_path, b"\xef\xbb\xbf" + toml(route='workspace = "制度"').encode()).routes[0].name == "制度"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("# 中文\n".encode("gbk"), "line 1: saved as GBK, save as UTF-8"),
        (b"a = 1\n# " + "制度".encode("gbk"), "line 2: saved as GBK, save as UTF-8"),
        (b"a = 1\n\nb = '\xff\xff'", "line 3: not UTF-8, save as UTF-8"),
        ("a = 1".encode("utf-16"), "saved as UTF-16, save as UTF-8"),
        (f"[dingtalk]\nclient_id = “{HIDDEN}”", "line 2, column 13: curly quotes “ ”, write straight ones"),
        (f"a = ‘{HIDDEN}’", "line 1, column 5: curly quotes ‘ ’, write straight ones"),
        (f'a = "{HIDDEN}”\nb = 1', "line 1, column 21: curly quotes ”, write straight ones"),
        (f"a = ＂{HIDDEN}＂", 'line 1, column 5: full-width ＂, write "'),
        ("client_id ＝ 'x'", "line 1, column 11: full-width ＝, write ="),
        ("［dingtalk］", "line 1, column 1: full-width ［, write ["),
        ("[dingtalk】", "line 1, column 10: full-width 】, write ]"),
        ("users = ['a'，'b']", "line 1, column 13: full-width ，, write ,"),
        ("workers = ６4", "line 1, column 11: full-width ６, write 6"),
        ("\u3000workers = 1", "line 1, column 1: full-width \u3000, write a space"),
        ("a = 1\r\nb = = 2 # “引号”", "line 2, column 5: Invalid value"),
        (f"a = '{HIDDEN}", f'line 1, column {6 + len(HIDDEN)}: Expected "\'"'),
        (f"a = 1\na = '{HIDDEN}'", f"line 2, column {7 + len(HIDDEN)}: Cannot overwrite a value"),
        ("a = " + "[" * 100_000, "too deeply nested"),
    ],
)
def test_files_that_are_no_toml_are_named_by_line(tmp_path: Path, content: str | bytes, expected: str) -> None:
    """Encoding and syntax faults give file, line and column, name what typing Chinese leaves, show no value."""
    assert faults(tmp_path, content) == [f"dingbridge.toml: {expected}"]


def test_a_number_of_thousands_of_digits_is_a_fault(tmp_path: Path) -> None:
    """What Python refuses to read as a number is a fault like any other."""
    assert faults(tmp_path, "a = " + "9" * 5000)[0].startswith("dingbridge.toml: line 1")


def test_an_unreadable_configuration_file_is_named(tmp_path: Path) -> None:
    """A folder or a missing file in the place of the configuration is told by its path."""
    for path, problem in (
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "none", "not there, create it or correct the path"),
    ):
        with pytest.raises(ConfigError) as raised:
            load(path, ENV)
        assert raised.value.faults == [f"{path}: {problem}"]


# ── store, web, finding the file ──


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("", {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "HOME": "/h"}, "/var/lib/a/dingbridge.db"),
        ("", {"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/dingbridge/dingbridge.db"),
        ("", {"XDG_STATE_HOME": "x", "HOME": "/h"}, "/h/.local/state/dingbridge/dingbridge.db"),
        ("sqlite:////srv/a.db", {"STATE_DIRECTORY": "/s"}, "/srv/a.db"),
        ("sqlite:///b/a.db", {}, "{folder}/b/a.db"),
        ("/srv/a.db", {}, "/srv/a.db"),
        ("a.db", {}, "{folder}/a.db"),
    ],
)
def test_where_the_store_is(tmp_path: Path, url: str, environ: dict[str, str], expected: str) -> None:
    """Named, else systemd's state folder, else the user's; nothing is created by reading a configuration."""
    secrets = {name: value for name, value in ENV.items() if name != "HOME"}
    config = loaded(tmp_path, toml(rest=f'[store]\nurl = "{url}"'), secrets | environ)

    assert config.store.path == Path(expected.format(folder=tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["dingbridge.toml"]


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.168.1.2", "bot.corp.example"])
def test_a_reachable_page_needs_a_token(tmp_path: Path, host: str) -> None:
    """Listening beyond this machine without a token is refused, with the key to set."""
    listen = f'[web]\nlisten = "{host}:8788"\n'

    (fault,) = faults(tmp_path, toml(rest=listen))
    assert fault.startswith("web.admin_token: missing, others reach web.listen, so think one up and give it by")
    assert loaded(tmp_path, toml(rest=f'{listen}admin_token = "t"')).web.admin_token.reveal() == "t"


@pytest.mark.parametrize("listen", ["127.0.0.9:1", "localhost:1", "[::1]:1", ""])
def test_a_local_or_closed_page_needs_no_token(tmp_path: Path, listen: str) -> None:
    """On this machine alone, or switched off, the page is fine as it is."""
    web = loaded(tmp_path, toml(rest=f'[web]\nlisten = "{listen}"')).web

    assert web.enabled is bool(listen)
    assert not web.admin_token


def test_the_file_is_looked_for_in_the_documented_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config before $DINGBRIDGE_CONFIG before ./dingbridge.toml; a named one that is missing ends the search."""
    monkeypatch.chdir(tmp_path)
    named, variable, usual = tmp_path / "a.toml", tmp_path / "b.toml", Path("dingbridge.toml")
    for path in (named, variable, usual):
        path.touch()

    assert find(named, {"DINGBRIDGE_CONFIG": str(variable)}) == named
    assert find(None, {"DINGBRIDGE_CONFIG": str(variable)}) == variable
    assert find(None, {"DINGBRIDGE_CONFIG": ""}) == usual
    assert (usual, Path("/etc/dingbridge/dingbridge.toml")) == PLACES
    for path in (named, variable):
        path.unlink()
    with pytest.raises(ConfigError, match=r"^--config: .*a\.toml: not there"):
        find(named, {"DINGBRIDGE_CONFIG": str(variable)})
    with pytest.raises(ConfigError, match=r"^\$DINGBRIDGE_CONFIG: .*b\.toml: not there"):
        find(None, {"DINGBRIDGE_CONFIG": str(variable)})


@pytest.mark.skipif(PLACES[1].exists(), reason="this machine has a configuration in /etc")
def test_no_file_anywhere_tells_where_was_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator reads all places and the remedy in one line."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError) as raised:
        find(None, {})

    assert raised.value.faults == [
        (
            "no configuration file: looked at --config, $DINGBRIDGE_CONFIG, "
            f"{tmp_path}/dingbridge.toml, /etc/dingbridge/dingbridge.toml; create one or name it with --config"
        )
    ]


# ── the examples ──


MANUALS = ("dingbridge.toml", "dingbridge.en.toml")


def manual_lines(name: str, *, everything: bool) -> list[tuple[str, str, str]]:
    """(section, key, value) as written; with `everything` also the lines that start with `#key = `."""
    section, rows = "", []
    for line in (EXAMPLES / name).read_text(encoding="utf-8").splitlines():
        if header := re.fullmatch(r"\[+(\w+)\]+", line):
            section = header[1]
        elif (key := re.fullmatch(r"(#?)(\w+) = (.+)", line)) and (everything or not key[1]):
            rows.append((section, key[2], key[3]))
    return rows


@pytest.mark.parametrize("name", MANUALS)
def test_the_manual_names_every_key_in_order_with_its_default(name: str) -> None:
    """A manual is complete: each key once, commented defaults true, order as in the schema."""
    rows = manual_lines(name, everything=True)
    expected = [
        (section, key, field.default) for section, fields in SCHEMA.items() for field in fields for key in field.keys
    ]
    set_here = {(section, key) for section, key, _ in manual_lines(name, everything=False)}

    assert [(section, key) for section, key, _ in rows] == [(section, key) for section, key, _ in expected]
    defaults = {(section, key): default for section, key, default in expected}
    for section, key, written in rows:
        if (section, key) not in set_here:
            assert tomllib.loads(f"x = {written}")["x"] == defaults[section, key], (section, key)
    assert set_here == {
        ("dingtalk", "client_id"),
        ("dingtalk", "client_secret_file"),
        ("anythingllm", "base_url"),
        ("anythingllm", "api_key_file"),
        ("route", "workspace"),
    }


def test_the_manuals_are_of_one_build() -> None:
    """The same lines of TOML, and a remark in the one wherever there is one in the other, with the same danger."""

    def build(name: str) -> list[str]:
        lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
        kinds = [
            line
            if re.match(r"#?\w+ = |\[|$", line)
            else "danger"
            if re.match(r"# (危险|Danger)[：:]", line)
            else "remark"
            for line in lines
        ]
        return [
            kind for kind, before in zip(kinds, ["", *kinds], strict=False) if (kind, before) != ("remark", "remark")
        ]

    ours, theirs = (build(name) for name in MANUALS)
    assert ours == theirs


def test_the_manuals_explain_the_same_values() -> None:
    """Values to choose from, each with its line, are the same in the same order."""
    ours, theirs = (
        re.findall(r'^#   "(\w+)"', (EXAMPLES / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
        for name in MANUALS
    )
    reading = ["query", "chat", "automatic", "repeat", "drop", "commands", "buttons", "off"]
    assert ours == theirs == [*reading, "person", "group", "auto", "webhook", "openapi"]


@pytest.mark.parametrize("name", [*MANUALS, "minimal.toml"])
def test_the_examples_load(tmp_path: Path, name: str) -> None:
    """All examples are faultless once their two secrets exist, and mean the same."""
    shutil.copy(EXAMPLES / name, tmp_path / name)
    shutil.copy(EXAMPLES / "minimal.toml", tmp_path / "other.toml")
    config = load(tmp_path / name, ENV)

    assert config == replace(load(tmp_path / "other.toml", ENV), path=config.path)


@pytest.mark.parametrize("name", MANUALS)
def test_the_manual_loads_with_every_comment_taken_off(tmp_path: Path, name: str) -> None:
    """Taking the # off a default changes nothing."""
    written = (EXAMPLES / name).read_text(encoding="utf-8")
    everything = re.sub(r"(?m)^#(\w+ = )", r"\1", written)
    config = loaded(tmp_path, everything)

    assert config == replace(loaded(tmp_path, written), path=config.path)
