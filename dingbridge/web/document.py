"""The documents that the pages' listener answers with: an answer with its sources, and why there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from html import escape
from typing import Final

from dingbridge.emphasis import emphasis, key_words
from dingbridge.markup import clean, destination, host_of
from dingbridge.model import Answer, Source, Verdict
from dingbridge.store.pages import MAX_COMMENT, AnswerPage
from dingbridge.texts import Texts
from dingbridge.web.rendering import anchor, hosts_of, markdown, marked

CHINA: Final = timezone(timedelta(hours=8))
GAP: Final = "\n…\n"  # between the passages of one document
_LONG_QUESTION: Final = 60  # characters
_TITLE: Final = 60
_LONG_ANSWER: Final = 2_000

_UP = "M7 11v9H4v-9zm3 9h7.3a2 2 0 0 0 2-1.6l1.3-6A2 2 0 0 0 18.6 10H14V5.5A2.5 2.5 0 0 0 11.5 3L7 11"
_DOWN = "M7 13V4H4v9zm3-9h7.3a2 2 0 0 1 2 1.6l1.3 6a2 2 0 0 1-2 2.4H14v4.5a2.5 2.5 0 0 1-2.5 2.5L7 13"

AddressOf = Callable[[Source], str]


@dataclass(frozen=True, slots=True)
class Frame:
    """What every document is put into. css, js: where the files are."""

    css: str
    js: str

    def around(self, body: str, *, title: str, locale: str) -> str:
        return (
            f'<!DOCTYPE html>\n<html lang="{escape(locale)}">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n<meta name="robots" content="noindex, nofollow">\n'
            '<meta name="format-detection" content="telephone=no">\n'
            f'<title>{escape(title)}</title>\n<link rel="stylesheet" href="{escape(self.css)}">\n'
            f'<script src="{escape(self.js)}" defer></script>\n</head>\n<body>\n{body}</body>\n</html>\n'
        )


def content(page: AnswerPage, texts: Texts, *, address_of: AddressOf) -> str:
    """The answer and its sources: what takes time, and stays the same however often the page is opened."""
    answer, sources = page.told.answer, grouped(page.told.answer.sources)
    addresses = [_address(source, address_of) for source in sources]
    important = emphasis(page.told.question, [source.text for source in sources])
    said = markdown(answer.text if answer.text.strip() else texts("refused"), hosts_of(addresses), important, texts)
    notes = "".join(f'<p class="note">{escape(texts(key))}</p>\n' for key in _notes(answer))
    listed = "".join(
        _source(source, address, page.told.question, texts, number=number)
        for number, (source, address) in enumerate(zip(sources, addresses, strict=True), start=1)
    )
    heading = escape(texts("page_sources", count=len(sources)))
    return (
        f'<section aria-labelledby="answer"><h2 id="answer" class="unseen">{escape(texts("page_answer"))}</h2>\n'
        f'<div class="answer">\n{said}</div>\n{notes}</section>\n'
        + (
            f'<section aria-labelledby="sources"><h2 id="sources">{heading}</h2>\n{listed}</section>\n'
            if listed
            else ""
        )
    )


def whole(page: AnswerPage, inner: str, texts: Texts, *, frame: Frame, locale: str, vote_at: str) -> str:
    """The document around `content`. vote_at: where its form sends to."""
    question = _question(page) or texts("page_question")
    words = " ".join(question.split())
    title = words if len(words) <= _TITLE else words[: _TITLE - 1] + "…"
    long = ' class="long"' if len(question) > _LONG_QUESTION else ""
    body = (
        f'<header>\n<h1{long}><span class="unseen">{escape(texts("page_question"))}: </span>'
        f"<bdi>{escape(question)}</bdi></h1>\n{_facts(page, texts)}</header>\n"
        f"<main>\n{inner}{_feedback(page, texts, vote_at)}</main>\n"
        f"<footer>\n<p>{escape(texts('page_outdated'))}</p>\n"
        f"<p>{escape(texts('page_until', when=_china(page.until)))}</p>\n<p>{escape(texts('page_private'))}</p>\n"
        f'<button type="button" id="print" hidden>{escape(texts("page_print"))}</button>\n</footer>\n'
    )
    return frame.around(body, title=f"{title} · {texts('page_title')}", locale=locale)


def notice(key: str, texts: Texts, *, frame: Frame, locale: str) -> str:
    """Why there is no answer to see: "page_gone" or "page_later"."""
    title = texts(f"{key}_title")
    body = f'<main class="notice">\n<h1>{escape(title)}</h1>\n<p>{escape(texts(key))}</p>\n</main>\n'
    return frame.around(body, title=title, locale=locale)


def _question(page: AnswerPage) -> str:
    """What was written, or the names of the files that were sent instead."""
    names = " ".join(file.name for file in page.told.message.files)
    return clean(page.told.question).strip() or clean(names).strip()


def _facts(page: AnswerPage, texts: Texts) -> str:
    """When it was answered, from where, and the code to trace it by."""
    route = f"<span>{escape(texts('page_route', name=clean(page.told.route)))}</span>\n" if page.told.route else ""
    copy = f'<button type="button" id="copy" data-done="{escape(texts("page_copied"))}" hidden>'
    return (
        f'<p class="facts"><span>{escape(texts("page_answered", when=_china(page.told.at)))}</span>\n{route}'
        f'<span>{escape(texts("page_code"))} <code id="code">{escape(page.told.code)}</code>'
        f"{copy}{escape(texts('page_copy'))}</button></span>{_jumps(page, texts)}</p>\n"
    )


def _jumps(page: AnswerPage, texts: Texts) -> str:
    """Past an answer of many screens."""
    if len(page.told.answer.text) <= _LONG_ANSWER:
        return ""
    count = len(grouped(page.told.answer.sources))
    sources = f'\n<a href="#sources">{escape(texts("page_sources", count=count))}</a>' if count else ""
    return f'{sources}\n<a href="#feedback">{escape(texts("page_feedback"))}</a>'


def grouped(sources: Sequence[Source]) -> tuple[Source, ...]:
    """One source a document, in the order of the first passage of each."""
    passages: dict[tuple[str, str], dict[str, None]] = {}
    for source in sources:
        kept = passages.setdefault((source.title, source.url), {})
        kept.update(dict.fromkeys(passage for passage in source.text.split(GAP) if passage.strip()))
    return tuple(Source(title, GAP.join(kept), url) for (title, url), kept in passages.items())


def _notes(answer: Answer) -> list[str]:
    return ["partial"] * answer.partial + ["question_cut"] * answer.question_cut


def _address(source: Source, address_of: AddressOf) -> str:
    address = destination(address_of(source), None)
    return address if host_of(address) else ""


def _source(source: Source, address: str, question: str, texts: Texts, *, number: int) -> str:
    passages = [passage.strip() for passage in source.text.split(GAP) if passage.strip()]
    said = "".join(
        f"<blockquote>{marked(passage, key_words(question, (passage,)))}</blockquote>\n" for passage in passages
    )
    said = said or f'<p class="note">{escape(texts("page_no_passage"))}</p>\n'
    link = f'<p class="open">{anchor(address)}{escape(texts("page_open"))}</a></p>\n' if address else ""
    title = escape(" ".join(clean(source.title).split()))
    return (
        f'<details{" open" if number == 1 else ""}><summary><span class="number">{number}</span>'
        f"<bdi>{title}</bdi></summary>\n{said}{link}</details>\n"
    )


def _feedback(page: AnswerPage, texts: Texts, vote_at: str) -> str:
    kept = texts(f"page_kept_{page.verdict}") if page.verdict else ""
    said = {name: escape(texts(f"page_{name}")) for name in ("kept_good", "kept_bad", "not_kept")}
    data = "".join(f' data-{name.replace("_", "-")}="{text}"' for name, text in said.items())
    return (
        f'<section id="feedback" aria-labelledby="helpful">\n<h2 id="helpful">{escape(texts("page_feedback"))}</h2>\n'
        f'<form method="post" action="{escape(vote_at)}" accept-charset="utf-8"{data}>\n<p class="verdicts">'
        f"{_verdict(page, Verdict.GOOD, _UP, texts)}{_verdict(page, Verdict.BAD, _DOWN, texts)}</p>\n"
        f'<p role="status">{escape(kept)}</p>\n'
        f'<label for="comment">{escape(texts("page_reason"))}</label>\n'
        f'<textarea id="comment" name="comment" rows="2" maxlength="{MAX_COMMENT}">\n'
        f"{escape(page.comment)}</textarea>\n"
        f'<button id="reason" name="verdict" value="{page.verdict or ""}"{"" if page.verdict else " hidden"}>'
        f"{escape(texts('page_send_reason'))}</button>\n</form>\n</section>\n"
    )


def _verdict(page: AnswerPage, verdict: Verdict, path: str, texts: Texts) -> str:
    pressed = "true" if page.verdict == verdict else "false"
    icon = f'<svg viewBox="0 0 24 24" aria-hidden="true"><path d="{path}"/></svg>'
    said = escape(texts(f"page_{verdict}"))
    return f'<button name="verdict" value="{verdict}" aria-pressed="{pressed}">{icon}{said}</button>'


def _china(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone(CHINA)
