"""`dingbridge store`: migrate, check, copy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dingbridge.cli.root import FAILED, config_option, exit_for, json_option, locate, main, said, show
from dingbridge.errors import BridgeError


@main.group(help=said("store"))
def store() -> None:
    """The tables themselves."""


@store.command(help=said("store.migrate"))
@config_option
@json_option
def migrate(config_path: Path | None, *, as_json: bool) -> None:
    located = locate(config_path)
    from dingbridge.verbs import stores  # noqa: PLC0415

    told = _told(lambda _: stores.migrate(located), lines=False)
    _show(told, stores.render_migrated, located, as_json=as_json)


@store.command(help=said("store.check"))
@config_option
@json_option
def check(config_path: Path | None, *, as_json: bool) -> None:
    located = locate(config_path)
    from dingbridge.verbs import stores  # noqa: PLC0415

    told = _told(lambda progress: stores.check(located, progress), lines=False)
    _show(told, stores.render_checked, located, as_json=as_json)
    sys.exit(0 if told["ok"] else FAILED)


@store.command(help=said("store.copy"))
@click.option("--from", "source", required=True, metavar="FILE", help=said("store.from"))
@config_option
@json_option
def copy(source: str, config_path: Path | None, *, as_json: bool) -> None:
    located = locate(config_path)
    from dingbridge.verbs import stores  # noqa: PLC0415

    told = _told(lambda progress: stores.copy(located, source, progress), lines=True)
    _show(told, stores.render_copied, located, as_json=as_json)


def _told(work: Callable[[Any], dict[str, Any]], *, lines: bool) -> dict[str, Any]:
    from dingbridge.verbs.progress import Progress  # noqa: PLC0415

    progress = Progress(sys.stderr, lines=lines)
    try:
        return work(progress)
    except BridgeError as error:
        progress.end()
        exit_for(error)
    finally:
        progress.end()


def _show(told: dict[str, Any], render: Callable[[Any, Any], str], located: Any, *, as_json: bool) -> None:
    from dingbridge.verbs.words import Words  # noqa: PLC0415

    show(json.dumps(told, ensure_ascii=False) if as_json else render(told, Words(located.locale)))
