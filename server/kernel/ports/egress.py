"""Port: the one way from an agent to a network."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from server.kernel.egress import EgressReason
from server.kernel.ports.launcher import EgressDoor


@dataclass(frozen=True)
class Access:
    """One connection that an agent asked for. What it says of itself (host, method) is hostile, and bounded in length."""

    number: int
    """From 1, within one opening of the door."""
    host: str
    """Empty when it named none."""
    port: int
    method: str
    """`CONNECT` for a tunnel, else the method of the one HTTP request."""
    rule: str = ""
    """The rule of the session that lets it pass; empty when none does."""
    reason: EgressReason | None = None
    """Why it was refused, did not come about, or was cut; None for one that went well."""
    message: str = ""
    """The same as a sentence."""
    ended: bool = False
    bytes_in: int = 0
    """From the host."""
    bytes_out: int = 0
    """To the host."""
    seconds: float = 0.0

    @property
    def denied(self) -> bool:
        """Whether it was refused."""
        return self.reason is not None and (self.reason.denies or not self.rule)


class Ledger(Protocol):
    """Hears of every connection: the kernel's side."""

    async def opened(self, access: Access) -> None:
        """One is about to be made. Returns when that is durable: nothing passes through it before. Errors: Fenced."""
        ...

    async def ended(self, access: Access) -> None:
        """One has ended, or was refused. When a turn has too many to tell, the rest is counted."""
        ...


class Egress(Protocol):
    """A wall with doors. For each turn of a session that allows hosts it listens at the turn's own door, as a proxy for HTTP, as long as
    the agent's part lasts.

    - What passes: tunnels (CONNECT) in which a TLS client asks for the very host that the tunnel is for, and plain HTTP, to hosts and
      ports that a rule of the session names and the operator's rules cover. All else is answered with a sentence that says how to allow
      it. Nothing is added to what passes.
    - A name is resolved here. If one of its addresses is not public, nothing is connected; what is connected is one of the addresses that
      were looked at.
    - Connections, bytes and silence are bounded.
    - After `open` has ended nobody can connect, every connection is cut, and the ledger has heard of each.
    """

    def check(self, hosts: Sequence[str]) -> tuple[str, ...]:
        """The rules of a session in their usual form. Errors: InvalidField, HostNotAllowed when they go beyond what the operator allows,
        EgressNotConfigured when nobody gets out of this server."""
        ...

    def open(self, door: EgressDoor, *, hosts: Sequence[str], passed: int, ledger: Ledger) -> AbstractAsyncContextManager[None]:
        """Listen at the door. `passed`: bytes that the turn has had before. Rules that the operator does not allow any more are none.
        Errors: LaunchFailed when that is not possible."""
        ...
