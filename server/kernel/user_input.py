"""What a user says to a session: it waits in one queue per session until an agent has it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Delivery(StrEnum):
    """When the agent shall have it."""

    STEER = "STEER"
    QUEUE = "QUEUE"
    INTERRUPT = "INTERRUPT"


class InputState(StrEnum):
    """What became of it. QUEUED → DELIVERED | CANCELLED; with a worker between: QUEUED → OFFERED → DELIVERED, or back to QUEUED."""

    QUEUED = "QUEUED"
    OFFERED = "OFFERED"
    """Handed to the turn's worker, whose agent has not said yet that it took it."""
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True)
class UserInput:
    """One row of `inputs`."""

    id: str
    session_id: str
    position: int
    text: str
    delivery: Delivery
    state: InputState = InputState.QUEUED
    version: int = 1
    """Counts the changes by users."""
    told_version: int = 0
    """The version that the log has told of; 0 before the first."""
    turn_id: str = ""
    """The turn that has it, or that it is offered to; of one that is QUEUED to INTERRUPT, the turn that it interrupts."""
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def status(self) -> str:
        """What the log says of it; an input that is delivered is told by the step that delivers it."""
        if self.state in (InputState.DELIVERED, InputState.CANCELLED):
            return str(self.state)
        return "EDITED" if self.told_version else "QUEUED"


@dataclass(frozen=True)
class NewInput:
    """What is needed to queue an input. Already validated."""

    id: str
    request_id: str
    text: str
    delivery: Delivery

    @property
    def digest(self) -> str:
        """Tells a repeated request from a reused request_id; the store adds the session."""
        return hashlib.sha256(json.dumps([self.text, self.delivery]).encode()).hexdigest()


@dataclass(frozen=True)
class InputPage:
    """A page of inputs, by position; `next_token` is empty at the end."""

    inputs: tuple[UserInput, ...]
    next_token: str
