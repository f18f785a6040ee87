"""Writes sessions back for the old system, while both run side by side: behind every turn, and never in its way."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import structlog

from server.config import Settings
from server.db.legacy_store import Agreed, Intended, PostgresLegacyStore, Unwritten
from server.kernel.errors import KernelError
from server.kernel.identity import Principal
from server.kernel.ports.repositories import Repositories, Repository
from server.legacy.packing import pack, repository_name
from server.legacy.scratch import scratch_directory, sweep
from server.legacy.source import NAME
from server.storage.s3_shared import SeenObject, SharedBucket, open_shared
from server.workers.carriage import in_own_thread

EVERY_SECONDS = 5.0
_OVERLAP = timedelta(minutes=5)
"""Two transactions may commit in another order than their times are."""

log = structlog.get_logger()


@asynccontextmanager
async def open_writer(settings: Settings, records: PostgresLegacyStore, repositories: Repositories, scratch: Path) -> AsyncIterator[None]:
    """A task that writes to the bucket TREADLE_LEGACY_BUCKET, if there is one. Errors: SettingsUnfit."""
    if not settings.legacy_bucket:
        yield
        return
    async with open_shared(settings, settings.legacy_bucket) as bucket:
        task = asyncio.create_task(Writer(records, repositories, bucket, scratch).run(), name="archives of the old system")
        task.add_done_callback(_told)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})


def _told(task: asyncio.Task[None]) -> None:
    """The server serves without it."""
    if not task.cancelled():
        log.error("legacy.writer_ended", exc_info=task.exception())


class Writer:
    """Compares what sessions are at with what was written, and writes what is missing. So nothing is forgotten by a restart, and what fails
    is tried again with the next look."""

    def __init__(self, records: PostgresLegacyStore, repositories: Repositories, bucket: SharedBucket, scratch: Path) -> None:
        self._records = records
        self._repositories = repositories
        self._bucket = bucket
        self._scratch = scratch
        self._since: datetime | None = None
        self._told: set[tuple[str, str]] = set()
        self._theirs: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.to_thread(sweep, self._scratch)
        while True:
            try:
                await self.once()
            except KernelError as error:
                log.warning("legacy.look_failed", error=error.message)
            await asyncio.sleep(EVERY_SECONDS)

    async def once(self) -> None:
        """Write what is missing. The first look is at all sessions, later ones at what changed since all of them were written. Errors:
        StoreUnavailable."""
        due, now = await self._records.unwritten(since=self._since)
        failed = False
        for session in due:
            try:
                failed |= not await self._write(session)
            except (KernelError, OSError) as error:
                failed = True
                self._tell("legacy.not_written", session, error=str(error))
        if not failed:
            self._since = now - _OVERLAP

    async def _write(self, session: Unwritten) -> bool:
        """False when the old system wrote it since: then that is for an import. Errors: KernelError, OSError."""
        key = f"{session.session_key}/{NAME}"
        owner = Principal(session.tenant_id, session.owner_id, "", "")
        there = await self._bucket.find(key)
        if there is not None and there.version != session.version:
            if not await self._is_ours(session, there):
                self._tell("legacy.archive_newer", session, remedy="treadle legacy import")
                return False
            ours = Agreed(there.version, session.intended_sha256, session.intended_commit)
            await self._records.agree(owner, session.session_id, session.session_key, ours)
            if ours.commit == session.commit:
                return True
        repository = Repository(session.tenant_id, session.owner_id, session.repository_url)
        if not await self._repositories.holds(repository, session.commit):
            return True  # the server that made it writes it
        async with scratch_directory(self._scratch) as scratch:
            tree, stop = scratch / "tree", threading.Event()
            await self._repositories.build_workspace(
                repository,
                commit=session.commit,
                branch=session.branch,
                base_branch=session.base_branch,
                into=tree / "workspace" / repository_name(session.repository_url),
            )
            packed = await in_own_thread(partial(pack, session, tree, scratch / NAME, stop), stop.set)
            await self._records.intend(owner, session.session_id, session.session_key, Intended(packed.sha256, session.commit))
            written = await self._bucket.replace(key, packed.path, over=there)
        if written is None:  # in the meantime, or our own before an answer that was lost: the next look sees which
            return False
        agreed = Agreed(written.version, packed.sha256, session.commit)
        await self._records.agree(owner, session.session_id, session.session_key, agreed)
        log.info("legacy.written", session_id=session.session_id, bytes=written.size)
        return True

    async def _is_ours(self, session: Unwritten, there: SeenObject) -> bool:
        """Whether it is what a server was about to write when it was cut short."""
        if not session.intended_sha256 or (session.session_id, there.version) in self._theirs:
            return False
        with tempfile.TemporaryFile(dir=self._scratch) as archive:
            ours = await self._bucket.download(there.key, archive, max_bytes=there.size) == session.intended_sha256
        if not ours:
            self._theirs.add((session.session_id, there.version))
        return ours

    def _tell(self, event: str, session: Unwritten, **more: str) -> None:
        """Once for each state of a session; it is looked at every few seconds."""
        if (session.session_id, session.commit) not in self._told:
            self._told.add((session.session_id, session.commit))
            log.warning(event, session_id=session.session_id, **more)
