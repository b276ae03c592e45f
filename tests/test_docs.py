"""The README keeps up with the code: every name a reader may look up is there, and no name that is gone."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dingbridge import __version__, cli, commands, config, control, operations, reloading
from dingbridge.errors import BridgeError
from dingbridge.journal.metrics import Metrics
from dingbridge.model import Outcome
from dingbridge.sim.gateway import Gateway
from dingbridge.sim.gateway_control import KNOBS, PLACES, Control
from dingbridge.sim.gateway_control_chat import ChatControl
from dingbridge.texts import CATALOGUES
from tests.pages import ROOT, anchor, chapters, read

PACKAGE = ROOT / "dingbridge"
README = read("README.md")
PAGES = (
    *("README.md", "README.zh-CN.md", "CHANGELOG.md", "examples/handlers/README.md", "examples/card/README.md"),
    *("examples/replicas/README.md", "examples/replicas/README.zh-CN.md"),
    *("examples/replicas/PLAN.md", "examples/replicas/PLAN.zh-CN.md"),
)
MANUALS = ("examples/dingbridge.toml", "examples/dingbridge.en.toml")
LEVELS = {"debug", "info", "warning", "error", "exception"}
EVENT = re.compile(r"[a-z]+\.[a-z_]+")


def chapter(title: str) -> str:
    """The README's text below a heading, up to the next one."""
    found = [one.text for one in chapters("README.md") if one.title == title]
    assert len(found) == 1, f"README.md has no chapter {title!r}"
    return found[0]


def rows(text: str) -> set[str]:
    """What stands in backquotes in the first column of tables."""
    first = re.findall(r"^\| ([^|]*) \|", text, flags=re.MULTILINE)
    return {name for cell in first for name in re.findall(r"`([^`]+)`", cell)}


def metric_names() -> set[str]:
    """As a scrape shows them, without the suffixes of histograms."""
    collected = Metrics("0").registry.collect()
    return {metric.name + ("_total" if metric.type == "counter" else "") for metric in collected}


def events() -> set[str]:
    """The first argument of every call on a logger: a text, or one of two; and the two of every listener's name."""
    found: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args and _logs(node.func):
                where = f"{file.relative_to(ROOT)}:{node.lineno}"
                assert not isinstance(node.args[0], ast.JoinedStr), f"{where}: write the event out, it is searched for"
                found |= {text for text in _texts(node.args[0]) if EVENT.fullmatch(text)}
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "Listener":
                (name,) = [ast.literal_eval(word.value) for word in node.keywords if word.arg == "name"]
                found |= {f"{name}.listening", f"{name}.not_listening"}
    return found


def _logs(function: ast.expr) -> bool:
    match function:
        case ast.Attribute(value=ast.Name(id="log" | "logger"), attr=level):
            return level in LEVELS
        case ast.IfExp(body=body, orelse=other):
            return _logs(body) or _logs(other)
        case ast.Name(id="write"):  # a level chosen before
            return True
    return False


def _texts(argument: ast.expr) -> Iterator[str]:
    match argument:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=other):
            yield from _texts(body)
            yield from _texts(other)


def verbs(group: click.Group = cli.main, before: str = "") -> dict[str, click.Command]:
    """Every command by its whole name, like `inbox list`."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= verbs(command, f"{before}{name} ")
        else:
            found[before + name] = command
    return found


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_every_verb_is_described(verb: str) -> None:
    """A verb stands in the table of commands, with each of its options."""
    rows = re.findall(rf"^\| `dingbridge {verb}\b([^`]*)`", chapter("Commands"), flags=re.MULTILINE)
    assert rows, f"README.md, Commands: add a row for `dingbridge {verb}`"
    for option in verbs()[verb].params:
        if isinstance(option, click.Option) and option.name != "config_path":
            assert any(option.opts[0] in row for row in rows), f"README.md, Commands: {verb} has {option.opts[0]}"


@pytest.mark.parametrize("page", [*PAGES, *MANUALS, "systemd/dingbridge.toml"])
def test_no_verb_is_invented(page: str) -> None:
    """Every `dingbridge verb` in a page exists, and so do the sub-command and the options behind it."""
    text = read(page)
    pattern = re.compile(r"(?:^|[`/$# ])dingbridge ([a-z]+)\b([^`\n]*)", flags=re.MULTILINE)
    for verb, rest in pattern.findall("\n".join(_code(text)) if page.endswith(".md") else text):
        assert verb in cli.main.commands, f"{page}: dingbridge {verb}"
        command = cli.main.commands[verb]
        if isinstance(command, click.Group) and (sub := re.match(r" ([a-z]+)", rest)):
            assert sub[1] in command.commands, f"{page}: dingbridge {verb} {sub[1]}"
            command = command.commands[sub[1]]
        known = {option for one in command.params for option in one.opts}
        typed = rest.partition("# ")[0].partition(" | ")[0]
        unknown = set(re.findall(r"(?<= |\[)--[a-z-]+", typed)) - known
        assert not unknown, f"{page}: dingbridge {verb}: {unknown}"


def _code(text: str) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    return blocks + re.findall(r"`([^`\n]+)`", text)


def test_every_section_of_the_configuration_is_described() -> None:
    """The table of sections and the schema have the same names."""
    assert {name.strip("[]") for name in rows(chapter("Configuration"))} == set(config.SCHEMA)


@pytest.mark.parametrize("page", [*PAGES[:2], *MANUALS])
def test_what_a_reload_takes_over_is_told(page: str) -> None:
    """The sections that count at once and those that wait for a restart are named in one line each, as they are."""
    listed = [
        set(found)
        for line in read(page).splitlines()
        if len(found := re.findall(r"\[+([a-z]+)\]+", line)) >= 3 and line.startswith(("| `[", "#   ·"))
    ]
    assert listed == [set(config.SCHEMA) - set(reloading.RESTART), set(reloading.RESTART)]


def test_every_key_the_readme_names_exists() -> None:
    """Keys in the README's TOML are keys of the schema."""
    keys = {field.name for fields in config.SCHEMA.values() for field in fields}
    named = re.findall(r"^([a-z_]+) = ", "".join(re.findall(r"```toml\n(.*?)```", README, re.DOTALL)), re.MULTILINE)
    assert named
    assert set(named) <= keys


def test_every_request_of_the_control_socket_is_described() -> None:
    """The table of requests has the server's routes, and no other."""
    served = re.findall(r'add_(get|post)\("([^"]+)"', Path(control.__file__).read_text("utf-8"))
    paths = {f"{method.upper()} {path.replace('{wanted:.+}', 'CODE')}" for method, path in served}
    assert rows(chapter("Control socket")) == paths


def test_the_control_socket_is_where_the_readme_says() -> None:
    """Beside the store that the shipped configuration for systemd names; the figures are the code's."""
    store = re.search(r'^url = "(.+)"', read("systemd/dingbridge.toml"), flags=re.MULTILINE)
    assert store
    text = chapter("Control socket")
    assert f"`{control.socket_path(Path(store[1]))}`" in text
    assert f"at most {control.LISTED}" in text
    assert f"at most {operations.LANES}, `failures` the last {operations.FAILURES}" in text


def test_everything_of_the_stand_ins_control_is_described() -> None:
    """Its verbs, the places for faults, and its knobs have the names that it knows."""
    text = chapter("Developing a bot against the stand-in")
    gateway = Gateway()
    routes = [*Control(gateway).routes(), *ChatControl(gateway).routes()]
    served = {one.path.removeprefix("/_sim/") for one in routes}
    described = {
        cell.split()[-1] for cell in rows(text) if cell.split()[-1] in served or cell.startswith(("GET", "POST"))
    }
    assert described == served
    assert [place for place in PLACES if f"`{place}`" not in text] == []
    assert set(re.findall(r'"set":{"(\w+)"', text)) <= set(KNOBS)


def test_every_metric_is_described() -> None:
    """The table of metrics is the registry's list, and the results are all that there are."""
    text = chapter("HTTP")
    assert {name for name in rows(text) if name.startswith("dingbridge_")} == metric_names()
    assert [outcome for outcome in Outcome if outcome not in text] == []


@pytest.mark.parametrize("command", commands.COMMANDS, ids=lambda command: command.name)
def test_every_chat_command_is_described(command: commands.Command) -> None:
    """A command stands in its table, with all its other forms."""
    row = re.search(rf"^\| `/{command.name}` \| ([^|]*) \|", chapter("In the chat"), flags=re.MULTILINE)
    assert row, f"README.md, In the chat: add a row for `/{command.name}`"
    half_width = {alias.replace("？", "?") for alias in command.aliases}
    assert set(row[1].split(", ")) == half_width


def test_every_log_event_is_described() -> None:
    """The table of log events and the code have the same names."""
    described, logged = rows(chapter("Log events")), events()
    assert not logged - described, f"README.md, Log events: add {sorted(logged - described)}"
    assert not described - logged, f"README.md, Log events: nothing logs {sorted(described - logged)}"


def _public(kind: type[BridgeError]) -> set[str]:
    return {kind.public}.union(*(_public(below) for below in kind.__subclasses__()))


@pytest.mark.parametrize("key", sorted(_public(BridgeError) | {"trouble", "expired", "dead"}))
def test_every_failure_text_is_explained(key: str) -> None:
    """What a chat user may quote leads to one row, with its cause."""
    phrases = re.findall(r"^\| …([^|…]+)… \|", chapter("When the chat shows a 编号"), flags=re.MULTILINE)
    text = CATALOGUES["zh-CN"][key]
    found = [phrase for phrase in phrases if phrase in text]
    assert len(found) == 1, f"README.md, 编号: explain {text!r} in one row, found {found}"


@pytest.mark.parametrize("target", re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
def test_make_knows_its_targets(target: str) -> None:
    """A target of the list can be planned."""
    planned = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert planned.returncode == 0, planned.stderr


def test_every_target_the_readme_names_exists() -> None:
    """`make …` in the README is a target."""
    named = set(re.findall(r"(?:`|\$ )make ([a-z]+)", README))
    assert named
    assert named <= set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_resolves(page: str) -> None:
    """A link into the project leads to something, one into the page to a heading of it."""
    found = chapters(page)
    links = [link for one in found for link in one.links if "://" not in link]
    titles = {anchor(one.title) for one in found}
    folder = (ROOT / page).parent
    broken = [x for x in links if not (x[1:] in titles if x[0] == "#" else (folder / x.partition("#")[0]).exists())]
    assert not broken, f"{page}: {broken}"


def test_the_licence_is_there() -> None:
    """The licence that the package names is in the project."""
    assert (ROOT / "LICENSE").read_text("utf-8").startswith("MIT License")


def test_the_changelog_has_this_version() -> None:
    """The version that is built has its entry."""
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
