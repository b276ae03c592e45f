"""Would anybody notice? Break a promise of the store on purpose and count which of its tests fail, on each database.

`python -m tests.bites` prints the table; as a plugin of pytest it breaks what the environment names.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.plants import BROKEN, planted

ROOT = Path(__file__).parents[1]
VARIABLE = "BITES_BREAK"
# Without the state machine, whose failure would be shrunk for minutes.
SUITE = ("test_store", "test_store_lease", "test_store_recovery", "test_operate", "test_store_operate")
SHARED = ("test_store_replicas",)
Outcomes = dict[tuple[str, str], bool]


def pytest_configure(config: pytest.Config) -> None:
    if name := os.environ.get(VARIABLE):
        stack = ExitStack()
        stack.enter_context(planted(*BROKEN[name]))
        config.add_cleanup(stack.close)


def outcomes(broken: str) -> Outcomes:
    """Database and name of each test, and whether it failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        files = [f"tests/{name}.py" for name in (*SUITE, *SHARED)]
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "tests.bites", f"--junitxml={report}"]
        subprocess.run(
            [*command, "--timeout=15", *files],
            cwd=ROOT,
            env={**os.environ, VARIABLE: broken},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        cases = list(ET.parse(report).iter("testcase"))
    return {
        (_database(case), f"{case.get('classname')}.{case.get('name')}"): any(
            one.tag in {"failure", "error"} for one in case
        )
        for case in cases
    }


def _database(case: ET.Element) -> str:
    name, file = case.get("name", ""), case.get("classname", "")
    return "postgres" if "postgres" in name or file.endswith(SHARED) else "sqlite" if "sqlite" in name else ""


def main() -> int:
    whole = outcomes("")
    tests = Counter(database for database, _ in whole)
    found: dict[str, set[tuple[str, str]]] = {}
    for broken in BROKEN:
        found[broken] = {test for test, failed in outcomes(broken).items() if failed and not whole.get(test)}
    found["any of them"] = set().union(*found.values())
    print(f"nothing broken: {sum(whole.values())} of {len(whole)} fail")
    for broken, failed in found.items():
        for database in ("sqlite", "postgres"):
            count = sum(of == database for of, _ in failed)
            print(f"{broken:12} {database:9} {count:4} of {tests[database]} fail: {count / tests[database]:.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
