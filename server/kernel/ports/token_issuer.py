"""Port: tokens that live for a while, from the hosts that give them out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class Issued:
    """A new token."""

    token: str = field(repr=False)
    expires_at: datetime | None
    refresh_token: str = field(default="", repr=False)
    """The one by which the next is got; the one that was shown is worthless now."""
    scopes: tuple[str, ...] = ()


class TokenIssuer(Protocol):
    """Errors of those that ask a host: CredentialRejected when it gives none for what it was shown; CodeHostLimited; CodeHostUnavailable,
    and it is not known then whether a refresh token is spent."""

    def check(self, host: str, *, refreshes: bool) -> None:
        """Whether tokens of this host can be had, and, with `refreshes`, renewed. No I/O. Errors: InvalidField."""
        ...

    async def refreshed(self, host: str, refresh_token: str) -> Issued:
        """A user's token, for the one by which it is renewed."""
        ...

    async def of_installation(self, host: str, *, app_id: str, installation_id: str, private_key: str) -> Issued:
        """A token of an app, for one of its installations."""
        ...
