"""The user beside the agent `anthropic`: leave for its tools, and what the user says meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from treadle.session.v1 import event_pb2 as session
from worker.provider import Inbox, Request, UserMessage

_ALLOW, _ALLOW_LIKE, _REJECT = "allow", "allow-like", "reject"
_OPTIONS = [
    session.ApprovalOption(id=_ALLOW, kind=session.APPROVAL_OPTION_KIND_ALLOW_ONCE),
    session.ApprovalOption(id=_ALLOW_LIKE, kind=session.APPROVAL_OPTION_KIND_ALLOW_SESSION),
    session.ApprovalOption(id=_REJECT, kind=session.APPROVAL_OPTION_KIND_REJECT_ONCE),
]
_ACTING = (session.TOOL_KIND_EDIT, session.TOOL_KIND_EXECUTE)


class Leave:
    """Whether the agent may use a tool. Only what changes or runs something is asked for, and only when the user wants to be asked."""

    def __init__(self, request: Request) -> None:
        self._desk = request.desk
        self._asks = request.approvals == session.APPROVALS_ASK
        self._allowed: set[str] = set()

    async def refused(self, call: session.ToolCall) -> str:
        """Wait for a person; returns why not, for the model, or "" when it may."""
        alike = f"{call.name} {call.command.split()[0]}" if call.command.split() else call.name
        if not self._asks or call.tool_kind not in _ACTING or alike in self._allowed:
            return ""
        asked = session.ApprovalRequested(title=f"{call.name}: {call.title}", options=_OPTIONS)
        asked.tool.CopyFrom(call)
        asked.tool.status = session.TOOL_STATUS_PENDING
        resolved = await self._desk.approve(asked)
        if resolved.outcome != session.REQUEST_OUTCOME_CHOSEN or resolved.option_id not in (_ALLOW, _ALLOW_LIKE):
            note = f" The user says: {json.dumps(resolved.note)}" if resolved.note else ""
            return f"The user did not allow this.{note}"
        if resolved.option_id == _ALLOW_LIKE:
            self._allowed.add(alike)
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
