"""Measure `dingbridge store copy` with a PostgreSQL of its own: `python -m benchmarks.copy [--rows 1000000]`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.filled import ROBOT, fill
from tests.house import write
from tests.postgres import Server


@dataclass(frozen=True, slots=True)
class Ran:
    """What a verb printed, how long it took, how much memory it had at most."""

    told: dict[str, Any]
    seconds: float
    peak_mb: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copy", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="messages in the SQLite file")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="dingbridge-copy-") as name, Server() as server:
        folder = Path(name)
        file = folder / "dingbridge.db"
        began = time.monotonic()
        fill(file, rows, waiting=min(rows // 10, 10_000), held=64, people=max(10, rows // 100))
        say(f"{rows:,} rows, {file.stat().st_size / 1e6:,.0f} MB, written in {time.monotonic() - began:.0f} s")
        lite = _configured(folder / "sqlite.toml", str(file))
        postgres = _configured(folder / "postgres.toml", server.url)
        copied = verb("copy", "--from", str(file), "--config", str(postgres))
        again = verb("copy", "--from", str(file), "--config", str(postgres))
        assert copied.told["rows"] == again.told["rows"]
        assert not again.told["done"]
        checks = [verb("check", "--config", str(config)) for config in (lite, postgres)]
        assert all(check.told["ok"] for check in checks)
        for what, ran in zip(
            ("copied and compared", "again", "SQLite checked", "PostgreSQL checked"),
            (copied, again, *checks),
            strict=True,
        ):
            say(f"{what}: {ran.seconds:.1f} s, at most {ran.peak_mb:.0f} MB")
        say(f"{copied.told['rows']}, {rows / copied.seconds:,.0f} rows/s, digest {copied.told['digest'][:16]}")
    return 0


def verb(*arguments: str) -> Ran:
    """A process of its own, whose progress is seen where somebody watches."""
    began = time.monotonic()
    command = [sys.executable, "-m", "dingbridge", "store", *arguments, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - its own words
        assert process.stdout is not None
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return Ran(json.loads(out), time.monotonic() - began, usage.ru_maxrss / 1024)


def _configured(path: Path, url: str) -> Path:
    tables = {
        "dingtalk": {"client_id": ROBOT, "client_secret": "unused"},
        "anythingllm": {"base_url": "http://127.0.0.1:9", "api_key": "unused"},
        "store": {"url": url},
    }
    return write(path, tables)


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the result


if __name__ == "__main__":
    sys.exit(main())
