"""Port: what is known of the pull requests of sessions' branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from server.kernel.code_host import PullRequest
from server.kernel.ports.history_store import Seal
from server.kernel.ports.repositories import Repository
from server.kernel.webhook import Hint


@dataclass(frozen=True)
class Look:
    """A pull request to ask a host about, for one session, as its owner."""

    session_id: str
    repository: Repository
    number: int
    due_at: datetime
    """Until when nobody else looks."""
    tries: int

    @property
    def host(self) -> str:
        """As it stands in the URL."""
        return "".join(self.repository.url.split("/", 3)[2:3])


@dataclass(frozen=True)
class Untold:
    """What a session's log does not tell yet."""

    session_id: str
    tenant_id: str
    owner_id: str
    pull_request: PullRequest


class PullRequestStore(Protocol):
    """Which session a pull request is of follows from its repository's URL (in any case of letters, with and without `.git`) and its head
    branch. Used by no caller directly: webhooks know no tenant. Errors: StoreUnavailable."""

    async def heard(self, delivery: str, hint: Hint | None) -> bool:
        """Remember that a delivery came, and in the same transaction what is to be looked at for every session that `hint` is about, of
        all tenants. False, and nothing, for a delivery that came before."""
        ...

    async def forget_deliveries(self, *, seconds: float) -> None:
        """Those that came longer ago than that."""
        ...

    async def due(self, *, limit: int, again_seconds: float, except_hosts: Sequence[str] = ()) -> Sequence[Look]:
        """What is to be looked at now, except at these hosts (Look.host). Nobody else is told of it until `again_seconds` later, and then
        again, unless it was `looked` at."""
        ...

    async def looked(self, look: Look) -> None:
        """It is done with, unless the session was named again meanwhile."""
        ...

    async def later(self, look: Look, *, seconds: float) -> None:
        """Not before so many seconds from now."""
        ...

    async def saw(self, at: Repository, pull_request: PullRequest) -> Sequence[str]:
        """The host has shown it to the owner of `at`: this owner's sessions whose pull request it is know it from now on, unless they know
        a newer one. Returns those for which something has changed."""
        ...

    async def untold(self, *, limit: int) -> Sequence[Untold]:
        """Of sessions without an active turn; in those with one, their driver tells (DeskStore.news)."""
        ...

    async def tell(self, untold: Untold, seal: Seal) -> bool:
        """Append to the log, unless there is something newer to tell by now, or it was told: then False. Errors: SessionNotFound,
        TurnActive."""
        ...

    async def based_on(self, url: str, branch: str, *, days: float, limit: int) -> Sequence[Repository]:
        """Repositories at `url` of owners who have sessions of this branch, or on it, that were used in so many days."""
        ...
