"""Port: where API keys and users are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from server.kernel.identity import Principal


@dataclass(frozen=True)
class KeyRecord:
    """A key that is not revoked: whose it is, and how its secret is recognised."""

    owner: Principal
    secret_sha256: bytes
    expires_at: datetime | None = None
    """None for one that does not end by itself."""
    last_used_at: datetime | None = None
    """See `used`."""


@dataclass(frozen=True)
class KeyInForce:
    """What an operator may see of a key."""

    prefix: str
    tenant_id: str
    user_id: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    """Not to the minute: see `used`."""


class KeyStore(Protocol):
    """API keys by their prefix, a public random string that is unique over all tenants. Secrets never reach it.

    Used by the authenticator and by administration, with rights that no RPC handler has. Errors: StoreUnavailable.
    """

    async def find(self, prefix: str) -> KeyRecord | None:
        """The key with this prefix; None when there is none or it is revoked."""
        ...

    async def used(self, prefix: str, *, seconds: float) -> None:
        """Note that a key is in use, unless that was noted in so many seconds."""
        ...

    async def add(self, owner: Principal, *, prefix: str, secret_sha256: bytes, expires_at: datetime | None) -> None:
        """Store a new key. Errors: StoreRejected when the prefix is taken or the owner does not exist."""
        ...

    async def in_force(self, tenant_id: str = "", user_id: str = "") -> list[KeyInForce]:
        """All keys, or those of one tenant, or of one user name, that are not revoked, expired ones too; by tenant, user and age."""
        ...

    async def revoke(self, owner: Principal, prefix: str) -> bool:
        """End a key of this owner; False when there is no such key."""
        ...

    async def ensure_user(self, user: Principal) -> bool:
        """Make the user, and its tenant, when missing; else set name and email. Returns whether the user is new."""
        ...
