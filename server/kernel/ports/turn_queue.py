"""Port: the turns that wait for a place, over all tenants and all replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from server.kernel.event import Chunk
from server.kernel.ports.turn_store import Claimed


class WaitReason(StrEnum):
    """What a turn waits for; the names of the proto enum without its prefix."""

    PLACE = "PLACE"
    USER_LIMIT = "USER_LIMIT"
    TENANT_LIMIT = "TENANT_LIMIT"


@dataclass(frozen=True)
class QueueLimits:
    """Over all replicas; 0 for no limit."""

    running_of_user: int = 0
    running_of_tenant: int = 0
    waiting_of_user: int = 0
    waiting_of_tenant: int = 0


@dataclass(frozen=True)
class Waiting:
    """A turn whose log is to tell where it stands now. `stands.epoch` is its session's, and nobody's lease."""

    stands: Claimed
    ahead: int
    """How many turns of its tenant begin before it."""
    reason: WaitReason


@dataclass(frozen=True)
class Telling:
    """What the log of a waiting turn gets."""

    waiting: Waiting
    chunk: Chunk
    title: str | None = None
    """The session's, when it had none."""


@dataclass(frozen=True)
class Look:
    """The queue at a moment."""

    waiting: int
    """All that wait."""
    startable: int
    """Those of them that need a place and nothing else."""
    stopped: int
    """Those of them that shall end without having run; they need no place for it."""
    due: Sequence[Waiting]
    """Those whose log is to be told, in the order in which they begin; those of which nothing is told yet before all others."""


class TurnQueue(Protocol):
    """Turns that are QUEUED and driven by nobody.

    Their order is fair. Next is the tenant with the fewest running turns; where several have as few, the one that got a place longest
    ago. Within it the same decides between users, and then the oldest turn is taken. Each counts as running for those behind it. So one
    who asks for a thousand turns makes nobody else wait for a thousand. Those that a limit holds back come last.

    Errors: StoreUnavailable.
    """

    async def look(self, *, limit: int) -> Look:
        """What waits, and up to `limit` turns whose logs are to be told where they stand, those first of which nothing is told yet. A
        turn is due when its reason changed, when `ahead` changed below 10, or by a quarter; but no sooner than a second after the
        last time."""
        ...

    async def tell(self, tellings: Sequence[Telling]) -> frozenset[str]:
        """Write what each log gets, if its turn still waits and its log ends where it did; returns the sessions for which it was so."""
        ...

    async def take(self, replica: str, *, lease_seconds: float, limit: int) -> list[Claimed]:
        """Give places to the next `limit` turns: they wait no more, and `replica` drives them (epoch + 1). With them go some of those
        that shall be stopped, at least one if there are any. Takers exclude each other, so that limits hold over all replicas."""
        ...
