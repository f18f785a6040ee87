"""Port: inputs and requests, as whoever drives the session sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from server.kernel.agent_request import OpenRequest, Resolution
from server.kernel.code_host import PullRequest
from server.kernel.ports.input_store import Starter
from server.kernel.ports.turn_store import Claimed
from server.kernel.turn import Turn
from server.kernel.user_input import UserInput


@dataclass(frozen=True)
class News:
    """What people have said, as far as it concerns a turn."""

    untold_inputs: Sequence[UserInput] = ()
    """Inputs of the session that users have changed since the log told of them."""
    steering: Sequence[UserInput] = ()
    """Inputs that the turn's agent may have: those offered to it, and those queued to steer, by position."""
    interrupting: Sequence[UserInput] = ()
    """Inputs that wait for the turn to be interrupted."""
    open: Sequence[OpenRequest] = ()
    """The turn's requests that wait."""
    resolved: Sequence[Resolution] = ()
    """The turn's requests that were resolved."""
    untold_requests: frozenset[str] = frozenset()
    """Those of `resolved` that the log has not told of."""
    untold_pull_request: PullRequest | None = None
    """What the session knows of its branch's pull request, while the log does not tell it."""


class DeskStore(Protocol):
    """What goes between people and an agent at work. Used by the supervisor only, with rights that no RPC handler has. What changes
    something does so only while the session is at `epoch`; else it changes nothing, and the next step finds out.

    Errors: StoreUnavailable.
    """

    async def news(self, turn: Turn) -> News:
        """All that concerns the turn."""
        ...

    async def offer(self, turn: Turn, input_id: str, *, epoch: int) -> bool:
        """QUEUED → OFFERED to the turn: from now on its user cannot change the input. False when it is not queued any more."""
        ...

    async def withdraw(self, turn: Turn, request_id: str, *, epoch: int) -> None:
        """The agent does not wait any more: an open request is CANCELLED."""
        ...

    async def expire(self, turn: Turn, *, epoch: int) -> None:
        """Open requests whose time is over (by the database's clock) are EXPIRED."""
        ...

    async def close(self, turn: Turn, *, epoch: int) -> None:
        """The agent's part is over: open requests are CANCELLED, and offered inputs that it did not take are QUEUED again."""
        ...

    async def calls(self, replica: str) -> Sequence[str]:
        """Sessions that this replica drives, and that something is to be told of; for callers that reached another replica."""
        ...

    async def start_next(self, starter: Starter, *, session_id: str = "", limit: int = 1) -> list[Claimed | Turn]:
        """For up to `limit` sessions (or this one) without an active turn, whose queue may go on: start a turn with the input that is
        first (INTERRUPT before the others, then by position), in one transaction each: the input is DELIVERED to it, and this replica
        takes the lease, or the turn waits, as `TurnStore.start` says, however many do. Agent, model and approvals are those of the
        session's turn before."""
        ...
