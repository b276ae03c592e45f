"""Which awaits are of a message's way: all of these modules, but for the functions that are left out with a reason."""

from __future__ import annotations

from pathlib import Path

from tests.awaits import PACKAGE, Await, awaits_of, is_one_of

ARM_AT = "dingtalk/link.py"  # a link reads: its first message may come before the rest of the daemon has started
MODULES = (
    *("receiving", "bridge", "inquiry", "sending", "desk", "lease", "dispatch", "notices", "answerer", "commands"),
    *("net", "watched"),
)
FOLDERS = ("store", "dingtalk", "backends")
# The scripts are played on SQLite; daemons on PostgreSQL are killed in `kills_replicas`.
ELSEWHERE = (
    *("store/postgres.py", "store/postgres_engine.py", "store/session.py", "store/shared.py"),
    "store/spent.py",  # what is counted is written when there is time
)

REASONS: dict[str, tuple[str, ...]] = {
    "the link's life, not a message's": (
        "dingtalk/stream.py Stream.run",
        "dingtalk/stream.py Stream.close",
        "dingtalk/stream.py Stream._keep_up",
        "dingtalk/stream.py Stream._connect",
        "dingtalk/stream.py Stream._read",
        "dingtalk/stream.py Stream._end_links",
        "dingtalk/stream.py Stream._pause",
        "dingtalk/gateway.py open_ticket",
        "dingtalk/gateway.py open_connection",
        "dingtalk/link.py Link.read",
        "dingtalk/link.py Link._end_in_order",
        "dingtalk/link.py Link._close_socket",
        "dingtalk/link.py Link._ping",
    ),
    "the daemon's start and stop": (
        "store/sqlite.py SQLiteStore.open",
        "store/sqlite.py SQLiteStore.open_beside",
        "store/sqlite.py SQLiteStore._take_lock",
        "store/sqlite.py SQLiteStore._open",
        "store/sqlite.py SQLiteStore.close",
        "store/store.py Store.release_all",
        "store/engine.py Engine.open",
        "store/engine.py Engine.close",
        "backends/anythingllm.py AnythingLLM.__aexit__",
        "backends/api.py Api.close",
    ),
    "what only a daemon among others does": (
        "store/store.py Store.renew",
        "dingtalk/openapi.py OpenAPI._held_by_others",
        "dingtalk/openapi.py OpenAPI._tell_others",
        "dingtalk/pace.py Pace._change_shared",
    ),
    "what a handler of one's own may ask for": ("dingtalk/media.py Media.fetch",),
    "what a page's reader asks for": (
        "store/pages.py AnswerPages.open",
        "store/pages.py AnswerPages.vote",
    ),
    "upkeep, and what operators look at and ask for": (
        "bridge.py Bridge.retry",
        "bridge.py Bridge.drop",
        "store/store.py Store.retry",
        "store/store.py Store.drop",
        "store/store.py Store.find",
        "store/store.py Store.listed",
        "store/store.py Store.lanes",
        "store/store.py Store.forget",
        "store/store.py Store.probe",
        "store/store.py Store.depth",
        "backends/anythingllm.py AnythingLLM.check_key",
    ),
}
LEFT_OUT = tuple(function for functions in REASONS.values() for function in functions)

# Single places that no message comes to, by function and text.
NETS: dict[str, str] = {
    "bridge.py Bridge._in_order: self._sending.give_back(lease, self._pauses.store_s, error)": "writes wait",
    "bridge.py Bridge._in_order: self._sending.replace(lease, _bug(error))": "a bug",
    "dingtalk/stream.py Stream._route: self._client.system_handler.raw_process(_parsed(SystemMessage, frame))": "pings",
    "dingtalk/openapi.py OpenAPI._renew_token: self._tell_others(release=True)": "nobody is told, a daemon is alone",
    "dingtalk/rate.py Rate.turn: asyncio.sleep(wait_s)": "twenty calls a second, which no script makes",
    "dingtalk/link.py Link._receive: self._socket.pong(received.data)": "pings",
    "dingtalk/cards.py Card.settle: asyncio.wait({task})": "a call that does not end in a quarter of a minute",
    "dingtalk/cards.py Card._has_turn: asyncio.sleep(error.retry_after or PAUSE_S)": "no turn for ten seconds",
    "dingtalk/media.py _Room.take: self._freed.wait()": "more than all files at once",
}


def way_files() -> list[Path]:
    single = [PACKAGE / f"{module}.py" for module in MODULES]
    files = [file for file in single if file.exists()] + [
        file for folder in FOLDERS for file in sorted((PACKAGE / folder).glob("*.py"))
    ]
    return [file for file in files if file.relative_to(PACKAGE).as_posix() not in ELSEWHERE]


def way() -> list[Await]:
    return [
        one
        for file in way_files()
        for one in awaits_of(file)
        if not is_one_of(one, LEFT_OUT) and f"{one.function}: {one.text}" not in NETS
    ]
