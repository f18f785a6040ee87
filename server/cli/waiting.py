"""What waits, told: inputs in a session, a turn in the queue."""

from __future__ import annotations

from treadle.session.v1 import event_pb2 as pb


def in_words(waiting: int) -> str:
    """For a person."""
    return "1 input waits" if waiting == 1 else f"{waiting} inputs wait"


def place_in_line(waiting: pb.Waiting) -> str:
    """How many are before it, and what holds it back."""
    before = f"{waiting.ahead} before you" if waiting.ahead else "you are your tenant's next"
    if waiting.reason == pb.WAIT_REASON_USER_LIMIT:
        return f"{before}; as many turns of yours run as may"
    if waiting.reason == pb.WAIT_REASON_TENANT_LIMIT:
        return f"{before}; as many turns of your tenant run as may"
    return before
