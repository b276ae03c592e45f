"""The daemon's configuration in the demo: the sample's, or the user's own with the stand-ins put into it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from dingbridge import config
from dingbridge.building import open_backend
from dingbridge.decode import Bad, read_toml
from dingbridge.errors import BridgeError, ConfigError
from dingbridge.sim.anythingllm import AnythingLLM, Workspace, handbook_folder
from dingbridge.sim.gateway import Gateway

HANDBOOK: Final = "handbook"
FILE: Final = "dingbridge.toml"
STORE: Final = "dingbridge.db"
COMMANDS: Final = ("/help", "/whoami", "/new")  # what can be asked without knowing anybody's documents
DEEP: Final = "handbook-deep"
CONTACT: Final = "lisi"
CARD_TEMPLATE: Final = "00000000-0000-4000-8000-dingbridge01.schema"
CARD_KEY: Final = "content"
_SAMPLE: Final[Mapping[str, Any]] = {
    "anythingllm": {"attempts": 2},
    "route": [{"workspace": HANDBOOK}],
    "limits": {"per_user_per_minute": 0, "drain_s": 2},
}
# What a page can show and a terminal cannot.
_MORE: Final[Mapping[str, Any]] = {
    "contact": CONTACT,
    "deep_workspace": DEEP,
    "examples": ["国内出差住宿标准是怎么规定的？", "年假有几天？", "忘记密码怎么办？"],
}
_NETWORK: Final = frozenset(key for one in config.NETWORK for key in one.keys)
_PATHS: Final = ("ca_file", "client_cert", "client_key", "proxy_file")


@dataclass(frozen=True, slots=True)
class Look:
    """How the robot shows itself: what may be chosen while the demo runs. None: as the configuration has it.

    quick_replies: "commands", "buttons" or "off". notice: "text", "emotion" or "off".
    """

    cards: bool = False
    quick_replies: str | None = None
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class Ports:
    """Of the daemon's own pages, the same over its restarts. pages: those of answers."""

    web: int
    pages: int


@dataclass(frozen=True, slots=True)
class Remote:
    """A real AnythingLLM instead of the stand-in."""

    url: str
    key_file: Path


@dataclass(frozen=True, slots=True)
class Setting:
    """What the demo runs. `document` is the user's TOML, `folder` what its relative paths start from.

    look: as it is at the start.
    """

    document: Mapping[str, Any] = field(default_factory=lambda: dict(_SAMPLE))
    folder: Path = Path()
    own: bool = False
    remote: Remote | None = None
    verbose: bool = False
    look: Look = Look()

    @property
    def workspaces(self) -> dict[str, Workspace]:
        """Those that routes name, all over the sample handbook; the deep ones quote it at length."""
        named = [str(route.get("workspace") or HANDBOOK) for route in self.routes]
        deep = [str(name) for route in self.routes if (name := route.get("deep_workspace"))]
        found = {name: Workspace("员工手册", handbook_folder()) for name in dict.fromkeys([*named, HANDBOOK])}
        longer = Workspace("员工手册（详细）", handbook_folder(), detailed=True)
        return found | {name: longer for name in deep if name not in found}

    @property
    def workspace(self) -> str:
        return next(iter(self.workspaces))

    def facts(self) -> dict[str, Any]:
        """What the page says of it: whose routes are run, and whether AnythingLLM is real."""
        real = self.remote is not None
        return {"own": self.own, "real_anythingllm": real} | ({"quick": list(COMMANDS)} if real else {})

    @property
    def users(self) -> list[str]:
        return self._named("users")

    @property
    def conversations(self) -> list[str]:
        return self._named("conversations")

    def _named(self, condition: str) -> list[str]:
        given = [route.get(condition) for route in self.routes]
        lists = [names for names in given if isinstance(names, list)]
        return list(dict.fromkeys(name for names in lists for name in names if isinstance(name, str)))

    @property
    def routes(self) -> Iterable[Mapping[str, Any]]:
        routes = self.document.get("route")
        return [route for route in routes if isinstance(route, dict)] if isinstance(routes, list) else []


def read(path: Path | None, remote: Remote | None, *, verbose: bool, look: Look) -> Setting:
    """The user's file, or the sample. Raises ConfigError where the file is no TOML."""
    if path is None:
        return Setting(remote=remote, verbose=verbose, look=look)
    try:
        document = read_toml(config.find(path, {}))
    except Bad as bad:
        raise ConfigError([reason for _, reason in bad.reasons]) from None
    return Setting(document, path.absolute().parent, own=True, remote=remote, verbose=verbose, look=look)


def for_page(setting: Setting) -> Setting:
    """With what only a page can show; somebody's own configuration stays as it is."""
    if setting.own:
        return setting
    more = {key: _MORE[key] for key in (("contact",) if setting.remote is not None else _MORE)}
    document = {**setting.document, "route": [{**route, **more} for route in setting.routes]}
    return replace(setting, document=document | {"pages": {}})


def write(
    setting: Setting, folder: Path, gateway: Gateway, backend: AnythingLLM | None, ports: Ports, look: Look
) -> Path:
    """The file for `dingbridge run`, checked. Raises ConfigError with every fault of the user's own file."""
    document = _looking(_merged(setting, gateway, backend, ports), look)
    path = folder / FILE
    path.touch(mode=0o600)
    path.write_text("".join(_lines(document)), encoding="utf-8")
    config.load(path, {})
    return path


async def with_first_workspace(setting: Setting, path: Path) -> Setting:
    """The sample's route, to the first workspace of the real server. Raises BridgeError where it has none."""
    async with open_backend(config.load(path, {})) as backend:
        names = list(await backend.workspaces())
    if not names:
        raise BridgeError("this AnythingLLM has no workspace: create one, or name one in a --config FILE")
    first = next(iter(setting.routes), {})
    return replace(setting, document={**setting.document, "route": [{**first, "workspace": names[0]}]})


def _looking(document: dict[str, Any], look: Look) -> dict[str, Any]:
    """The document with what was chosen at the page."""
    reply = document.get("reply", {})
    chosen = {"quick_replies": look.quick_replies, "notice": look.notice}
    if isinstance(reply, dict) and any(chosen.values()):
        document["reply"] = reply | {key: value for key, value in chosen.items() if value is not None}
    if look.cards and isinstance(dingtalk := document["dingtalk"], dict):
        document["dingtalk"] = dingtalk | {"card_template_id": CARD_TEMPLATE, "card_content_key": CARD_KEY}
    return document


def _merged(setting: Setting, gateway: Gateway, backend: AnythingLLM | None, ports: Ports) -> dict[str, Any]:
    document = dict(setting.document)
    ours: dict[str, dict[str, Any]] = {
        "dingtalk": {
            "client_id": gateway.client_id,
            "client_secret": gateway.client_secret,
            "api_base": gateway.url,
            "oapi_base": gateway.url,
        },
        "store": {"url": STORE},
        "web": {"listen": f"127.0.0.1:{ports.web}"},
    }
    if "pages" in document:
        ours["pages"] = {"listen": f"127.0.0.1:{ports.pages}", "public_url": f"http://127.0.0.1:{ports.pages}"}
    if backend is not None:
        ours["anythingllm"] = {"base_url": backend.url, "api_key": backend.api_key}
    elif setting.remote is not None:
        key_file = str(setting.remote.key_file.absolute())
        ours["anythingllm"] = {"base_url": setting.remote.url, "api_key_file": key_file}
    for name, table in ours.items():
        kept = _kept(name, remote=backend is None)
        document[name] = _replaced(document.get(name, {}), name, kept, setting.folder, table)
    if isinstance(handlers := document.get("handlers"), dict) and isinstance(handlers.get("path"), list):
        document["handlers"] = handlers | {"path": [_absolute(one, setting.folder) for one in handlers["path"]]}
    return document


def _kept(section: str, *, remote: bool) -> frozenset[str]:
    """Keys of the user's that stay: how AnythingLLM is asked; how it is reached, where it is the user's own."""
    if section == "pages":
        return _known(section) - {"listen", "public_url"}
    if section != "anythingllm":
        return frozenset()
    return _known(section) - {"base_url", "api_key", "api_key_file"} - (frozenset() if remote else _NETWORK)


def _known(section: str) -> frozenset[str]:
    return frozenset(key for one in config.SCHEMA[section] for key in one.keys)


def _replaced(written: Any, section: str, kept: frozenset[str], folder: Path, ours: Mapping[str, Any]) -> Any:
    """Known keys give way to ours; unknown ones stay, so that they are told as faults."""
    if not isinstance(written, dict):
        return written
    dropped = _known(section) - kept
    stay = {key: value for key, value in written.items() if key not in dropped}
    paths = {key: _absolute(stay[key], folder) for key in _PATHS if key in stay}
    return stay | paths | dict(ours)


def _absolute(written: Any, folder: Path) -> Any:
    return str(folder / written) if isinstance(written, str) and written else written


def _lines(document: Mapping[str, Any]) -> Iterable[str]:
    """TOML again: bare values first, then tables, then arrays of tables."""
    for key, value in document.items():
        if not isinstance(value, dict) and not _is_tables(value):
            yield f"{_quoted(key)} = {_toml(value)}\n"
    for key, value in document.items():
        tables = [value] if isinstance(value, dict) else value if _is_tables(value) else []
        for table in tables:
            yield f"[{_quoted(key)}]\n" if isinstance(value, dict) else f"[[{_quoted(key)}]]\n"
            yield from (f"{_quoted(name)} = {_toml(inner)}\n" for name, inner in table.items())


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, list):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
