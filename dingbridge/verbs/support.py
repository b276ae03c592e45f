"""`dingbridge support`: what somebody else needs to understand a fault, without secrets and without texts."""

from __future__ import annotations

import io
import json
import os
import platform
import sqlite3
import sys
import tarfile
import time
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dingbridge import __version__, checks
from dingbridge.building import redactor_for
from dingbridge.config import Located
from dingbridge.errors import BridgeError
from dingbridge.log import pseudonym
from dingbridge.model import Secret
from dingbridge.redaction import Redactor
from dingbridge.settings import Config
from dingbridge.verbs.reach import ask

PACKAGES = (
    *("aiohttp", "click", "dingtalk-stream", "markdown-it-py", "prometheus-client", "structlog", "tenacity"),
    *("yarl", "websockets"),
)


async def gather(located: Located, config: Config | BridgeError) -> dict[str, Any]:
    """File name to content: text, or a value for JSON. What cannot be had says why."""
    redactor = redactor_for(config) if isinstance(config, Config) else Redactor()
    files: dict[str, Any] = {"versions.json": _versions()}
    files["configuration.json"] = _configured(config) if isinstance(config, Config) else {"error": config.detail}
    for name, verb, arguments in (
        ("status.json", "status", {}),
        ("inbox-open.json", "inbox", {"which": "open", "limit": 200}),
        ("inbox-failed.json", "inbox", {"which": "failed", "limit": 200}),
    ):
        files[name] = await _tried(located, verb, arguments)
    for row in files["inbox-failed.json"][:20] if isinstance(files["inbox-failed.json"], list) else ():
        files[f"traces/{row['code']}.json"] = await _tried(located, "trace", {"wanted": row["code"]})
    running = await _tried(located, "support", {})
    if "error" in running and isinstance(config, Config):  # no daemon: its checks can be made from here
        running = {"check": [asdict(finding) for finding in await checks.run(config)], "log": []}
    files["check.json"] = running.get("check", running)
    files["log.jsonl"] = "".join(running.get("log", []))
    return {name: _masked(redactor, content) for name, content in files.items()}


def pack(files: Mapping[str, Any], path: Path) -> int:
    """A .tar.gz readable to nobody else; its size in bytes. Raises OSError."""
    out = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")
    with out, tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=2)
            entry = tarfile.TarInfo(f"dingbridge-support/{name}")
            data = text.encode("utf-8", "backslashreplace")
            entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return path.stat().st_size


def _masked(redactor: Redactor, content: Any) -> Any:
    return redactor.text(content) if isinstance(content, str) else redactor.structure(content)


async def _tried(located: Located, verb: str, arguments: dict[str, Any]) -> Any:
    try:
        return await ask(located, verb, **arguments)
    except BridgeError as error:
        return {"error": error.detail}


def _versions() -> dict[str, Any]:
    return {
        "dingbridge": __version__,
        "python": sys.version,
        "sqlite": sqlite3.sqlite_version,
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _configured(config: Config) -> dict[str, Any]:
    """People and groups as status and traces have them, so that one can be found in the other."""
    told: dict[str, Any] = _plain(config)
    for route in told["routes"]:
        for key in ("users", "conversations"):
            route[key] = sorted(pseudonym(config.dingtalk.client_id, one) for one in route[key])
    return told


def _plain(value: Any) -> Any:
    """Values as they count, defaults included; of a secret only whether there is one."""
    if isinstance(value, Secret):
        return "set" if value else ""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, list | tuple | frozenset):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
