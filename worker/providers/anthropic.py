"""The agent `anthropic`: a small loop around a model of the Messages API, with tools of our own. Needs the extra `anthropic`.

It keeps its history as a plain list of messages and sends all of it each time; that list is also its transcript.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.provider import Emitter, ProviderFailed, Request, network_of, out_of_steps
from worker.providers.anthropic_history import History
from worker.providers.anthropic_model import Model
from worker.providers.anthropic_people import Leave, listening
from worker.providers.anthropic_tools import Tools

DEFAULT_MODEL: Final = "claude-sonnet-5-5"
_LAST_WORD_SECONDS = 0.2


class AnthropicProvider:
    """Asks `model` (`claude-sonnet-5-5` when empty) until it uses no more tools."""

    def __init__(self) -> None:
        # Here and not in `run`: what is not installed is told before anything happens.
        import anthropic  # noqa: F401

        self._history = History()

    @property
    def transcript(self) -> bytes:
        """See Provider."""
        return self._history.to_bytes()

    async def run(self, request: Request, emitter: Emitter, interrupted: asyncio.Event) -> str:
        """See Provider."""
        if request.models is None:
            raise ProviderFailed("there is no way to a model here")
        tools = Tools(request.workspace, emitter, Leave(request))
        working = asyncio.create_task(self._work(request, emitter, tools))
        stopping = asyncio.create_task(interrupted.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
        finally:
            stopping.cancel()
            working.cancel()
            await asyncio.wait({working, stopping})
            self._history.close_calls("the user stopped the turn before this was done")
        await _tell_cancelled(tools.open_call, emitter)
        return "interrupted"

    async def _work(self, request: Request, emitter: Emitter, tools: Tools) -> str:
        assert request.models is not None  # noqa: S101
        await self._remember(request, emitter)
        self._history.user_says(request.prompt)
        model_of_turn = Model(request.models, request.model or DEFAULT_MODEL, emitter, network=network_of(request))
        async with model_of_turn as model, listening(request.inbox) as ears:
            steps = 0
            while True:
                if request.max_steps and steps >= request.max_steps:
                    raise ProviderFailed(out_of_steps(steps), "max_steps")
                steps += 1
                reply = await model.answer(self._history.messages)
                self._history.model_says(reply.content)
                for call in reply.calls:
                    self._history.tool_says(call.id, await tools.use(call))
                if said := await ears.heard():
                    self._history.user_says(said)
                elif not reply.calls:
                    return reply.stop_reason

    async def _remember(self, request: Request, emitter: Emitter) -> None:
        """Take up the history of earlier turns; one that makes no sense is told, and the conversation begins anew."""
        try:
            self._history = History.from_bytes(request.transcript)
        except ValueError as error:
            told = session.Error(code="TRANSCRIPT_UNREADABLE", message=f"the agent does not remember earlier turns: {error}")
            await emitter.emit(WorkerEvent(error=told))
        if self._history.forget_beyond_limit():
            compacted = session.ContextCompacted(trigger=session.COMPACTION_TRIGGER_AUTO)
            await emitter.emit(WorkerEvent(context_compacted=compacted))


async def _tell_cancelled(call_id: str, emitter: Emitter) -> None:
    """Close the call that was cut off, if the server takes it in time."""
    if not call_id:
        return
    result = session.ToolResult(call_id=call_id, status=session.TOOL_OUTCOME_CANCELLED)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORD_SECONDS):
            await emitter.emit(WorkerEvent(item_id=call_id, tool_result=result))
