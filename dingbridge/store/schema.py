"""The tables, as numbered steps: a step is never edited once released, only followed by another."""

from __future__ import annotations

import sqlite3

from dingbridge.errors import StoreUnavailable
from dingbridge.model import trace_code

# message: one row per accepted message, kept 7 days after its end as the memory of what was seen.
# lane: one row per context that has unfinished messages. `head` is the only message that may be leased, `due` is
#   when; the lane moves on only when its head ends. Scanning for blocked rows instead costs 46 ms at 100 000 waiting.
# lane.owner: the daemon that holds its lease (token), or keeps a suspect for itself; until when.
# context: the generation that `/new` raises.
# webhook: the newest live session webhook of a conversation, for replies to older messages.
# context.last_at: when it was last spoken in; after a pause it begins anew.
# message.card: "open" or "left" while its card shows that something is to come, see `CardState`.
# person: who has been answered before. vote: what somebody thinks of an answer; the texts are copied, because a vote
#   outlives its message. person begins with "page:" for a vote from a page.
# handover: a question that went to a colleague; body as in message, by which the asker is told. sent: key of the
#   message to the colleague.
# page: where an answer can be read; hash: SHA-256 of the token in its address.
# spent: DingTalk's monthly pools, by day and kind; a correction by hand is a kind, too.
# message.code: the 编号 of failure texts, what an operator is asked about. message.trail: its steps as JSON lines.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE message (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        robot TEXT NOT NULL,
        key TEXT NOT NULL,
        lane TEXT NOT NULL,
        conversation TEXT NOT NULL,
        person TEXT NOT NULL,
        task TEXT NOT NULL,
        state TEXT NOT NULL,
        body TEXT NOT NULL,
        webhook TEXT NOT NULL,
        webhook_expires REAL,
        received_at REAL NOT NULL,
        deadline_at REAL,
        crashes INTEGER NOT NULL DEFAULT 0,
        tries INTEGER NOT NULL DEFAULT 0,
        answer TEXT,
        part INTEGER NOT NULL DEFAULT 0,
        uncertain INTEGER NOT NULL DEFAULT 0,
        answered_at REAL,
        outcome TEXT,
        reason TEXT,
        route TEXT,
        finished_at REAL,
        UNIQUE (robot, key)
    );
    CREATE INDEX message_open ON message (lane, id) WHERE finished_at IS NULL;
    CREATE INDEX message_person ON message (person, received_at);
    CREATE INDEX message_waiting ON message (person, conversation) WHERE finished_at IS NULL;
    CREATE INDEX message_depth ON message (state, received_at) WHERE finished_at IS NULL;
    CREATE INDEX message_dead ON message (id) WHERE state = 'dead';
    CREATE INDEX message_finished ON message (finished_at) WHERE finished_at IS NOT NULL;
    CREATE TABLE lane (
        key TEXT PRIMARY KEY,
        head INTEGER NOT NULL,
        due REAL NOT NULL,
        express INTEGER NOT NULL,
        token TEXT,
        suspect INTEGER NOT NULL DEFAULT 0,
        noticed INTEGER NOT NULL DEFAULT 0,
        troubled INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE INDEX lane_due ON lane (express, due, head) WHERE token IS NULL;
    CREATE INDEX lane_leased ON lane (head) WHERE token IS NOT NULL;
    CREATE INDEX lane_suspect ON lane (head) WHERE suspect = 1;
    CREATE TABLE context (
        robot TEXT NOT NULL,
        conversation TEXT NOT NULL,
        person TEXT NOT NULL,
        generation INTEGER NOT NULL,
        PRIMARY KEY (robot, conversation, person)
    ) WITHOUT ROWID;
    CREATE TABLE webhook (
        robot TEXT NOT NULL,
        conversation TEXT NOT NULL,
        url TEXT NOT NULL,
        expires REAL,
        PRIMARY KEY (robot, conversation)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE message ADD COLUMN code TEXT NOT NULL DEFAULT '';
    ALTER TABLE message ADD COLUMN trail TEXT NOT NULL DEFAULT '';
    ALTER TABLE message ADD COLUMN cause TEXT;
    UPDATE message SET code = trace_code(robot, key);
    CREATE INDEX message_code ON message (code);
    CREATE INDEX message_failed ON message (finished_at)
        WHERE outcome IN ('failed', 'dead', 'undeliverable', 'partial');
    """,
    """
    ALTER TABLE lane ADD COLUMN owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE lane ADD COLUMN leased_until REAL NOT NULL DEFAULT 0;
    DROP INDEX lane_suspect;
    CREATE INDEX lane_suspect ON lane (head) WHERE suspect;
    """,
    """
    ALTER TABLE message ADD COLUMN card TEXT NOT NULL DEFAULT '';
    ALTER TABLE context ADD COLUMN last_at REAL NOT NULL DEFAULT 0;
    CREATE INDEX message_turns ON message (lane, id) WHERE outcome IN ('answered', 'partial');
    CREATE INDEX message_cards ON message (id) WHERE card IN ('open', 'left');
    CREATE TABLE person (
        robot TEXT NOT NULL,
        person TEXT NOT NULL,
        met_at REAL NOT NULL,
        PRIMARY KEY (robot, person)
    ) WITHOUT ROWID;
    CREATE TABLE vote (
        robot TEXT NOT NULL,
        key TEXT NOT NULL,
        person TEXT NOT NULL,
        code TEXT NOT NULL,
        verdict TEXT NOT NULL,
        comment TEXT NOT NULL,
        voted_at REAL NOT NULL,
        route TEXT NOT NULL,
        question TEXT NOT NULL,
        answer TEXT NOT NULL,
        PRIMARY KEY (robot, key, person)
    ) WITHOUT ROWID;
    CREATE INDEX vote_time ON vote (voted_at);
    CREATE TABLE handover (
        robot TEXT NOT NULL,
        key TEXT NOT NULL,
        code TEXT NOT NULL,
        contact TEXT NOT NULL,
        opened_at REAL NOT NULL,
        closed_at REAL,
        reply TEXT NOT NULL,
        route TEXT NOT NULL,
        body TEXT NOT NULL,
        answer TEXT NOT NULL,
        sent TEXT NOT NULL,
        PRIMARY KEY (robot, key)
    ) WITHOUT ROWID;
    CREATE INDEX handover_code ON handover (code);
    CREATE TABLE page (
        hash TEXT PRIMARY KEY,
        message INTEGER NOT NULL,
        until REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX page_until ON page (until);
    CREATE TABLE spent (
        robot TEXT NOT NULL,
        month TEXT NOT NULL,
        day INTEGER NOT NULL,
        pool TEXT NOT NULL,
        kind TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (robot, month, day, pool, kind)
    ) WITHOUT ROWID;
    """,
)


def version_of(connection: sqlite3.Connection) -> int:
    """0 where there are no tables yet."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def require(connection: sqlite3.Connection) -> None:
    """For who only looks: tables of another version are left as they are."""
    version = version_of(connection)
    if version != len(MIGRATIONS):
        raise StoreUnavailable(
            f"the store is of another dingbridge (schema {version}, this one knows {len(MIGRATIONS)}): "
            "call `dingbridge store migrate`, or use the other one's command",
            retryable=False,
        )


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables to this version, each step in a transaction of its own."""
    connection.create_function("trace_code", 2, trace_code, deterministic=True)
    version = version_of(connection)
    if version > len(MIGRATIONS):
        raise StoreUnavailable(
            f"the store is of a newer dingbridge (schema {version}, this one knows {len(MIGRATIONS)}): "
            "install that version, or start with another [store] url",
            retryable=False,
            cause="store.newer",
        )
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {statements} PRAGMA user_version = {number}; COMMIT;")
