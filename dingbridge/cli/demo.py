"""`dingbridge demo`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from dingbridge.cli.root import exit_for, main, said
from dingbridge.errors import BridgeError


@main.command("demo", help=said("demo"))
@click.option("--config", "config_path", type=click.Path(path_type=Path), metavar="FILE", help=said("demo.config"))
@click.option("--port", type=click.IntRange(0, 65_535), metavar="N", help=said("demo.port"))
@click.option("--no-browser", is_flag=True, help=said("demo.no_browser"))
@click.option("--cards", is_flag=True, help=said("demo.cards"))
@click.option("--chat", is_flag=True, help=said("demo.chat"))
@click.option("--anythingllm", metavar="URL", help=said("demo.anythingllm"))
@click.option("--api-key-file", type=click.Path(path_type=Path), metavar="FILE", help=said("demo.api_key_file"))
@click.option("--verbose", is_flag=True, help=said("demo.verbose"))
@click.option("--gateway-only", is_flag=True, help=said("demo.gateway_only"))
@click.option("--record", type=click.Path(path_type=Path), metavar="FILE", help=said("demo.record"))
def demo(
    config_path: Path | None,
    port: int | None,
    anythingllm: str | None,
    api_key_file: Path | None,
    record: Path | None,
    *,
    no_browser: bool,
    cards: bool,
    chat: bool,
    verbose: bool,
    gateway_only: bool,
) -> None:
    if gateway_only:
        from dingbridge.demo import gateway_only as alone  # noqa: PLC0415

        sys.exit(asyncio.run(alone.run(port=port, record=record, browser=not no_browser)))
    if record is not None:
        raise click.UsageError("--record goes with --gateway-only")
    if anythingllm is not None and api_key_file is None:
        raise click.UsageError("--anythingllm needs --api-key-file FILE: save a key from Settings, Developer API in it")
    if anythingllm is None and api_key_file is not None:
        raise click.UsageError("--api-key-file needs --anythingllm URL, the server whose key it is")
    from dingbridge.demo import opening, serve, setting, terminal  # noqa: PLC0415

    remote = setting.Remote(anythingllm, api_key_file) if anythingllm is not None and api_key_file is not None else None
    try:
        chosen = setting.read(config_path, remote, verbose=verbose, look=setting.Look(cards=cards))
        if chat or (port is None and not no_browser and terminal.is_fed(sys.stdin)):
            if cards:
                raise click.UsageError("--cards goes with the page: a terminal shows no cards")
            sys.exit(asyncio.run(terminal.run(chosen)))
        sys.exit(asyncio.run(serve.run(chosen, port=opening.PORT if port is None else port, browser=not no_browser)))
    except BridgeError as error:
        exit_for(error)
