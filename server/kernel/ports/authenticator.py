"""Port: from a credential to a principal."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from server.kernel.identity import Principal


class Authenticator(Protocol):
    """API keys. Only hashes are stored; comparison is constant-time; a revoked key fails within a minute everywhere."""

    async def authenticate(self, api_key: str) -> Principal:
        """Errors: ApiKeyInvalid (malformed, unknown, revoked: not told apart), ApiKeyExpired, StoreUnavailable."""
        ...

    def issue_ticket(self, api_key: str, session_id: str) -> tuple[str, datetime]:
        """What opens this one session's event stream in place of a key that `authenticate` has let in, and until when. Whether the key's
        owner has such a session is not asked here. Errors: ApiKeyInvalid for what is no key."""
        ...

    async def admit(self, ticket: str, session_id: str, *, before: bool = False) -> Principal:
        """`before`: it was let in, and its stream is still open, for which it need not last. Errors: TicketInvalid (malformed, over,
        another session's, of a key that is over: not told apart), StoreUnavailable."""
        ...
