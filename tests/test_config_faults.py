"""Every way a configuration can be wrong, and the one line that tells it."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dingbridge.config import SCHEMA, load, locate
from dingbridge.decode import CARD_VARIABLES
from dingbridge.errors import ConfigError
from tests.configurations import ENV, HIDDEN, faults, toml

RANGE = "limits.drain_s: must be from 0 to 1000000, got"
NUMBER = "limits.drain_s: must be a number, got"
WHOLE = "limits.workers: must be a whole number, got"
ADDRESS = "must be an address like https://host or http://host:port"
PROXY = "dingtalk.proxy: must look like http://user:password@host:port, the password's special characters as %XX"
HANDLER = 'route[0].handler: must be "anythingllm" or "package.module:function", got'
UNKNOWN_SCHEME = 'store.url: unknown scheme, did you mean "postgresql://"? An SQLite file is named by its path'
LISTEN = 'web.listen: must be "host:port" or "[IPv6]:port" or "" (off), got'
BLANKS = "has blanks at its ends"
OTHERS = f"is one of the template's other variables ({', '.join(CARD_VARIABLES)}), name the one for the answer"
FAULTS: list[tuple[dict[str, str], list[str]]] = [
    # names
    ({"route": 'workspce = "h"'}, ["route[0].workspce: unknown key, did you mean workspace"]),
    ({"dingtalk": 'Api-Base = "https://a.example"'}, ["dingtalk.Api-Base: unknown key, did you mean api_base"]),
    (
        {"dingtalk": 'card_content_key = "page_url"'},
        [
            f"dingtalk.card_content_key: {OTHERS}",
        ],
    ),
    ({"dingtalk": "zzz = 1"}, ["dingtalk.zzz: unknown key"]),
    ({"dingtalk": '"a\\nb" = 1'}, ['dingtalk."a\\nb": unknown key']),
    ({"dingtalk": 'robot_code = "x"'}, ["dingtalk.robot_code: unknown key"]),
    ({"rest": "[limitz]\nworkers = 1"}, ["limitz: unknown section, did you mean limits"]),
    ({"rest": "[zzz]"}, ["zzz: unknown section"]),
    *(
        ({"rest": f'[sources]\n"差旅" = "{bad}"'}, ['sources."差旅": must be an address like https://host/page'])
        for bad in ("ftp://x", "javascript:alert(1)", "dtmd://dingtalkclient/sendMessage?content=x", "//x", "http://")
    ),
    ({"rest": '[sources]\n"a" = "https://u:p4ss@x/"'}, ['sources."a": must not hold a user or password']),
    (
        {"rest": '[sources]\n"a" = "https://x/\\u202e"'},
        ['sources."a": has an invisible character inside, copy it again'],
    ),
    (
        {"rest": "[budget]\napi_calls_per_month = -1"},
        ["budget.api_calls_per_month: must be from 0 to 1000000000, got -1"],
    ),
    (
        {"rest": '[pages]\nlisten = "127.0.0.1:0"'},
        ['pages.public_url: missing, write the address that people open, like "http://bot.intra:8789"'],
    ),
    (
        {"rest": '[pages]\nlisten = "127.0.0.1:0"\npublic_url = "bot.intra:8789"'},
        ["pages.public_url: must be an address like https://host or http://host:port"],
    ),
    ({"route": 'workspace = "h"\nanswer_page = "no"'}, ['route[0].answer_page: must be true or false, got "no"']),
    ({"rest": "[limits]\n[store]\nworkers = 1"}, ["store.workers: unknown key"]),
    # shapes
    ({"rest": "[[web]]"}, ["web: write it as a section [web], not [[web]]"]),
    # types
    ({"rest": '[limits]\nworkers = "64"'}, [f'{WHOLE} "64"']),
    ({"rest": "[limits]\nworkers = 64.0"}, [f"{WHOLE} 64.0"]),
    ({"rest": "[limits]\nworkers = true"}, [f"{WHOLE} true"]),
    ({"rest": "[limits]\nworkers = []"}, [f"{WHOLE} a list"]),
    ({"rest": "[limits]\nworkers = {}"}, [f"{WHOLE} a table"]),
    ({"rest": "[limits]\nworkers = 2026-01-01"}, [f"{WHOLE} a date or time"]),
    ({"rest": '[limits]\ndrain_s = "20"'}, [f'{NUMBER} "20"']),
    ({"rest": "[limits]\ndrain_s = false"}, [f"{NUMBER} false"]),
    ({"rest": "[limits]\ndrain_s = nan"}, [f"{RANGE} nan"]),
    ({"rest": "[limits]\ndrain_s = inf"}, [f"{RANGE} inf"]),
    ({"rest": "[limits]\ndrain_s = " + "9" * 400}, [f"{RANGE} a very large number"]),
    ({"route": "workspace = 5"}, ["route[0].workspace: must be a text in quotes, got 5"]),
    ({"route": 'workspace = "h"\nusers = "u1"'}, ['route[0].users: must be a list like ["a", "b"], got "u1"']),
    (
        {"route": 'workspace = "h"\nconversations = ["c", 5, "", "d "]'},
        [
            "route[0].conversations[1]: must be a text in quotes, got 5",
            "route[0].conversations[2]: must not be empty",
            f"route[0].conversations[3]: {BLANKS}, remove them",
        ],
    ),
    # ranges
    ({"rest": "[limits]\nworkers = -1"}, ["limits.workers: must be from 0 to 1000000, got -1"]),
    ({"rest": f"[limits]\nworkers = {10**30}"}, ["limits.workers: must be from 0 to 1000000, got a very large number"]),
    ({"rest": "[limits]\ndrain_s = -0.5"}, [f"{RANGE} -0.5"]),
    ({"anythingllm": "attempts = 0"}, ["anythingllm.attempts: must be from 1 to 1000000, got 0"]),
    (
        {"anythingllm": "idle_timeout_s = 0"},
        ["anythingllm.idle_timeout_s: must be above 0 to 1000000, got 0"],
    ),
    # one of a few
    (
        {"anythingllm": 'mode = "qurey"'},
        ['anythingllm.mode: must be "query" or "chat" or "automatic", got "qurey"'],
    ),
    ({"rest": '[reply]\nlocale = "zh"'}, ['reply.locale: must be "zh-CN" or "en", got "zh"']),
    ({"rest": '[reply]\nnotice = "typing"'}, ['reply.notice: must be "text" or "emotion" or "off", got "typing"']),
    ({"rest": "[reply]\nuncertain = []"}, ['reply.uncertain: must be "repeat" or "drop", got a list']),
    # routes
    (
        {"route": ""},
        ["route[0].workspace: missing, name an AnythingLLM workspace or a handler"],
    ),
    (
        {"route": 'name = "a"\nworkspace = "x"', "rest": '[[route]]\nname = "a"\nworkspace = "y"'},
        ['route[1].name: "a" already names route[0]'],
    ),
    ({"route": 'handler = "desk"'}, [f'{HANDLER} "desk"']),
    ({"route": 'handler = "desk.:run"'}, [f'{HANDLER} "desk.:run"']),
    ({"route": 'handler = "desk:run it"'}, [f'{HANDLER} "desk:run it"']),
    ({"route": 'handler = ""'}, [f'{HANDLER} ""']),
    ({"route": f'workspace = "{chr(0x3000)}h"'}, [f"route[0].workspace: {BLANKS}, remove them"]),
    ({"route": 'workspace = "h\\u0007"'}, ["route[0].workspace: has a control character inside, write it anew"]),
    # addresses
    ({"dingtalk": 'api_base = "api.dingtalk.com"'}, [f"dingtalk.api_base: {ADDRESS}"]),
    ({"dingtalk": 'api_base = ""'}, [f"dingtalk.api_base: {ADDRESS}"]),
    ({"dingtalk": 'oapi_base = "ftp://a.example"'}, [f"dingtalk.oapi_base: {ADDRESS}"]),
    ({"dingtalk": 'oapi_base = "http://"'}, [f"dingtalk.oapi_base: {ADDRESS}"]),
    ({"dingtalk": 'oapi_base = "http://[::1"'}, [f"dingtalk.oapi_base: {ADDRESS}"]),
    ({"dingtalk": 'oapi_base = "http://a:99999"'}, [f"dingtalk.oapi_base: {ADDRESS}"]),
    ({"dingtalk": f'api_base = "http://u:{HIDDEN}@a"'}, ["dingtalk.api_base: must not hold a user or password"]),
    (
        {"dingtalk": f'api_base = "http://a?key={HIDDEN}"'},
        ["dingtalk.api_base: must not hold a query (?) or fragment (#)"],
    ),
    ({"dingtalk": f'proxy = "socks5://u:{HIDDEN}@p:1"'}, [PROXY]),
    ({"dingtalk": f'proxy = "http://u:{HIDDEN}@p"'}, [PROXY]),
    ({"dingtalk": f'proxy = "http://u:1#{HIDDEN}@p:3128"'}, [PROXY]),
    ({"dingtalk": f'proxy = "http://p:3128/{HIDDEN}"'}, [PROXY]),
    (
        {"dingtalk": 'no_proxy = ["10.0.0.0/33"]'},
        ["dingtalk.no_proxy[0]: must be a host, .suffix, IP, network like 10.0.0.0/8, or *"],
    ),
    # the web page
    ({"rest": '[web]\nlisten = "8788"'}, [f'{LISTEN} "8788"']),
    ({"rest": '[web]\nlisten = ":8788"'}, [f'{LISTEN} ":8788"']),
    ({"rest": '[web]\nlisten = "::1:8788"'}, [f'{LISTEN} "::1:8788"']),
    ({"rest": '[web]\nlisten = "[::g]:1"'}, [f'{LISTEN} "[::g]:1"']),
    ({"rest": '[web]\nlisten = "[1::2::3]:1"'}, [f'{LISTEN} "[1::2::3]:1"']),
    ({"rest": '[web]\nlisten = "localhost:65536"'}, [f'{LISTEN} "localhost:65536"']),
    ({"rest": "[web]\nlisten = 8788"}, ["web.listen: must be a text in quotes, got 8788"]),
    # the store
    (
        {"rest": f'[store]\nurl = "postgresql:u:{HIDDEN}@db/x"'},
        ['store.url: must be "postgresql://user@host:5432/database"'],
    ),
    (
        {"rest": f'[store]\nurl = "x.db"\npassword = "{HIDDEN}"'},
        ["store.password: an SQLite file has none, remove it or write the url of a PostgreSQL database"],
    ),
    (
        {"rest": f'[store]\nurl = "mysql://u:{HIDDEN}@db/x"'},
        [UNKNOWN_SCHEME],
    ),
    ({"rest": f'[store]\nurl = "postgressql://u@db/x"\npassword = "{HIDDEN}"'}, [UNKNOWN_SCHEME]),
    ({"rest": f'[store]\nurl = "Postgresql://u@db/x"\npassword = "{HIDDEN}"'}, [UNKNOWN_SCHEME]),
    (
        {"rest": f'[store]\nurl = "postgresql://u:{HIDDEN}@db/x"\npassword = "{HIDDEN}"'},
        ["store.password: given here and in store.url, keep only one"],
    ),
    ({"rest": '[store]\nurl = "sqlite://x.db"'}, ['store.url: must be a path, or "sqlite:////absolute/path"']),
    (
        {"rest": '[store]\nurl = "sqlite:///:memory:"'},
        ["store.url: must name a file, or nothing would be kept through a restart"],
    ),
    # secrets written here
    (
        {"dingtalk": f'proxy = "{HIDDEN}"\nproxy_file = "x"'},
        ["dingtalk.proxy: given inline and by proxy_file, keep only one"],
    ),
    ({"rest": "[web]\nadmin_token = 12345"}, ["web.admin_token: must be a text in quotes"]),
    ({"rest": "[web]\nadmin_token_file = 5"}, ["web.admin_token_file: must be a text in quotes, got 5"]),
    ({"rest": f'[web]\nadmin_token = " {HIDDEN}"'}, [f"web.admin_token: {BLANKS} (inline), remove them"]),
    (
        {"rest": f'[web]\nadmin_token = "{HIDDEN}{chr(0x200B)}{HIDDEN}"'},
        ["web.admin_token: has an invisible character or a line break inside (inline), copy it again"],
    ),
    # files and folders
    (
        {"rest": '[web]\nadmin_token_file = "none"'},
        ["web.admin_token_file: none: not there, create it or correct the path"],
    ),
    (
        {"dingtalk": 'ca_file = "none"\nclient_key = "also-none"'},
        [
            "dingtalk.ca_file: none: not there, create it or correct the path",
            "dingtalk.client_key: also-none: not there, create it or correct the path",
        ],
    ),
    (
        {"rest": '[handlers]\npath = ["none", "dingbridge.toml"]'},
        [
            "handlers.path[0]: none: not there, create it or correct the path",
            "handlers.path[1]: dingbridge.toml: is a file, write the folder it is in",
        ],
    ),
]


@pytest.mark.parametrize(("parts", "expected"), FAULTS, ids=[f"{i}-{row[1][0]:.40}" for i, row in enumerate(FAULTS)])
def test_each_fault_is_named(tmp_path: Path, parts: dict[str, str], expected: list[str]) -> None:
    """One slip gives exactly one line: the key, what is wrong, what to do, and no secret."""
    assert faults(tmp_path, toml(**parts)) == expected


def test_missing_required_keys_come_with_their_remedy(tmp_path: Path) -> None:
    """An empty file tells everything that is required at once, and where to get it."""
    assert faults(tmp_path, "", {"HOME": "/h"}) == [
        "dingtalk.client_id: missing, copy the Client ID from DingTalk's developer console (凭证与基础信息)",
        (
            "dingtalk.client_secret: missing, copy the Client Secret from DingTalk's developer console (凭证与基础信息)"
            " and give it by client_secret_file, the environment variable DINGBRIDGE_DINGTALK_CLIENT_SECRET,"
            " the systemd credential dingtalk.client_secret, or inline"
        ),
        'anythingllm.base_url: missing, write AnythingLLM\'s address, like "http://127.0.0.1:3001"',
        (
            "anythingllm.api_key: missing, create one in AnythingLLM (Settings, Developer API)"
            " and give it by api_key_file, the environment variable DINGBRIDGE_ANYTHINGLLM_API_KEY,"
            " the systemd credential anythingllm.api_key, or inline"
        ),
        'route: missing, add a [[route]] with workspace = "…"',
    ]


def test_faults_of_all_sections_come_at_once(tmp_path: Path) -> None:
    """The operator corrects everything after one look, in the order of the sections."""
    content = toml(route='workspce = "h"\nusers = 1', rest="[limits]\nworkers = -1\n[webb]\nlisten = 1")

    assert [fault.split(":")[0] for fault in faults(tmp_path, content)] == [
        "webb",
        "route[0].workspce",
        "route[0].users",
        "limits.workers",
        "web.listen",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "[route]\nworkspace = 'h'",
            ["route: write it as [[route]] with double brackets, it may be there several times"],
        ),
        ("route = 'h'", ["route: write it as [[route]] with double brackets, it may be there several times"]),
        ("route = ['h']", ['route[0]: write it as a section [[route]], got "h"']),
        ("route = []", ['route: missing, add a [[route]] with workspace = "…"']),
        ("[[routes]]\nworkspace = 'h'", ["routes: unknown section, did you mean route"]),
        ("workers = 3\n[[route]]\nworkspace = 'h'", ["workers: unknown key"]),
        ("limits = 3\n[[route]]\nworkspace = 'h'", ["limits: write it as a section [limits]"]),
    ],
)
def test_wrong_shapes_of_sections_are_named(tmp_path: Path, content: str, expected: list[str]) -> None:
    """Brackets are easily confused, so the right ones are shown."""
    rest = '[dingtalk]\nclient_id = "x"\n[anythingllm]\nbase_url = "http://a"\n'

    assert faults(tmp_path, f"{content}\n{rest}") == expected


@pytest.mark.parametrize("tail", ["/api", "/api/", "/api/v1", "/sub/api"])
def test_a_pasted_api_path_is_refused(tmp_path: Path, tail: str) -> None:
    """AnythingLLM answers a doubled /api with a web page and status 200, so it is told at the start."""
    content = toml().replace(":3001", f":3001{tail}")

    assert faults(tmp_path, content) == ["anythingllm.base_url: must not end with /api or /api/v1, remove that"]


SCALARS = st.booleans() | st.integers() | st.floats() | st.dates() | st.text(st.characters(exclude_categories=["Cs"]))
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), SCALARS, max_size=2)


def as_toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_toml(entry)}" for key, entry in value.items()) + "}"
    return str(value).lower() if isinstance(value, (bool, float)) else str(value)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([(section, key) for section, fields in SCHEMA.items() for f in fields for key in f.keys]),
        VALUES,
        max_size=6,
    )
)
def test_any_value_is_taken_or_named(written: dict[tuple[str, str], Any]) -> None:
    """Whatever stands behind the keys, it loads or gives faults of one line each; nothing else escapes."""
    lines: dict[str, list[str]] = {"dingtalk": [], "anythingllm": [], "route": []}
    for (section, key), value in written.items():
        lines.setdefault(section, []).append(f"{key} = {as_toml(value)}")
    content = "".join(
        ("[[route]]\n" if section == "route" else f"[{section}]\n") + "\n".join(body) + "\n"
        for section, body in lines.items()
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dingbridge.toml"
        path.write_text(content, encoding="utf-8")
        try:
            load(path, ENV)
        except ConfigError as error:
            told = error.faults
        else:
            told = ["a.b: fine"]
    sections = "|".join(SCHEMA)
    assert all(re.fullmatch(rf"({sections}|a)(\[0\])?\.\w+(\[\d+\])?: .+", fault) for fault in told), told
    assert all(fault.isprintable() for fault in told)


def test_a_verb_looks_for_no_daemon_where_nobody_meant_it_to_be(tmp_path: Path) -> None:
    """A slip in the name of [store], or within it, is told to the verbs, too; one elsewhere is not."""
    path = tmp_path / "dingbridge.toml"
    for slip, fault in (
        ('[stor]\nurl = "x.db"', "stor: unknown section, did you mean store"),
        ('[store]\nulr = "x.db"', "store.ulr: unknown key, did you mean url"),
    ):
        path.write_text(slip, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            locate(path, {})
        assert caught.value.faults == [fault]
    path.write_text('[repyl]\nlocale = "en"\n[store]\nurl = "x.db"', encoding="utf-8")
    assert locate(path, {}).store.path == tmp_path / "x.db"


def test_a_missing_client_of_postgresql_is_named_with_its_ways_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where psycopg is not installed: what to install, from the source folder or by name."""
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as Python marks what cannot be imported
    path = tmp_path / "dingbridge.toml"
    path.write_text('[store]\nurl = "postgresql://u@db/x"', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        locate(path, {})
    (fault,) = [one for one in caught.value.faults if one.startswith("store.url: ")]
    assert "in the source folder pip install '.[postgres]'" in fault
    assert "'dingbridge[postgres]'" in fault
