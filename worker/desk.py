"""The desk of a turn: requests of the agent go out as events, their answers come back through the server's Control."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Iterable

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1 import worker_service_pb2 as wire
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.emitter import SpoolEmitter, stamp
from worker.limits import cut_text
from worker.notices import Notices
from worker.provider import RequestMalformed

# The server takes no more (server/workers/requests.py): what gets past this would end the turn.
MAX_OPEN = 16
MAX_OPTIONS = 16
MAX_QUESTIONS = 16
MAX_QUESTION_OPTIONS = 32
MAX_ID_CHARS = 64
MAX_REQUEST_BYTES = 128 * 1024

_LINE_BYTES = 500
_TEXT_BYTES = 8 * 1024
_INPUT_BYTES = 16 * 1024
_PATCH_BYTES = 64 * 1024
"""For all changes of a request together."""


class TurnDesk:
    """The Desk that providers get."""

    def __init__(self, emitter: SpoolEmitter, notices: Notices) -> None:
        self._emitter = emitter
        self._notices = notices
        self._open: dict[str, asyncio.Future[session.RequestResolved]] = {}
        self._places = asyncio.Semaphore(MAX_OPEN)

    async def approve(self, request: session.ApprovalRequested) -> session.RequestResolved:
        """See Desk."""
        _check_ids([option.id for option in request.options], "options", limit=MAX_OPTIONS)
        own = session.ApprovalRequested()
        own.CopyFrom(request)
        own.title, own.description = cut_text(own.title, _LINE_BYTES), cut_text(own.description, _TEXT_BYTES)
        for option in own.options:
            option.label = cut_text(option.label, _LINE_BYTES)
        if own.HasField("tool"):
            _fit_tool(own.tool)
        _fit_changes(own.changes)
        own.request_id = _new_id()
        return await self._answer(own.request_id, WorkerEvent(item_id=own.request_id, approval_requested=own))

    async def ask(self, request: session.QuestionRequested) -> session.RequestResolved:
        """See Desk."""
        _check_ids([question.id for question in request.questions], "questions", limit=MAX_QUESTIONS)
        own = session.QuestionRequested()
        own.CopyFrom(request)
        for question in own.questions:
            _fit_question(question)
        own.request_id = _new_id()
        return await self._answer(own.request_id, WorkerEvent(item_id=own.request_id, question_requested=own))

    def resolve(self, resolved: session.RequestResolved) -> None:
        """An answer from the server; one that nobody waits for changes nothing."""
        waiting = self._open.get(resolved.request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(resolved)

    async def _answer(self, request_id: str, event: WorkerEvent) -> session.RequestResolved:
        stamp(event)
        if event.ByteSize() > MAX_REQUEST_BYTES:
            raise RequestMalformed(f"a request of {event.ByteSize():,} bytes; at most {MAX_REQUEST_BYTES:,} are allowed")
        async with self._places:
            answer: asyncio.Future[session.RequestResolved] = asyncio.get_running_loop().create_future()
            self._open[request_id] = answer
            try:
                await self._emitter.emit(event)
                return await answer
            finally:
                del self._open[request_id]
                if not answer.done() or answer.cancelled():
                    self._notices.tell(wire.WorkerNotice(request_withdrawn=request_id))


def _fit_tool(tool: session.ToolCall) -> None:
    tool.title, tool.command = cut_text(tool.title, _LINE_BYTES), cut_text(tool.command, _INPUT_BYTES)
    if len(tool.input_json.encode()) > _INPUT_BYTES:
        # Half a JSON text is none.
        tool.input_json = '{"truncated": true}'
    del tool.locations[64:]


def _fit_changes(changes: Iterable[session.FileChange]) -> None:
    left = _PATCH_BYTES
    for change in changes:
        size = len(change.patch.encode())
        if size > left:
            change.patch, change.patch_truncated = cut_text(change.patch, left) if left else "", True
        left -= min(size, left)


def _fit_question(question: session.Question) -> None:
    _check_ids([option.id for option in question.options], "options of a question", limit=MAX_QUESTION_OPTIONS, least=0)
    if not question.options and not question.free_text:
        raise RequestMalformed(f"question {question.id!r} offers nothing and takes no text")
    question.header, question.text = cut_text(question.header, _LINE_BYTES), cut_text(question.text, _TEXT_BYTES)
    for option in question.options:
        option.label, option.description = cut_text(option.label, _LINE_BYTES), cut_text(option.description, _LINE_BYTES)


def _check_ids(ids: Collection[str], what: str, *, limit: int, least: int = 1) -> None:
    if not least <= len(ids) <= limit or len(set(ids)) != len(ids):
        raise RequestMalformed(f"{len(ids)} {what}: {least} to {limit} are needed, with different ids")
    for each in ids:
        if not 0 < len(each) <= MAX_ID_CHARS or not each.isprintable():
            raise RequestMalformed(f"{what}: {each[:MAX_ID_CHARS]!r} is no id: 1 to {MAX_ID_CHARS} characters that can be shown")


def _new_id() -> str:
    return secrets.token_hex(8)
