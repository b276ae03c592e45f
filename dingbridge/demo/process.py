"""A child process of the demo: started, stopped in order, killed on purpose, and never left behind."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

STOP_S = 30.0
_NOT_INHERITED = ("DINGBRIDGE_", "NOTIFY_", "WATCHDOG_", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY")


class Process:
    """`python -m ARGUMENTS`, one run after another. Its stderr goes to `log`, or to ours where that is None."""

    def __init__(self, *arguments: str, log: Path | None, environ: Mapping[str, str] | None = None) -> None:
        self._arguments = arguments
        self.log = log
        self._environ = environ or {}
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.running else None

    @property
    def returncode(self) -> int | None:
        """How the last run ended; None while it runs."""
        return self._process.returncode if self._process is not None else None

    async def start(self) -> bool:
        """Whether it was started by this call: not where it runs already, or somebody else is just starting it."""
        async with self._starting:
            if self.running:
                return False
            await self._start()
            return True

    async def _start(self) -> None:
        log = self.log.open("ab") if self.log is not None else None
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops its children in order
                preexec_fn=_end_with_parent,
                env={**_inherited(), **self._environ},
            )
        finally:
            if log is not None:
                log.close()

    async def ended(self) -> int:
        """The exit code, as soon as there is one."""
        if self._process is None:
            raise RuntimeError("never started")
        return await self._process.wait()

    def kill_now(self) -> None:
        """SIGKILL without waiting, as at a power cut."""
        self._signal(signal.SIGKILL)

    async def kill(self) -> None:
        self.kill_now()
        if self._process is not None:
            await self._process.wait()

    async def stop(self, within_s: float = STOP_S) -> None:
        """SIGTERM; SIGKILL for one that does not end in time. Afterwards it is as if it had never run."""
        process = self._process
        if process is not None and process.returncode is None:
            self._signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(within_s):
                    await process.wait()
            except TimeoutError:
                await self.kill()
        self._process = None

    def _signal(self, number: int) -> None:
        """Not by asyncio's own methods: those may reap the child, whose exit code its watcher then never sees."""
        if self._process is not None and self.running:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def last_words(self, lines: int = 20) -> str:
        """The end of its log."""
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _inherited() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(_NOT_INHERITED)}


def _end_with_parent() -> None:
    """Even if the demo is killed, its child is told to stop: Linux, prctl(2), PR_SET_PDEATHSIG."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
