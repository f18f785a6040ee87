"""What sessions know of the pull requests of their branches, and what their logs tell of these."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from server.kernel.code_host import PullRequest
from server.kernel.errors import CodeHostLimited, CodeHostUnavailable, KernelError, SessionNotFound, StoreUnavailable, TurnActive
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from server.kernel.journal import Journal, Notes
from server.kernel.ports.code_host import CodeHosts
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.pull_request_store import Look, PullRequestStore, Untold
from server.kernel.ports.repositories import Repository
from server.kernel.wakeup import Wakeup

LOOK_AGAIN_SECONDS = 60.0
"""After a host did not answer; each further time twice as long."""
MOST_TRIES = 8
LOOK_SECONDS = 30.0
"""Before another server may look."""
AT_ONCE = 4
"""Looks at one host, beside as many that were taken together."""
PAGE = 100
SWEEP_SECONDS = 10.0
DELIVERY_DAYS = 7.0

_HOUR = 3600.0

log = structlog.get_logger()


class PullRequests:
    """A host shows each owner what that owner may see; nothing that a webhook says gets into a log. What is known stands in the session's
    row, and from there it is told: between turns here, during one by its driver. So a crash in between loses nothing."""

    def __init__(
        self,
        store: PullRequestStore,
        code_hosts: CodeHosts,
        notes: Notes,
        journal: Journal,
        codec: EventCodec,
        *,
        replica: str,
        call: Callable[[str], None],
    ) -> None:
        """`call`: the session's driver, if it is here, looks what there is to tell."""
        self._store = store
        self._code_hosts = code_hosts
        self._notes = notes
        self._journal = journal
        self._codec = codec
        self._replica = replica
        self._call = call
        self._news = Wakeup()
        self._hints = Wakeup()
        self._asked: Counter[str] = Counter()
        self._forget_at = 0.0

    async def saw(self, at: Repository, pull_request: PullRequest) -> None:
        """A host has just shown it to the owner of `at`. Whatever goes wrong here is no failure of what the owner did."""
        try:
            changed = await self._store.saw(at, pull_request.summary())
        except StoreUnavailable as error:
            log.warning("pull_request.not_noted", number=pull_request.number, error=error.message)
            return
        for session_id in changed:
            self._call(session_id)
        if changed:
            self._news.notify()

    def look(self) -> None:
        """There is something to look at."""
        self._hints.notify()

    async def run(self) -> None:
        """Until cancelled: look at what webhooks named, and tell what is known. Neither waits for the other."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._look_on())
            both.create_task(self._tell_on())

    async def _look_on(self) -> None:
        """A host that is slow makes no other wait: while it has its share of looks, no further one of it is taken."""
        async with asyncio.TaskGroup() as looks:
            while True:
                seen = self._hints.count
                try:
                    while found := await self._due():
                        for look in found:
                            self._asked[look.host] += 1
                            looks.create_task(self._looked(look))
                except StoreUnavailable as error:
                    log.warning("pull_requests.round_failed", error=error.message)
                await self._hints.after(seen, SWEEP_SECONDS)

    async def _due(self) -> Sequence[Look]:
        busy = [host for host, count in self._asked.items() if count >= AT_ONCE]
        return await self._store.due(limit=AT_ONCE, again_seconds=LOOK_AGAIN_SECONDS, except_hosts=busy)

    async def _tell_on(self) -> None:
        while True:
            seen = self._news.count
            try:
                for untold in await self._store.untold(limit=PAGE):
                    await self._tell(untold)
                await self._forget()
            except StoreUnavailable as error:
                log.warning("pull_requests.round_failed", error=error.message)
            await self._news.after(seen, SWEEP_SECONDS)

    async def _looked(self, look: Look) -> None:
        try:
            seconds = await self._again_after(look)
            await (self._store.looked(look) if seconds is None else self._store.later(look, seconds=seconds))
        except StoreUnavailable as error:
            log.warning("pull_request.not_noted", number=look.number, error=error.message)
        finally:
            self._asked[look.host] -= 1
            self._hints.notify()

    async def _again_after(self, look: Look) -> float | None:
        """Ask the host, and know what it says. None: it need not be asked again."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                host = self._code_hosts.whole(look.repository, "pull requests")
                pull_request = await host.pull_request(look.repository, look.number)
        except (CodeHostLimited, CodeHostUnavailable, StoreUnavailable, TimeoutError) as error:
            if look.tries < MOST_TRIES:
                told = float(error.metadata.get("retry_after_seconds", 0)) if isinstance(error, KernelError) else 0.0
                return max(told, LOOK_AGAIN_SECONDS * 2.0**look.tries)
            log.warning("pull_request.not_shown", session_id=look.session_id, number=look.number, error=repr(error))
        except KernelError as error:
            # Its owner cannot see it (any more).
            log.info("pull_request.not_shown", session_id=look.session_id, number=look.number, error=error.message)
        except Exception:  # the look's owner: a defect with one stops no other
            log.exception("pull_request.look_failed", session_id=look.session_id, number=look.number)
        else:
            await self.saw(look.repository, pull_request)
        return None

    async def _tell(self, untold: Untold) -> None:
        """Errors: StoreUnavailable: it is told then, or still there."""
        key = f"pull_request/{untold.pull_request.number}/{new_id()}"
        owner = Principal(untold.tenant_id, untold.owner_id, "", "")
        facts = [self._codec.pull_request_updated(untold.pull_request)]
        seal = self._notes.sealing(owner, untold.session_id, key, facts, server=self._replica)
        try:
            if await self._store.tell(untold, seal):
                self._journal.look_again(untold.session_id)
        except TurnActive:
            self._call(untold.session_id)
        except SessionNotFound:
            pass

    async def _forget(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._forget_at:
            await self._store.forget_deliveries(seconds=DELIVERY_DAYS * 24 * _HOUR)
            self._forget_at = now + _HOUR
