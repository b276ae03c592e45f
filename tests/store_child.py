"""A process to be killed: `python -m tests.store_child PLACE STEP...` opens a store and does what it is told.

PLACE is an SQLite file, or of PostgreSQL URL, schema and the path of lock and socket.

Steps: `put:KEY` `lease` `answered` `sending:PART` `later:SENT` `done` on what was leased last;
`flood` puts messages for ever and prints each key once it is kept; `hold` prints a line and waits for the end of
stdin; `kill` ends with SIGKILL, `exit` with os._exit. `space` is told a full disk by the files of its folder.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from pathlib import Path

from dingbridge.errors import StoreUnavailable
from dingbridge.model import Answer, Delivery, Outcome, Secret
from dingbridge.store.postgres import PostgresStore
from dingbridge.store.postgres_engine import address
from dingbridge.store.sqlite import SQLiteStore
from dingbridge.store.store import Store
from tests.stores import UNLIMITED, Clock, message


async def main(store: Store, path: Path, steps: list[str]) -> None:
    await store.open()
    held: list[Delivery] = []
    for step in steps:
        verb, _, argument = step.partition(":")
        match verb:
            case "put":
                await store.put(message(argument))
            case "lease":
                held = (await store.lease(9)).deliveries
            case "flood":
                await flood(store)
            case "space":
                await space(store, path.parent)
            case "hold":
                tell("ready")
                await asyncio.to_thread(sys.stdin.read)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(0)
            case _:
                for delivery in held:
                    await work(store, delivery, verb, int(argument or 0))
    await store.close()


async def work(store: Store, delivery: Delivery, verb: str, number: int) -> None:
    match verb:
        case "answered":
            await store.answered(delivery, Answer(f"答 {delivery.message.id}"), Outcome.ANSWERED)
        case "sending":
            await store.sending(delivery, number)
        case "later":
            await store.later(delivery, 5.0, sent=number)
        case "done":
            await store.done(delivery, Outcome.ANSWERED)
        case _:
            raise ValueError(verb)


async def flood(store: Store) -> None:
    keys = itertools.count()

    async def put_on() -> None:
        while True:
            key = f"m{next(keys)}"
            await store.put(message(key, person=f"u{key}"))
            tell(key)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(put_on())


async def space(store: Store, folder: Path) -> None:
    """Fill the disk, try to keep a message and to probe, read, make room, try again: what each came to."""
    await store.put(message("before"))
    filling = folder / "filling"
    try:
        with filling.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
    except OSError:
        pass
    for label, attempt in (("put", store.put(message("during"))), ("probe", store.probe())):
        try:
            await attempt
            tell(f"{label} worked")
        except StoreUnavailable as error:
            tell(f"{label}: {error.detail}")
    await store.depth()
    tell(f"trouble: {store.trouble}")
    filling.unlink()
    await store.probe()
    tell(f"trouble: {store.trouble}")
    await store.put(message("after", person="u2"))
    tell(" ".join(one.message.id for one in (await store.lease(9)).deliveries))


def which(arguments: list[str]) -> tuple[Store, Path, list[str]]:
    if not arguments[0].startswith("postgresql:"):
        path, *steps = arguments
        return SQLiteStore(Path(path), clock=Clock(), limits=UNLIMITED), Path(path), steps
    url, schema, path, *steps = arguments
    where = address(Secret(url), Secret(), schema)
    return PostgresStore(where, Path(path), clock=Clock(), limits=UNLIMITED), Path(path), steps


def tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*which(sys.argv[1:])))
