"""An operator's question goes to the running daemon; where none runs, to its store."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dingbridge.building import make_store
from dingbridge.clock import SteadyClock
from dingbridge.config import Located
from dingbridge.control import HEAR_S, Deaf, NoDaemon, Refused, call, hears
from dingbridge.errors import BridgeError, StoreLocked
from dingbridge.journal.budget import Budget
from dingbridge.operations import NotFound, NotPossible, Operations
from dingbridge.store.intake import Limits
from dingbridge.store.seat import seat_name, seat_paths
from dingbridge.verbs.words import Words

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
    "set_used": lambda a: ("POST", "/quota", {pool: str(value) for pool, value in a["used"].items()}),
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
    if verb == "reload" and located.store.is_postgres:
        return await _reload_all(located)
    for daemon in await _daemons(located):
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
        budget = Budget(located.budget, located.client_id, store.spent, clock=clock)
        operations = Operations(store, robot=located.client_id, config=str(located.path), budget=budget)
        return await getattr(operations, verb)(**arguments)
    finally:
        await store.close()


async def _daemons(located: Located) -> list[Path]:
    """Those that can be asked. Where there may be several, one that is stuck is named on stderr and passed over."""
    if not located.store.is_postgres:
        return [located.store.path]
    heard = await _heard(located)
    for daemon, error in heard.items():
        if isinstance(error, Deaf):
            sys.stderr.write(f"{seat_name(daemon)}: {_deaf(located)}\n")
    return [daemon for daemon, error in heard.items() if not isinstance(error, Deaf)]


async def _heard(located: Located) -> dict[Path, BridgeError | None]:
    """All are tried at once. Who is not there is left out; what speaks against the others."""

    async def tried(daemon: Path) -> BridgeError | None:
        try:
            await hears(daemon)
        except BridgeError as error:
            return error
        return None

    seats = seat_paths(located.store.path)
    told = zip(seats, await asyncio.gather(*map(tried, seats)), strict=True)
    return {daemon: error for daemon, error in told if not isinstance(error, NoDaemon)}


def _deaf(located: Located) -> str:
    return Words(located.locale)("daemon_deaf", seconds=int(HEAR_S))


def _none(located: Located) -> str:
    return Words(located.locale)("reload_none", folder=located.store.path.parent)


async def _reload_all(located: Located) -> dict[str, Any]:
    """All of this machine read the same file. What one of them answers, and `daemons`: what each did.

    elsewhere: those of other machines, which cannot be reached. Raises Refused where every one has refused.
    """
    live: set[str] = set()
    refusals: list[BridgeError] = []

    async def reloaded(daemon: Path, error: BridgeError | None) -> dict[str, Any]:
        name = seat_name(daemon)
        try:
            if error is not None:
                raise Deaf(_deaf(located)) if isinstance(error, Deaf) else error
            status = await call(daemon, "GET", "/status")
            live.update(one["name"] for one in status["daemons"] if one["live"])
            return {"name": name, **await call(daemon, "POST", "/reload")}
        except BridgeError as refusal:
            refusals.append(refusal)
            faults = {"faults": refusal.faults} if isinstance(refusal, Refused) and refusal.faults else {}
            return {"name": name, "error": refusal.detail, **faults}

    heard = await _heard(located)
    told = await asyncio.gather(*(reloaded(daemon, error) for daemon, error in heard.items()))
    done = [one for one in told if "error" not in one]
    if not done:
        raise _worst(refusals, told) if told else NotPossible(_none(located))
    first = {key: done[0][key] for key in ("applied", "restart")}
    return {**first, "daemons": told, "elsewhere": sorted(live - {one["name"] for one in told})}


def _worst(refusals: list[BridgeError], told: list[dict[str, Any]]) -> BridgeError:
    """A refused configuration before anything else; who has said nothing is named."""
    if found := next((one for one in refusals if isinstance(one, Refused)), None):
        return found
    return BridgeError("\n".join(f"{one['name']}: {one['error']}" for one in told))
