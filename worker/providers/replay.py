"""The agent `replay`: plays a recorded session. Its files and commands really happen in the workspace; only the thinking is canned.

A recording is JSON Lines. Each line is one step, an object with one of the keys below; `wait_ms` may stand alone or beside any of
them and is waited first. In all texts `{prompt}` and `{turn}` stand for the request and its number.

    {"say": text, "ms": 600}                a message of the assistant, streamed over that time
    {"think": text}                         reasoning
    {"plan": ["done: a", "now: b", "c"]}    the plan, by status
    {"write": path, "content": text}        write a file
    {"edit": path, "old": text, "new": text}   replace a text that occurs in the file
    {"delete": path}                        remove a file
    {"run": ["sh", "-c", "..."]}            run a command (a string is a shell command line)
    {"usage": {"input_tokens": 10}}         token use; fields of UsageUpdated
    {"burst": 1000, "text": "x"}            so many deltas, for load; "per_second" paces them
    {"approve": title, "command": line}     ask for leave to run a command; not asked unless the request wants approvals
    {"ask": text, "choices": ["a", "b"]}    ask a question; "multi": several may be chosen; without choices any text will do
    {"listen": 1}                           wait for so many inputs of the user, and take them
    {"fail": message}                       the agent fails
    {"wait_ms": 200}                        nothing happens

In texts after them, `{answer}` stands for what was chosen or said (`allow`, `allow_all` or `reject` to an approval; `declined` and
`expired` to either), `{note}` for the user's note, and `{input}` for what the user said last. A step with `"if": "allow"` is played only
when that was the last answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.provider import Emitter, Request
from worker.providers.replay_steps import Player
from worker.recording import load_recording

DEFAULT_RECORDING: Final = "first-session"
ASKING_RECORDING: Final = "approvals"
_LAST_WORD_SECONDS = 0.2


class ReplayProvider:
    """Plays the recording that `model` names: a bundled one, or a path in the workspace. When it is empty: `first-session`, or
    `approvals` for a request that wants to be asked."""

    transcript = b""

    async def run(self, request: Request, emitter: Emitter, interrupted: asyncio.Event) -> str:
        """See Provider."""
        default = ASKING_RECORDING if request.approvals == session.APPROVALS_ASK else DEFAULT_RECORDING
        steps = await asyncio.to_thread(load_recording, request.model or default, request.workspace)
        player = Player(request, emitter)
        playing = asyncio.create_task(player.play(steps))
        stopping = asyncio.create_task(interrupted.wait())
        try:
            await asyncio.wait({playing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                playing.result()
                return "end_of_recording"
        finally:
            stopping.cancel()
            playing.cancel()
            await asyncio.wait({playing, stopping})
        if player.open_call:
            await _tell_cancelled(player.open_call, emitter)
        return "interrupted"


async def _tell_cancelled(call_id: str, emitter: Emitter) -> None:
    """Close the call that was cut off, if the server takes it in time."""
    result = session.ToolResult(call_id=call_id, status=session.TOOL_OUTCOME_CANCELLED)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORD_SECONDS):
            await emitter.emit(WorkerEvent(item_id=call_id, tool_result=result))
