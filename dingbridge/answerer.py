"""Runs the handlers of the matching routes until one answers. Declares what it needs of a backend."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from dingbridge import trail
from dingbridge.errors import BridgeError, ConfigError, HandlerError
from dingbridge.model import Answer, Attachment, Message, Outcome, Reply, Route, Turn
from dingbridge.questions import asked
from dingbridge.router import Router
from dingbridge.texts import Texts

log = structlog.get_logger("dingbridge.answer")

ANYTHINGLLM = "anythingllm"
Handler = Callable[[Message, Reply], Awaitable[Answer | str | None]]


class Backend(Protocol):
    """A server that answers questions from documents."""

    async def ask(
        self,
        question: str,
        *,
        workspace: str,
        session: str,
        on_text: Callable[[str], None] | None = None,
        attachments: Sequence[Attachment] = (),
    ) -> Answer:
        """Called once per delivery; bounded in time and tries by itself. Raises BackendError."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question with all that belongs to it.

    session: of the backend, one a context. turns: what was said before in it, oldest first.
    deep: only where a route has a deeper workspace. on_text: told the whole text so far.
    """

    message: Message
    session: str
    texts: Texts
    turns: tuple[Turn, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    deep: bool = False
    on_text: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What the routes gave. `answer` None: the handler has answered by itself. handler_s: what finding it took."""

    answer: Answer | None
    outcome: Outcome
    route: Route | None = None
    reason: str = ""
    cause: str = ""
    handler_s: float | None = None


class Answerer:
    """handler_s bounds a handler of one's own, as the backend bounds itself."""

    def __init__(self, routes: tuple[Route, ...], backend: Backend, *, handler_s: float) -> None:
        self._router = Router(routes)
        self._routes = {route.name: route for route in routes}
        self._backend = backend
        self._handlers = load_handlers(routes)
        self._handler_s = handler_s

    def named(self, route: str) -> Route | None:
        """The route of an answer that was kept before a restart, if it is still configured."""
        return self._routes.get(route)

    @property
    def routes(self) -> tuple[Route, ...]:
        return tuple(self._routes.values())

    def matching(self, message: Message) -> list[Route]:
        """The routes that may answer it, in their order."""
        return self._router.match(message)

    async def answer(self, ask: Ask, reply: Reply) -> Found:
        """The first answer; where all refuse, the first refusal with words; UNROUTED where no route matches.

        Raises BridgeError with the route that it happened on.
        """
        refusal: Found | None = None
        matching = self.matching(ask.message)
        if not matching:
            trail.note("route.none", cause="route.none")
        for route in matching:
            if ask.deep and not route.deep_workspace:
                continue
            trail.note("route.matched", route=route.name, of=len(matching), **_ran(route, deep=ask.deep))
            try:
                answer = await self._run(route, ask, reply)
            except BridgeError as error:
                error.route = route.name
                raise
            if answer is None:
                return Found(None, Outcome.ANSWERED, route)
            if not answer.refused:
                return Found(answer, Outcome.PARTIAL if answer.partial else Outcome.ANSWERED, route)
            trail.note("route.refused", route=route.name, cause="answer.refused")
            if refusal is None or refusal.answer == Answer(refused=True):
                refusal = Found(answer, Outcome.REFUSED, route)
        return refusal or Found(None, Outcome.UNROUTED)

    async def _run(self, route: Route, ask: Ask, reply: Reply) -> Answer | None:
        handler = None if ask.deep else self._handlers.get(route.handler)
        if handler is None:
            workspace = _workspace(route, deep=ask.deep)
            question = asked(ask.message, ask.texts, _unknown_to(workspace, ask.turns))
            answer = await self._backend.ask(
                question,
                workspace=workspace,
                session=ask.session,
                on_text=ask.on_text,
                attachments=ask.attachments,
            )
            return replace(answer, origin=workspace)
        with trail.timed("handler.ran", handler=route.handler):
            return await self._handled(handler, route, ask.message, reply)

    async def _handled(self, handler: Handler, route: Route, message: Message, reply: Reply) -> Answer | None:
        limit = asyncio.timeout(self._handler_s)
        try:
            async with limit:
                result = await handler(message, reply)
        except BridgeError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise HandlerError(f"handler {route.handler} let a cancelled task's error out") from error
        except Exception as error:
            if limit.expired():
                raise HandlerError(
                    f"handler {route.handler} took longer than {self._handler_s:g} s", cause="handler.slow"
                ) from None
            log.exception("handler.failed", handler=route.handler, code=message.code)
            raise HandlerError(f"handler {route.handler} raised {type(error).__name__}") from error
        return _checked(result, route.handler)


def _checked(result: object, name: str) -> Answer | None:
    """A handler is somebody else's code: what it returns is looked at."""
    if result is None:
        return None
    answer = Answer(result) if isinstance(result, str) else result
    if not isinstance(answer, Answer) or not (answer.refused or answer.text.strip()):
        raise HandlerError(
            f"handler {name} returned neither an Answer with text, a text nor None", cause="handler.bad_result"
        )
    return answer


def workspaces_of(routes: tuple[Route, ...]) -> frozenset[str]:
    """All that AnythingLLM has to have: for answers, and for deeper ones."""
    named = {route.workspace for route in routes if route.handler == ANYTHINGLLM}
    return frozenset(named | {route.deep_workspace for route in routes if route.deep_workspace})


def _workspace(route: Route, *, deep: bool) -> str:
    return route.deep_workspace if deep else route.workspace


def _unknown_to(workspace: str, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The turns since the last one that this workspace has answered itself: it does not know them."""
    known = [at for at, turn in enumerate(turns) if turn.origin == workspace]
    return turns[known[-1] + 1 :] if known else turns


def _ran(route: Route, *, deep: bool) -> dict[str, str]:
    if deep or route.handler == ANYTHINGLLM:
        return {"workspace": _workspace(route, deep=deep)}
    return {"handler": route.handler}


def load_handlers(routes: tuple[Route, ...]) -> dict[str, Handler]:
    """The handlers that routes name, imported; ConfigError names each that cannot be, or is not async."""
    handlers: dict[str, Handler] = {}
    faults = []
    for number, route in enumerate(routes):
        if route.handler == ANYTHINGLLM or route.handler in handlers:
            continue
        try:
            handlers[route.handler] = _load(route.handler)
        except HandlerError as error:
            faults.append(f"route[{number}].handler: {error.detail}")
    if faults:
        raise ConfigError(faults)
    return handlers


def _load(name: str) -> Handler:
    module_name, _, function_name = name.partition(":")
    try:
        handler = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        raise HandlerError(f"no module {error.name}: is its folder in [handlers] path?") from error
    except AttributeError as error:
        raise HandlerError(f"module {module_name} has no {function_name}") from error
    except (Exception, SystemExit) as error:
        raise HandlerError(f"importing {module_name} raised {type(error).__name__}: {error}") from error
    if not inspect.iscoroutinefunction(handler):
        raise HandlerError(f"{name} must be an `async def` function: a blocking one would stop every chat")
    loaded: Handler = handler
    return loaded
