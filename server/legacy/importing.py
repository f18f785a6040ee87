"""Brings archives in: each becomes a session with its history, its branch and its conversation."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import structlog

from server.db.legacy_store import Agreed, PostgresLegacyStore
from server.kernel.errors import (
    BranchUnknown,
    HeadMoved,
    KernelError,
    ObjectNotFound,
    ObjectStoreUnavailable,
    RepositoryUnreachable,
    SessionNotFound,
    StoreRejected,
    StoreUnavailable,
    TurnActive,
    WorkspaceFailed,
)
from server.kernel.event import Fact
from server.kernel.history import NewSnapshot, Remembered, SnapshotKind
from server.kernel.identity import Principal
from server.kernel.journal import Notes
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.repositories import Author, Diff, Imported, Repositories
from server.kernel.ports.session_store import SessionStore
from server.kernel.ports.trees import Trees
from server.kernel.session import NewSession
from server.legacy.conversation import PROVIDER, transcript_from
from server.legacy.isolation import Reader, Unpacked
from server.legacy.report import Outcome, Status
from server.legacy.scratch import scratch_directory
from server.legacy.source import Entry, Source
from server.legacy.survey import PassedOver, Plan, Reason, Survey, session_id_of
from server.legacy.tar import Refused

log = structlog.get_logger()

_MESSAGE = "Work from the system before Treadle"
_STAGING = uuid.UUID("0b7c4f0a-3a57-4c5e-8f0e-5d2c1a9e7b36")
"""What keeps a commit until it is the session's: the private ref of an id that is made from the session's."""


@dataclass(frozen=True)
class Target:
    """Where sessions are made."""

    sessions: SessionStore
    records: PostgresLegacyStore
    repositories: Repositories
    trees: Trees
    codec: EventCodec
    notes: Notes


class Importer:
    """Brings in one archive after the other. What a killed one left half-done, the next one finishes."""

    def __init__(self, source: Source, survey: Survey, reader: Reader, target: Target, *, scratch: Path, dry_run: bool) -> None:
        self._source = source
        self._survey = survey
        self._reader = reader
        self._target = target
        self._scratch = scratch
        self._dry_run = dry_run

    async def run(self, entries: Sequence[Entry]) -> AsyncGenerator[Outcome, None]:
        """What becomes of each. Errors: StoreUnavailable, which is of no archive but of the database."""
        for entry in entries:
            yield await self._one(entry)

    async def _one(self, entry: Entry) -> Outcome:
        outcome = Outcome(entry.key, Status.SKIPPED, session_id=session_id_of(entry.key), size=entry.size)
        try:
            return await self._bring(entry, outcome)
        except Refused as refused:
            return replace(outcome, status=Status.REFUSED, reason=refused.reason, detail=refused.detail)
        except PassedOver as passed:
            return replace(outcome, reason=passed.reason, detail=passed.detail)
        except StoreUnavailable:
            raise
        except KernelError as error:
            return replace(outcome, reason=_reason(error), detail=error.message)
        except OSError as error:
            return replace(outcome, reason=Reason.WORKSPACE, detail=f"no room to unpack it: {error.strerror}")

    async def _bring(self, entry: Entry, outcome: Outcome) -> Outcome:
        if entry.size > self._reader.limits.archive_bytes:
            raise Refused("TOO_LARGE", f"the archive has {entry.size:,} bytes")
        standing = await self._target.records.standing(outcome.session_id)
        agreed, intended = standing.agreed, standing.intended
        if (agreed or intended) and not standing.owner_id:
            raise PassedOver(Reason.DELETED, "it was imported, and the session was deleted since")
        if agreed and agreed.version == entry.version:
            return replace(outcome, status=Status.UNCHANGED, sha256=agreed.sha256, commit=agreed.commit)
        async with self._downloaded(entry) as (archive, sha256, version):
            entry = replace(entry, version=version)  # of what came, which may be newer than the list
            outcome = replace(outcome, sha256=sha256)
            known = {**intended, **({agreed.sha256: agreed.commit} if agreed else {})}
            if commit := known.get(sha256):  # a copy of it, or it was written anew; or by a server that could not say so
                owner = Principal(standing.tenant_id, standing.owner_id, "", "")
                await self._agree(owner, entry, Agreed(version, sha256, commit), over=agreed)
                return replace(outcome, status=Status.UNCHANGED, commit=commit)
            plan = await self._survey.plan(entry, standing, archive, sha256)
            outcome = replace(
                outcome, layout=plan.found.layout, owner=plan.owner.user_id, repository=plan.repository.url, branch=plan.branch
            )
            if self._dry_run:
                return replace(outcome, status=Status.IMPORTED, conversation=bool(plan.found.transcript))
            archive.seek(0)
            async with scratch_directory(self._scratch) as into:
                return await self._take(plan, await self._reader.unpack(archive, plan.found, into), outcome)

    async def _take(self, plan: Plan, unpacked: Unpacked, outcome: Outcome) -> Outcome:
        """From a tree to a session. Each step may be repeated. A turn may begin at any time: what it works on and what its agent remembers
        change in one step, which is refused then, and the session's private ref comes after it."""
        target, staging = self._target, str(uuid.uuid5(_STAGING, plan.session_id))
        start = await target.repositories.fetch(
            plan.repository,
            branch=plan.base_branch,
            session_branch=plan.branch if plan.branch_exists else "",
            head_commit=plan.standing.head_commit,
        )
        imported = await target.repositories.import_workspace(
            plan.repository,
            session_id=staging,
            workspace=unpacked.tree,
            parent=start,
            message=_message(plan),
            author=Author(plan.owner.name, plan.owner.email),
            at=_time(plan),
            until=_time(plan),
            keep_missing=plan.found.partial,
        )
        commit = imported.commit or start
        conversation = await asyncio.to_thread(transcript_from, plan.found.transcript, unpacked.transcript)
        remembered = Remembered(PROVIDER, conversation) if conversation else None
        if not plan.standing.owner_id:
            await self._make_session(plan)
        await target.records.adopt(
            plan.owner,
            plan.session_id,
            branch=plan.branch if plan.branch_exists else "",
            provider=PROVIDER if remembered else "",
            created_at=plan.said.created_at,
        )
        head = plan.standing.head_commit
        if plan.branch_exists and start != head:
            await target.records.pushed(plan.owner, plan.session_id, start, head=head)
        moved = commit != head
        if moved:
            await self._record(plan, imported, NewSnapshot(SnapshotKind.IMPORT, commit, start, _message(plan), remembered=remembered))
        elif remembered:
            await target.records.remember(plan.owner, plan.session_id, remembered, head=head)
        await target.trees.keep(plan.repository, plan.session_id, commit)
        await target.repositories.forget(plan.repository, session_id=staging)
        await self._agree(plan.owner, plan.entry, Agreed(plan.entry.version, plan.sha256, commit), over=plan.standing.agreed)
        return replace(
            outcome,
            status=Status.IMPORTED if moved else Status.UNCHANGED,
            commit=commit,
            conversation=bool(remembered),
            skipped_paths=imported.skipped_count,
            deleted_paths=imported.deleted_count,
        )

    async def _make_session(self, plan: Plan) -> None:
        session = NewSession(
            plan.session_id,
            plan.repository.url,
            plan.base_branch,
            branch_requested=plan.branch,
            title=plan.title,
            labels={"legacy": "true", "legacy-layout": plan.found.layout},
        )
        await self._target.sessions.create(plan.owner, session, request_id="", request_digest="")

    async def _record(self, plan: Plan, imported: Imported, snapshot: NewSnapshot) -> None:
        facts = self._facts(plan, imported, snapshot.commit, await self._sums(plan, snapshot))
        await self._target.notes.record(plan.owner, plan.session_id, head=plan.standing.head_commit, snapshot=snapshot, facts=facts)

    async def _sums(self, plan: Plan, snapshot: NewSnapshot) -> Diff:
        """For people to read. Whether it succeeds decides nothing, as with a turn's."""
        try:
            return await self._target.repositories.diff(
                plan.repository, base=snapshot.parent, head=snapshot.commit, max_patch_bytes=0, max_files=0
            )
        except WorkspaceFailed as error:
            log.warning("diff.failed", error=error.message)
            return Diff(truncated=True)

    def _facts(self, plan: Plan, imported: Imported, commit: str, diff: Diff) -> list[Fact]:
        codec = self._target.codec
        told = [
            codec.git_updated(
                "COMMITTED",
                repository=plan.repository.url,
                branch=plan.branch,
                base_branch=plan.base_branch,
                sha=commit,
                message=_message(plan),
                diff=diff,
            )
        ]
        if imported.skipped_count:
            told.append(
                codec.git_updated(
                    "SKIPPED",
                    repository=plan.repository.url,
                    branch=plan.branch,
                    skipped=imported.skipped,
                    skipped_count=imported.skipped_count,
                )
            )
        return told

    async def _agree(self, owner: Principal, entry: Entry, agreed: Agreed, *, over: Agreed | None) -> None:
        """Unless a server has agreed about something since: then the next import sees what there is."""
        if not self._dry_run:
            before = over.version if over else ""
            await self._target.records.agree(owner, session_id_of(entry.key), entry.key, agreed, over=before)

    @asynccontextmanager
    async def _downloaded(self, entry: Entry) -> AsyncIterator[tuple[BinaryIO, str, str]]:
        """A file without a name, which nothing can leave behind. Errors: PassedOver."""
        with tempfile.TemporaryFile(dir=self._scratch) as archive:
            try:
                sha256, version = await self._source.download(entry.key, archive, max_bytes=self._reader.limits.archive_bytes)
            except (ObjectNotFound, ObjectStoreUnavailable) as error:
                raise PassedOver(Reason.UNREACHABLE, error.message) from error
            archive.seek(0)
            yield archive, sha256, version


def _reason(error: KernelError) -> Reason:
    if isinstance(error, (RepositoryUnreachable, ObjectStoreUnavailable)):
        return Reason.UNREACHABLE
    if isinstance(error, BranchUnknown):
        return Reason.BRANCH_UNKNOWN
    if isinstance(error, TurnActive):
        return Reason.BUSY
    if isinstance(error, HeadMoved):
        return Reason.DIVERGED
    if isinstance(error, SessionNotFound):
        return Reason.DELETED
    # Ids are unique over all tenants.
    return Reason.OTHER_OWNER if isinstance(error, StoreRejected) else Reason.WORKSPACE


def _message(plan: Plan) -> str:
    return f"{plan.title or _MESSAGE}\n\n{_MESSAGE}: {plan.entry.key}\n" if plan.title else f"{_MESSAGE}: {plan.entry.key}\n"


def _time(plan: Plan) -> datetime:
    """When the old system wrote it, as far as it says: a repeated import then makes the same commit."""
    return plan.said.updated_at or datetime(2026, 1, 1, tzinfo=UTC)
