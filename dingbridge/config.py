"""The configuration: its nouns, its keys with their defaults, and the way from file to nouns.

A new key is one line in `SCHEMA` and one field of its noun. All faults are gathered and told at once, each as
`section.key: what is wrong and what to do`, so that one run of `check` is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dingbridge import decode
from dingbridge.decode import DEFAULT_HANDLER, Bad
from dingbridge.errors import ConfigError
from dingbridge.model import Route, Secret
from dingbridge.reading import Field, Reading, Schema
from dingbridge.secrets import Surroundings, missing_secret
from dingbridge.settings import (
    AnythingLLMConfig,
    BudgetConfig,
    Config,
    ContextConfig,
    DingTalkConfig,
    LimitsConfig,
    PagesConfig,
    ReplyConfig,
    StoreConfig,
    WebConfig,
)

VARIABLE = "DINGBRIDGE_CONFIG"
CONSOLE = "DingTalk's developer console (凭证与基础信息)"
PLACES = (Path("dingbridge.toml"), Path("/etc/dingbridge/dingbridge.toml"))

STANDARD = BudgetConfig(5000, 3000, "auto")  # what DingTalk's standard edition allows an organisation

NETWORK = (
    Field("proxy", decode.proxy, secret=True),
    Field("no_proxy", decode.hosts, []),
    Field("ca_file", decode.visible),
    Field("client_cert", decode.visible),
    Field("client_key", decode.visible),
)
SCHEMA: Schema = {
    "dingtalk": (
        Field("client_id", decode.visible, required=f"copy the Client ID from {CONSOLE}"),
        Field("client_secret", decode.visible, required=f"copy the Client Secret from {CONSOLE}", secret=True),
        Field("api_base", decode.url, "https://api.dingtalk.com"),
        Field("oapi_base", decode.url, "https://oapi.dingtalk.com"),
        Field("card_template_id", decode.visible),
        Field(
            "card_content_key", decode.card_variable, "content", required="name the template's variable for the answer"
        ),
        *NETWORK,
    ),
    "anythingllm": (
        Field("base_url", decode.base_url, required='write AnythingLLM\'s address, like "http://127.0.0.1:3001"'),
        Field("api_key", decode.visible, required="create one in AnythingLLM (Settings, Developer API)", secret=True),
        Field("mode", decode.choice("query", "chat", "automatic"), "query"),
        Field("attempts", decode.whole(1), 4),
        Field("connect_timeout_s", decode.number(zero=False), 5),
        Field("first_token_timeout_s", decode.number(zero=False), 60),
        Field("idle_timeout_s", decode.number(zero=False), 30),
        Field("total_timeout_s", decode.number(zero=False), 180),
        *NETWORK,
    ),
    "route": (
        Field("name", decode.text),
        Field("workspace", decode.text),
        Field("handler", decode.handler, DEFAULT_HANDLER),
        Field("users", decode.texts, []),
        Field("conversations", decode.texts, []),
        Field("contact", decode.visible),
        Field("deep_workspace", decode.text),
        Field("locale", decode.choice("zh-CN", "en", "")),
        Field("answer_page", decode.flag, True),
        Field("examples", decode.sentences, []),
    ),
    "reply": (
        Field("locale", decode.choice("zh-CN", "en"), "zh-CN"),
        Field("notice_after_s", decode.number(zero=True), 3),
        Field("notice", decode.choice("text", "emotion", "off"), "text"),
        Field("uncertain", decode.choice("repeat", "drop"), "repeat"),
        Field("quick_replies", decode.choice("commands", "buttons", "off"), "commands"),
    ),
    "limits": (
        Field("workers", decode.whole(0), 64),
        Field("waiting_per_lane", decode.whole(0), 8),
        Field("per_user_per_minute", decode.whole(0), 10),
        Field("answer_deadline_min", decode.number(zero=True), 30),
        Field("drain_s", decode.number(zero=True), 20),
    ),
    "handlers": (Field("path", decode.texts, []),),
    "store": (Field("url", decode.visible), Field("password", decode.visible, secret=True)),
    "web": (
        Field("listen", decode.listen, "127.0.0.1:8788"),
        Field("admin_token", decode.visible, secret=True),
    ),
    "context": (
        Field("scope", decode.choice("person", "group"), "person"),
        Field("idle_min", decode.number(zero=True), 120),
    ),
    "pages": (
        Field("listen", decode.listen, ""),
        Field("public_url", decode.page_url),
        Field("ttl_days", decode.number(zero=False), 7),
    ),
    "budget": (
        Field("api_calls_per_month", decode.whole(0, decode.MANY), STANDARD.api_calls_per_month),
        Field("webhook_stream_per_month", decode.whole(0, decode.MANY), STANDARD.webhook_stream_per_month),
        Field("reply_path", decode.choice("auto", "webhook", "openapi"), "auto"),
    ),
    "sources": (),
}


def find(explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """The file to read: the one named by --config or $DINGBRIDGE_CONFIG, else the first usual place with one.

    A file that is named and not there is a ConfigError: another one is never read in its place.
    """
    named = explicit or (Path(environ[VARIABLE]) if environ.get(VARIABLE) else None)
    if named is not None:
        if _is_there(named):
            return named
        origin = "--config" if explicit else f"${VARIABLE}"
        raise ConfigError([f"{origin}: {named}: not there, create it or correct the path"])
    for place in PLACES:
        if _is_there(place):
            return place
    looked = ", ".join(str(place.absolute()) for place in PLACES)
    raise ConfigError(
        [f"no configuration file: looked at --config, ${VARIABLE}, {looked}; create one or name it with --config"]
    )


@dataclass(frozen=True, slots=True)
class Located:
    """What leads to a daemon: where its store and its control socket are, whose messages it holds, its language."""

    path: Path
    store: StoreConfig
    client_id: str
    locale: str
    answer_deadline_min: float
    budget: BudgetConfig = STANDARD


def locate(path: Path, environ: Mapping[str, str]) -> Located:
    """As far as it can be read: a fault elsewhere must not hide a running daemon.

    Raises ConfigError for bad TOML, and where nobody can say where the store is.
    """
    around = Surroundings(path.absolute().parent, environ, secrets=False)
    reading = Reading(SCHEMA, around)
    document = reading.known("", written := _document(path), SCHEMA)
    if "store" in document and "store" not in written:  # there would be no daemon where nobody meant it to be
        raise ConfigError(reading.faults)
    dingtalk, reply, limits, budget = (
        reading.section(document, name) for name in ("dingtalk", "reply", "limits", "budget")
    )
    storing = Reading(SCHEMA, replace(around, secrets=True))  # its password leads there, too
    store = _store(storing, storing.section(document, "store"), dingtalk.get("client_id", ""))
    if storing.faults:
        raise ConfigError(storing.faults)
    return Located(
        path=path.absolute(),
        store=store,
        client_id=dingtalk.get("client_id", ""),
        locale=reply.get("locale", "zh-CN"),
        answer_deadline_min=limits.get("answer_deadline_min", 30.0),
        budget=replace(STANDARD, **budget),
    )


def load(path: Path, environ: Mapping[str, str], *, secrets: bool = True) -> Config:
    """The checked configuration. Raises ConfigError with every fault at once.

    secrets: False leaves secrets and certificates unread and empty.

    Of the environment it reads the secrets' variables and $CREDENTIALS_DIRECTORY, $STATE_DIRECTORY,
    $XDG_STATE_HOME and $HOME, nothing else.
    """
    reading = Reading(SCHEMA, Surroundings(path.absolute().parent, environ, secrets=secrets))
    document = reading.known("", _document(path), SCHEMA)
    dingtalk, anythingllm = (_remote(reading, document, name) for name in ("dingtalk", "anythingllm"))
    routes = _routes(reading, document)
    reply, limits, handlers, store, context, budget = (
        reading.section(document, name) for name in ("reply", "limits", "handlers", "store", "context", "budget")
    )
    handlers_path = reading.folders("handlers.path", handlers.get("path", ()))
    place = _store(reading, store, dingtalk.get("client_id", ""))
    web = _web(reading, reading.section(document, "web"))
    pages = _pages(reading, reading.section(document, "pages"))
    sources = reading.pairs(document, "sources", decode.link)
    if reading.faults:
        raise ConfigError(reading.faults)
    return Config(
        path=path.absolute(),
        dingtalk=DingTalkConfig(**dingtalk),
        anythingllm=AnythingLLMConfig(**anythingllm),
        routes=routes,
        reply=ReplyConfig(**reply),
        limits=LimitsConfig(**limits),
        handlers_path=handlers_path,
        store=place,
        web=web,
        context=ContextConfig(**context),
        pages=pages,
        budget=BudgetConfig(**budget),
        sources=sources,
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        return decode.read_toml(path)
    except Bad as bad:
        raise ConfigError([reason for _, reason in bad.reasons]) from None


def _remote(reading: Reading, document: Mapping[str, Any], name: str) -> dict[str, Any]:
    values = reading.section(document, name)
    values["network"] = reading.network(name, values)
    return values


def _routes(reading: Reading, document: Mapping[str, Any]) -> tuple[Route, ...]:
    rows = reading.sections(document, "route", 'add a [[route]] with workspace = "…"')
    first: dict[str, int] = {}
    for index, row in enumerate(rows):
        name = row.get("name")
        if name and first.setdefault(name, index) != index:
            reading.fault(f"route[{index}].name", f"{decode.shown(name)} already names route[{first[name]}]")
        if row.get("handler") == DEFAULT_HANDLER and row.get("workspace") == "":
            reading.fault(f"route[{index}].workspace", "missing, name an AnythingLLM workspace or a handler")
    return () if reading.faults else tuple(_route(row) for row in rows)


def _route(row: Mapping[str, Any]) -> Route:
    name = row["name"] or row["workspace"] or row["handler"]
    persons, groups = frozenset(row["users"]), frozenset(row["conversations"])
    return Route(**{**row, "name": name, "users": persons, "conversations": groups})


def _pages(reading: Reading, values: Mapping[str, Any]) -> PagesConfig:
    host, port = values.get("listen") or ("", 0)
    url = values.get("public_url")
    if host and url == "":
        reading.fault("pages.public_url", 'missing, write the address that people open, like "http://bot.intra:8789"')
    return PagesConfig(host, port, url or "", values.get("ttl_days", 7), enabled=bool(host))


def _web(reading: Reading, values: Mapping[str, Any]) -> WebConfig:
    host, port = values.get("listen") or ("", 0)
    token = values.get("admin_token")
    wanted = reading.around.secrets and bool(host) and token is not None and not token
    if wanted and not decode.is_loopback(host):
        why = "others reach web.listen, so think one up"
        reading.fault("web.admin_token", missing_secret("web", "admin_token", why))
    return WebConfig(host, port, token or Secret(), enabled=bool(host))


def _store(reading: Reading, values: Mapping[str, Any], robot: str) -> StoreConfig:
    """Nothing is created or opened here."""
    url, password = values.get("url", ""), values.get("password", Secret())
    unknown = "://" in url and not decode.is_postgres(url) and not url.startswith("sqlite:")
    if password and not unknown and not decode.is_postgres(url):
        reading.fault("store.password", "an SQLite file has none, remove it or write the url of a PostgreSQL database")
    with reading.noting("store.url"):
        if decode.is_postgres(url):
            seat = _state_folder(reading.around.environ) / f"dingbridge-{decode.identifier(robot)}"
            secret = Secret(decode.postgres_url(url))
            if password and decode.password_in(url):
                reading.fault("store.password", "given here and in store.url, keep only one")
            return StoreConfig(seat, secret, password)
        if unknown:
            raise decode.Bad('unknown scheme, did you mean "postgresql://"? An SQLite file is named by its path')
        if not url:
            return StoreConfig(_state_folder(reading.around.environ) / "dingbridge.db")
        return StoreConfig(reading.around.folder / decode.sqlite_file(url))
    return StoreConfig(Path())


def _state_folder(environ: Mapping[str, str]) -> Path:
    if given := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(given).absolute()
    xdg = Path(environ.get("XDG_STATE_HOME", ""))
    if xdg.is_absolute():  # its specification: a relative one is to be ignored
        return xdg / "dingbridge"
    try:
        home = Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        raise Bad("no home folder is known, write a path") from None
    return home.absolute() / ".local" / "state" / "dingbridge"


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        return True  # reading it tells who may
    except OSError:
        return False
    return True
