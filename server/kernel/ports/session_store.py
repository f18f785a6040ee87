"""Port: sessions, as their owners see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from server.kernel.identity import Principal
from server.kernel.session import NewSession, Session, SessionPage


class SessionStore(Protocol):
    """Sessions of one caller. Every method is scoped by the principal's tenant and user; what belongs to others does not exist.

    Errors: StoreUnavailable, and those named at each method.
    """

    async def create(self, principal: Principal, session: NewSession, *, request_id: str, request_digest: str) -> Session:
        """Make an IDLE session with an empty log (next_seq 1, epoch 0). The same non-empty `request_id` of the same user again
        returns the session that it made. Errors: RequestIdReused when the digest differs."""
        ...

    async def find_request(self, principal: Principal, request_id: str, request_digest: str) -> Session | None:
        """The session that `create` made for this request_id, so that a repeated call can be answered without looking at the
        repository again. Errors: RequestIdReused when the digest differs."""
        ...

    async def get(self, principal: Principal, session_id: str, *, sized: bool = False) -> Session:
        """With `stored_bytes` only if `sized`: it takes longer the more snapshots there are. Errors: SessionNotFound (also for ids that are
        no UUID)."""
        ...

    async def list(self, principal: Principal, *, page_size: int, page_token: str) -> SessionPage:
        """Newest first, stable under inserts. Errors: InvalidField for a page_token that it did not make."""
        ...

    async def update(
        self,
        principal: Principal,
        session_id: str,
        *,
        title: str | None,
        labels: Mapping[str, str] | None,
        allowed_hosts: Sequence[str] | None,
        version: int,
    ) -> Session:
        """Change what is not None; `version` 0 means whatever is there. Errors: SessionNotFound, VersionConflict."""
        ...

    async def delete(self, principal: Principal, session_id: str) -> None:
        """Remove the session, its turns and its log. Errors: SessionNotFound, TurnActive."""
        ...
