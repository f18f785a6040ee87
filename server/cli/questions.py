"""What an agent asks, as lines for people, and what they type, as an answer. Nothing here talks to anybody."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from treadle.session.v1 import event_pb2 as pb

_YES = (pb.APPROVAL_OPTION_KIND_ALLOW_ONCE, pb.APPROVAL_OPTION_KIND_ALLOW_SESSION)
_NO = (pb.APPROVAL_OPTION_KIND_REJECT_ONCE,)
_WORDS = {"y": _YES, "yes": _YES, "n": _NO, "no": _NO}
"""What people type, whatever an agent calls its options; the first of the kinds that there is."""
_MEANINGS = {
    pb.APPROVAL_OPTION_KIND_ALLOW_ONCE: "yes",
    pb.APPROVAL_OPTION_KIND_ALLOW_SESSION: "yes, and do not ask again in this turn",
    pb.APPROVAL_OPTION_KIND_REJECT_ONCE: "no",
}


class NoAnswer(ValueError):
    """What was typed answers nothing; the message says what would."""


def request_id(event: pb.Event) -> str:
    """Of an event that asks; empty for any other."""
    kind = event.WhichOneof("body")
    if kind == "approval_requested":
        return event.approval_requested.request_id
    return event.question_requested.request_id if kind == "question_requested" else ""


def resolves(event: pb.Event) -> str:
    """The id of the request that the event resolves; empty for none."""
    return event.request_resolved.request_id if event.HasField("request_resolved") else ""


def prompts(event: pb.Event) -> Iterator[tuple[str, Sequence[str]]]:
    """What is to be answered, one after the other: a headline, and the choices as lines. Numbers and ids are taken, and text where a
    question takes it."""
    if event.HasField("approval_requested"):
        asked = event.approval_requested
        yield asked.title, [f"{option.id}: {option.label or _MEANINGS.get(option.kind, option.id)}" for option in asked.options]
        return
    for question in event.question_requested.questions:
        yield question.text, [_choice(option) for option in question.options]


@dataclass(frozen=True)
class Reply:
    """The answer to a request: an option, answers, or neither."""

    request_id: str
    option_id: str = ""
    answers: tuple[pb.Answer, ...] = ()


def parse(event: pb.Event, typed: Sequence[str]) -> Reply:
    """The answer to a request from what was typed for each of its prompts. Errors: NoAnswer."""
    wanted = len(list(prompts(event)))
    if len(typed) != wanted:
        raise NoAnswer(f"{wanted} {'answer is' if wanted == 1 else 'answers are'} needed, one for each question")
    if event.HasField("approval_requested"):
        return Reply(request_id(event), option_id=_leave(event.approval_requested.options, typed[0]))
    questions = zip(event.question_requested.questions, typed, strict=True)
    return Reply(request_id(event), answers=tuple(_answer(question, text) for question, text in questions))


def command(event: pb.Event) -> str:
    """The rest of a `treadle answer` that answers it, with its first choices."""
    first = [shlex.quote(_example(event, number)) for number in range(len(list(prompts(event))))]
    return f"answer {event.session_id} {' '.join(first)} --request {request_id(event)}"


def _example(event: pb.Event, number: int) -> str:
    if event.HasField("approval_requested"):
        return event.approval_requested.options[0].id
    options = event.question_requested.questions[number].options
    return options[0].id if options else "TEXT"


def _choice(option: pb.QuestionOption) -> str:
    label = option.label or option.id
    return f"{label} ({option.description})" if option.description else label


def _answer(question: pb.Question, text: str) -> pb.Answer:
    ids = [option.id for option in question.options]
    try:
        # Where any text is an answer, only a whole id is none of that.
        return pb.Answer(question_id=question.id, option_ids=_chosen(text, ids, several=question.multi, begins=not question.free_text))
    except NoAnswer:
        if not question.free_text or not text.strip():
            raise
    return pb.Answer(question_id=question.id, text=text)


def _leave(options: Sequence[pb.ApprovalOption], text: str) -> str:
    ids = [option.id for option in options]
    said = text.strip().lower()
    meant = [option.id for kind in _WORDS.get(said, ()) for option in options if option.kind == kind]
    if meant and said not in ids:
        return meant[0]
    try:
        (option_id,) = _chosen(text, ids, several=False)
    except NoAnswer:
        raise NoAnswer(f"{text.strip()!r} is none of: {', '.join(dict.fromkeys(['yes', 'no', *ids]))}") from None
    return option_id


def _chosen(text: str, ids: Sequence[str], *, several: bool, begins: bool = True) -> list[str]:
    """Ids from what was typed: an id, with `begins` also how only one of them begins, or a number; or several of them by comma."""
    words = [word.strip() for word in text.split(",")] if several and text.strip() not in ids else [text.strip()]
    chosen = []
    for word in words:
        if word in ids:
            chosen.append(word)
        elif word.isascii() and word.isdigit() and 0 < int(word) <= len(ids):
            chosen.append(ids[int(word) - 1])
        elif begins and word and len(begun := [each for each in ids if each.lower().startswith(word.lower())]) == 1:
            chosen += begun
        else:
            raise NoAnswer(f"{word!r} is none of: {', '.join(ids)}" if ids else "say something")
    return list(dict.fromkeys(chosen))
