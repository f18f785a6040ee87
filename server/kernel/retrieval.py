"""Commits that a mirror does not have any more, or never had: from the remote and the object store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import structlog

from server.kernel.errors import (
    BranchUnknown,
    ObjectCorrupt,
    ObjectNotFound,
    ObjectStoreUnavailable,
    RepositoryNotAllowed,
    RepositoryUnreachable,
    SnapshotDamaged,
    SnapshotUnavailable,
    WorkspaceFailed,
)
from server.kernel.history import Snapshot
from server.kernel.ports.history_store import HistoryStore
from server.kernel.ports.object_store import ObjectStore
from server.kernel.ports.repositories import Repositories, Repository
from server.kernel.scratch import scratch_directory
from server.kernel.session import Session

log = structlog.get_logger()


class Retrieval:
    """Any replica can go on with any session, also when the disk on which it was made is gone."""

    def __init__(self, history: HistoryStore, repositories: Repositories, objects: ObjectStore, *, scratch: Path) -> None:
        self._history = history
        self._repositories = repositories
        self._objects = objects
        self._scratch = scratch
        self._one_at_a_time: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def ensure(self, session: Session, commit: str) -> None:
        """Have a commit of the session, or one that it stands on, in its mirror. What stands in the way leaves the mirror and the stored
        copies as they are. Errors: SnapshotUnavailable when trying again may help, SnapshotDamaged when not; StoreUnavailable."""
        if not commit or await self._repositories.holds(session.repository, commit):
            return
        async with self._one_at_a_time.setdefault(session.id, asyncio.Lock()):
            await self._restore(session.repository, session, commit)

    async def complete(self, session: Session, commit: str) -> None:
        """Bring back what the mirror has lost of a commit that it holds, and of those that it stands on, but for what is the remote's.
        Errors: as for `ensure`."""
        async with self._one_at_a_time.setdefault(session.id, asyncio.Lock()):
            for snapshot in await self._history.chain(session.tenant_id, session.id, commit):
                if not await self._repositories.complete(session.repository, snapshot.commit, over=snapshot.parent):
                    await self._bring(session.repository, snapshot)
                    log.info("snapshot.completed", session_id=session.id, number=snapshot.number)

    async def prove(self, session: Session, snapshot: Snapshot) -> None:
        """Read back what is stored of a snapshot, of which the mirror has everything: where it has not, the same would do. Errors: as
        for `ensure`."""
        await self._bring(session.repository, snapshot)

    async def _restore(self, repository: Repository, session: Session, commit: str) -> None:
        chain = await self._history.chain(session.tenant_id, session.id, commit)
        missing = await self._missing(repository, chain)
        base = missing[0].parent if missing else commit
        # What is no snapshot, and what the first bundle stands on, was fetched from the remote once.
        if base and not await self._repositories.holds(repository, base):
            await self._fetch(repository, session, base)
        for snapshot in missing:
            await self._bring(repository, snapshot)
        log.info("snapshots.restored", session_id=session.id, commit=commit, bundles=len(missing))

    async def _missing(self, repository: Repository, chain: Sequence[Snapshot]) -> Sequence[Snapshot]:
        """The end of the chain that is not in the mirror."""
        held = await self._repositories.held(repository, [snapshot.commit for snapshot in chain])
        for index in range(len(chain) - 1, -1, -1):
            if chain[index].commit in held:
                return chain[index + 1 :]
        return chain

    async def _fetch(self, repository: Repository, session: Session, commit: str) -> None:
        try:
            await self._repositories.fetch(repository, branch=session.base_branch, session_branch=session.branch, head_commit=commit)
        except (RepositoryUnreachable, RepositoryNotAllowed, BranchUnknown) as error:
            raise SnapshotUnavailable(commit, error.message) from error
        if not await self._repositories.holds(repository, commit):
            raise SnapshotUnavailable(commit, "the remote's branches do not have it any more")

    async def _bring(self, repository: Repository, snapshot: Snapshot) -> None:
        if snapshot.commit == snapshot.parent:
            return  # where a fork begins with what the remote has
        if not snapshot.stored:
            raise SnapshotUnavailable(snapshot.commit, "the server that made it has not put it into the object store yet")
        try:
            async with scratch_directory(self._scratch) as folder:
                bundle = folder / "snapshot.bundle"
                await self._download(snapshot, bundle)
                await self._repositories.restore(
                    repository, session_id=snapshot.session_id, bundle=bundle, base=snapshot.parent, head=snapshot.commit
                )
        except ObjectStoreUnavailable as error:
            raise SnapshotUnavailable(snapshot.commit, error.message) from error
        except (ObjectNotFound, ObjectCorrupt) as error:
            log.warning("snapshot.damaged", session_id=snapshot.session_id, number=snapshot.number, key=snapshot.key, error=error.message)
            raise SnapshotDamaged(snapshot.commit, error.message) from error
        except (WorkspaceFailed, OSError) as error:
            raise SnapshotUnavailable(snapshot.commit, str(error)) from error

    async def _download(self, snapshot: Snapshot, into: Path) -> None:
        """The whole of it; nobody looks at it before the store has said that it is what was stored."""
        with await asyncio.to_thread(into.open, "xb") as file:
            async for piece in self._objects.get(snapshot.key, sha256=snapshot.sha256):
                await asyncio.to_thread(file.write, piece)
