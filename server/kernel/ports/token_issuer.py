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


@dataclass(frozen=True)
class DeviceLogin:
    """A login that was begun: what the user has to do, and the code by which the host knows this server again."""

    device_code: str = field(repr=False)
    user_code: str
    url: str
    seconds: int
    """How long the codes are good."""
    interval: int
    """Seconds between two questions whether it is done."""


@dataclass(frozen=True)
class Pending:
    """The user has not entered the code yet. `interval`: ask no sooner than after so many seconds; 0 for as before. A host that names one
    has been asked too often."""

    interval: int = 0


class TokenIssuer(Protocol):
    """Errors of those that ask a host: CredentialRejected when it gives none for what it was shown; CodeHostLimited; CodeHostUnavailable,
    and it is not known then whether a refresh token is spent."""

    def check(self, host: str, *, refreshes: bool, private_key: str = "") -> None:
        """Whether tokens of this host can be had, and, with `refreshes`, renewed; and whether this can be an app's key. No I/O. Errors:
        InvalidField."""
        ...

    async def refreshed(self, host: str, refresh_token: str) -> Issued:
        """A user's token, for the one by which it is renewed."""
        ...

    async def of_installation(self, host: str, *, app_id: str, installation_id: str, private_key: str) -> Issued:
        """A token of an app, for one of its installations."""
        ...

    async def begin_login(self, host: str) -> DeviceLogin:
        """Begin a user's login (RFC 8628). Errors: InvalidField where this server is no app of the host's."""
        ...

    async def finish_login(self, host: str, device_code: str) -> Issued | Pending:
        """A user's token, once the user has entered the code. Errors: LoginExpired, LoginDenied."""
        ...
