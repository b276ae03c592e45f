"""Verbs for who operates it: status, trace, inbox, reload, support."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dingbridge.cli.root import (
    CONFIGURATION,
    FAILED,
    config_option,
    exit_for,
    json_option,
    locate,
    main,
    said,
    show,
    tell,
)
from dingbridge.errors import BridgeError, ConfigError

WATCH_S = 1.0


def _ask(located: Any, verb: str, **arguments: Any) -> Any:
    """From the daemon or its store; what goes wrong ends this process with its sentence."""
    from dingbridge.verbs import reach  # noqa: PLC0415

    try:
        return asyncio.run(reach.ask(located, verb, **arguments))
    except BridgeError as error:
        exit_for(error)


def _words(located: Any) -> Any:
    from dingbridge.verbs.words import Words  # noqa: PLC0415

    return Words(located.locale)


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _by_pool(_: click.Context, __: click.Parameter, written: tuple[str, ...]) -> dict[str, int]:
    """`api=1234`, each pool once."""
    from dingbridge.journal.thrift import POOLS, decode_used  # noqa: PLC0415

    used: dict[str, int] = {}
    for one in written:
        pool, _equals, text = one.partition("=")
        value = decode_used(text)
        if pool not in POOLS or value is None or pool in used:
            raise click.BadParameter(said("status.set_used_bad").format(pools=" / ".join(POOLS), written=one))
        used[pool] = value
    return used


@main.command(help=said("status"))
@config_option
@click.option("--watch", is_flag=True, help=said("status.watch"))
@click.option(*("--set-used", "used"), multiple=True, metavar="POOL=N", callback=_by_pool, help=said("status.set_used"))
@json_option
def status(config_path: Path | None, *, watch: bool, used: dict[str, int], as_json: bool) -> None:
    located = locate(config_path)
    from dingbridge.verbs import quota  # noqa: PLC0415
    from dingbridge.verbs import status as showing  # noqa: PLC0415

    if used:
        told = _ask(located, "set_used", used=used)
        show(_as_json(told) if as_json else quota.render(told, _words(located)))
        return

    def shown(told: Any) -> str:
        return _as_json(told) if as_json else showing.render(told, _words(located), located.store.path.parent)

    if watch:
        _watch(located, shown)
        return
    told = _ask(located, "status")
    show(shown(told))
    sys.exit(0 if "pid" in told else FAILED)


def _watch(located: Any, shown: Callable[[Any], str]) -> None:
    """Until Ctrl-C, whatever becomes of the daemon meanwhile."""
    from dingbridge.verbs import reach  # noqa: PLC0415

    try:
        while True:
            try:
                told = shown(asyncio.run(reach.ask(located, "status")))
            except BridgeError as error:
                click.echo(error.detail, err=True)
            else:
                if sys.stdout.isatty():
                    click.clear()
                show(told)
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        return


@main.command(help=said("trace"))
@config_option
@json_option
@click.argument("wanted", metavar="CODE|MSGID")
def trace(config_path: Path | None, wanted: str, *, as_json: bool) -> None:
    located = locate(config_path)
    from dingbridge.verbs import trace as showing  # noqa: PLC0415

    told = _ask(located, "trace", wanted=wanted)
    show(_as_json(told) if as_json else showing.render(told, _words(located)))


@main.group(help=said("inbox"))
def inbox() -> None:
    """What is kept, and what an operator may do about it."""


@inbox.command("list", help=said("inbox.list"))
@config_option
@click.option("--which", type=click.Choice(["open", "failed", "all"]), default="open", help=said("inbox.which"))
@click.option("--limit", type=click.IntRange(1, 1000), default=50, help=said("inbox.limit"))
@json_option
def inbox_list(config_path: Path | None, which: str, limit: int, *, as_json: bool) -> None:
    located = locate(config_path)
    from dingbridge.verbs import inbox as showing  # noqa: PLC0415

    rows = _ask(located, "inbox", which=which, limit=limit)
    show(_as_json(rows) if as_json else showing.render_list(rows, _words(located)))


@inbox.command("show", help=said("inbox.show"))
@config_option
@click.option("--text", "texts", is_flag=True, help=said("inbox.text"))
@json_option
@click.argument("wanted", metavar="CODE|MSGID")
def inbox_show(config_path: Path | None, wanted: str, *, texts: bool, as_json: bool) -> None:
    located = locate(config_path)
    from dingbridge.verbs import inbox as showing  # noqa: PLC0415

    row = _ask(located, "show", wanted=wanted, texts=texts)
    show(_as_json(row) if as_json else showing.render_one(row, _words(located), texts=texts))


@inbox.command("retry", help=said("inbox.retry"))
@config_option
@json_option
@click.argument("wanted", metavar="CODE|MSGID")
def inbox_retry(config_path: Path | None, wanted: str, *, as_json: bool) -> None:
    located = locate(config_path)
    row = _ask(located, "retry", wanted=wanted)
    show(_as_json(row) if as_json else _words(located)("retried", code=row["code"]))


@inbox.command("drop", help=said("inbox.drop"))
@config_option
@click.option("--quiet", is_flag=True, help=said("inbox.quiet"))
@json_option
@click.argument("wanted", metavar="CODE|MSGID")
def inbox_drop(config_path: Path | None, wanted: str, *, quiet: bool, as_json: bool) -> None:
    located = locate(config_path)
    row = _ask(located, "drop", wanted=wanted, tell=not quiet)
    show(_as_json(row) if as_json else _words(located)("dropped", code=row["code"]))


@main.command(help=said("reload"))
@config_option
@json_option
def reload(config_path: Path | None, *, as_json: bool) -> None:
    located = locate(config_path)
    from dingbridge.control import Refused  # noqa: PLC0415
    from dingbridge.verbs import reach  # noqa: PLC0415

    try:
        told = asyncio.run(reach.ask(located, "reload"))
    except Refused as error:
        if not error.faults:
            exit_for(error)
        tell(ConfigError(error.faults))
        sys.exit(CONFIGURATION)
    except BridgeError as error:
        exit_for(error)
    from dingbridge.verbs import reloaded as showing  # noqa: PLC0415

    click.echo(_as_json(told) if as_json else showing.render(told, _words(located)))
    refused = [one for one in told.get("daemons", ()) if "error" in one]
    sys.exit(CONFIGURATION if any("faults" in one for one in refused) else FAILED if refused else 0)


@main.command(help=said("support"))
@config_option
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help=said("support.output"))
def support(config_path: Path | None, output: Path | None) -> None:
    located = locate(config_path)
    from dingbridge import config  # noqa: PLC0415
    from dingbridge.verbs import support as gathering  # noqa: PLC0415

    path = output or Path(f"dingbridge-support-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    try:
        loaded: Any = config.load(located.path, os.environ)
    except ConfigError as error:
        loaded = error
    files = asyncio.run(gathering.gather(located, loaded))
    try:
        size = gathering.pack(files, path)
    except OSError as error:
        exit_for(BridgeError(f"{path}: {error.strerror}"))
    words = _words(located)
    click.echo(words("support_written", path=path, size=max(1, size // 1024)))
    click.echo(words("support_holds", names=", ".join(sorted({name.partition("/")[0] for name in files}))))
