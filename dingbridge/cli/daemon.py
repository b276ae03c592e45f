"""`dingbridge run`: signals, exit codes, and an end that nothing holds up."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dingbridge.cli.root import CONFIGURATION, FAILED, config_option, load, main, said, tell
from dingbridge.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from dingbridge.app import App
    from dingbridge.settings import Config

EXIT_S = 2.0


@main.command(help=said("run"))
@config_option
def run(config_path: Path | None) -> None:
    config = load(config_path)
    threads = ThreadPoolExecutor(thread_name_prefix="worker")
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(threads)
        code = runner.run(_run(config))
        threads.shutdown(wait=False, cancel_futures=True)
        if _is_held(runner.get_loop()):
            # A handler that ignores its cancellation, or a thread of its, would hold the exit for as long as it likes.
            os._exit(code)
    sys.exit(code)


def _is_held(loop: asyncio.AbstractEventLoop) -> bool:
    until = time.monotonic() + EXIT_S
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                return True
    return bool(asyncio.all_tasks(loop))


async def _run(config: Config) -> int:
    import structlog  # noqa: PLC0415 - the other verbs start without it

    from dingbridge import log  # noqa: PLC0415
    from dingbridge.app import App  # noqa: PLC0415
    from dingbridge.building import redactor_for  # noqa: PLC0415

    # What was imported stays: each full collection would look through it, and stop everybody for that long.
    gc.freeze()
    sink = log.Sink(sys.stderr)
    redactor = redactor_for(config)
    log.configure(redactor, stream=sink, own_process=True)
    try:
        app = App(config, redactor=redactor, recent=sink.recent)
        return await _daemon(app, structlog.get_logger("dingbridge.daemon"), terminal=sys.stderr.isatty())
    finally:
        sink.close()


async def _daemon(app: App, logger: Any, *, terminal: bool) -> int:
    running = asyncio.create_task(app.run())
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            app.stop()
        else:
            running.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    # In a terminal it means that the terminal is gone; to a service it means a changed configuration.
    loop.add_signal_handler(signal.SIGHUP, on_signal if terminal else app.ask_to_reload)
    try:
        await running
    except asyncio.CancelledError:
        logger.error("daemon.left", why="second signal")
        return FAILED
    except ConfigError as error:
        tell(error)
        return CONFIGURATION
    except Exception as error:
        known = _store_error(error)
        if known is None:
            logger.exception("daemon.died")
        else:
            logger.error("daemon.failed", why=known.detail)
        return FAILED
    return 0


def _store_error(error: BaseException) -> StoreError | None:
    """The store's own words, where that is all that went wrong."""
    if isinstance(error, BaseExceptionGroup):
        found = [_store_error(one) for one in error.exceptions]
        return found[0] if all(found) else None
    return error if isinstance(error, StoreError) else None
