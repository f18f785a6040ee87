"""Old snapshots go from the object store, and long chains of bundles become short."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import structlog

from server.kernel.errors import KernelError
from server.kernel.history import Snapshot
from server.kernel.ports.history_store import HistoryStore
from server.kernel.ports.object_store import ObjectStore
from server.kernel.ports.repositories import Repositories
from server.kernel.retrieval import Retrieval
from server.kernel.session import Session
from server.kernel.uploads import store_bundle

CHECKPOINT_KEPT = timedelta(days=1)
"""For so long after they were made, checkpoints of turns that have ended."""
ANSWERS_KEPT = timedelta(days=7)
"""Answers to edits, for who asks again because his got lost."""
LONGEST_CHAIN = 50
SWEEP_SECONDS = 3600.0
SESSIONS_AT_ONCE = 20

log = structlog.get_logger()


@dataclass(frozen=True)
class Policy:
    """What is kept for how long."""

    kept: timedelta | None
    """A snapshot that is not the session's newest; None for ever."""
    checkpoint_kept: timedelta = CHECKPOINT_KEPT
    longest_chain: int = LONGEST_CHAIN


class Retention:
    """A snapshot expires only when no other stands on it: those that do get a bundle of their own first, which is read back as a lost disk
    would have it read back. May stop at any point, and may run on several replicas."""

    def __init__(
        self,
        history: HistoryStore,
        repositories: Repositories,
        objects: ObjectStore,
        retrieval: Retrieval,
        *,
        policy: Policy,
        scratch: Path,
        mark: Callable[[str], None],
        expired: Callable[[], None],
        waiting: Callable[[int], None],
    ) -> None:
        """`expired` is told when objects are doomed; `waiting`, how many sessions are still to be looked after."""
        self._history = history
        self._repositories = repositories
        self._objects = objects
        self._retrieval = retrieval
        self._policy = policy
        self._scratch = scratch
        self._mark = mark
        self._expired = expired
        self._waiting = waiting

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._mark("sweep.before")
            try:
                await self._history.forget_answers(ANSWERS_KEPT)
                await self._sweep()
            except KernelError as error:
                log.warning("retention.sweep_failed", error=error.message)
            self._mark("sweep.after")
            await asyncio.sleep(SWEEP_SECONDS)

    async def _sweep(self) -> None:
        """Until none is left: who claims a session has it for as long as a sweep rests, whatever becomes of it."""
        while sessions := await self._history.aged(self._policy, limit=SESSIONS_AT_ONCE, claimed_seconds=SWEEP_SECONDS):
            for session in sessions:
                await self._tend(session)
            self._waiting(await self._history.waiting(self._policy, claimed_seconds=SWEEP_SECONDS))

    async def _tend(self, session: Session) -> None:
        """One that fails stops no other."""
        try:
            rows, old = await self._history.shelf(session, self._policy)
            for row, base in _rebased(rows, old, self._policy.longest_chain):
                await self._rebase(session, row, base)
            if old:
                self._mark("expire.before")
                gone = await self._history.expire(session, sorted(old))
                self._mark("expire.after")
                self._expired()
                log.info("snapshots.expired", session_id=session.id, count=gone)
        except KernelError as error:
            log.warning("retention.failed", session_id=session.id, error=error.message)

    async def _rebase(self, session: Session, row: Snapshot, base: str) -> None:
        """Have the snapshot's bundle stand on `base`. Errors: KernelError, and all is as it was."""
        for commit in filter(None, (base, row.commit)):
            await self._retrieval.ensure(session, commit)
        self._mark("rebase.before")
        stored = await store_bundle(
            self._repositories,
            self._objects,
            session.repository,
            session_id=session.id,
            # Never the key of another try, or of what is stored: this one is gone in an hour, unless its row names it.
            name=f"snapshot-{row.number}-{uuid.uuid4().hex[:12]}",
            base=base,
            head=row.commit,
            scratch=self._scratch,
            announce=lambda key: self._history.announce(session, key),
        )
        self._mark("rebase.stored")
        made = replace(row, parent=base, key=stored.key, sha256=stored.sha256, size=stored.size)
        await self._retrieval.prove(session, made)
        if await self._history.rebase(row, made):
            log.info("snapshot.rebased", session_id=session.id, number=row.number, bytes=stored.size)
            self._expired()
        self._mark("rebase.after")


def _rebased(rows: Sequence[Snapshot], old: frozenset[int], longest: int) -> Iterator[tuple[Snapshot, str]]:
    """Which bundles have to stand on something else, and on what. `rows` are all of a session that have not expired, oldest first."""
    by_commit: dict[str, list[Snapshot]] = {}
    before: dict[int, Snapshot] = {}
    for row in rows:
        if row.commit == row.parent:  # a fork that begins with what the remote has: it holds nothing that another could stand on
            continue
        if row.parent in by_commit:
            before[row.number] = by_commit[row.parent][-1]
        by_commit.setdefault(row.commit, []).append(row)
    for row in rows:
        below = before.get(row.number)
        if row.number in old or below is None or below.number not in old:
            continue
        base = row.parent
        while below is not None and below.number in old:
            base = below.parent
            below = before.get(below.number)
        yield row, base
        if below is None:
            before.pop(row.number)
        else:
            before[row.number] = below
    if rows and rows[-1].stored:
        length, first = 1, rows[-1]
        while (below := before.get(first.number)) is not None:
            length, first = length + 1, below
        if length > longest:
            yield rows[-1], first.parent
