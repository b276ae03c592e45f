"""Finding the passage of a handbook that answers a Chinese question: SQLite FTS5 and a share of covered terms.

What an embedder and a vector store do in the real server is stood in for by three plain things: words that
mean the same are written the same, `bm25()` ranks sections over character pairs, and a question whose terms
are not covered by any section is refused (a bm25 value alone cannot tell: it depends on the corpus).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dingbridge.sim.wording import content, tokens

REFUSED_BELOW = 0.65
"""A question is refused when a smaller share of its content characters stands in the best section."""

_EARLIER_WEIGHT = 0.4
_TITLE_WEIGHT, _HEADING_WEIGHT, _BODY_WEIGHT = 1.5, 2.5, 1.0
_CANDIDATES = 12
_LONE = 0.25

_HEADING = re.compile(r"「[^」]+」|\[[^\]]+\]")
_ASKS_ON = re.compile(r"^(那么?|还有|另外|如果|要是|换成|再问|为什么|具体|详细)|呢$")


@dataclass(frozen=True, slots=True)
class Document:
    """One handbook file. `title` as an upload shows it: with its extension; `link` may be empty."""

    name: str
    title: str
    department: str
    link: str
    text: str

    @property
    def heading(self) -> str:
        return self.title.removesuffix(".md")


@dataclass(frozen=True)
class Section:
    """A piece under one heading: what the real server calls a chunk. `lines` are without the heading."""

    document: Document
    heading: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join((f"# {self.document.heading}", f"## {self.heading}", "", *self.lines))

    @cached_property
    def tokens(self) -> frozenset[str]:
        return frozenset(tokens(f"{self.document.heading} {self.heading}\n" + "\n".join(self.lines)))

    @cached_property
    def about(self) -> tuple[str, ...]:
        """What the heading is about: a section about more than was asked is worth less."""
        return content(self.heading)


@dataclass(frozen=True, slots=True)
class Hit:
    """A section found. `rank` grows with relevance, `coverage` is the covered share of the question, 0..1."""

    section: Section
    rank: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Query:
    """A question cut to its content: runs of characters, the earlier questions it leans on, newest first."""

    runs: tuple[str, ...]
    earlier: tuple[tuple[str, ...], ...] = ()
    incomplete: bool = False

    @property
    def terms(self) -> tuple[str, ...]:
        return tuple(_terms(self.runs))


def read_documents(folder: Path) -> list[Document]:
    """Every `*.md` of a folder by name: `# title`, then an optional `> 归口部门：… ｜ 链接：…` line."""
    return [_read(path) for path in sorted(folder.glob("*.md"))]


def _read(path: Path) -> Document:
    text = path.read_text(encoding="utf-8")
    title = next((line[2:].strip() for line in text.splitlines() if line.startswith("# ")), path.stem)
    front = next((line[1:] for line in text.splitlines() if line.startswith(">")), "")
    facts = dict(part.strip().split("：", 1) for part in front.split("｜") if "：" in part)
    return Document(path.name, f"{title}.md", facts.get("归口部门", ""), facts.get("链接", ""), text)


def sections(document: Document) -> Iterator[Section]:
    """The document cut at its second and third level headings; empty ones are left out."""
    heading, lines = "说明", list[str]()
    for line in [*document.text.splitlines(), "## "]:
        if line.startswith(("# ", "> ")):
            continue
        if line.startswith(("## ", "### ")):
            body = tuple("\n".join(lines).strip().splitlines())
            if body:
                yield Section(document, heading, body)
            heading, lines = line.lstrip("# "), []
        else:
            lines.append(line)


def _terms(runs: Sequence[str]) -> Iterator[str]:
    for run in runs:
        if run.isascii() or len(run) == 1:
            yield run
        else:
            yield from (run[at : at + 2] for at in range(len(run) - 1))


def understand(message: str, earlier: Sequence[str] = ()) -> Query:
    """A message in its conversation; `earlier` are the questions before it, newest first.

    A short question, or one that begins like 那 or ends in 呢, leans on them. A client may put its own context in
    front: what is above the last line that is a heading like 「现在的问题」, or above a last line that leans.
    """
    above, question = _fronted(message)
    if above:
        earlier = ["\n".join(above), *earlier]
    runs = content(question)
    if not leans(question):
        return Query(runs)
    before = tuple(found for text in earlier if (found := content(text)))
    return Query(runs, before, incomplete=not before and _is_fragment(question))


def _fronted(message: str) -> tuple[list[str], str]:
    lines = [line for line in message.strip().splitlines() if line.strip()]
    headed = [at for at, line in enumerate(lines) if _HEADING.fullmatch(line.strip())]
    if headed and (question := "\n".join(lines[headed[-1] + 1 :])):
        return [line for at, line in enumerate(lines[: headed[-1]]) if at not in headed], question
    if len(lines) > 1 and content(lines[-1]) and leans(lines[-1]):
        return lines[:-1], lines[-1]
    return [], message


def leans(question: str) -> bool:
    """Whether a question is short, or asks on like 那国外呢, and needs the ones before it."""
    return bool(_ASKS_ON.search(_bare(question))) or 0 < sum(map(len, content(question))) <= 3


def _is_fragment(question: str) -> bool:
    return _bare(question).endswith("呢") and sum(map(len, content(question))) <= 4


def _bare(question: str) -> str:
    return question.strip().rstrip("？?！!。.~ ")


class Index:
    """The sections of a folder of documents, searchable; a folder of None or without files finds nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.documents = read_documents(folder) if folder is not None else []
        self.sections = [section for document in self.documents for section in sections(document)]
        self._base = sqlite3.connect(":memory:", check_same_thread=False)
        self._base.execute("CREATE VIRTUAL TABLE section USING fts5 (title, heading, body)")
        self._base.executemany(
            "INSERT INTO section (rowid, title, heading, body) VALUES (?, ?, ?, ?)",
            (
                (number, *(" ".join(tokens(part)) for part in (found.document.heading, found.heading, body)))
                for number, found in enumerate(self.sections)
                for body in ("\n".join(found.lines),)
            ),
        )

    def close(self) -> None:
        self._base.close()

    def search(self, query: Query, limit: int = 4) -> list[Hit]:
        """Up to `limit` sections, best first, or none where the question is not covered."""
        if query.incomplete:
            return []
        parts = [(query.terms, 1.0)]
        parts += [(tuple(_terms(runs)), _EARLIER_WEIGHT**age) for age, runs in enumerate(query.earlier, start=1)]
        ranks: dict[int, float] = {}
        for terms, weight in parts:
            for number, rank in self._ranked(terms):
                ranks[number] = ranks.get(number, 0.0) + weight * rank
        judged = query.runs or (query.earlier[0] if query.earlier else ())
        asked = frozenset(term for terms, _ in parts for term in terms)
        found = [self._hit(number, rank, judged, asked) for number, rank in ranks.items()]
        found = sorted(found, key=lambda hit: hit.rank, reverse=True)[:_CANDIDATES]
        if not found or found[0].coverage < REFUSED_BELOW:
            return []
        return [hit for hit in found[:limit] if hit.rank >= 0.4 * found[0].rank]

    def _hit(self, number: int, rank: float, runs: Sequence[str], asked: frozenset[str]) -> Hit:
        section = self.sections[number]
        covered = coverage(runs, section.tokens)
        return Hit(section, rank * covered**2 * (0.5 + coverage(section.about, asked)), covered)

    def _ranked(self, terms: Sequence[str]) -> list[tuple[int, float]]:
        if not terms:
            return []
        match = " OR ".join(f'"{term}"' for term in dict.fromkeys(terms))
        return self._base.execute(
            "SELECT rowid, -bm25(section, ?, ?, ?) FROM section WHERE section MATCH ?",
            (_TITLE_WEIGHT, _HEADING_WEIGHT, _BODY_WEIGHT, match),
        ).fetchall()


def coverage(runs: Sequence[str], known: frozenset[str]) -> float:
    """The share of the runs' characters that stand in `known` as part of a pair.

    A word in Latin letters counts as two characters. Numbers and lone characters decide nothing beside words.
    """
    words = [run for run in runs if len(run) > 1 and not run.isdecimal()] or runs
    covered = missing = 0.0
    for run in words:
        if run.isascii() or len(run) == 1:
            covered += 2 * (run in known)
            missing += 2 * (run not in known)
        else:
            row = marks(run, known)
            covered += row.count("+")
            missing += sum(_LONE if len(gap) == 1 else len(gap) for gap in row.split("+"))
    return covered / (covered + missing) if words else 0.0


def marks(run: str, known: frozenset[str]) -> str:
    """One `+` or `-` a character: a single one left over between known words is mostly a verb or a particle."""
    pairs = [run[at : at + 2] in known for at in range(len(run) - 1)]
    return "".join("+" if a or b else "-" for a, b in zip([False, *pairs], [*pairs, False], strict=True))
