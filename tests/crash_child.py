"""Starts daemons quickly: a process that has imported everything, and forks one for each line of its stdin.

`python -m tests.crash_child [watched]`: each line is a JSON object with `number`, `config` and `log`, and where it is
watched `deadly` (a moment and its how manyeth) or `record` (a file for the moments), and `armed` from the start.
Each daemon's number and exit status are a line of stdout.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tests import awaits
from tests.crash_way import ARM_AT, LEFT_OUT, way_files

WATCH = awaits.Watch(ARM_AT)
if sys.argv[1:] == ["watched"]:
    awaits.install(WATCH, way_files(), LEFT_OUT)

from dingbridge import config, desk, log, upkeep  # noqa: E402 - what is watched has to be installed first
from dingbridge.app import App, Timings  # noqa: E402
from dingbridge.building import redactor_for  # noqa: E402
from dingbridge.dingtalk.cards import Cards  # noqa: E402
from dingbridge.dingtalk.stream import Backoff, Timing  # noqa: E402
from dingbridge.dispatch import Pauses  # noqa: E402
from dingbridge.net import Network  # noqa: E402

TIMINGS = Timings(
    stream=Timing(backoff=Backoff(base_s=0.05, factor=1.5, cap_s=0.3, steady_s=0.01), close_s=0.5),
    pauses=Pauses(first_s=0.05, most_s=0.2, send_s=20.0, store_s=0.05, beat_s=5.0),
    reply_s=5.0,
)


def main() -> None:
    # No TLS is spoken here, and reading the roots three times a start would be most of it.
    Network.ssl_context = cache(Network.ssl_context)  # type: ignore[method-assign]
    Network().ssl_context()
    assert Cards.__init__.__kwdefaults__ is not None
    Cards.__init__.__kwdefaults__["interval_s"] = 0.03
    upkeep.CARDS_S, desk.CARD_MADE_S = 0.2, 1.0
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for the children, until they listen to it
    awake, wake = os.pipe()
    for end in (awake, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    numbers: dict[int, int] = {}
    rest = b""
    while True:
        ready, _, _ = select.select([0, awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            _reap(numbers)
        if 0 in ready:
            if not (read := os.read(0, 65536)):
                for pid in numbers:  # or they would look for their servers for ever
                    os.kill(pid, signal.SIGKILL)
                return
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                order = json.loads(line)
                if not (pid := os.fork()):
                    _become_a_daemon(order)
                numbers[pid] = order["number"]
                _tell(number=order["number"], pid=pid)


def _reap(numbers: dict[int, int]) -> None:
    while numbers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        _tell(number=numbers.pop(pid), code=os.waitstatus_to_exitcode(status))


def _tell(**facts: int) -> None:
    os.write(1, json.dumps(facts).encode() + b"\n")


def _become_a_daemon(order: dict[str, Any]) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        written = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number, target in ((nothing, 0), (nothing, 1), (written, 2)):
            os.dup2(number, target)
        if deadly := order.get("deadly"):
            WATCH.deadly = (deadly[0], deadly[1])
        WATCH.armed = bool(order.get("armed"))
        asyncio.run(_run(Path(order["config"])))
        if record := order.get("record"):
            Path(record).write_text(json.dumps(WATCH.moments), "utf-8")
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)


async def _run(path: Path) -> None:
    loaded = config.load(path, {})
    sink = log.Sink(sys.stderr)
    log.configure(redactor_for(loaded), stream=sink)
    app = App(loaded, timings=TIMINGS, environ={})
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    await app.run()
    sink.close()


if __name__ == "__main__":
    main()
