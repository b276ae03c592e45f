"""Who imports whom, how long things may be, and that every test says what it promises."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dingbridge"
MODULE_LINES = 400
FUNCTION_LINES = 60

# Rows of the house, lowest first. A part is a module or a folder right below dingbridge/; it may always import its own.
NOUNS = frozenset({"model", "errors"})
GROUND = frozenset(
    {"net", "decode", "reading", "secrets", "settings", "config", "log", "texts", "service", "store", "trail", "causes"}
)
GROUND |= {"redaction", "disguise", "outage", "clock", "bucket", "markup"}
CENTRE = frozenset({"router", "commands", "answerer", "notices", "dispatch", "setup", "lease", "watched", "questions"})
GROUND |= {"shape", "emphasis", "passages"}
CENTRE |= {"sending", "desk", "inquiry"}
EDGES = frozenset({"dingtalk", "backends", "journal", "web"})
BUILDERS = frozenset(
    {"app", "asking", "checks", "demo", "building", "reloading", "upkeep", "operations", "control", "vitals", "verbs"}
)
BUILDERS |= {"receiving", "yielding"}
BELOW: dict[str, frozenset[str]] = {
    **dict.fromkeys(NOUNS, frozenset[str]()),
    "sim": frozenset(),  # stand-ins share no code with what they test
    **dict.fromkeys(GROUND, NOUNS | GROUND),
    **dict.fromkeys(CENTRE, NOUNS | GROUND | CENTRE),
    **dict.fromkeys(EDGES, NOUNS | GROUND),  # never each other, never the centre
    "bridge": NOUNS | GROUND | CENTRE,  # the edges come through its constructor
    **dict.fromkeys(BUILDERS, NOUNS | GROUND | CENTRE | EDGES | BUILDERS | {"bridge", "sim", "dingbridge"}),
    "cli": NOUNS | {"dingbridge"},  # at import time; a verb imports the rest when it runs
    "__main__": frozenset({"cli"}),
    "dingbridge": frozenset({"model"}),  # the names that handlers import
}
# Which files may import a package that is not ours: a path below dingbridge/, or a folder.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "dingtalk_stream": ("dingtalk/stream.py", "dingtalk/gateway.py", "sim/bare_bot.py"),
    "aiohttp": ("dingtalk/", "backends/", "web/", "sim/", "demo/", "net.py", "control.py"),
    "tenacity": ("backends/",),
    "sqlite3": ("store/", "sim/", "checks.py", "verbs/support.py"),
    "psycopg": ("store/",),
    "markdown_it": ("dingtalk/", "web/", "demo/render.py", "markup.py"),
    "prometheus_client": ("journal/",),
    "click": ("cli/",),
    "yarl": ("control.py", "dingtalk/", "backends/", "sim/", "net.py", "decode.py"),
}
ANYWHERE = {"structlog"} | sys.stdlib_module_names


@dataclass(frozen=True)
class Import:
    """`module` imports `target`; lazily where it stands inside a function."""

    file: Path
    line: int
    target: str
    lazy: bool

    @property
    def at(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"

    @property
    def part(self) -> str:
        return part_of(self.file)

    @property
    def top(self) -> str:
        return self.target.partition(".")[0]


def part_of(file: Path) -> str:
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "dingbridge" if first == "__init__" else first


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), filename=str(file))


def walk(node: ast.AST, *, lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below, and whether it only counts when something runs, or for the type checker."""
    for child in ast.iter_child_nodes(node):
        inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or _for_types(child)
        yield child, inside
        yield from walk(child, lazy=inside)


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_of(file: Path) -> Iterator[Import]:
    for node, lazy in walk(tree_of(file)):
        match node:
            case ast.Import(names=names):
                targets = [alias.name for alias in names]
            case ast.ImportFrom(level=level, module=module, names=names):
                above = file.relative_to(ROOT).parts[:-level] if level else ()
                origin = ".".join([*above, *([module] if module else [])])
                # `from dingbridge import config` imports a module, `from dingbridge import Answer` a name.
                whole = [f"{origin}.{alias.name}" for alias in names]
                targets = [one if _is_module(one) else origin for one in whole]
            case _:
                continue
        yield from (Import(file, node.lineno, target, lazy) for target in targets)


def _is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


IMPORTS = [found for file in modules() for found in imports_of(file)]
OURS = [found for found in IMPORTS if found.top == "dingbridge"]
THEIRS = [found for found in IMPORTS if found.top not in ANYWHERE | {"dingbridge"}]


def imported_part(found: Import) -> str:
    """The part that is imported; the package itself counts as one."""
    return [*found.target.split("."), "dingbridge"][1]


def test_every_part_has_a_row() -> None:
    """A new module is placed in the house before it is imported."""
    homeless = sorted({part_of(file) for file in modules()} - set(BELOW))
    assert not homeless, f"{homeless}: decide which row of BELOW they belong to, and add them there"


@pytest.mark.parametrize("part", sorted(BELOW))
def test_imports_go_down_only(part: str) -> None:
    """A part imports the rows below it, as the table says."""
    wrong = [
        f"{found.at}: {part} may not import {found.target}; pass it in through a constructor, or move what is shared "
        f"into a row below both ({', '.join(sorted(BELOW[part])) or 'none'})"
        for found in OURS
        if found.part == part
        and not (part == "cli" and found.lazy)
        and imported_part(found) not in BELOW[part] | {part}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circles() -> None:
    """No module imports, over however many steps, itself."""
    edges: dict[str, set[str]] = {}
    for found in OURS:
        if not found.lazy:
            edges.setdefault(_dotted(found.file), set()).add(found.target)

    circles: dict[frozenset[str], str] = {}

    def follow(module: str, way: tuple[str, ...]) -> None:
        if module in way:
            circle = way[way.index(module) :]
            circles.setdefault(frozenset(circle), " → ".join((*circle, module)))
            return
        for target in edges.get(module, ()):
            follow(target, (*way, module))

    for start in edges:
        follow(start, ())
    assert not circles, "\n".join(f"{circle}: move what both need into a module below" for circle in circles.values())


def _dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_each_library_has_its_place(package: str) -> None:
    """A library that is not ours is known only where the table says, so that it can be changed there."""
    wrong = [
        f"{found.at}: {package} belongs into {', '.join(ONLY_IN[package])}; use what they offer, or put the call there"
        for found in IMPORTS
        if found.top == package and not _within(found.file, ONLY_IN[package])
    ]
    assert not wrong, "\n".join(wrong)


def test_every_library_has_a_place() -> None:
    """A library that is used stands in the table."""
    unknown = [
        f"{found.at}: {found.target}: say in ONLY_IN where it may be used"
        for found in THEIRS
        if found.top not in ONLY_IN
    ]
    assert not unknown, "\n".join(unknown)


def _within(file: Path, places: tuple[str, ...]) -> bool:
    path = file.relative_to(PACKAGE).as_posix()
    return any(path.startswith(place) if place.endswith("/") else path == place for place in places)


def test_modules_are_short() -> None:
    """A module can be read in one sitting."""
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in modules()}
    long = [
        f"{file.relative_to(ROOT)}: {lines} lines, at most {MODULE_LINES}: give its second subject a module"
        for file, lines in lengths.items()
        if lines > MODULE_LINES
    ]
    assert not long, "\n".join(long)


def test_functions_fit_on_a_screen() -> None:
    """A function can be seen whole."""
    long = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {node.name}: {lines} lines, at most {FUNCTION_LINES}: name its steps"
        for file in modules()
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_every_test_states_its_promise() -> None:
    """Each test function begins with a sentence that says what holds."""
    silent = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {node.name}: add a docstring that states the promise"
        for file in sorted(Path(__file__).parent.rglob("test_*.py"))
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not silent, "\n".join(silent)
