"""What an agent asks of people: approvals and questions, what may be answered, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from server.kernel.errors import InvalidField


class RequestKind(StrEnum):
    """What is asked for."""

    APPROVAL = "APPROVAL"
    QUESTION = "QUESTION"


class RequestOutcome(StrEnum):
    """What became of a request; the names of the proto enum without its prefix."""

    CHOSEN = "CHOSEN"
    ANSWERED = "ANSWERED"
    DECLINED = "DECLINED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True)
class Question:
    """What may be answered to one question."""

    id: str
    option_ids: tuple[str, ...] = ()
    multi: bool = False
    free_text: bool = False


@dataclass(frozen=True)
class AgentRequest:
    """What may be answered to a request; its words are in its event only."""

    id: str
    kind: RequestKind
    option_ids: tuple[str, ...] = ()
    """For an approval."""
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True)
class Answer:
    """An answer to one question."""

    question_id: str
    option_ids: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Resolution:
    """What became of a request."""

    request_id: str
    outcome: RequestOutcome
    option_id: str = ""
    answers: tuple[Answer, ...] = ()
    resolved_by: str = ""
    """The user's id; empty when nobody answered."""
    note: str = ""


@dataclass(frozen=True)
class OpenRequest:
    """A request that waits."""

    id: str
    kind: RequestKind
    expires_at: datetime | None


def check_resolution(request: AgentRequest, resolution: Resolution) -> None:
    """Whether it answers what was asked. Errors: InvalidField."""
    if resolution.outcome is RequestOutcome.CHOSEN:
        if request.kind is not RequestKind.APPROVAL:
            raise InvalidField("option_id", "these are questions; answer with `answers`")
        if resolution.option_id not in request.option_ids:
            raise InvalidField("option_id", f"{resolution.option_id!r} is not offered; there are: {', '.join(request.option_ids)}")
    elif resolution.outcome is RequestOutcome.ANSWERED:
        if request.kind is not RequestKind.QUESTION:
            raise InvalidField("answers", "this is an approval; answer with `option_id`")
        _check_answers(request.questions, resolution.answers)


def _check_answers(questions: Sequence[Question], answers: Sequence[Answer]) -> None:
    asked = {question.id: question for question in questions}
    if sorted(answer.question_id for answer in answers) != sorted(asked):
        raise InvalidField("answers", f"one answer for each question is needed: {', '.join(asked)}")
    for answer in answers:
        _check_answer(asked[answer.question_id], answer)


def _check_answer(question: Question, answer: Answer) -> None:
    if unknown := [each for each in answer.option_ids if each not in question.option_ids]:
        raise InvalidField(
            "answers", f"{question.id}: {unknown[0]!r} is not offered; there are: {', '.join(question.option_ids) or 'none'}"
        )
    if len(answer.option_ids) > 1 and (not question.multi or len(set(answer.option_ids)) != len(answer.option_ids)):
        raise InvalidField("answers", f"{question.id}: choose {'each option once' if question.multi else 'one option'}")
    if answer.text and not question.free_text:
        raise InvalidField("answers", f"{question.id}: choose of the options; no text is taken")
    if not answer.option_ids and not answer.text.strip():
        raise InvalidField("answers", f"{question.id}: it is not answered")
