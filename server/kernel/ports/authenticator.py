"""Port: from a credential to a principal."""

from __future__ import annotations

from typing import Protocol

from server.kernel.identity import Principal


class Authenticator(Protocol):
    """API keys. Only hashes are stored; comparison is constant-time; a revoked key fails within a minute everywhere."""

    async def authenticate(self, api_key: str) -> Principal:
        """Errors: ApiKeyInvalid (malformed, unknown, revoked: not told apart), StoreUnavailable."""
        ...
