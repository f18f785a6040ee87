"""Use case: a code host says by itself what happened there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from server.kernel.errors import KernelError, StoreUnavailable
from server.kernel.ports.pull_request_store import PullRequestStore
from server.kernel.ports.repositories import Repositories, Repository
from server.kernel.ports.webhook_reader import Posted, WebhookReader
from server.kernel.pull_requests import PullRequests
from server.kernel.wakeup import Wakeup
from server.kernel.webhook import Hint, InstallationChanged, Outcome, Pushed

RECENT_DAYS = 14.0
"""A repository of which nobody has used a session for longer is not fetched ahead."""
MOST_OWNERS = 32
MOST_WAITING = 256
AT_ONCE = 2
"""Fetches; those of turns do not wait for them."""

log = structlog.get_logger()


class Webhooks:
    """A delivery names no tenant, so it tells nobody anything: it only makes this server look, as those who own sessions there."""

    def __init__(
        self,
        reader: WebhookReader,
        store: PullRequestStore,
        pull_requests: PullRequests,
        repositories: Repositories,
        *,
        forget_installation: Callable[[str], None],
    ) -> None:
        """`forget_installation`: what is kept of an app's installation is asked for anew."""
        self._reader = reader
        self._store = store
        self._pull_requests = pull_requests
        self._repositories = repositories
        self._forget_installation = forget_installation
        self._moved: dict[tuple[Repository, str], None] = {}
        self._calls = Wakeup()

    async def take(self, posted: Posted) -> Outcome:
        """Errors: as for WebhookReader; StoreUnavailable, and the host may send it again."""
        delivery = self._reader.read(posted)
        what = delivery.what
        if what is None:
            return Outcome.IGNORED
        if not await self._store.heard(delivery.id, what if isinstance(what, Hint) else None):
            return Outcome.REPEATED
        match what:
            case Hint():
                self._pull_requests.look()
            case Pushed():
                await self._fetch_ahead(what)
            case InstallationChanged():
                self._forget_installation(what.installation_id)
        return Outcome.TAKEN

    async def run(self) -> None:
        """Until cancelled: fetch what has moved into mirrors that are here, so that the next session finds it."""
        while True:
            seen = self._calls.count
            while self._moved:
                now = [*self._moved][:AT_ONCE]
                for each in now:
                    del self._moved[each]
                await asyncio.gather(*(self._fetched(*each) for each in now))
            await self._calls.after(seen)

    async def _fetch_ahead(self, pushed: Pushed) -> None:
        """What waits already is fetched once. It is a convenience: what is too much, or cannot be looked up, is left to the turns."""
        try:
            owners = await self._store.based_on(pushed.url, pushed.branch, days=RECENT_DAYS, limit=MOST_OWNERS)
        except StoreUnavailable as error:
            log.info("fetch_ahead.failed", error=error.message)
            return
        for repository in owners:
            if len(self._moved) < MOST_WAITING:
                self._moved[repository, pushed.branch] = None
        self._calls.notify()

    async def _fetched(self, repository: Repository, branch: str) -> None:
        try:
            await self._repositories.refresh(repository, branch=branch)
        except KernelError as error:
            log.info("fetch_ahead.failed", error=error.message)
