"""Verbs that try something without touching the daemon: check, ask, route."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

import click

from dingbridge.cli.root import FAILED, config_option, exit_for, json_option, load, log_to_stderr, main, said
from dingbridge.errors import BridgeError


@main.command(help=said("check"))
@config_option
@json_option
def check(config_path: Path | None, *, as_json: bool) -> None:
    config = load(config_path)
    from dingbridge import checks  # noqa: PLC0415

    redact = log_to_stderr(config)
    findings = [replace(one, detail=redact(one.detail)) for one in asyncio.run(checks.run(config))]
    click.echo(checks.as_json(findings) if as_json else checks.as_text(findings, config.reply.locale))
    sys.exit(FAILED if any(finding.level == "failure" for finding in findings) else 0)


@main.command(help=said("ask"))
@config_option
@click.option("--as", "user", metavar="USER", default="", help=said("as"))
@click.option("--in", "group", metavar="GROUP", default="", help=said("in"))
@click.argument("question")
def ask(config_path: Path | None, user: str, group: str, question: str) -> None:
    config = load(config_path)
    from dingbridge import asking  # noqa: PLC0415

    redact = log_to_stderr(config)
    try:
        answered = asyncio.run(asking.ask(config, question, user=user, group=group))
    except BridgeError as error:
        exit_for(error, redact)
    click.echo(answered)


@main.command(help=said("route"))
@config_option
@click.option("--as", "user", metavar="USER", default="", help=said("as"))
@click.option("--in", "group", metavar="GROUP", default="", help=said("in"))
@click.option("--expect", metavar="NAME", help=said("route.expect"))
@json_option
@click.argument("question")
def route(config_path: Path | None, user: str, group: str, expect: str | None, question: str, *, as_json: bool) -> None:
    config = load(config_path, secrets=False)
    from dingbridge.verbs import route as routing  # noqa: PLC0415
    from dingbridge.verbs.words import Words  # noqa: PLC0415

    words = Words(config.reply.locale)
    told = routing.explained(config, question, user=user, group=group)
    click.echo(json.dumps(told, ensure_ascii=False) if as_json else routing.render(told, words, text=question))
    if expect is not None and expect != (told["route"] or ""):
        click.echo(words("route_expected", wanted=expect or "-", name=told["route"] or "-"), err=True)
        sys.exit(FAILED)
