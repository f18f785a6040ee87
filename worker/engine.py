"""Runs one turn: the agent, its events, and how it ended."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1 import worker_service_pb2 as wire
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.descendants import kill_descendants
from worker.desk import TurnDesk
from worker.emitter import SpoolEmitter
from worker.inbox import TurnInbox
from worker.limits import cut_text
from worker.notices import Notices
from worker.provider import ModelAccess, Provider, ProviderFailed, Request, make_provider
from worker.setup import set_up
from worker.spool import Spool

INTERRUPT_GRACE_SECONDS = 0.5
MAX_TRANSCRIPT_BYTES = 32 * 1024 * 1024
_MESSAGE_BYTES = 2000

WayOut = Callable[[], AbstractAsyncContextManager[Mapping[str, str]]]

log = logging.getLogger(__name__)


class Engine:
    """One turn of one agent. `start` returns at once; the result comes after the last event and is kept."""

    def __init__(self, spool: Spool, workspace: Path, models: ModelAccess | None = None, way_out: WayOut | None = None) -> None:
        """`way_out` opens the network to turns whose session allows any of it."""
        self.result: wire.TurnResult | None = None
        self.notices = Notices(spool)
        self.transcript = b""
        """The agent's memory: set from outside before the start, and the new one from the moment there is a result."""
        self._spool = spool
        self._emitter = SpoolEmitter(spool)
        self._inbox = TurnInbox(self._emitter, self.notices)
        self._desk = TurnDesk(self._emitter, self.notices)
        self._workspace = workspace
        self._models = models
        self._way_out = way_out
        self._forgets = False
        self._interrupted = asyncio.Event()
        self._reason = ""
        self._task: asyncio.Task[None] | None = None
        self._began_at = Timestamp()

    @property
    def started(self) -> bool:
        """Whether the turn was handed over."""
        return self._task is not None

    def start(self, turn: wire.ExecuteSessionRequest) -> None:
        """Run the turn in a task that this object owns."""
        self._began_at.GetCurrentTime()
        if turn.trace_parent:
            # https://opentelemetry.io/docs/specs/otel/context/env-carriers/: programs that the agent starts go on in the turn's trace.
            os.environ["TRACEPARENT"] = turn.trace_parent
        request = Request(
            prompt=turn.prompt,
            model=turn.model,
            workspace=self._workspace,
            turn_number=turn.turn_number,
            approvals=turn.approvals,
            inbox=self._inbox,
            desk=self._desk,
            models=self._models,
            max_steps=turn.max_steps,
            transcript=self.transcript,
            allowed_hosts=tuple(turn.allowed_hosts),
        )
        self.transcript = b""
        self._task = asyncio.create_task(self._run(turn.provider, request))

    def interrupt(self, reason: str) -> None:
        """Ask the agent to stop; the result says why. Later calls and calls after the end change nothing."""
        if not self._interrupted.is_set():
            self._reason = reason
            self._interrupted.set()

    def give(self, given: wire.GiveInput) -> None:
        """Something that the user says meanwhile."""
        self._inbox.give(given.input_id, given.text)

    def resolve(self, resolved: session.RequestResolved) -> None:
        """An answer to a request of the agent."""
        self._desk.resolve(resolved)

    async def _run(self, provider: str, request: Request) -> None:
        emitter = self._emitter
        result = await self._outcome(provider, request, emitter)
        try:
            # Before the result is told: nothing may write to the workspace after it.
            await asyncio.to_thread(kill_descendants)
            if self._forgets:
                words = f"the agent will not remember this turn: what it would remember is more than {MAX_TRANSCRIPT_BYTES:,} bytes"
                await emitter.emit(WorkerEvent(error=session.Error(code="TRANSCRIPT_LOST", message=words)))
            await emitter.flush()
        except Exception as defect:
            log.exception("the turn's last events broke")
            result = self._failed(f"the worker broke: {type(defect).__name__}")
        finally:
            # Whatever happened: a turn without a result would be waited for until its time limit.
            emitter.stop()
            result.last_worker_seq = self._spool.last
            result.began_at.CopyFrom(self._began_at)
            result.ended_at.GetCurrentTime()
            self.result = result
            self._spool.wake()

    async def _outcome(self, name: str, request: Request, emitter: SpoolEmitter) -> wire.TurnResult:
        try:
            provider = await asyncio.to_thread(make_provider, name)
            stop_reason = await self._until_interrupted(provider, request, emitter)
        except ProviderFailed as failure:
            return self._failed(str(failure), failure.stop_reason)
        except Exception as defect:
            log.exception("provider %s broke", name)
            return self._failed(f"{name} broke: {type(defect).__name__}: {defect}")
        if self._interrupted.is_set():
            return wire.TurnResult(status=session.TURN_STATUS_INTERRUPTED, message=self._reason, native_stop_reason=stop_reason)
        return wire.TurnResult(status=session.TURN_STATUS_COMPLETED, native_stop_reason=stop_reason)

    async def _until_interrupted(self, provider: Provider, request: Request, emitter: SpoolEmitter) -> str:
        """Run the provider; after an interrupt it has half a second to end by itself."""
        running = asyncio.create_task(self._running(provider, request, emitter))
        stopping = asyncio.create_task(self._interrupted.wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await asyncio.wait({running}, timeout=INTERRUPT_GRACE_SECONDS)
            if not running.done():
                running.cancel()
                await asyncio.wait({running})
            return "interrupted" if running.cancelled() else running.result()
        finally:
            stopping.cancel()
            running.cancel()

    async def _running(self, provider: Provider, request: Request, emitter: SpoolEmitter) -> str:
        async with self._networked(request):
            await set_up(request.workspace, emitter, self.notices)
            try:
                return await provider.run(request, emitter, self._interrupted)
            finally:
                kept = provider.transcript
                # Worse than no memory would be half of one.
                self._forgets = len(kept) > MAX_TRANSCRIPT_BYTES
                self.transcript = b"" if self._forgets else kept

    @asynccontextmanager
    async def _networked(self, request: Request) -> AsyncIterator[None]:
        """With a way to the network, where the session allows any of it; what the agent runs finds it in its environment."""
        if not request.allowed_hosts or self._way_out is None:
            yield
            return
        async with self._way_out() as environment:
            os.environ.update(environment)
            yield

    def _failed(self, message: str, stop_reason: str = "") -> wire.TurnResult:
        if self._interrupted.is_set():
            return wire.TurnResult(status=session.TURN_STATUS_INTERRUPTED, message=self._reason, native_stop_reason=message[:200])
        return wire.TurnResult(
            status=session.TURN_STATUS_FAILED,
            code=session.TURN_CODE_PROVIDER,
            message=cut_text(message, _MESSAGE_BYTES),
            native_stop_reason=stop_reason,
        )
