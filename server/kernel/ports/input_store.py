"""Port: inputs and requests, as the callers see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from server.kernel.agent_request import AgentRequest, Resolution
from server.kernel.identity import Principal
from server.kernel.ports.turn_store import Claimed
from server.kernel.turn import Turn
from server.kernel.user_input import InputPage, NewInput, UserInput


@dataclass(frozen=True)
class Starter:
    """Who may start a turn, for a session that has none."""

    replica: str
    """Empty where there is no place for it: then the turn waits (TurnQueue)."""
    lease_seconds: float
    default_provider: str
    """For a session that has had no agent yet."""
    trace_parent: str = ""
    """The trace context of the request that starts the turn, if one does."""


@dataclass(frozen=True)
class Sent:
    """What became of an input that was sent: it waits, or it or another input has started a turn."""

    input: UserInput
    started: Claimed | Turn | None = None
    """The turn, as `TurnStore.start` returns it."""


class InputStore(Protocol):
    """Inputs and requests of one caller's sessions. Every method is scoped by the principal's tenant and user; what belongs to others
    does not exist. Nothing here writes events: who drives the session tells of every change.

    Errors: StoreUnavailable, SessionNotFound, and those named at each method.
    """

    async def send(self, principal: Principal, session_id: str, new: NewInput, *, starter: Starter, limit: int) -> Sent:
        """In one transaction: queue the input (behind all others), and then, in a session without an active turn, let the queue go on
        and start a turn with the input that is first. With INTERRUPT the input remembers which turn was active
        (its `turn_id`): whoever drives that turn stops it. The same non-empty request_id again returns the input that it made, and does
        nothing else. Errors: RequestIdReused when its text or session differ; TooManyInputs with `limit` in the queue; TooManyTurns when
        it starts a turn that had to wait, and too many do already."""
        ...

    async def list(self, principal: Principal, session_id: str, *, page_size: int, page_token: str, everything: bool) -> InputPage:
        """By position: those that are queued or offered, or all; fewer than `page_size` where texts are long. Errors: InvalidField for a
        page_token that it did not make."""
        ...

    async def update(self, principal: Principal, session_id: str, input_id: str, *, text: str, version: int) -> UserInput:
        """Change a queued input's text; `version` 0 means whatever is there. Errors: InputNotFound, InputNotQueued, VersionConflict."""
        ...

    async def cancel(self, principal: Principal, session_id: str, input_id: str) -> UserInput:
        """Take an input out of the queue; one that was cancelled before is returned. Errors: InputNotFound, InputNotQueued."""
        ...

    async def request(self, principal: Principal, session_id: str, request_id: str) -> AgentRequest:
        """What may be answered to a request. Errors: RequestNotFound."""
        ...

    async def resolve(self, principal: Principal, session_id: str, resolution: Resolution) -> Resolution:
        """Answer an open request, and return what is stored: the first answer is kept, and also returned to who gives it again.
        Errors: RequestNotFound; RequestResolved when there is another one."""
        ...
