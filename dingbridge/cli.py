"""The verbs. stdout is the result, stderr is diagnostics; what a verb needs is imported when it runs.

Exit codes: 0 done, 1 failed, 2 usage, 78 configuration.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from dingbridge import __version__
from dingbridge.errors import BridgeError, ConfigError, StoreError

if TYPE_CHECKING:
    from dingbridge.app import App
    from dingbridge.config import Config

FAILED = 1
EXIT_S = 2.0
CONFIGURATION = 78
F = TypeVar("F", bound=Callable[..., Any])


def config_option(verb: F) -> F:
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Default: $DINGBRIDGE_CONFIG, ./dingbridge.toml, /etc/dingbridge/dingbridge.toml.",
    )(verb)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="dingbridge %(version)s")
def main() -> None:
    """Answers from AnythingLLM in DingTalk chats, over an outbound Stream connection."""


@main.command()
@config_option
def run(config_path: Path | None) -> None:
    """Keep the connection up and answer; until SIGTERM or SIGINT."""
    config = _load(config_path)
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
        _tell(error)
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


@main.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(config_path: Path | None, *, as_json: bool) -> None:
    """Try every hop and name what is wrong, with its remedy."""
    config = _load(config_path)
    from dingbridge import checks  # noqa: PLC0415

    _log_to_stderr(config)
    findings = asyncio.run(checks.run(config))
    click.echo(checks.as_json(findings) if as_json else checks.as_text(findings, config.reply.locale))
    sys.exit(FAILED if any(finding.level == "failure" for finding in findings) else 0)


@main.command()
@config_option
@click.option("--as", "user", metavar="USER", default="", help="Ask as this user id, to meet routes' conditions.")
@click.option("--in", "group", metavar="GROUP", default="", help="Ask in this group (its conversation id).")
@click.argument("question")
def ask(config_path: Path | None, user: str, group: str, question: str) -> None:
    """Ask a question without DingTalk; prints the answer and its sources."""
    config = _load(config_path)
    from dingbridge import asking  # noqa: PLC0415

    _log_to_stderr(config)
    try:
        answered = asyncio.run(asking.ask(config, question, user=user, group=group))
    except ConfigError as error:
        _exit_for(error)
    except BridgeError as error:
        click.echo(error.detail, err=True)
        sys.exit(FAILED)
    click.echo(answered)


@main.command()
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), metavar="FILE", help="Run your own routes in it."
)
@click.option("--port", type=click.IntRange(0, 65_535), metavar="N", help="Of the page; 0 takes any.  [default: 8787]")
@click.option("--no-browser", is_flag=True, help="Serve the page, open nothing.")
@click.option("--chat", is_flag=True, help="Chat in this terminal instead of a page.")
@click.option("--anythingllm", metavar="URL", help="Ask this AnythingLLM instead of the stand-in.")
@click.option("--api-key-file", type=click.Path(path_type=Path), metavar="FILE", help="Its API key.")
@click.option("--verbose", is_flag=True, help="Show the daemon's log.")
@click.option("--gateway-only", is_flag=True, help="Only DingTalk's stand-in, for a bot of your own.")
@click.option(
    "--record", type=click.Path(path_type=Path), metavar="FILE", help="Traffic as JSON lines, secrets masked."
)
def demo(
    config_path: Path | None,
    port: int | None,
    anythingllm: str | None,
    api_key_file: Path | None,
    record: Path | None,
    *,
    no_browser: bool,
    chat: bool,
    verbose: bool,
    gateway_only: bool,
) -> None:
    """See a real daemon at work, without a DingTalk account: both servers are stand-ins on this machine.

    Opens a page with chats, the wire and a tour. With questions piped in it answers each line on stdout.
    """
    if gateway_only:
        from dingbridge.demo import gateway_only as alone  # noqa: PLC0415

        sys.exit(asyncio.run(alone.run(port=port, record=record)))
    if record is not None:
        raise click.UsageError("--record goes with --gateway-only")
    if anythingllm is not None and api_key_file is None:
        raise click.UsageError("--anythingllm needs --api-key-file FILE: save a key from Settings, Developer API in it")
    if anythingllm is None and api_key_file is not None:
        raise click.UsageError("--api-key-file needs --anythingllm URL, the server whose key it is")
    from dingbridge.demo import serve, setting, terminal  # noqa: PLC0415

    remote = setting.Remote(anythingllm, api_key_file) if anythingllm is not None and api_key_file is not None else None
    try:
        chosen = setting.read(config_path, remote, verbose=verbose)
        if chat or (port is None and not no_browser and terminal.is_fed(sys.stdin)):
            sys.exit(asyncio.run(terminal.run(chosen)))
        sys.exit(asyncio.run(serve.run(chosen, port=serve.PORT if port is None else port, browser=not no_browser)))
    except ConfigError as error:
        _exit_for(error)
    except BridgeError as error:
        click.echo(error.detail, err=True)
        sys.exit(FAILED)


def _load(explicit: Path | None) -> Config:
    from dingbridge import config  # noqa: PLC0415

    try:
        return config.load(config.find(explicit, os.environ), os.environ)
    except ConfigError as error:
        _exit_for(error)


def _log_to_stderr(config: Config) -> None:
    from dingbridge import log  # noqa: PLC0415
    from dingbridge.building import redactor_for  # noqa: PLC0415

    log.configure(redactor_for(config), level=logging.WARNING, own_process=True)


def _exit_for(error: ConfigError) -> NoReturn:
    _tell(error)
    sys.exit(CONFIGURATION)


def _tell(error: ConfigError) -> None:
    for fault in error.faults:
        click.echo(fault, err=True)
