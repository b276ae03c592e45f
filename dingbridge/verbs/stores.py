"""`dingbridge store`: the tables themselves, of either database."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from dingbridge.building import postgres_address
from dingbridge.config import Located
from dingbridge.decode import Bad, is_postgres, sqlite_file
from dingbridge.errors import StoreUnavailable
from dingbridge.store import checking, migrating
from dingbridge.verbs.columns import table
from dingbridge.verbs.progress import Progress
from dingbridge.verbs.words import Words

if TYPE_CHECKING:
    from dingbridge.store.postgres_engine import Address


def _address(located: Located) -> Address:
    return postgres_address(located.store, located.client_id)


# -- migrate


def migrate(located: Located) -> dict[str, Any]:
    """Raises StoreError with the sentence for the operator; so do the others."""
    if located.store.is_postgres:
        where = _address(located)
        place, (before, after) = where.place, migrating.migrate_postgres(where)
    else:
        place, (before, after) = str(located.store.path), migrating.migrate_sqlite(located.store.path)
    return {"store": place, "from": before, "to": after}


def render_migrated(told: dict[str, Any], words: Words) -> str:
    return words("migrated_nothing" if told["from"] == told["to"] else "migrated", **_named(told))


def _named(told: dict[str, Any]) -> dict[str, Any]:
    return {"store": told["store"], "before": told["from"], "after": told["to"]}


# -- check


def check(located: Located, progress: Progress) -> dict[str, Any]:
    words = Words(located.locale)

    def tell(done: int, total: int) -> None:
        progress.tell(words("progress_check"), done, total)

    if located.store.is_postgres:
        where = _address(located)
        place, checked = where.place, checking.check_postgres(where, tell)
    else:
        place, checked = str(located.store.path), checking.check_sqlite(located.store.path, tell)
    findings = [
        {**asdict(one), "what": words(f"breach_{one.rule}"), "remedy": words(f"mend_{one.rule}")}
        for one in checked.findings
    ]
    return {"store": place, "ok": not findings, **asdict(checked), "findings": findings}


def render_checked(told: dict[str, Any], words: Words) -> str:
    states = [f"{words(f'state_{state}')} {count}" for state, count in told["states"].items()]
    lines = [words("checked", store=told["store"], version=told["version"]), *_counts(told["rows"])]
    lines += [f"  {'  '.join(states)}"] if states else []
    for one in told["findings"]:
        examples = ", ".join(one["examples"]) + (" …" if one["count"] > len(one["examples"]) else "")
        lines += ["", words("store_finding", what=one["what"], count=one["count"], examples=examples)]
        lines += [words("remedy", text=one["remedy"])]
    return "\n".join([*lines, *([] if told["findings"] else [words("store_whole")])])


def _counts(rows: dict[str, int]) -> list[str]:
    return table((f"  {name}", str(count)) for name, count in rows.items())


# -- copy


def copy(located: Located, source: str, progress: Progress) -> dict[str, Any]:
    path = _source(source)
    words = Words(located.locale)
    if not located.store.is_postgres:
        raise StoreUnavailable(
            f"{located.path}: [store] url names an SQLite file; a copy goes from SQLite to PostgreSQL only: "
            'write url = "postgresql://user@host:5432/database" there first',
            retryable=False,
        )
    from dingbridge.store import copying  # noqa: PLC0415 - 20 MiB that SQLite does not need

    where = _address(located)
    copied = copying.copy(
        path, where, located.client_id, lambda what, done, total: progress.tell(words(f"progress_{what}"), done, total)
    )
    return {
        "from": str(path),
        "store": where.place,
        "done": copied.done,
        "rows": copied.rows,
        "digest": copied.digest,
        "returned": copied.returned,
        "url": _without_password(located.store.url.reveal()),
    }


def render_copied(told: dict[str, Any], words: Words) -> str:
    what = "copied" if told["done"] else "copied_before"
    return "\n".join(
        [
            words(what, source=told["from"], store=told["store"]),
            *_counts(told["rows"]),
            words("copied_digest", digest=told["digest"]),
            *([words("copied_returned", count=told["returned"])] if told["returned"] else []),
            words("copied_next", url=told["url"]),
        ]
    )


def _source(written: str) -> Path:
    """A path, or as it may stand in `[store] url`."""
    if is_postgres(written):
        raise StoreUnavailable(
            "--from must name an SQLite file; a copy goes from SQLite to PostgreSQL only", retryable=False
        )
    try:
        return Path(sqlite_file(written))
    except Bad as error:
        raise StoreUnavailable(f"--from {error}", retryable=False) from None


def _without_password(url: str) -> str:
    split = urlsplit(url)
    user, _, host = split.netloc.rpartition("@")
    name = user.partition(":")[0]
    return urlunsplit(split._replace(netloc=f"{name}@{host}" if name else host, query=""))
