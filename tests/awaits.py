"""Finds every await of some modules by their syntax, and watches those that are passed while a process runs.

`install` lets Python import the modules rewritten: `await x` becomes `await watched(id, x)`, and so do the awaits
that `async with` and `async for` stand for. Nothing else of them changes.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, cast
from weakref import WeakKeyDictionary

PACKAGE = Path(__file__).parents[1] / "dingbridge"


@dataclass(frozen=True, slots=True)
class Await:
    """One place. function: its file below the package and its dotted name, like `bridge.py Bridge.handle`."""

    id: str
    function: str
    text: str

    def __str__(self) -> str:
        return f"{self.id} in {self.function}: {self.text}"


def awaits_of(file: Path) -> list[Await]:
    rewriter = _Rewriter(file, leave=())
    rewriter.visit(ast.parse(file.read_text("utf-8")))
    return rewriter.found


class _Rewriter(ast.NodeTransformer):
    """leave: functions that stay as they are, by the beginning of `Await.function`."""

    def __init__(self, file: Path, leave: tuple[str, ...]) -> None:
        self._file = file.relative_to(PACKAGE).as_posix()
        self._leave = leave
        self._names: list[str] = []
        self.found: list[Await] = []

    def _within(self, node: Any) -> ast.AST:
        self._names.append(node.name)
        node = self.generic_visit(node)
        self._names.pop()
        return cast("ast.AST", node)

    visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _within  # noqa: N815 - ast's own names

    def _watched(self, what: str, node: ast.expr) -> ast.expr:
        function = f"{self._file} {'.'.join(self._names)}"
        one = Await(f"{self._file}:{node.lineno}:{node.col_offset}", function, ast.unparse(node).split("\n")[0][:80])
        if is_one_of(one, self._leave):
            return node
        self.found.append(one)
        call = ast.Call(ast.Name(what, ast.Load()), [ast.Constant(one.id), node], [])
        return ast.fix_missing_locations(ast.copy_location(call, node))

    def visit_Await(self, node: ast.Await) -> ast.AST:
        self.generic_visit(node)
        node.value = self._watched("__watched_await__", node.value)
        return node

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        self.generic_visit(node)
        for item in node.items:
            item.context_expr = self._watched("__watched_with__", item.context_expr)
        return node

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        self.generic_visit(node)
        node.iter = self._watched("__watched_for__", node.iter)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        if node.is_async:
            node.iter = self._watched("__watched_for__", node.iter)
        return node


def is_one_of(one: Await, functions: tuple[str, ...]) -> bool:
    """Whether it stands in one of these functions, or in a function inside of one."""
    return any(one.function == name or one.function.startswith(name + ".") for name in functions)


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, leave: tuple[str, ...]) -> None:
        super().__init__(name, path)
        self._leave = leave

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), filename=path)
        rewritten = _Rewriter(Path(path), self._leave).visit(tree)
        return compile(rewritten, path, "exec", dont_inherit=True)


@dataclass(frozen=True, slots=True)
class _Finder:
    modules: Mapping[str, Path]
    leave: tuple[str, ...]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in self.modules:
            return None
        spec = PathFinder.find_spec(name, path, target)
        assert spec is not None
        spec.loader = _Loader(name, str(self.modules[name]), self.leave)
        return spec


def install(watch: Watch, files: list[Path], leave: tuple[str, ...]) -> None:
    """Before any of the files' modules has been imported."""
    modules = {".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts): file for file in files}
    assert not sys.modules.keys() & modules.keys()
    sys.meta_path.insert(0, cast("Any", _Finder(modules, leave)))
    hooks: dict[str, Callable[[str, Any], object]] = {
        "__watched_await__": watch.awaited,
        "__watched_with__": lambda place, manager: _With(watch, place, manager),
        "__watched_for__": lambda place, iterable: _For(watch, place, iterable),
    }
    for name, hook in hooks.items():
        setattr(builtins, name, hook)


class Watch:
    """Counts the moments of the awaits that are passed once it is `armed`, and ends the process at one of them.

    A moment is the way of awaits from the task's beginning to this one, and: `before` what is awaited has begun,
    `waits` for something outside, `after` it has come back. arm_at: armed by an await whose id begins so.
    """

    def __init__(self, arm_at: str) -> None:
        self._arm_at = arm_at
        self._ways: WeakKeyDictionary[asyncio.Task[Any], list[str]] = WeakKeyDictionary()
        self.armed = False
        self.moments: Counter[str] = Counter()
        self.deadly: tuple[str, int] | None = None

    def awaited(self, place: str, awaitable: Any) -> _Awaited:
        return _Awaited(self, place, awaitable)

    def way(self) -> list[str]:
        task = asyncio.current_task()
        assert task is not None
        return self._ways.setdefault(task, [])

    def pass_by(self, way: list[str], phase: str) -> None:
        if not self.armed:
            if not way[-1].startswith(self._arm_at):
                return
            self.armed = True
        moment = f"{' > '.join(way)} | {phase}"
        self.moments[moment] += 1
        if self.deadly == (moment, self.moments[moment]):
            os.kill(os.getpid(), signal.SIGKILL)


class _Awaited:
    __slots__ = ("_awaitable", "_place", "_watch")

    def __init__(self, watch: Watch, place: str, awaitable: Any) -> None:
        self._watch = watch
        self._place = place
        self._awaitable = awaitable

    def __await__(self) -> Generator[Any, Any, Any]:
        watch, way = self._watch, self._watch.way()
        way.append(self._place)
        depth = len(way)
        try:
            watch.pass_by(way, "before")
            steps = self._awaitable.__await__()
            step, value = steps.send, None
            while True:
                try:
                    yielded = step(value)
                except StopIteration as stop:
                    watch.pass_by(way, "after")
                    return stop.value
                except BaseException:
                    watch.pass_by(way, "after")
                    raise
                if len(way) == depth:  # else it is one further in that waits
                    watch.pass_by(way, "waits")
                try:
                    step, value = steps.send, (yield yielded)
                except GeneratorExit:
                    steps.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - handed in
                    step, value = steps.throw, error
        finally:
            way.pop()


class _With:
    def __init__(self, watch: Watch, place: str, manager: Any) -> None:
        self._watch = watch
        self._place = place
        self._manager = manager

    def __aenter__(self) -> _Awaited:
        return self._watch.awaited(self._place + " in", self._manager.__aenter__())

    def __aexit__(self, *error: object) -> _Awaited:
        return self._watch.awaited(self._place + " out", self._manager.__aexit__(*error))


class _For:
    def __init__(self, watch: Watch, place: str, iterable: Any) -> None:
        self._watch = watch
        self._place = place
        self._iterator = iterable.__aiter__()

    def __aiter__(self) -> _For:
        return self

    def __anext__(self) -> _Awaited:
        return self._watch.awaited(self._place, self._iterator.__anext__())


def places(moment: str) -> Iterator[str]:
    """The ids of the awaits of a moment's way, the innermost last."""
    for place in moment.partition(" | ")[0].split(" > "):
        yield place.partition(" ")[0]


def innermost(moment: str) -> tuple[str, str]:
    """The await that a moment is of, and its phase."""
    way, _, phase = moment.partition(" | ")
    return way.split(" > ")[-1], phase
