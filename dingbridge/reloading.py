"""What a changed configuration changes: which keys differ, and which of them only a restart can take over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from dingbridge.settings import Config

# The link, the store and the web server are as they were opened.
RESTART = ("dingtalk", "store", "web")


@dataclass(frozen=True, slots=True)
class Reloaded:
    """applied: keys that count from now on. restart: keys that differ, too, and count after a restart."""

    applied: tuple[str, ...]
    restart: tuple[str, ...]


def merged(old: Config, new: Config) -> tuple[Config, Reloaded]:
    """The configuration to go on with, and what to say of it."""
    before, after = _flat(old), _flat(new)
    changed = sorted(key for key in after if after[key] != before[key])
    restart = tuple(key for key in changed if key.partition(".")[0] in RESTART)
    applied = tuple(key for key in changed if key not in restart)
    kept = replace(new, dingtalk=old.dingtalk, store=old.store, web=old.web)
    return kept, Reloaded(applied, restart)


def _flat(config: Config) -> dict[str, Any]:
    flat: dict[str, Any] = {
        "route": config.routes,
        "handlers.path": config.handlers_path,
        "store.url": (config.store.path, config.store.url),
        "store.password": config.store.password,
    }
    for section in ("dingtalk", "anythingllm", "reply", "limits", "web", "budget"):
        flat |= _keys(section, getattr(config, section))
    return flat


def _keys(section: str, table: Any) -> Mapping[str, Any]:
    keys: dict[str, Any] = {}
    for field in fields(table):
        value = getattr(table, field.name)
        if field.name == "network":
            keys |= _keys(section, value)
        elif field.name in ("host", "port", "enabled"):
            keys[f"{section}.listen"] = (*keys.get(f"{section}.listen", ()), value)
        else:
            keys[f"{section}.{field.name}"] = value
    return keys
