"""The user beside the agent `anthropic`: leave for its tools, and what the user says meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from treadle.session.v1 import event_pb2 as session
from worker.approvals import ALLOW, ALLOW_LIKE, foreseen, like
from worker.provider import Inbox, Request, UserMessage

_ACTING = (session.TOOL_KIND_EDIT, session.TOOL_KIND_EXECUTE)


class Leave:
    """Whether the agent may use a tool. Only what changes or runs something is asked for, and only when the user wants to be asked."""

    def __init__(self, request: Request) -> None:
        self._desk = request.desk
        self._workspace = request.workspace
        self._asks = request.approvals == session.APPROVALS_ASK
        self._allowed: set[str] = set()

    async def refused(self, call: session.ToolCall, given: Mapping[str, Any]) -> str:
        """Wait for a person; returns why not, for the model, or "" when it may. `given` is the call's input."""
        alike = like(call, given, self._workspace)
        if not self._asks or call.tool_kind not in _ACTING or alike.key in self._allowed:
            return ""
        asked = session.ApprovalRequested(title=f"{call.name}: {call.title}", options=alike.options())
        asked.tool.CopyFrom(call)
        asked.tool.status = session.TOOL_STATUS_PENDING
        asked.changes.extend(await asyncio.to_thread(foreseen, call, given, self._workspace))
        resolved = await self._desk.approve(asked)
        if resolved.outcome != session.REQUEST_OUTCOME_CHOSEN or resolved.option_id not in (ALLOW, ALLOW_LIKE):
            note = f" The user says: {json.dumps(resolved.note)}" if resolved.note else ""
            return f"The user did not allow this.{note}"
        if resolved.option_id == ALLOW_LIKE:
            self._allowed.add(alike.key)
        return ""


class Ears:
    """What the user has said since the last look."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._hearing = asyncio.ensure_future(inbox.next())

    async def heard(self) -> str:
        """The next thing, taken; empty when there is none. Call it between two questions to the model."""
        if not self._hearing.done():
            return ""
        message: UserMessage = self._hearing.result()
        self._hearing = asyncio.ensure_future(self._inbox.next())
        await self._inbox.taken(message.input_id)
        return message.text

    async def close(self) -> None:
        """Listen no more."""
        self._hearing.cancel()
        await asyncio.wait([self._hearing])


@asynccontextmanager
async def listening(inbox: Inbox) -> AsyncIterator[Ears]:
    """Listen while the block runs."""
    ears = Ears(inbox)
    try:
        yield ears
    finally:
        await ears.close()
