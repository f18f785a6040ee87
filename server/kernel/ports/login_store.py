"""Port: logins at code hosts that users have begun, and when their hosts may be asked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from server.kernel.identity import Principal


@dataclass(frozen=True)
class LoginLimits:
    """Of one user: so many `open` at a time, and so many begun (`rate`) within `seconds`."""

    open: int
    rate: int
    seconds: float


@dataclass(frozen=True)
class Turn:
    """Whether a host may be asked now: in `wait` seconds, 0 for at once; and how many there have to be between two questions."""

    wait: float
    interval: int


class LoginStore(Protocol):
    """The same for all servers, and after a restart. Every method is scoped by tenant and owner. Never sees a code of a host's. Errors:
    StoreUnavailable."""

    async def begin(self, owner: Principal, id_: str, limits: LoginLimits, *, seconds: float) -> float:
        """Begin one, which is open for so many `seconds`; 0. Or how long it takes until the user may begin another, and none is begun."""
        ...

    async def begun(self, owner: Principal, id_: str, *, seconds: float, interval: int) -> None:
        """The host has said how long it is open, and how often it may be asked."""
        ...

    async def ask(self, owner: Principal, id_: str) -> Turn | None:
        """Whether the host may be asked now; if so, nobody else may until the interval is over. None for one that was not begun, or is
        forgotten."""
        ...

    async def asked(self, owner: Principal, id_: str, *, interval: int) -> None:
        """The host has answered just now, and may be asked again after the interval."""
        ...

    async def end(self, owner: Principal, id_: str) -> None:
        """It is not open any more."""
        ...
