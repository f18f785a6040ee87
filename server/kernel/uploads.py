"""Snapshots on their way into the object store."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from server.kernel.errors import KernelError, WorkspaceFailed
from server.kernel.history import Snapshot, SnapshotKind
from server.kernel.ports.history_store import HistoryStore
from server.kernel.ports.object_store import ObjectStore, StoredObject
from server.kernel.ports.repositories import Repositories, Repository
from server.kernel.ports.turn_store import TurnStore
from server.kernel.scratch import scratch_directory

SNAPSHOTS_PER_SWEEP = 20
WAITING, EACH = 1000, 100
"""Fresh ones that wait in memory, of all sessions and of each; more are found by the sweep."""
GIVEN_UP = timedelta(days=30)
"""So long after it was made, a snapshot that this server does not have is taken for one that no server will ever store. Until then the one
that made it may come back, or get its way to the object store back."""
CALM_SECONDS, LATE_SECONDS = 0.1, 2.0
"""What was made is durable, and whoever makes the next one waits for an answer: so it is stored once nobody has made any for a moment, or
after some time in any case."""

log = structlog.get_logger()


class Uploads:
    """Stores what was made between turns at once, and again and again what could not be stored. Turns store their own first."""

    def __init__(
        self,
        history: HistoryStore,
        turns: TurnStore,
        repositories: Repositories,
        objects: ObjectStore,
        *,
        scratch: Path,
        retry_seconds: float,
    ) -> None:
        self._history = history
        self._turns = turns
        self._repositories = repositories
        self._objects = objects
        self._scratch = scratch
        self._retry_seconds = retry_seconds
        self._fresh: OrderedDict[str, deque[tuple[float, Snapshot]]] = OrderedDict()
        """By session. Each has its turn with its oldest: a burst in one keeps no other waiting."""
        self._some = asyncio.Event()
        self._added = 0.0

    def add(self, snapshot: Snapshot) -> None:
        """Store it soon; it is durable in the database already, as pending."""
        self._added = time.monotonic()
        mine = self._fresh.get(snapshot.session_id, deque())
        if len(mine) < EACH and sum(map(len, self._fresh.values())) < WAITING:
            mine.append((self._added, snapshot))
            self._fresh[snapshot.session_id] = mine
            self._some.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._store_fresh())
            group.create_task(self._sweep())

    async def _store_fresh(self) -> None:
        while True:
            added, snapshot = await self._next()
            while (wait := min(self._added + CALM_SECONDS, added + LATE_SECONDS) - time.monotonic()) > 0:  # noqa: ASYNC110 - it gets longer meanwhile
                await asyncio.sleep(wait)
            await self._try(snapshot)

    async def _next(self) -> tuple[float, Snapshot]:
        while not self._fresh:
            self._some.clear()
            await self._some.wait()
        session_id, mine = self._fresh.popitem(last=False)
        oldest = mine.popleft()
        if mine:
            self._fresh[session_id] = mine
        return oldest

    async def _sweep(self) -> None:
        """Each sweep goes on behind the last, so that one which can never be stored keeps no other waiting."""
        seen: Snapshot | None = None
        while True:
            await asyncio.sleep(self._retry_seconds)
            try:
                pending = await self._history.pending(limit=SNAPSHOTS_PER_SWEEP, after=seen)
            except KernelError as error:
                log.warning("snapshots.sweep_failed", error=error.message)
                continue
            seen = pending[-1] if len(pending) == SNAPSHOTS_PER_SWEEP else None
            for snapshot in pending:
                await self._try(snapshot)

    async def _try(self, snapshot: Snapshot) -> None:
        which = {"session_id": snapshot.session_id, "number": snapshot.number, "kind": snapshot.kind}
        try:
            size = await self._store(snapshot)
        except KernelError as error:
            if isinstance(error, WorkspaceFailed) and await self._is_lost(snapshot):
                log.warning("snapshot.lost", error=error.message, **which)
            else:
                log.warning("snapshot.still_pending", error=error.message, **which)
        else:
            log.info("snapshot.stored", bytes=size, **which)

    async def _is_lost(self, snapshot: Snapshot) -> bool:
        """Give up what another server made long ago, and has not stored since."""
        if snapshot.created_at is None or snapshot.created_at > datetime.now(UTC) - GIVEN_UP:
            return False
        try:
            if not await self._repositories.lacks(await self._repository(snapshot), snapshot.commit):
                return False
            await self._history.lost(snapshot)
        except KernelError as error:
            log.warning("snapshot.not_given_up", session_id=snapshot.session_id, number=snapshot.number, error=error.message)
            return False
        return True

    async def _repository(self, snapshot: Snapshot) -> Repository:
        url = await self._turns.repository_url(snapshot.session_id)
        return Repository(snapshot.tenant_id, snapshot.owner_id, url)

    async def _store(self, snapshot: Snapshot) -> int:
        repository = await self._repository(snapshot)
        stored = await store_bundle(
            self._repositories,
            self._objects,
            repository,
            session_id=snapshot.session_id,
            name=snapshot.turn_id if snapshot.kind is SnapshotKind.TURN and snapshot.turn_id else f"snapshot-{snapshot.number}",
            base=snapshot.parent,
            head=snapshot.commit,
            scratch=self._scratch,
        )
        await self._history.stored(snapshot, key=stored.key, sha256=stored.sha256, size=stored.size)
        return stored.size


async def store_bundle(
    repositories: Repositories,
    objects: ObjectStore,
    repository: Repository,
    *,
    session_id: str,
    name: str,
    base: str,
    head: str,
    scratch: Path,
    announce: Callable[[str], Awaitable[None]] | None = None,
) -> StoredObject:
    """Bundle base..head and put it into the object store, below the session's prefix. Two servers may do this for one snapshot, and
    their bundles need not be equal: so the key is of these bytes, and what was stored once is never replaced by others. Whose key the
    database has is the snapshot. `announce` is told the key before there is anything. Repeatable.
    Errors: ObjectStoreUnavailable, WorkspaceFailed."""
    try:
        async with scratch_directory(scratch) as folder:
            bundle = folder / "snapshot.bundle"
            await repositories.bundle(repository, session_id=session_id, base=base, head=head, into=bundle)
            digest = await asyncio.to_thread(_sha256, bundle)
            key = f"{repository.tenant_id}/{session_id}/{name}-{digest}.bundle"
            if announce is not None:
                await announce(key)
            return await objects.put(key, bundle)
    except OSError as error:
        raise WorkspaceFailed(f"a bundle cannot be kept here: {error.strerror or error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
