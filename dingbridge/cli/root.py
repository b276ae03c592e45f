"""The command itself, and what its verbs share: finding the configuration, its faults, the language of the help."""

from __future__ import annotations

import logging
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from unicodedata import category

import click

from dingbridge import __version__
from dingbridge.cli.helps import HELPS
from dingbridge.errors import BridgeError, ConfigError

if TYPE_CHECKING:
    from dingbridge.config import Located
    from dingbridge.settings import Config

FAILED = 1
CONFIGURATION = 78
F = TypeVar("F", bound=Callable[..., Any])
PLACES = ("dingbridge.toml", "/etc/dingbridge/dingbridge.toml")


def help_locale(arguments: list[str], environ: Mapping[str, str]) -> str:
    """The configuration's language, before anything else of it is read; without one the terminal's; else Chinese."""
    named = [after for option, after in pairwise(arguments) if option == "--config"]
    named += [argument.removeprefix("--config=") for argument in arguments if argument.startswith("--config=")]
    for place in (*named, environ.get("DINGBRIDGE_CONFIG", ""), *PLACES):
        try:
            if not Path(place).is_file():  # what comes through a pipe can be read only once
                continue
            with Path(place).open("rb") as file:
                locale = tomllib.load(file).get("reply", {}).get("locale", "zh-CN")
                return locale if locale in HELPS else "zh-CN"
        except (OSError, ValueError, AttributeError, TypeError):
            continue
    language = environ.get("LC_ALL") or environ.get("LC_MESSAGES") or environ.get("LANG") or ""
    return "en" if language.startswith("en") else "zh-CN"


_HELP = HELPS[help_locale(sys.argv, os.environ)]


def said(key: str) -> str:
    """The help text of a verb or of an option, by `verb` or `verb.option`."""
    return _HELP[key]


def config_option(verb: F) -> F:
    return click.option(
        "--config", "config_path", type=click.Path(path_type=Path), metavar="FILE", help=said("config")
    )(verb)


json_option = click.option("--json", "as_json", is_flag=True, help=said("json"))


@click.group(help=said("main"), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="dingbridge %(version)s")
def main() -> None:
    """The verbs register themselves. A terminal that lacks a character gets another one, and no traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def load(explicit: Path | None, *, secrets: bool = True) -> Config:
    from dingbridge import config  # noqa: PLC0415

    try:
        return config.load(config.find(explicit, os.environ), os.environ, secrets=secrets)
    except ConfigError as error:
        exit_for(error)


def locate(explicit: Path | None) -> Located:
    """For verbs that only need to find the daemon: faults elsewhere in the file do not matter to them."""
    from dingbridge import config  # noqa: PLC0415

    try:
        return config.locate(config.find(explicit, os.environ), os.environ)
    except ConfigError as error:
        exit_for(error)


def log_to_stderr(config: Config) -> Callable[[str], str]:
    """Returns what masks this configuration's secrets in a text."""
    from dingbridge import log  # noqa: PLC0415
    from dingbridge.building import redactor_for  # noqa: PLC0415

    redactor = redactor_for(config)
    log.configure(redactor, level=logging.WARNING, own_process=True)
    return redactor.text


def exit_for(error: BridgeError, redact: Callable[[str], str] = str) -> NoReturn:
    """Its sentences on stderr, and the exit code that is meant for it."""
    if isinstance(error, ConfigError):
        tell(error)
        sys.exit(CONFIGURATION)
    click.echo(redact(error.detail), err=True)
    sys.exit(FAILED)


def show(text: str) -> None:
    """On stdout; what stored texts and messages hold for a terminal to obey is made visible instead."""
    click.echo("".join("\N{REPLACEMENT CHARACTER}" if _commands_a_terminal(one) else one for one in text))


def _commands_a_terminal(character: str) -> bool:
    return character not in "\n\t" and category(character) in ("Cc", "Cf")


def tell(error: ConfigError) -> None:
    for fault in error.faults:
        click.echo(fault, err=True)
