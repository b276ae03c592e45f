"""Configurations for tests: small, with both required secrets in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from dingbridge.config import load
from dingbridge.errors import ConfigError
from dingbridge.settings import Config

HIDDEN = "Zq7-hidden-Zq7"
ENV = {
    "HOME": "/home/bot",
    "DINGBRIDGE_DINGTALK_CLIENT_SECRET": "dingtalk-secret",
    "DINGBRIDGE_ANYTHINGLLM_API_KEY": "anythingllm-key",
}


def toml(dingtalk: str = "", anythingllm: str = "", route: str = 'workspace = "handbook"', rest: str = "") -> str:
    return "\n".join(
        [
            f'[dingtalk]\nclient_id = "dingx"\n{dingtalk}',
            f'[anythingllm]\nbase_url = "http://127.0.0.1:3001"\n{anythingllm}',
            f"[[route]]\n{route}\n{rest}\n",
        ]
    )


def loaded(folder: Path, content: str | bytes, environ: Mapping[str, str] = ENV) -> Config:
    path = folder / "dingbridge.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load(path, environ)


def faults(folder: Path, content: str | bytes, environ: Mapping[str, str] = ENV) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        loaded(folder, content, environ)
    return [fault.replace(f"{folder}/", "") for fault in raised.value.faults]
