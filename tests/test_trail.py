"""The way of one message as the edges note it: each wait, each try, each way into the chat, with its cause."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from dingbridge import trail
from dingbridge.answerer import Answerer, Ask, Handler
from dingbridge.backends.anythingllm import Limits
from dingbridge.dingtalk.pace import Pace
from dingbridge.errors import BackendError, HandlerError, ReplyPaced, ReplyUncertain, StoreUnavailable
from dingbridge.model import Answer, Conversation, ConversationKind, Message, MessageKind, Person, Route
from dingbridge.sim.gateway import MISSING, Gateway
from dingbridge.store.codec import decode_steps, encode_steps
from dingbridge.texts import Texts
from dingbridge.trail import Step, Trail
from tests.anythingllm_asking import KEY, QUICK, client
from tests.anythingllm_peer import GOOD, Act, Peer, Script, abort, answer, replay, stream, token
from tests.replying import Chat, Clock, chatting

UNPERMITTED = (403, "Forbidden.AccessDenied.AccessTokenPermissionDenied")


@pytest.fixture
async def chat(gateway: Gateway) -> AsyncIterator[Chat]:
    async with chatting(gateway) as one:
        yield one


def shown(followed: Trail, *secrets: str) -> list[tuple[str, dict[str, Any]]]:
    """Name and facts of each step, the times taken out after a look; no secret stands in any of them."""
    steps = [(step.name, dict(step.facts)) for step in followed.take()]
    for _, facts in steps:
        assert all(isinstance(fact, str | int | float | bool) for fact in facts.values())
        assert type(facts.pop("ms", 0)) is int
    assert not [secret for secret in secrets if secret in repr(steps)]
    assert "session=" not in repr(steps)
    return steps


# -- the trail itself


def test_nobody_follows_nothing_is_kept() -> None:
    """What works outside of any message notes into the void."""
    trail.note("x", a=1)
    with trail.timed("y"):
        pass
    assert trail.take() == ()


def test_a_timed_step_says_how_it_went() -> None:
    """Success and failure with their time; of an error its words, its cause and whether it is certain."""
    with trail.follow(Trail()) as followed:
        with trail.timed("good", part=1) as found:
            found["chars"] = 7
        with pytest.raises(HandlerError), trail.timed("bad"):
            raise HandlerError("oh")
        with pytest.raises(ReplyUncertain), trail.timed("odd"):
            raise ReplyUncertain("who knows")
    assert shown(followed) == [
        ("good", {"part": 1, "chars": 7, "ok": True}),
        ("bad", {"ok": False, "why": "oh", "cause": "handler.raised"}),
        ("odd", {"ok": False, "why": "who knows", "cause": "chat.unknown_outcome", "certain": False}),
    ]


# -- AnythingLLM


async def asked(
    *scripts: Script, workspace: str = "finance", limits: Limits = QUICK
) -> list[tuple[str, dict[str, Any]]]:
    with trail.follow(Trail()) as followed:
        async with Peer(*scripts) as peer, client(peer.url, limits) as backend:
            try:
                await backend.ask("机密的问题", workspace=workspace, session="s")
            except BackendError as error:
                trail.note("failed", cause=error.cause)
    return shown(followed, KEY, "机密的问题", "好的。", "前半")


async def test_each_attempt_and_each_wait_is_noted() -> None:
    """Three tries: two failures with their causes, the waits between them, and the answer's length and first token."""
    steps = await asked(stream(abort("503 loading")), [Act.RESET], GOOD)
    assert [name for name, _ in steps] == [
        "backend.attempt",
        "backend.wait",
        "backend.attempt",
        "backend.wait",
        "backend.attempt",
    ]
    first, wait, second, _, third = (facts for _, facts in steps)
    assert (first["attempt"], first["ok"], first["cause"]) == (1, False, "backend.overloaded")
    assert "503 loading" in first["why"]
    assert wait["delay_s"] >= 0
    assert (second["attempt"], second["cause"]) == (2, "backend.cut")
    assert third.pop("first_token_ms") >= 0
    assert third == {"attempt": 3, "workspace": "finance", "chars": 3, "ok": True}


async def test_a_name_is_noted_as_the_slug_it_was_asked_under() -> None:
    """The operator reads what AnythingLLM was asked for; where it is unknown, what the route says."""
    ((_, known),) = await asked(replay("50-"), workspace="Finance 财务制度")
    assert known["workspace"] == "finance"
    (_, unknown), failed = await asked(workspace="nowhere")
    assert (unknown["workspace"], unknown["cause"], unknown["chars"]) == ("nowhere", "backend.workspace", 0)
    assert failed == ("failed", {"cause": "backend.workspace"})


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (stream(token("前半"), Act.CLOSE, end=False), "backend.cut"),
        (stream(token("前半"), Act.HANG, end=False), "backend.slow"),
        (stream(token("前半"), abort("500 gone")), "backend.model_down"),
        (stream(token("前半")), "backend.cut"),
    ],
    ids=["cut", "silent", "aborted", "ended"],
)
async def test_an_answer_that_broke_off_says_why(script: Script, cause: str) -> None:
    """It counts as an answer, and the trail says that it is not whole and what ended it."""
    ((name, facts),) = await asked(script, limits=Limits(attempts=2, idle_s=0.3, total_s=20))
    assert name == "backend.attempt"
    assert (facts["ok"], facts["partial"], facts["chars"], facts["cause"]) == (True, True, 2, cause)
    assert facts["why"]


async def test_a_slow_model_is_noted_as_slow() -> None:
    """A first token that does not come is the model's slowness, and the last of its attempts is the error's cause."""
    limits = Limits(attempts=2, first_token_s=0.2, total_s=20, wait_initial_s=0.01)
    steps = await asked([Act.HANG], [Act.HANG], limits=limits)
    assert [facts.get("cause") for _, facts in steps] == ["backend.slow", None, "backend.slow", "backend.slow"]


async def test_tries_at_once_do_not_mix() -> None:
    """Each message's steps are its own, however many are asked side by side."""
    scripts = [answer(403, '{"error":"No valid api key found."}')]
    async with Peer(*scripts) as peer, client(peer.url) as backend:

        async def one() -> Trail:
            with trail.follow(Trail()) as followed:
                with pytest.raises(BackendError):
                    await backend.ask("问", workspace="finance", session="s")
                return followed

        trails = await asyncio.gather(*(one() for _ in range(20)))
    assert [[step.facts["cause"] for step in followed.take()] for followed in trails] == [["backend.key"]] * 20


# -- the chat


async def sent(chat: Chat, message: Message, **how: Any) -> list[tuple[str, dict[str, Any]]]:
    with trail.follow(Trail()) as followed:
        await chat.send(message, "机密的答案", **how)
    return shown(followed, "机密的答案", *chat.gateway.sessions, chat.gateway.client_secret)


async def test_a_plain_reply_is_one_step(chat: Chat) -> None:
    """The part, the way it took and that it arrived; nothing else."""
    assert await sent(chat, await chat.hear()) == [("send.tried", {"part": 1, "rung": "webhook", "ok": True})]


async def test_an_expired_webhook_is_told_with_its_moment(chat: Chat) -> None:
    """Both webhooks expired by the clock: why each was passed over, then the token and the OpenAPI."""
    old = await chat.hear(webhook_ttl_s=-50, remember=True)
    message = await chat.hear(webhook_ttl_s=-100)
    moments = [one.webhook_expires.isoformat(timespec="seconds") for one in (message, old) if one.webhook_expires]
    assert await sent(chat, message) == [
        ("send.skipped", {"rung": "webhook", "why": f"expired at {moments[0]}", "cause": "webhook.expired"}),
        ("send.skipped", {"rung": "newest_webhook", "why": f"expired at {moments[1]}", "cause": "webhook.expired"}),
        ("token.fetched", {"ok": True}),
        ("send.tried", {"part": 1, "rung": "openapi", "ok": True}),
    ]


async def test_an_expired_webhook_that_dingtalk_tells_of(chat: Chat) -> None:
    """Errcode 300001 is noted as the try it was, and so is the refusal that ends the ladder."""
    message = await chat.hear()
    chat.gateway.webhook_fault, chat.gateway.openapi_fault = 300001, UNPERMITTED
    first, skipped, token_fetched, last = await sent(chat, message)
    assert (first[1]["rung"], first[1]["ok"], first[1]["cause"]) == ("webhook", False, "webhook.expired")
    assert skipped == ("send.skipped", {"rung": "newest_webhook", "why": "none", "cause": "webhook.none"})
    assert token_fetched[0] == "token.fetched"
    assert (last[1]["rung"], last[1]["cause"]) == ("openapi", "chat.permission")
    assert "qyapi_robot_sendmsg" in last[1]["why"]


async def test_a_refused_origin_leaves_no_webhook(chat: Chat) -> None:
    """A foreign webhook was left out at receipt: here there is none, and its address is nowhere."""
    message = await chat.hear(sessionWebhook="https://oapi.dingtalk.com.evil.example/robot/sendBySession?session=1")
    steps = await sent(chat, message)
    assert steps[0] == ("send.skipped", {"rung": "webhook", "why": "none"})
    assert steps[1] == ("send.skipped", {"rung": "newest_webhook", "why": "none", "cause": "webhook.none"})
    assert "evil" not in repr(steps)


async def test_an_uncertain_send_and_its_repetition(chat: Chat) -> None:
    """Unknown whether it arrived, then sent again with the mark: both are told."""
    message = await chat.hear()
    await chat.hear(remember=True)
    chat.gateway.webhook_faults.append("lost_response")
    first, second = await sent(chat, message)
    assert (first[1]["certain"], first[1]["cause"]) == (False, "network.cut")
    assert second == ("send.tried", {"part": 1, "rung": "newest_webhook", "marked": True, "ok": True})


async def test_a_store_that_cannot_say_the_newest_webhook(chat: Chat) -> None:
    """The rung is skipped with the store's words."""
    message = await chat.hear(sessionWebhook=MISSING)
    chat.newest_fails = StoreUnavailable("no space", cause="store.full")
    steps = await sent(chat, message)
    assert steps[1] == ("send.skipped", {"rung": "newest_webhook", "why": "no space", "cause": "store.full"})


async def test_holding_back_is_noted(gateway: Gateway) -> None:
    """A part that has to wait for its turn says how long; nothing was tried."""
    async with chatting(gateway, pace=Pace(Clock(), per_minute=1)) as chat:
        message = await chat.hear()
        assert await chat.send(message) is True
        with trail.follow(Trail()) as followed:
            error = await chat.send(message)
    assert type(error) is ReplyPaced
    assert error.cause == "chat.paced"
    assert shown(followed) == [("send.paced", {"part": 1, "wait_s": 60.0})]


async def test_the_notice_is_noted(chat: Chat) -> None:
    """The waiting notice, sent or not, with its way."""
    message = await chat.hear()
    with trail.follow(Trail()) as followed:
        await chat.replies.notice(message)
        chat.gateway.webhook_fault = 430104
        await chat.replies.notice(message)
    steps = shown(followed, *chat.gateway.sessions)
    assert steps[0] == ("notice.sent", {"rung": "webhook", "ok": True})
    assert (steps[1][0], steps[1][1]["ok"], steps[1][1]["cause"]) == ("notice.sent", False, "chat.unsafe")


async def test_a_refused_token_is_noted_where_it_was_fetched(chat: Chat) -> None:
    """Wrong credentials: the fetch failed with its cause, and so did the send that needed it."""
    message = await chat.hear(sessionWebhook=MISSING)
    chat.openapi._client_id = "somebody else"
    steps = await sent(chat, message)
    fetched, tried = steps[-2:]
    assert (fetched[0], fetched[1]["ok"], fetched[1]["cause"]) == ("token.fetched", False, "token.refused")
    assert (tried[0], tried[1]["rung"], tried[1]["cause"]) == ("send.tried", "openapi", "token.refused")


# -- routes and handlers


class Documents:
    """Stands for AnythingLLM: says what it was given."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)

    async def ask(self, question: str, *, workspace: str, session: str, **_: Any) -> Answer:
        return self._answers.pop(0)


class Silent:
    """A chat in which nobody waits."""

    async def update(self, text: str) -> None:
        """Nothing to replace."""


QUESTION = Message(
    "m",
    "ding",
    Conversation("cid", ConversationKind.SINGLE),
    Person("u"),
    MessageKind.TEXT,
    "机密的问题",
    datetime(2026, 11, 22, tzinfo=UTC),
)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Callable[[Handler], Route]:
    """A route to a handler of one's own."""

    def routed(handler: Handler) -> Route:
        module = types.ModuleType("own_handlers")
        module.handle = handler  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "own_handlers", module)
        return Route("own", handler="own_handlers:handle")

    return routed


async def answered(*routes: Route, documents: tuple[Answer, ...] = (), handler_s: float = 10) -> Any:
    """The steps, and what came of it."""
    with trail.follow(Trail()) as followed:
        answerer = Answerer(routes, Documents(*documents), handler_s=handler_s)
        try:
            outcome: Any = (await answerer.answer(Ask(QUESTION, "s", Texts("zh-CN")), Silent())).outcome
        except HandlerError as error:
            outcome = error.cause
    return shown(followed, "机密的问题"), outcome


async def test_the_way_through_the_routes() -> None:
    """Which route matched, of how many, what it leads to, and which of them did not know."""
    routes = (
        Route("finance", workspace="fin"),
        Route("all", workspace="handbook"),
        Route("it", "it", users=frozenset("x")),
    )
    steps, outcome = await answered(*routes, documents=(Answer(refused=True), Answer("好")))
    assert outcome == "answered"
    assert steps == [
        ("route.matched", {"route": "finance", "of": 2, "workspace": "fin"}),
        ("route.refused", {"route": "finance", "cause": "answer.refused"}),
        ("route.matched", {"route": "all", "of": 2, "workspace": "handbook"}),
    ]


async def test_no_route_is_a_cause() -> None:
    """Nobody has opened anything to the asker."""
    assert await answered(Route("it", "it", users=frozenset({"x"}))) == (
        [("route.none", {"cause": "route.none"})],
        "unrouted",
    )


async def test_a_handler_is_timed(own: Callable[[Handler], Route]) -> None:
    """A handler of one's own is a step with its time."""

    async def handle(message: Message, reply: Any) -> str:
        return "好"

    steps, outcome = await answered(own(handle))
    assert outcome == "answered"
    assert steps == [
        ("route.matched", {"route": "own", "of": 1, "handler": "own_handlers:handle"}),
        ("handler.ran", {"handler": "own_handlers:handle", "ok": True}),
    ]


async def _raises(message: Message, reply: Any) -> str:
    raise LookupError(message.text)


async def _sleeps(message: Message, reply: Any) -> str:
    await asyncio.sleep(30)
    return "late"


async def _returns_a_number(message: Message, reply: Any) -> Any:
    return 42


async def _raises_ours(message: Message, reply: Any) -> str:
    raise HandlerError("the roster is empty")


async def _lets_a_cancelled_task_out(message: Message, reply: Any) -> str:
    task = asyncio.create_task(asyncio.sleep(9))
    task.cancel()
    await task
    return "never"


@pytest.mark.parametrize(
    ("handler", "cause", "words"),
    [
        (_raises, "handler.raised", "raised LookupError"),
        (_sleeps, "handler.slow", "took longer than 0.1 s"),
        (_returns_a_number, "handler.bad_result", "returned neither"),
        (_raises_ours, "handler.raised", "the roster is empty"),
        (_lets_a_cancelled_task_out, "handler.raised", "cancelled task"),
    ],
)
async def test_a_handler_that_fails_is_told_with_its_cause(
    own: Callable[[Handler], Route], handler: Handler, cause: str, words: str
) -> None:
    """Whatever a stranger's code does: the step names the handler, what it did and the cause, and so does the error."""
    steps, outcome = await answered(own(handler), handler_s=0.1)
    assert outcome == cause
    name, facts = steps[-1]
    assert name == "handler.ran"
    assert (facts["handler"], facts["ok"], facts["cause"]) == ("own_handlers:handle", False, cause)
    assert words in facts["why"]


# -- as it is stored


def test_half_a_surrogate_pair_in_a_step_can_be_stored() -> None:
    """An error's text may quote half an emoji, which no database takes; the other facts stay as they were."""
    steps = (Step(1.0, "gave_up", {"why": "half \ud83d", "cause": "保留"}), Step(2.0, "later", {"part": 1}))
    kept = decode_steps(encode_steps(steps).encode("utf-8").decode("utf-8"))
    assert kept == [Step(1.0, "gave_up", {"why": "half ?", "cause": "保留"}), steps[1]]
