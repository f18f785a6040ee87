"""Port: secrets at rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Place:
    """Where a sealed secret belongs. Put anywhere else, it cannot be opened."""

    tenant_id: str
    kind: str
    row_id: str
    owner_id: str
    about: str = ""
    """What it is for: of a credential its host."""


class Vault(Protocol):
    """Seals secrets under a key that the database does not have. What was sealed under an older key of this server can still be opened.

    Each seal differs, also of the same secret. A secret that is changed, cut, or moved to another place opens nowhere. No I/O.
    """

    def seal(self, secret: bytes, place: Place) -> bytes:
        """Under the current key."""
        ...

    def open(self, sealed: bytes, place: Place) -> bytes:
        """Errors: SecretUnreadable when it was sealed for another place, or under a key that this server does not have."""
        ...

    def current(self, sealed: bytes) -> bool:
        """Whether it is sealed under the current key, and bound to all of its place."""
        ...
