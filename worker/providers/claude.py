"""The agent `claude`: the real Claude program, driven through the Claude Agent SDK. Needs the extra `claude`.

The program runs here, in the worker's sandbox, as `bypassPermissions`: the sandbox is the wall. Its only network is the turn's socket.
Its transcript file is what it remembers a session by; it goes to the server and comes back with the session's next turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, cast

from claude_agent_sdk import ClaudeSDKError, Message, query

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.provider import Emitter, ProviderFailed, Request
from worker.providers.claude_messages import Narrator
from worker.providers.claude_people import Permissions, steer
from worker.providers.claude_program import Program, options_for
from worker.providers.claude_transcript import Transcript

DEFAULT_MODEL: Final = "claude-opus-5-5"
"""What the program would choose by itself."""

_POLITE_SECONDS = 0.2
_LAST_WORD_SECONDS = 0.2
_END_SECONDS = 10.0


class ClaudeProvider:
    """Runs `model` (`claude-opus-5-5` when empty) until the program says that it is done."""

    def __init__(self) -> None:
        self._transcript = b""

    @property
    def transcript(self) -> bytes:
        """See Provider."""
        return self._transcript

    async def run(self, request: Request, emitter: Emitter, interrupted: asyncio.Event) -> str:
        """See Provider."""
        if request.models is None:
            raise ProviderFailed("there is no way to a model here")
        home = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="claude-"))
        try:
            return await self._run(request, emitter, interrupted, home)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, home, ignore_errors=True))

    async def _run(self, request: Request, emitter: Emitter, interrupted: asyncio.Event, home: Path) -> str:
        transcript = await self._remember(request, emitter, home)
        narrator = Narrator(request.workspace, emitter, request.inbox, asks=request.approvals == session.APPROVALS_ASK)
        options = options_for(
            request,
            model=request.model or DEFAULT_MODEL,
            home=home,
            transcript=transcript,
            before_tool=narrator.before_tool,
            permissions=Permissions(request.desk, narrator),
        )
        program = Program(options)
        working = asyncio.create_task(_converse(request, program, narrator))
        stopping = asyncio.create_task(interrupted.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                narrator.stopping()
                await _stop_politely(program, working)
        finally:
            stopping.cancel()
            program.kill()
            # A stop that takes long, as on a busy machine, is cancelled: that must not cost the memory of the turn.
            await _uncut(self._close(working, transcript, narrator))
        return "interrupted" if interrupted.is_set() else working.result()

    async def _close(self, working: asyncio.Task[str], transcript: Transcript, narrator: Narrator) -> None:
        """Behind a program that is dead: what it leaves is kept, and what was cut off gets its end."""
        # It ends by itself; it is not cancelled, since the SDK would be cut off while it tidies up.
        done, _ = await asyncio.wait({working}, timeout=_END_SECONDS)
        if not done:
            working.cancel()
            await asyncio.wait({working})
        if not working.cancelled():
            working.exception()
        self._transcript = await asyncio.to_thread(transcript.read)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                await narrator.close()

    async def _remember(self, request: Request, emitter: Emitter, home: Path) -> Transcript:
        """Lay the transcript of earlier turns where the program finds it; one that makes no sense is told, and it begins anew."""
        transcript = Transcript(home, request.workspace)
        try:
            await asyncio.to_thread(transcript.write, request.transcript)
        except ValueError as error:
            told = session.Error(code="TRANSCRIPT_UNREADABLE", message=f"the agent does not remember earlier turns: {error}")
            await emitter.emit(WorkerEvent(error=told))
        return transcript


async def _converse(request: Request, program: Program, narrator: Narrator) -> str:
    """Everything that the program says, to its end. Errors: ProviderFailed."""
    said = cast(
        AsyncGenerator[Message, None], query(prompt=program.first_words(request.prompt), options=program.options, transport=program)
    )
    steering: asyncio.Task[None] | None = None
    try:
        async with aclosing(said) as messages:
            # To the end of the stream, not to the first result: work in the background may bring another one.
            async for message in messages:
                # From its first word on it listens.
                steering = steering or asyncio.create_task(steer(request.inbox, program, narrator))
                await narrator.hear(message)
    except ClaudeSDKError as error:
        # What the program said about its end counts more than that it ended with an error.
        if narrator.result is None:
            raise ProviderFailed(program.obituary(error), "process_ended") from error
    finally:
        if steering is not None:
            steering.cancel()
            await asyncio.wait({steering})
    return narrator.outcome(max_steps=request.max_steps)


async def _stop_politely(program: Program, working: asyncio.Task[str]) -> None:
    """Ask the program to stop, so that its transcript ends in order; it has 0.2 s for that."""
    await program.interrupt()
    await asyncio.wait({working}, timeout=_POLITE_SECONDS)


async def _uncut(work: Coroutine[Any, Any, None]) -> None:
    """Carry out what has limits of its own to its end, also while this task is being cancelled; then be cancelled."""
    task, cancelled = asyncio.create_task(work), None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()
