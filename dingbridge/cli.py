"""The verbs. stdout is the result, stderr is diagnostics; what a verb needs is imported when it runs.

Exit codes: 0 done, 1 failed, 2 usage, 78 configuration.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from dingbridge import __version__
from dingbridge.errors import BridgeError, ConfigError, StoreError

if TYPE_CHECKING:
    from dingbridge.config import Config

FAILED = 1
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
    sys.exit(asyncio.run(_run(config)))


async def _run(config: Config) -> int:
    import structlog  # noqa: PLC0415 - the other verbs start without it

    from dingbridge import log  # noqa: PLC0415
    from dingbridge.app import App, redactor_for  # noqa: PLC0415

    redactor = redactor_for(config)
    log.configure(redactor)
    logger = structlog.get_logger("dingbridge.daemon")
    app = App(config)
    daemon = asyncio.create_task(app.run())
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            app.stop()
        else:
            daemon.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await daemon
    except asyncio.CancelledError:
        logger.error("daemon.left", why="second signal")
        return FAILED
    except ConfigError as error:
        _tell(error)
        return CONFIGURATION
    except StoreError as error:
        logger.error("daemon.failed", why=error.detail)
        return FAILED
    except Exception:
        logger.exception("daemon.died")
        return FAILED
    return 0


@main.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(config_path: Path | None, *, as_json: bool) -> None:
    """Try every hop and name what is wrong, with its remedy."""
    config = _load(config_path)
    from dingbridge import checks  # noqa: PLC0415

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

    try:
        answered = asyncio.run(asking.ask(config, question, user=user, group=group))
    except ConfigError as error:
        _exit_for(error)
    except BridgeError as error:
        click.echo(error.detail, err=True)
        sys.exit(FAILED)
    click.echo(answered)


@main.command()
@click.option("--verbose", is_flag=True, help="Show the daemon's log.")
def demo(*, verbose: bool) -> None:
    """Chat with a real daemon, without a DingTalk account: both servers are stand-ins on this machine."""
    from dingbridge import demo as demonstration  # noqa: PLC0415

    sys.exit(asyncio.run(demonstration.run(verbose=verbose)))


def _load(explicit: Path | None) -> Config:
    from dingbridge import config  # noqa: PLC0415

    try:
        return config.load(config.find(explicit, os.environ), os.environ)
    except ConfigError as error:
        _exit_for(error)


def _exit_for(error: ConfigError) -> NoReturn:
    _tell(error)
    sys.exit(CONFIGURATION)


def _tell(error: ConfigError) -> None:
    for fault in error.faults:
        click.echo(fault, err=True)
