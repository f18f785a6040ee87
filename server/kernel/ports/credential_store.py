"""Port: users' credentials for code hosts, sealed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from server.kernel.credential import Credential


@dataclass(frozen=True)
class Sealed:
    """A credential with its secret, as the vault made it."""

    credential: Credential
    secret: bytes = field(repr=False)


class CredentialStore(Protocol):
    """At most one credential per user and host. Every method is scoped by tenant and owner; what belongs to others does not exist.
    Never sees a secret that can be read. Errors: StoreUnavailable."""

    async def find(self, tenant_id: str, owner_id: str, host: str) -> Sealed | None:
        """The one for exactly this host."""
        ...

    async def of_user(self, tenant_id: str, owner_id: str) -> list[Credential]:
        """All, by host."""
        ...

    async def put(self, sealed: Sealed) -> Credential | None:
        """Store it where the credential's `version` is still what is stored (0: nothing is), and count it up; None, and nothing
        changes, where it is not."""
        ...

    async def delete(self, tenant_id: str, owner_id: str, id_: str) -> bool:
        """False when there is none (also for ids that are no UUID)."""
        ...

    async def used(self, credential: Credential, *, seconds: float) -> None:
        """Note that it is in use, unless that was noted in so many seconds."""
        ...

    async def all_sealed(self) -> list[Sealed]:
        """Those of all users: for a server that starts, with rights that no RPC handler has."""
        ...

    async def reseal(self, old: Sealed, secret: bytes) -> None:
        """Replace the sealed form of the same secret, if it is still the old one. With the same rights."""
        ...
