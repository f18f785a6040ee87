"""What an agent asks, as a worker tells it: checked here, because people and programs will answer by these ids."""

from __future__ import annotations

from collections.abc import Collection

from server.kernel.agent_request import AgentRequest, Question, RequestKind, Resolution
from server.kernel.errors import WorkerProtocolBroken
from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1.worker_event_pb2 import WorkerEvent

# What a correct worker keeps to (worker/desk.py).
MAX_OPTIONS = 16
MAX_QUESTIONS = 16
MAX_QUESTION_OPTIONS = 32
MAX_ID_CHARS = 64
MAX_REQUEST_BYTES = 128 * 1024


ASKING = ("approval_requested", "question_requested")
"""The kinds that ask."""


def read_request(event: WorkerEvent, *, size: int) -> AgentRequest:
    """What may be answered to an event that asks. Errors: WorkerProtocolBroken for what nobody could answer."""
    if size > MAX_REQUEST_BYTES:
        raise WorkerProtocolBroken(f"the worker sent a request of {size:,} bytes")
    return _approval(event.approval_requested) if event.HasField("approval_requested") else _questions(event.question_requested)


def clear_expiry(event: WorkerEvent) -> None:
    """When a request expires is the server's to say."""
    (event.approval_requested if event.HasField("approval_requested") else event.question_requested).ClearField("expires_at")


def resolved(resolution: Resolution) -> session.RequestResolved:
    """What became of a request, for its worker."""
    answers = [session.Answer(question_id=each.question_id, option_ids=each.option_ids, text=each.text) for each in resolution.answers]
    return session.RequestResolved(
        request_id=resolution.request_id,
        outcome=f"REQUEST_OUTCOME_{resolution.outcome}",
        option_id=resolution.option_id,
        answers=answers,
        resolved_by=resolution.resolved_by,
        note=resolution.note,
    )


def _approval(asked: session.ApprovalRequested) -> AgentRequest:
    _check_ids([asked.request_id])
    options = tuple(option.id for option in asked.options)
    _check_ids(options, limit=MAX_OPTIONS)
    return AgentRequest(asked.request_id, RequestKind.APPROVAL, option_ids=options)


def _questions(asked: session.QuestionRequested) -> AgentRequest:
    _check_ids([asked.request_id])
    _check_ids([question.id for question in asked.questions], limit=MAX_QUESTIONS)
    questions = []
    for question in asked.questions:
        options = tuple(option.id for option in question.options)
        _check_ids(options, limit=MAX_QUESTION_OPTIONS, least=0)
        questions.append(Question(question.id, options, question.multi, question.free_text))
    return AgentRequest(asked.request_id, RequestKind.QUESTION, questions=tuple(questions))


def _check_ids(ids: Collection[str], *, limit: int = 1, least: int = 1) -> None:
    if not least <= len(ids) <= limit or len(set(ids)) != len(ids):
        raise WorkerProtocolBroken(f"the worker sent a request with {len(ids)} ids where {least} to {limit} different ones are allowed")
    for each in ids:
        if not 0 < len(each) <= MAX_ID_CHARS or not each.isprintable():
            raise WorkerProtocolBroken("the worker sent a request with an id that is none")
