"""`dingbridge check`: every hop tried, each fault named with its remedy. Takes no lock a daemon needs."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dingbridge.answerer import load_handlers, workspaces_of
from dingbridge.building import import_handlers_from, open_backend, postgres_address
from dingbridge.clock import DRIFT_S
from dingbridge.dingtalk import gateway, stream
from dingbridge.errors import BridgeError, ConfigError, StoreLocked
from dingbridge.service import Presence
from dingbridge.settings import Config
from dingbridge.store.lock import take_lock
from dingbridge.store.replicas import Replica
from dingbridge.store.schema import MIGRATIONS, version_of
from dingbridge.store.seat import is_anyone_seated

Level = Literal["ok", "warning", "failure"]
_MARKS = {"ok": "✓", "warning": "!", "failure": "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One hop: what was tried, how it went, and why or what to do."""

    part: str
    level: Level
    detail: str = ""


async def run(config: Config) -> list[Finding]:
    """Beside a live daemon only a ticket is taken: a second connection would be handed users' messages."""
    locked, stored = await _store(config)
    live = True if Presence(config.dingtalk.client_id).is_announced() else locked
    findings = [Finding("configuration", "ok", str(config.path)), *stored, _handlers(config)]
    if config.web.enabled and live is False:
        findings.append(_web(config))
    findings += await _dingtalk(config, live=live)
    findings += await _anythingllm(config)
    return findings


async def _store(config: Config) -> tuple[bool | None, list[Finding]]:
    """Whether it is in use, None where nobody can know, and what there is to say of it."""
    if config.store.is_postgres:
        return await _postgres(config)
    locked, finding = _sqlite(config.store.path)
    return locked, [finding]


async def _postgres(config: Config) -> tuple[bool | None, list[Finding]]:
    """Nothing is created: the first start does that."""
    from dingbridge.store.postgres import look  # noqa: PLC0415 - 20 MiB that SQLite does not need

    try:
        where = postgres_address(config.store, config.dingtalk.client_id)
        seen = await look(where)
    except BridgeError as error:
        # Where none runs here, another machine's may.
        return is_anyone_seated(config.store.path) or None, [Finding("store", "failure", error.detail)]
    if not seen.version:
        return False, [Finding("store", "ok", f"{where.place}: will be made at the first start")]
    live = [daemon for daemon in seen.daemons if daemon.live]
    clocks = [("this machine", seen.clock_s), *((one.host, float(one.facts.get("clock_s") or 0.0)) for one in live)]
    findings = [Finding("store", "ok", where.place), *_clocks(dict(clocks))]
    seated = is_anyone_seated(config.store.path)
    return bool(live) or seated, findings + (_daemons(live) if live else [])


def _daemons(live: list[Replica]) -> list[Finding]:
    versions = sorted({str(one.facts.get("version")) for one in live})
    told = ", ".join(f"{one.name} ({one.facts.get('version')})" for one in live)
    if len(versions) == 1:
        return [Finding("daemons", "ok", f"{len(live)} running: {told}")]
    return [Finding("daemons", "warning", f"of different versions: {told}; bring all to the same one")]


def _clocks(ahead_s: Mapping[str, float]) -> list[Finding]:
    """The store's clock counts for all, but not for what certificates and logs say."""
    off = [f"{host} by {seconds:+.1f} s" for host, seconds in ahead_s.items() if abs(seconds) >= DRIFT_S]
    return [Finding("clock", "warning", f"not the database's: {', '.join(off)}; see NTP on both")] if off else []


def _sqlite(path: Path) -> tuple[bool, Finding]:
    try:
        if not path.exists():
            return False, _new_store(path)
        with take_lock(path), closing(sqlite3.connect(path)) as connection:
            version = version_of(connection)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except StoreLocked:
        return True, Finding("store", "ok", f"{path}: in use by a running daemon")
    except BridgeError as error:
        return False, Finding("store", "failure", error.detail)
    except (sqlite3.Error, OSError) as error:
        return False, Finding("store", "failure", f"{path}: {error}; may the service's user write to it?")
    if version > len(MIGRATIONS):
        return False, Finding("store", "failure", f"{path}: made by a newer dingbridge")
    return False, Finding("store", "ok", str(path))


def _new_store(path: Path) -> Finding:
    """Nothing is created here: made by root, it would be closed to the service's user."""
    folder = next(parent for parent in path.parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("store", "failure", f"{path}: {folder} cannot be written to by this user ({error.strerror})")
    return Finding("store", "ok", f"{path}: will be made at the first start")


def _web(config: Config) -> Finding:
    """A taken port does not stop the bot, so it is a warning."""
    address = f"{config.web.host}:{config.web.port}"
    try:
        with socket.create_server((config.web.host, config.web.port), family=_family(config.web.host)):
            return Finding("web", "ok", address)
    except OSError as error:
        return Finding("web", "warning", f"{address}: {error.strerror}; name another one in [web] listen")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _handlers(config: Config) -> Finding:
    try:
        import_handlers_from(config)
        load_handlers(config.routes)
    except ConfigError as error:
        return Finding("handlers", "failure", error.detail)
    return Finding("handlers", "ok")


async def _dingtalk(config: Config, *, live: bool | None) -> list[Finding]:
    dingtalk = config.dingtalk
    timing = stream.Timing()
    async with dingtalk.network.open_session() as session:

        async def ticket() -> str:
            await gateway.open_ticket(
                session,
                dingtalk.network,
                api_base=dingtalk.api_base,
                client_id=dingtalk.client_id,
                client_secret=dingtalk.client_secret,
                topics=(stream.BOT_TOPIC,),
                open_s=timing.open_s,
            )
            return f"a ticket only, because a daemon {'is' if live else 'may be'} running"

        async def connection() -> str:
            socket = await gateway.open_connection(
                session,
                dingtalk.network,
                api_base=dingtalk.api_base,
                client_id=dingtalk.client_id,
                client_secret=dingtalk.client_secret,
                topics=(stream.BOT_TOPIC,),
                open_s=timing.open_s,
                close_s=timing.close_s,
                frame_limit=stream.SOCKET_LIMIT,
            )
            await socket.close()
            return "opened and closed"

        return [await _tried("dingtalk", connection if live is False else ticket)]


async def _anythingllm(config: Config) -> list[Finding]:
    wanted = sorted(workspaces_of(config.routes))
    async with open_backend(config) as backend:

        async def key() -> str:
            await backend.check_key()
            return config.anythingllm.base_url

        findings = [await _tried("anythingllm", key)]
        if findings[0].level == "failure":
            return findings
        for workspace in wanted:
            try:
                slug = await backend.resolve(workspace)
                names = ", ".join(sorted(await backend.workspaces())) or "none"
            except BridgeError as error:
                findings.append(Finding(f"workspace {workspace}", "failure", error.detail))
                continue
            if slug is not None:
                findings.append(Finding(f"workspace {workspace}", "ok", slug))
            else:
                missing = f"AnythingLLM does not know it; it has: {names}"
                findings.append(Finding(f"workspace {workspace}", "failure", missing))
    return findings


async def _tried(part: str, attempt: Callable[[], Awaitable[str]]) -> Finding:
    try:
        async with asyncio.timeout(30.0):
            return Finding(part, "ok", await attempt())
    except BridgeError as error:
        return Finding(part, "failure", error.detail)
    except TimeoutError:
        return Finding(part, "failure", "no answer within 30 s")


def as_json(findings: list[Finding]) -> str:
    """`{"ok": bool, "findings": [{"part", "level", "detail"}]}`."""
    ok = all(finding.level != "failure" for finding in findings)
    return json.dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}, ensure_ascii=False, indent=2)


def as_text(findings: list[Finding], locale: str) -> str:
    width = max(len(finding.part) for finding in findings)
    lines = [f"{_MARKS[f.level]} {f.part:{width}}  {f.detail}".rstrip() for f in findings]
    failures = sum(finding.level == "failure" for finding in findings)
    if locale == "en":
        lines.append("all is well" if not failures else f"{failures} to mend")
    else:
        lines.append("一切正常" if not failures else f"有 {failures} 处需要处理")
    return "\n".join(lines)
