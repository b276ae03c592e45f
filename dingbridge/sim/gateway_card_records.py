"""Cards as the stand-in gateway keeps them: templates, what each person sees, every change. Times are monotonic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from dingbridge.sim.gateway_records import Ack, Sent

PROCESSING: Final = "processing"
STREAMING: Final = "streaming"
FINISHED: Final = "finished"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class Template:
    """`variables` None: any key is one. Those in `markdown` take whole texts only (`isFull`)."""

    variables: frozenset[str] | None = None
    markdown: frozenset[str] = frozenset({"content"})
    published: bool = True

    def has(self, key: str) -> bool:
        return self.variables is None or key in self.variables


# What `flowStatus` says in templates that have it: PROCESSING, INPUTING, FINISHED, EXECUTING, FAILED.
FLOW: Final = {"1": PROCESSING, "2": STREAMING, "3": FINISHED, "4": PROCESSING, "5": FAILED}

_AI: Final = frozenset({"msgTitle", "msgContent", "staticMsgContent", "logo", "flowStatus", "config"}) | {
    "sys_full_json_obj",
    "msgTextList",
    "msgImages",
    "msgSlider",
    "msgButtons",
}
# The templates that DingTalk's SDKs and connectors name.
PUBLIC: Final[dict[str, Template]] = {
    "382e4302-551d-4880-bf29-a30acfab2e71.schema": Template(_AI, frozenset({"msgContent"})),
    "02fcf2f4-5e02-4a85-b672-46d1f715543e.schema": Template(_AI, frozenset({"msgContent"})),
    "589420e2-c1e2-46ef-a5ed-b8728e654da9.schema": Template(frozenset({"markdown", "title", "logo"}), frozenset()),
    "1366a1eb-bc54-4859-ac88-517c56a9acb1.schema": Template(
        frozenset({"markdown", "tips", "title", "logo", "sys_full_json_obj"}), frozenset()
    ),
    "8aebdfb9-28f4-4a98-98f5-396c3dde41a0.schema": Template(frozenset({"content"})),
}


@dataclass(frozen=True, slots=True)
class Space:
    """One place a card was to appear in: `type` is IM_ROBOT or IM_GROUP; `error` says why it does not."""

    type: str
    id: str
    conversation: str
    carrier_id: str = ""
    error: str = ""

    @property
    def delivered(self) -> bool:
        return not self.error


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that happened to a card.

    `kind`: create, deliver, stream, repeat (a guid seen before: no effect), update, press (an ack's data), refused
    (with the `code`). `text` is the content of a frame as it was sent; `data` and `private` what an update brought.
    """

    at: float
    number: int
    kind: str
    key: str = ""
    text: str = ""
    full: bool = False
    final: bool = False
    error: bool = False
    guid: str = ""
    data: dict[str, str] = field(default_factory=dict)
    private: dict[str, dict[str, str]] = field(default_factory=dict)
    user: str = ""
    code: str = ""


@dataclass(slots=True, eq=False)
class Press:
    """One press of a button; `ok` only when a sound ack came within the limit, `error` says what was wrong else.

    `response` is what the ack asked for, without its "response" shell; None when it could not be read.
    """

    at: float
    number: int
    out_track_id: str
    user: str
    action_ids: tuple[str, ...]
    params: dict[str, Any]
    sent: Sent | None = None
    ok: bool = False
    error: str = ""
    response: dict[str, Any] | None = None

    @property
    def ack(self) -> Ack | None:
        """The first ack, also one that came too late."""
        return next(iter(self.sent.acks), None) if self.sent is not None else None

    @property
    def latency_s(self) -> float | None:
        return self.ack.latency_s if self.ack is not None else None


@dataclass(slots=True, eq=False)
class Card:
    """`data` is what everybody sees, `private` and `personal` (from acks to a press) what one person sees instead.

    `state` is processing, streaming, finished or failed; `finalized` once a last frame came.
    """

    out_track_id: str
    template_id: str
    at: float
    number: int
    callback_type: str
    data: dict[str, str]
    private: dict[str, dict[str, str]] = field(default_factory=dict)
    personal: dict[str, dict[str, str]] = field(default_factory=dict)
    state: str = PROCESSING
    finalized: bool = False
    spaces: list[Space] = field(default_factory=list)
    support_forward: bool = True
    last_message: str = ""
    alert: str = ""
    recipients: tuple[str, ...] = ()
    at_users: dict[str, str] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    presses: list[Press] = field(default_factory=list)
    guids: set[str] = field(default_factory=set, repr=False)

    @property
    def ended(self) -> bool:
        return self.state in {FINISHED, FAILED}

    @property
    def conversation(self) -> str:
        """Where it is shown first; empty while it is nowhere."""
        return next((space.conversation for space in self.spaces if space.delivered), "")

    @property
    def frames(self) -> list[Change]:
        """What streamed in."""
        return [change for change in self.history if change.kind == "stream"]

    def is_in(self, conversation: str | None) -> bool:
        shown = [space.conversation for space in self.spaces if space.delivered]
        return conversation in shown if conversation is not None else bool(shown)

    def view(self, user: str = "") -> dict[str, str]:
        """The variables as this person sees them."""
        return self.data | self.personal.get(user, {}) | self.private.get(user, {})

    def merge(self, data: dict[str, str], *, by_key: bool) -> None:
        """For everybody: it takes the place of what a press showed to one."""
        self.data = self.data | data if by_key else dict(data)
        for shown in self.personal.values():
            for key in list(shown):
                if not by_key or key in data:
                    del shown[key]

    def merge_private(self, user: str, data: dict[str, str], *, by_key: bool) -> None:
        self.private[user] = self.private.get(user, {}) | data if by_key else dict(data)
