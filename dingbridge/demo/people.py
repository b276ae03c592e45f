"""Who is in the demo, and where they talk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from dingbridge.texts import CATALOGUES, NOTICE

BOT_NAME: Final = "小问答"
BARE: Final = "bare"
GROUP: Final = "group"
NOTICES: Final = frozenset(catalogue[NOTICE] for catalogue in CATALOGUES.values())
QUICK: Final = (
    "北京出差住宿标准是多少？",
    "那国外呢？",
    "年假有几天？",
    "忘记密码怎么办？",
    "董事长的生日是哪天？",
    "/help",
)


@dataclass(frozen=True, slots=True)
class Person:
    """`id` is the page's, `user` DingTalk's (senderStaffId)."""

    id: str
    nick: str
    role: str
    user: str


@dataclass(frozen=True, slots=True)
class Chat:
    """`bot` is "ours" or "bare"; `conversation` is DingTalk's id."""

    id: str
    title: str
    kind: Literal["single", "group"]
    people: tuple[str, ...]
    bot: str
    conversation: str
    bot_name: str

    def as_json(self) -> dict[str, Any]:
        keys = ("id", "title", "kind", "bot", "bot_name")
        return {key: getattr(self, key) for key in keys} | {"people": list(self.people)}


PEOPLE: Final = (
    Person("zhangsan", "张三", "销售，常出差", "zhangsan"),
    Person("lisi", "李四", "行政，转人工的问题由他来答", "lisi"),
    Person("wangwu", "王五", "新同事", "wangwu"),
)


@dataclass(frozen=True, slots=True)
class Cast:
    """The people and their chats."""

    people: tuple[Person, ...]
    chats: tuple[Chat, ...]

    def person(self, person_id: str) -> Person | None:
        return next((person for person in self.people if person.id == person_id), None)

    def chat(self, chat_id: str) -> Chat | None:
        return next((chat for chat in self.chats if chat.id == chat_id), None)

    def chat_in(self, conversation: str, bot: str) -> Chat | None:
        """The chat a post belongs to."""
        return next((chat for chat in self.chats if chat.conversation == conversation and chat.bot == bot), None)

    @property
    def names(self) -> Mapping[str, str]:
        """DingTalk's user id to the name shown."""
        return {person.user: person.nick for person in self.people}


def cast(
    users: Iterable[str] = (), conversations: Iterable[str] = (), *, bare: bool = True, bot: str = BOT_NAME
) -> Cast:
    """Everybody, in roles that meet a configuration's conditions.

    The first two users and the first group that its routes name are 张三, 李四 and the group here; 王五 stays
    somebody whom no route names. bot: the name of the robot they talk to.
    """
    people = list(PEOPLE)
    for index, user in enumerate(list(users)[:2]):
        people[index] = replace(people[index], user=user, role=f"配置里的用户 {user}")
    group = next(iter(conversations), "cid-group")
    chats = [
        Chat(one.id, f"{bot}（{one.nick}）", "single", (one.id,), "ours", f"cid-{one.user}", bot) for one in people
    ]
    chats.append(Chat(GROUP, "行政人事群", "group", tuple(one.id for one in people), "ours", group, bot))
    if bare:
        first = people[0]
        chats.append(Chat(BARE, "普通机器人", "single", (first.id,), "bare", f"cid-{first.user}", "普通机器人"))
    return Cast(tuple(people), tuple(chats))
