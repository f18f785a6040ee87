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
from server.kernel.errors import KernelError, ObjectStoreUnavailable
from server.kernel.identity import Principal
from server.kernel.ports.repositories import Repositories, Repository
from server.legacy.packing import pack, repository_name
from server.legacy.scratch import scratch_directory, sweep
from server.legacy.source import NAME
from server.refusal import SettingsUnfit
from server.storage.s3_shared import SeenObject, SharedBucket, open_shared
from server.workers.carriage import in_own_thread

EVERY_SECONDS = 5.0
_OVERLAP = timedelta(minutes=5)
"""Two transactions may commit in another order than their times are."""

log = structlog.get_logger()


@asynccontextmanager
async def open_writer(settings: Settings, records: PostgresLegacyStore, repositories: Repositories, scratch: Path) -> AsyncIterator[None]:
    """A task that writes to the bucket TREADLE_LEGACY_BUCKET. Errors: SettingsUnfit, also where the object store would lose what the old
    system writes. One that is down keeps no server from starting: it is looked at before anything is written."""
    async with open_shared(settings, settings.legacy_bucket) as bucket:
        writer = Writer(records, repositories, bucket, scratch)
        try:
            await writer.try_store()
        except ObjectStoreUnavailable as error:
            log.warning("legacy.store_not_tried", error=error.message)
        task = asyncio.create_task(writer.run(), name="archives of the old system")
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
        self._tried = False
        self._since: datetime | None = None
        self._told: set[tuple[str, str]] = set()
        self._theirs: set[tuple[str, str]] = set()

    async def try_store(self) -> None:
        """Once: whether the store can tell that something else is there by now. Errors: ObjectStoreUnavailable; SettingsUnfit."""
        if self._tried:
            return
        if ignored := await self._bucket.ignored_condition():
            raise SettingsUnfit(
                f"TREADLE_LEGACY_BUCKET: the object store does not heed `{ignored}`, so what the old system writes meanwhile would be "
                "lost. Use a store, or a version of it, that does; or leave the setting empty, and `treadle legacy import` what there is"
            )
        self._tried = True

    async def run(self) -> None:
        """Until cancelled. Errors: SettingsUnfit."""
        await asyncio.to_thread(sweep, self._scratch)
        while True:
            try:
                await self.try_store()
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
            ours = await self._ours(session, there)
            if ours is None:
                self._tell("legacy.archive_newer", session, remedy="treadle legacy import")
                return False
            if not await self._records.agree(owner, session.session_id, session.session_key, ours, over=session.version):
                return False
            if ours.commit == session.commit:
                return True
        repository = Repository(session.tenant_id, session.owner_id, session.repository_url)
        if not await self._repositories.holds(repository, session.commit):
            return True  # the server that made it writes it
        return await self._replace(owner, session, repository, key, there)

    async def _replace(self, owner: Principal, session: Unwritten, repository: Repository, key: str, there: SeenObject | None) -> bool:
        """False when something else is there by now. Errors: as for `_write`."""
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
            intended = Intended(packed.sha256, session.commit, replaces=there.version if there else "")
            await self._records.intend(owner, session.session_id, intended)
            written = await self._bucket.replace(key, packed.path, over=there)
        if written is None:  # in the meantime, or one of ours whose server did not hear or say so: the next look sees which
            return False
        agreed = Agreed(written.version, packed.sha256, session.commit)
        if not await self._records.agree(owner, session.session_id, session.session_key, agreed, over=intended.replaces):
            return False  # another server has found it, and gone on from there
        log.info("legacy.written", session_id=session.session_id, bytes=written.size)
        return True

    async def _ours(self, session: Unwritten, there: SeenObject) -> Agreed | None:
        """What a server was about to write when it was cut short, if it is that."""
        if (session.session_id, there.version) in self._theirs or not (intended := await self._records.intents(session.session_id)):
            return None
        with tempfile.TemporaryFile(dir=self._scratch) as archive:
            sha256, version = await self._bucket.download(there.key, archive, max_bytes=there.size)
        if sha256 in intended:
            return Agreed(version, sha256, intended[sha256])
        self._theirs.add((session.session_id, there.version))
        return None

    def _tell(self, event: str, session: Unwritten, **more: str) -> None:
        """Once for each state of a session; it is looked at every few seconds."""
        if (session.session_id, session.commit) not in self._told:
            self._told.add((session.session_id, session.commit))
            log.warning(event, session_id=session.session_id, **more)
