"""An answer put together from the lines of the best section, in whole sentences, table rows and steps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dingbridge.sim.retrieval import Query, Section, marks
from dingbridge.sim.wording import tokens

_WHOLE_UP_TO = 140
_MOST_LINES = 5
_MOST_ROWS = 8
_STEP = re.compile(r"\d+\. ")
_ITEM = re.compile(r"- |\d+\. ")


@dataclass(frozen=True, slots=True)
class Unit:
    """What is quoted as one: a sentence line, a list item, a whole list of steps, or a row of `table`."""

    text: str
    table: tuple[str, ...] = ()

    def readable(self) -> str:
        if not self.table:
            return self.text
        (first, *rest), (_, *names) = _cells(self.text), _cells(self.table[0])
        return f"- {first}：" + "；".join(f"{name} {cell}" for name, cell in zip(names, rest, strict=False))


def answer(section: Section, query: Query) -> str:
    """The answer with its document named; a table is quoted whole where no row of it stands out."""
    title, heading = section.document.heading, section.heading
    asked = heading.endswith(("？", "?")) or heading == "说明"
    opening = f"根据《{title}》：" if asked else f"根据《{title}》中“{heading}”的规定："
    return f"{opening}\n\n{_body(section, query)}"


def thorough(sections: Sequence[Section]) -> str:
    """The sections whole, each under the name of its document."""
    quoted = (f"### 《{one.document.heading}》：{one.heading}\n\n" + "\n".join(one.lines).strip() for one in sections)
    return "\n\n".join([f"查阅了 {len(sections)} 处规定，原文如下：", *quoted])


def _body(section: Section, query: Query) -> str:
    units = list(_units(section.lines)) or [Unit("\n".join(section.lines))]
    if len("".join(section.lines)) <= _WHOLE_UP_TO and not any(_ITEM.match(unit.text) for unit in units):
        return _quote(units)
    known = frozenset(tokens(f"{section.document.heading}\n{section.heading}"))
    for runs in (query.runs, *query.earlier):
        weights = _weights(units, list(_beyond(runs, known)))
        if best := max(weights, default=0.0):
            chosen = [unit for unit, weight in zip(units, weights, strict=True) if weight >= 0.6 * best]
            return _quote(chosen)
    return _quote(_lead(units))


def _beyond(runs: Sequence[str], known: frozenset[str]) -> Iterator[str]:
    """What was asked beyond the heading: pairs of characters that the heading covers neither of, numbers."""
    for run in runs:
        if run.isascii():
            yield from () if run in known else (run,)
        else:
            row = marks(run, known)
            yield from (run[at : at + 2] for at in range(len(run) - 1) if row[at : at + 2] == "--")


def _weights(units: Sequence[Unit], terms: Sequence[str]) -> list[float]:
    """How much of what was asked stands in each unit; a term that stands in many of them tells little."""
    held = [set(tokens("\n".join((unit.text, *unit.table[:1])))) for unit in units]
    worth = {term: 1 / count for term in set(terms) if (count := sum(term in known for known in held))}
    return [sum(worth[term] for term in worth if term in known) for known in held]


def _lead(units: Sequence[Unit]) -> list[Unit]:
    """The beginning of a section: its table, or its first lines."""
    if units[0].table:
        return [unit for unit in units if unit.table == units[0].table]
    return list(units[:_MOST_LINES])


def _quote(units: Sequence[Unit]) -> str:
    """The units in Markdown: more than two rows of a table as a table, fewer as a list."""
    rows = [unit for unit in units if unit.table == units[0].table] if units[0].table else []
    if len(rows) > 2:
        lines = ["\n".join((*rows[0].table, *(row.text for row in rows[:_MOST_ROWS])))]
        rest = [unit for unit in units if unit not in rows]
    else:
        lines, rest = [], list(units)
    text = ""
    for line in [*lines, *(unit.readable() for unit in rest)][:_MOST_LINES]:
        together = _ITEM.match(line) and _ITEM.match(text.rpartition("\n")[2])
        text += ("\n" if together else "\n\n") + line
    return text.strip()


def _units(lines: Sequence[str]) -> Iterator[Unit]:
    table: tuple[str, ...] = ()
    together: list[str] = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            if len(table) < 2:
                table = (*table, line)
            else:
                yield Unit(line, table)
            continue
        table = ()
        if together and not _continues(together, line):
            yield Unit("\n".join(together).strip())
            together = []
        if line or together:
            together.append(line)
    if together:
        yield Unit("\n".join(together).strip())


def _continues(together: Sequence[str], line: str) -> bool:
    """A line ending in a colon takes the list below it along; steps stay together in any case."""
    if together[0].endswith("："):
        pattern = _STEP if any(_STEP.match(above) for above in together) else _ITEM
        return not line or bool(pattern.match(line)) or together[-1].endswith("：")
    return bool(_STEP.match(together[0])) and bool(_STEP.match(line))


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]
