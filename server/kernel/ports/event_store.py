"""Port: where event logs are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from server.kernel.event import Chunk, Head, Run, Tail


class EventStore(Protocol):
    """Append-only logs, one per session, addressed by `seq`.

    Used by the journal only, with rights that no RPC handler has. Promises:

    - `append` is atomic for all its runs together, and durable when it returns. A run is applied only if the session's head
      still has the run's epoch, turn and attempt, its `next_seq` is the run's first seq, and its `worker_seq` is the run's
      first worker_seq - 1. Otherwise that run leaves no trace and the others are applied. A session appears at most once.
    - A run that could not be stored for a reason of its own must not stop the others for ever: the caller retries one by one.
    - `read` returns chunks in order without gaps, the first one cut so that it begins right after `after_seq`.
    - After a lost connection the outcome of `append` is unknown; the caller reads `head` and decides. Nothing is retried inside.

    Errors: StoreUnavailable.
    """

    async def append(self, runs: Sequence[Run]) -> frozenset[str]:
        """Append worker runs; returns the ids of the sessions whose run was applied."""
        ...

    async def head(self, session_id: str) -> Head | None:
        """Where the log stands now; None for a session that does not exist."""
        ...

    async def tails(self, session_ids: Sequence[str]) -> Mapping[str, Tail]:
        """Where many logs stand now, by session; those of sessions that do not exist are missing."""
        ...

    async def turn_end(self, turn_id: str) -> int:
        """The seq of the turn's terminal event; 0 while it has none."""
        ...

    async def read(self, session_id: str, after_seq: int, *, max_bytes: int) -> list[Chunk]:
        """Stored chunks after `after_seq`: at least one if there is any, then as many as fit into about `max_bytes`."""
        ...
