"""An operator's question goes to the running daemon; where none runs, to its store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dingbridge.building import make_store
from dingbridge.clock import SteadyClock
from dingbridge.config import Located
from dingbridge.control import NoDaemon, call
from dingbridge.errors import BridgeError, StoreLocked
from dingbridge.operations import NotFound, NotPossible, Operations
from dingbridge.store.intake import Limits
from dingbridge.store.seat import seat_paths

Arguments = Mapping[str, Any]


def _quoted(arguments: Arguments) -> str:
    return quote(arguments["wanted"], safe="")


_REQUESTS: Mapping[str, Callable[[Arguments], tuple[str, str, dict[str, str]]]] = {
    "status": lambda _: ("GET", "/status", {}),
    "trace": lambda a: ("GET", f"/trace/{_quoted(a)}", {}),
    "inbox": lambda a: ("GET", "/inbox", {"which": a["which"], "limit": str(a["limit"])}),
    "show": lambda a: ("GET", f"/inbox/{_quoted(a)}", {"texts": str(int(a["texts"]))}),
    "retry": lambda a: ("POST", f"/retry/{_quoted(a)}", {}),
    "drop": lambda a: ("POST", f"/drop/{_quoted(a)}", {"tell": str(int(a["tell"]))}),
    "reload": lambda _: ("POST", "/reload", {}),
    "support": lambda _: ("GET", "/support", {}),
}
WANTED = 500  # characters; no msgId is so long
_NONE_HERE = "no daemon is running on this store"
_RUNNING = frozenset({"reload", "support"})  # there is nothing to ask a store


async def ask(located: Located, verb: str, **arguments: Any) -> Any:
    """What `Operations.<verb>` returns. Raises BridgeError with the sentence for the operator."""
    wanted = str(arguments.get("wanted", "-"))
    if not wanted.strip() or len(wanted) > WANTED or not wanted.isprintable():
        raise NotFound("no message has such a code or msgId: give the 8 characters that stand in the chat")
    method, path, query = _REQUESTS[verb](arguments)
    daemons = seat_paths(located.store.path) if located.store.is_postgres else [located.store.path]
    if verb == "reload" and located.store.is_postgres:
        return await _reload_all(daemons)
    for daemon in daemons:
        with suppress(NoDaemon):
            return await call(daemon, method, path, **query)
    if not located.store.is_postgres and not located.store.path.exists():
        raise NotPossible(f"no daemon is running, and there is no store yet at {located.store.path}")
    if verb in _RUNNING:
        raise NotPossible(_NONE_HERE)
    limits = Limits(answer_deadline_s=located.answer_deadline_min * 60.0)
    clock = SteadyClock()
    store = make_store(located.store, located.client_id, clock=clock, limits=limits, on_time=clock.set)
    try:
        await store.open_beside()
    except StoreLocked:
        raise BridgeError(
            f"a daemon holds {store.place}, but does not answer on its control socket: "
            "is it starting, stopping or stuck? see its log"
        ) from None
    try:
        operations = Operations(store, robot=located.client_id, config=str(located.path))
        return await getattr(operations, verb)(**arguments)
    finally:
        await store.close()


async def _reload_all(daemons: Sequence[Path]) -> dict[str, Any]:
    """All of this machine read the same file. What one of them answers, and `daemons`: what each did.

    elsewhere: those of other machines, which cannot be reached. Raises Refused where every one has refused.
    """
    told: list[dict[str, Any]] = []
    refusals: list[BridgeError] = []
    names: set[str] = set()
    live: set[str] = set()
    for daemon in daemons:
        name = daemon.name
        try:
            status = await call(daemon, "GET", "/status")
            live |= {one["name"] for one in status["daemons"] if one["live"]}
            name = next((one["name"] for one in status["daemons"] if one["answers"]), name)
            names.add(name)
            told.append({"name": name, **await call(daemon, "POST", "/reload")})
        except NoDaemon:
            continue
        except BridgeError as error:
            refusals.append(error)
            told.append({"name": name, "error": error.detail})
    done = [one for one in told if "error" not in one]
    if not done:
        raise refusals[0] if refusals else NotPossible(_NONE_HERE)
    first = {key: done[0][key] for key in ("applied", "restart")}
    return {**first, "daemons": told, "elsewhere": sorted(live - names)}
