"""Measure the daemon on this machine: `python -m benchmarks [--quick | --long] [--json FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

from benchmarks import lease
from benchmarks.engines import Engines
from benchmarks.figures import Course, Effort
from benchmarks.table import Figure, render
from tests.postgres import Unavailable

QUICK = Effort(runs=3, long_runs=1, short_runs=4, paced_s=3.0, flood=600, in_flight=300, engines=False)
LONG = Effort(soak=100_000)


_SHARED = """\
All of it shares these {cores} cores: what stands in for DingTalk and AnythingLLM, every daemon, and PostgreSQL.
More daemons on one machine only share them; on machines of their own they add to each other. The ratios count.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, in under a minute")
    parser.add_argument(
        "--long", action="store_true", help="also 100 000 messages in a row, a black hole, and a store with a million"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures with all their runs there, too")
    options = parser.parse_args()
    effort = QUICK if options.quick else LONG if options.long else Effort()
    began, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="dingbridge-bench-") as folder:
        commit_s = _durable_commit_s(Path(folder) / "commits.db")
        figures = asyncio.run(Course(Path(folder), effort, _tell).figures())
        if effort.engines:
            figures += _engines(Path(folder), effort)
        if options.long:
            figures += asyncio.run(lease.figures(Path(folder), lease.FULL, 300, _tell))
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "commit_ms": round(commit_s * 1000, 2),
        "load": f"{load:.1f}-{os.getloadavg()[0]:.1f}",
        "took_s": round(time.monotonic() - began),
    }
    _tell("")
    print(", ".join(f"{name} {value}" for name, value in machine.items()))  # noqa: T201 - the result
    print(_SHARED.format(cores=os.cpu_count()))  # noqa: T201 - the result
    print(render(figures))  # noqa: T201 - the result
    if options.json:
        report = {"machine": machine, "figures": [figure.as_json() for figure in figures]}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def _engines(folder: Path, effort: Effort) -> list[Figure]:
    """Without PostgreSQL on this machine there is nothing to put beside."""
    try:
        return asyncio.run(Engines(folder, effort, _tell).figures())
    except Unavailable as missing:
        sys.stderr.write(f"left out: {missing}\n")
        return []


def _durable_commit_s(path: Path) -> float:
    """The median of a small transaction alone: what this disk makes of every figure with the store in it."""
    seconds = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE one (value)")
        for number in range(200):
            began = time.perf_counter()
            connection.execute("INSERT INTO one VALUES (?)", (number,))
            seconds.append(time.perf_counter() - began)
    return median(seconds)


def _tell(progress: str) -> None:
    """What is going on, where somebody watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{progress}")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
