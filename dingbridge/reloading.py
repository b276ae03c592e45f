"""What a changed configuration changes: which keys differ, and which of them only a restart can take over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from dingbridge.settings import Config

# The link, the store and the web server are as they were opened.
RESTART = ("dingtalk", "store", "web", "pages")
_AT_ONCE = ("dingtalk.card_template_id", "dingtalk.card_content_key")


@dataclass(frozen=True, slots=True)
class Reloaded:
    """applied: keys that count from now on. restart: keys that differ, too, and count after a restart."""

    applied: tuple[str, ...]
    restart: tuple[str, ...]


def merged(old: Config, new: Config) -> tuple[Config, Reloaded]:
    """The configuration to go on with, and what to say of it."""
    before, after = _flat(old), _flat(new)
    changed = sorted(key for key in after if after[key] != before[key])
    restart = tuple(key for key in changed if key.partition(".")[0] in RESTART and key not in _AT_ONCE)
    applied = tuple(key for key in changed if key not in restart)
    card = {name: getattr(new.dingtalk, name) for name in ("card_template_id", "card_content_key")}
    kept = replace(new, dingtalk=replace(old.dingtalk, **card), store=old.store, web=old.web, pages=old.pages)
    return kept, Reloaded(applied, restart)


def _flat(config: Config) -> dict[str, Any]:
    flat: dict[str, Any] = {
        "route": config.routes,
        "handlers.path": config.handlers_path,
        "store.url": (config.store.path, config.store.url),
        "store.password": config.store.password,
        "sources": dict(config.sources),
    }
    for section in ("dingtalk", "anythingllm", "reply", "limits", "web", "budget", "context", "pages"):
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
