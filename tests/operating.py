"""The operator's verbs as real processes, and what a house needs for them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.house import House, write

DINGBRIDGE = (sys.executable, "-X", "dev", "-W", "error", "-m", "dingbridge")


async def verb(*arguments: str, environ: dict[str, str] | None = None) -> tuple[int, str, str]:
    """A verb as an operator calls it: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *DINGBRIDGE,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environ or {})},
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def as_json(*arguments: str, expected: int = 0) -> Any:
    """What a verb prints with --json."""
    code, out, err = await verb(*arguments, "--json")
    assert (code, err) == (expected, "")
    return json.loads(out)


def in_language(house: House, locale: str) -> Path:
    """The house's configuration with the language changed, as a second file."""
    tables = {**house.tables, "reply": {**house.tables["reply"], "locale": locale}}
    return write(house.folder / f"{locale}.toml", tables)
